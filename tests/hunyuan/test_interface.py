"""The family through the documented interface, `reel doctor`, and settings as an existing pipeline has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reelwright import create_video_generator, load_settings
from reelwright.api import HunyuanVideoGenerator
from reelwright.backends import candidates
from reelwright.backends.hunyuan.settings import HunyuanSettings
from reelwright.core.errors import ConfigurationError, InvalidInputError
from reelwright.doctor import check_all
from reelwright.sites.local.site import LocalSite
from tests.hunyuan.conftest import HunyuanMachine
from tests.hunyuan.planning import MEMBERS


def config_of(hunyuan: HunyuanMachine) -> dict[str, object]:
    return {key: value for key, value in hunyuan.values.items() if key != "generator"}


def test_the_capabilities_are_those_of_the_checkout_that_was_found(hunyuan: HunyuanMachine) -> None:
    member = MEMBERS[hunyuan.member]
    found = create_video_generator("hunyuan", config_of(hunyuan)).get_capabilities()
    assert found["models"] == [member.title]
    assert found["supports_text_to_video"] == ("t2v" in member.tasks)
    assert found["supports_image_to_video"] == ("i2v" in member.tasks)
    assert (found["requires_gpu"], found["cost_per_second"], found["supported_formats"]) == (True, 0.0, ["mp4"])
    assert found["max_duration"] == member.clip_frames / member.fps
    limited = create_video_generator("hunyuan", {**config_of(hunyuan), "max_duration": 3.0})
    assert limited.get_capabilities()["max_duration"] == 3.0


def test_a_clip_is_made_through_the_documented_interface(hunyuan: HunyuanMachine) -> None:
    generator = HunyuanVideoGenerator(config_of(hunyuan))
    assert generator.get_backend_name() == "hunyuan"
    assert generator.is_available(), generator.unavailable_because()
    picture = "" if hunyuan.member == "t2v" else str(hunyuan.photo)
    options = {} if hunyuan.member == "documented" else {"frame_num": 5}
    path = generator.generate_video("a cat", picture, str(hunyuan.output), sample_steps=2, **options)
    assert path == str(hunyuan.output)
    assert Path(path).stat().st_size > 1000


@pytest.mark.parametrize("member", ["t2v"], indirect=True)
def test_a_picture_for_a_text_to_video_checkout_is_no_valid_input(hunyuan: HunyuanMachine) -> None:
    generator = HunyuanVideoGenerator(config_of(hunyuan))
    (problem,) = generator.validate_inputs("a cat", str(hunyuan.photo), 5.0)
    assert "cannot make image-to-video clips" in problem
    with pytest.raises(InvalidInputError):
        generator.generate_video("a cat", str(hunyuan.photo), str(hunyuan.output))


def test_the_doctor_says_which_checkout_it_is_and_what_it_can_do(hunyuan: HunyuanMachine) -> None:
    rows = [row.finding for row in check_all(hunyuan.settings(), LocalSite()) if row.part == "hunyuan"]
    member = MEMBERS[hunyuan.member]
    (found,) = [item.message for item in rows if item.code == "member.found"]
    assert member.title in found
    assert ("image-to-video" in found) == ("i2v" in member.tasks)
    assert ("text-to-video" in found) == ("t2v" in member.tasks)
    assert not [item.message for item in rows if item.severity == "error"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), "is not a checkout of the HunyuanVideo family"),
        (("generate.py",), "is not a checkout of the HunyuanVideo family"),
    ],
)
def test_the_doctor_names_a_folder_that_is_none_of_the_family(
    tmp_path: Path, files: tuple[str, ...], words: str
) -> None:
    for name in files:
        (tmp_path / name).write_text("print('hello')")
    settings = load_settings(environ={}, arguments={"hunyuan_dir": str(tmp_path), "simulate_gpus": "1x80GiB"})
    rows = [row.finding for row in check_all(settings, LocalSite()) if row.part == "hunyuan"]
    (error,) = [item for item in rows if item.severity == "error"]
    assert words in error.message
    assert "sample_video.py (HunyuanVideo)" in error.fix


def test_the_documented_nested_keys_configure_it(tmp_path: Path) -> None:
    file = tmp_path / "pipeline_config.yaml"
    file.write_text("hunyuan_video:\n  hunyuan_dir: /opt/hy\n  ckpt_path: /w\n  sample_steps: 30\n  max_duration: 5\n")
    settings = load_settings(file, environ={})
    (backend,) = candidates("hunyuan", settings)
    own = settings.for_generator("hunyuan")
    assert backend.configured(own)
    assert isinstance(own, HunyuanSettings)
    assert (own.hunyuan_dir, own.ckpt_path, own.sample_steps, own.max_duration) == (Path("/opt/hy"), Path("/w"), 30, 5)


@pytest.mark.parametrize("keys", [{"hunyuan_dir": "/opt/hy"}, {"generators": {"hunyuan": {"hunyuan_dir": "/opt/hy"}}}])
def test_auto_takes_the_family_when_only_its_keys_are_set(keys: dict[str, Any]) -> None:
    settings = load_settings(environ={}, arguments=keys)
    assert [backend.name for backend in candidates("auto", settings)] == ["hunyuan"]


@pytest.mark.parametrize("value", ["yes please", 3])
def test_super_resolution_is_auto_or_a_yes_or_a_no(value: object) -> None:
    assert load_settings(environ={}, arguments={"super_resolution": "auto"}).super_resolution is None
    assert load_settings(environ={"REELWRIGHT_SUPER_RESOLUTION": "false"}).super_resolution is False
    with pytest.raises(ConfigurationError, match="super_resolution"):
        load_settings(environ={}, arguments={"super_resolution": value})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("infer_step: 30\n", "Did you mean infer_steps?"),
        ("infer_steps: [1\n", "model.yaml:"),
        ("infer_steps: 30\ninfer_steps: 40\n", "is twice here"),
        ("!!python/object:os.system {}\n", "model.yaml"),
        ("- 1\n", "must hold keys and values"),
    ],
)
@pytest.mark.parametrize("member", ["t2v"], indirect=True)
def test_c02_a_wrong_options_file_is_refused_with_its_line_before_the_start(
    hunyuan: HunyuanMachine, text: str, words: str
) -> None:
    path = hunyuan.folder / "model.yaml"
    path.write_text(text, "utf-8")
    outcome = hunyuan.run(config_file=str(path))
    assert isinstance(outcome.error, ConfigurationError)
    assert words in f"{outcome.error.message} {outcome.error.advice}"
    assert not (hunyuan.checkout / "fake_record.jsonl").exists()


@pytest.mark.parametrize("member", ["t2v"], indirect=True)
def test_options_of_the_file_reach_the_script(hunyuan: HunyuanMachine) -> None:
    from tests.stand_ins.checkout import launches

    path = hunyuan.folder / "model.yaml"
    path.write_text("cfg-scale: 2.5\nneg_prompt: '--blur 模糊'\nreproduce: true\n", "utf-8")
    outcome = hunyuan.run({}, config_file=str(path))
    assert outcome.code == "ok", outcome.error
    (entry,) = launches(hunyuan.checkout)
    assert {"--cfg-scale=2.5", "--neg-prompt=--blur 模糊", "--reproduce"} <= set(entry["argv"])
    assert outcome.manifest.effective["cfg_scale"] == 2.5
    hunyuan.check()
