"""A pipeline written against the documented interface runs unchanged: wan2.1 on the stand-in, the draft, others' generators."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import reelwright
from reelwright import (
    ImageValidator,
    InvalidInputError,
    ModelNotFoundError,
    OutOfMemoryError,
    VideoGenerationError,
    VideoGenerator,
    create_video_generator,
)
from reelwright.core.events import Progress
from reelwright.testing import scripted
from tests.conftest import a_photo
from tests.stand_ins.checkout import launches
from tests.wan21.conftest import WanMachine, wan, wan_parts

__all__ = ["wan", "wan_parts"]
Reel = Callable[..., subprocess.CompletedProcess[str]]

#: The form of an existing pipeline_config.yaml: other backends' sections, the pipeline's own keys, nested and flat ones.
PIPELINE_CONFIG = """
task: flf2v-14B
size: 832*480
prompt: >
  Two friends in a classroom.
default_backend: veo3
generation_mode: "chaining"
wan2_dir: ./Wan2.1
flf2v_model_dir: {flf2v}
i2v_model_dir: {i2v}
hunyuan_video:
  hunyuan_dir: ./frameworks/HunyuanVideo
  config_file: ./frameworks/HunyuanVideo/configs/inference_v1.yaml
  ckpt_path: ./models/HunyuanVideo/weights.pt
  max_duration: 5
  sample_steps: 50
total_gpus: 1
parallel_segments: 1
gpu_count: 1
chaining_max_retries: 3
chaining_use_fsdp_flags: true
guide_scale: 5.0
sample_steps: 4
sample_shift: 5.0
frame_num: 5
segment_duration_seconds: 5.0
runway_ml:
  api_key: "YOUR_RUNWAY_API_KEY"
  model_version: "gen4_turbo"
  seed: null
google_veo:
  project_id: "YOUR_GCP_PROJECT_ID"
remote_api_settings:
  max_retries: 3
  fallback_backend: wan2.1
openai_api_key: "sk-none"
"""


# ------------------------------------------------------------------- a pipeline, as somebody wrote it for the document


def with_retries(function: Callable[..., str], attempts: int, *words: Any, **named: Any) -> str:
    """A pipeline's own wrapper: any exception is tried again, the last one is passed on."""
    for left in range(attempts - 1, -1, -1):
        try:
            return function(*words, **named)
        except Exception:
            if not left:
                raise
    raise AssertionError


def first_available(names: list[str], config: Mapping[str, Any]) -> VideoGenerator:
    """A pipeline's own fallback: the first backend that says it is available."""
    refused = []
    for name in names:
        try:
            generator = create_video_generator(name, config)
        except VideoGenerationError as error:
            refused.append(f"{name}: {error}")
            continue
        if generator.is_available():
            return generator
        refused.append(f"{name}: not available")
    raise VideoGenerationError("; ".join(refused))


def a_pipeline(generator: VideoGenerator, prompts: list[str], image: str, folder: Path) -> list[str]:
    """Validate, ask what is possible and what it costs, make one segment after the other."""
    limits = generator.get_capabilities()
    duration = min(5.0, limits["max_duration"])
    if not limits["supports_image_to_video"] or "image_to_video" not in limits["input_types"]:
        raise VideoGenerationError(f"{generator.get_backend_name()} cannot start from a picture")
    segments = []
    for number, prompt in enumerate(prompts):
        errors = generator.validate_inputs(prompt, image, duration)
        if errors:
            raise InvalidInputError("; ".join(errors))
        assert generator.estimate_cost(duration) == 0.0
        path = str(folder / f"segment_{number:03d}.mp4")
        segments.append(with_retries(generator.generate_video, 2, prompt, image, path, duration=duration))
    return segments


# ------------------------------------------------------------------------------------------------------------- wan2.1


@pytest.fixture
def config(wan: WanMachine, wan_parts: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The pipeline's whole configuration as its YAML loader gives it, in the folder where the pipeline is started."""
    monkeypatch.chdir(wan.folder)
    monkeypatch.setenv("TMPDIR", wan.environ["TMPDIR"])
    text = PIPELINE_CONFIG.format(flf2v=wan_parts["flf2v"], i2v=wan_parts["i2v"])
    machine = {
        name: wan.values[name] for name in ("python", "state_dir", "simulate_gpus", "stop_grace_s", "log_limit_mb")
    }
    loaded: dict[str, Any] = {**yaml.safe_load(text), **machine}
    return loaded


@pytest.fixture
def segments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("segments")


def test_a_pipeline_runs_unchanged_on_wan21(wan: WanMachine, config: dict[str, Any], segments: Path) -> None:
    generator = create_video_generator("wan2.1", config)
    paths = a_pipeline(generator, ["a cat turns its head", "it walks away"], str(wan.photo), segments)
    assert paths == [str(segments / "segment_000.mp4"), str(segments / "segment_001.mp4")]
    assert [Path(path).read_bytes()[4:8] for path in paths] == [b"ftyp", b"ftyp"]
    assert len(launches(wan.checkout)) == 2
    argv = launches(wan.checkout)[0]["argv"]
    assert {"--task=i2v-14B", "--size=832*480", "--frame_num=5", "--sample_steps=4"} <= set(argv)
    assert {"--sample_guide_scale=5.0", "--sample_shift=5.0"} <= set(argv)
    wan.check()


def test_the_pipelines_own_retry_wrapper_ends_with_the_last_error_and_nothing_half_made(
    wan: WanMachine, config: dict[str, Any], segments: Path
) -> None:
    wan.script({"oom_phase": "dit"})
    generator = create_video_generator("wan2.1", {**config, "retry_policy": "none"})
    with pytest.raises(OutOfMemoryError) as caught:
        a_pipeline(generator, ["a cat"], str(wan.photo), segments)
    assert caught.value.code == "OOM_GPU"
    assert len(launches(wan.checkout)) == 2
    assert list(segments.iterdir()) == []
    wan.check()


def test_the_six_methods_have_the_documented_signatures() -> None:
    found = {name: str(inspect.signature(getattr(VideoGenerator, name))) for name in VideoGenerator.__abstractmethods__}
    bare = {name: text.replace("'", "") for name, text in found.items()}
    assert bare == {
        "generate_video": "(self, prompt: str, input_image_path: str, output_path: str, duration: float = 5.0, "
        "**kwargs: Any) -> str",
        "get_capabilities": "(self) -> dict[str, Any]",
        "estimate_cost": "(self, duration: float, resolution: str = 1280x720) -> float",
        "validate_inputs": "(self, prompt: str, input_image_path: str, duration: float) -> list[str]",
        "is_available": "(self) -> bool",
        "get_backend_name": "(self) -> str",
    }


def test_the_capabilities_have_every_documented_key_and_true_values(wan: WanMachine, config: dict[str, Any]) -> None:
    found = create_video_generator("wan2.1", config).get_capabilities()
    assert found["max_duration"] == 81 / 16
    assert {"1280x720", "1024x576", "720x480", "832x480"} <= set(found["supported_resolutions"])
    assert found["supported_formats"] == ["mp4"]
    assert found["input_types"] == ["image_to_video", "first_last_frame_to_video"]
    assert (found["requires_gpu"], found["cost_per_second"], found["api_based"]) == (True, 0.0, False)
    assert found["max_concurrent"] == 2  # two cards, one per run
    assert (found["supports_image_to_video"], found["supports_text_to_video"]) == (True, False)
    assert found["models"] == ["i2v-14B", "flf2v-14B"]


@pytest.mark.parametrize("name", ["wan2.1", "WAN2.1", "Wan2.1", "wan"])
def test_the_documented_names_are_known_whatever_their_case(config: dict[str, Any], name: str) -> None:
    assert create_video_generator(name, config).get_backend_name() == "wan2.1"


def test_the_class_itself_takes_the_same_configuration(wan: WanMachine, config: dict[str, Any], segments: Path) -> None:
    generator = reelwright.Wan21Generator(config)
    assert generator.is_available()
    path = generator.generate_video(
        "a cat", str(wan.photo), str(segments / "a.mp4"), frame_num=9, sample_steps=2, base_seed=3
    )
    manifest = json.loads(Path(path).with_suffix(".reel.json").read_text())
    assert (manifest["effective"]["num_frames"], manifest["effective"]["steps"], manifest["seed"]) == (9, 2, 3)
    wan.check()


def test_progress_reaches_a_callback(wan: WanMachine, config: dict[str, Any], segments: Path) -> None:
    seen: list[Any] = []
    generator = create_video_generator("wan2.1", config)
    generator.generate_video("a cat", str(wan.photo), str(segments / "a.mp4"), on_progress=seen.append)
    steps = [event.step for event in seen if isinstance(event, Progress) and event.phase == "denoising"]
    assert steps[-1] == 4
    assert steps == sorted(set(steps))
    wan.check()


def test_first_and_last_frame_through_the_documented_call(
    wan: WanMachine, config: dict[str, Any], segments: Path
) -> None:
    last = a_photo(segments / "last.png")
    generator = create_video_generator("wan2.1", {**config, "frame_num": 81})
    path = generator.generate_video("a cat", str(wan.photo), str(segments / "a.mp4"), last_image_path=str(last))
    assert "--task=flf2v-14B" in launches(wan.checkout)[0]["argv"]
    assert Path(path).exists()
    wan.check()


@pytest.mark.parametrize(
    ("prompt", "image", "duration", "words"),
    [
        ("", "photo.png", 5.0, "prompt is empty"),
        ("a cat", "nowhere.png", 5.0, "nowhere.png"),
        ("a cat", "config.yaml", 5.0, "config.yaml"),
        ("a cat", "photo.png", 10.0, "81 frames"),
        ("a cat", "photo.png", -1.0, "seconds"),
    ],
)
def test_validate_inputs_lists_what_is_wrong_and_starts_nothing(
    wan: WanMachine, config: dict[str, Any], prompt: str, image: str, duration: float, words: str
) -> None:
    wan.config_file()
    generator = create_video_generator("wan2.1", config)
    errors = generator.validate_inputs(prompt, str(wan.folder / image), duration)
    assert any(words in error for error in errors), errors
    assert launches(wan.checkout) == []


def test_validate_inputs_of_good_ones_is_empty_also_where_the_machine_is_not_ready(
    wan: WanMachine, config: dict[str, Any]
) -> None:
    generator = create_video_generator("wan2.1", {**config, "i2v_model_dir": "/nowhere"})
    assert generator.validate_inputs("a cat", str(wan.photo), 5.0) == []
    assert not generator.is_available()
    assert any("/nowhere" in reason for reason in generator.unavailable_because())
    with pytest.raises(ModelNotFoundError):
        generator.generate_video("a cat", str(wan.photo), str(wan.output))


@pytest.mark.parametrize("key", ["wan2_dir", "i2v_model_dir", "python"])
def test_is_available_tells_why_not(config: dict[str, Any], key: str) -> None:
    generator = create_video_generator("wan2.1", {**config, key: "/nowhere"})
    assert not generator.is_available() or key == "i2v_model_dir"  # first-last-frame needs no such weights
    assert generator.is_available() or any("/nowhere" in reason for reason in generator.unavailable_because())


def test_a_wrong_key_is_named_with_the_nearest_one(config: dict[str, Any]) -> None:
    with pytest.raises(VideoGenerationError) as caught:
        create_video_generator("wan2.1", {**config, "sample_step": 5})
    assert "sample_step" in str(caught.value)
    assert "sample_steps" in caught.value.advice


def test_a_pipelines_fallback_takes_the_next_one_that_is_available(wan: WanMachine, config: dict[str, Any]) -> None:
    assert first_available(["wan2.1", "draft"], config).get_backend_name() == "wan2.1"
    broken = {**config, "wan2_dir": "/nowhere"}
    assert first_available(["runway", "wan2.1", "draft"], broken).get_backend_name() == "draft"
    with pytest.raises(VideoGenerationError, match=r"wan2\.1: not available"):
        first_available(["wan2.1"], broken)


# -------------------------------------------------------------------------------------------------------------- draft


def test_the_same_pipeline_runs_on_the_draft(photo: Path, segments: Path) -> None:
    generator = create_video_generator("draft", {"size": "320x180", "frame_num": 9})
    paths = a_pipeline(generator, ["slow push in", "pan left"], str(photo), segments)
    assert all(Path(path).exists() for path in paths)
    assert generator.get_capabilities()["requires_gpu"] is False


# ------------------------------------------------------------------------------------------------------ the validator


def test_the_image_validator_answers_in_the_documented_form(photo: Path) -> None:
    answer = ImageValidator.validate_image(str(photo))
    assert (answer["valid"], answer["errors"]) == (True, [])
    assert (answer["info"]["format"], answer["info"]["dimensions"], answer["info"]["mode"]) == (
        "PNG",
        (320, 180),
        "RGB",
    )
    assert 0 < answer["info"]["file_size_mb"] < 1


@pytest.mark.parametrize("name", ["nowhere.png", "text.png", "tiny.png"])
def test_the_image_validator_never_raises(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.png").write_text("no picture")
    a_photo(tmp_path / "tiny.png", (4, 4))
    answer = ImageValidator.validate_image(str(tmp_path / name))
    assert not answer["valid"]
    assert answer["errors"]


def test_the_image_validator_knows_a_limit_of_size(tmp_path: Path) -> None:
    big = a_photo(tmp_path / "big.png", (1200, 800))
    assert ImageValidator.validate_image(str(big), max_size_mb=10.0)["valid"]
    refused = ImageValidator.validate_image(str(big), max_size_mb=0.001)
    assert not refused["valid"]
    assert "large" in refused["errors"][0] or "limit" in refused["errors"][0]


# ------------------------------------------------------------------------------------------------ others' generators

_STUDIO = """
from dataclasses import replace
from reelwright.testing import backend
studio = replace(backend, name="studio", title="A generator of another package")
"""


@pytest.fixture
def installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages that register generators, one of them broken, as an installer leaves them."""
    site = tmp_path_factory.mktemp("site")
    (site / "studio_generators.py").write_text(_STUDIO)
    (site / "broken_generators.py").write_text("raise RuntimeError('no licence file')\n")
    info = site / "studio_generators-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: studio-generators\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[reelwright.backends]\nstudio = studio_generators:studio\nbroken = broken_generators:it\n"
    )
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "studio_generators", raising=False)
    return site


def test_a_generator_of_another_package_loads_and_serves_the_pipeline(
    installed: Path, photo: Path, segments: Path
) -> None:
    generator = create_video_generator("studio", {})
    paths = a_pipeline(generator, ["one", "two"], str(photo), segments)
    assert all(Path(path).exists() for path in paths)
    assert generator.get_backend_name() == "studio"


def test_the_testing_generator_gives_the_same_bytes_for_the_same_seed(
    installed: Path, photo: Path, segments: Path
) -> None:
    generator = create_video_generator("studio", {})
    films = [
        Path(generator.generate_video("x", str(photo), str(segments / f"{name}.mp4"), seed=seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    frames = [json.loads(film.with_suffix(".reel.json").read_text())["output"]["frames_sha256"] for film in films]
    assert frames[0] == frames[1] != frames[2]


def test_the_testing_generator_fails_as_it_is_told(installed: Path, photo: Path, segments: Path) -> None:
    generator = create_video_generator("studio", {})
    with scripted("OOM_GPU", None):
        path = generator.generate_video("x", str(photo), str(segments / "a.mp4"))
    attempts = json.loads(Path(path).with_suffix(".reel.json").read_text())["attempts"]
    assert [attempt["failure"] for attempt in attempts] == ["OOM_GPU", None]
    with scripted("MODEL"), pytest.raises(ModelNotFoundError):
        generator.generate_video("x", str(photo), str(segments / "b.mp4"))


def test_a_broken_package_is_reported_and_breaks_nothing(installed: Path, reel: Reel) -> None:
    env = {**os.environ, "PYTHONPATH": str(installed)}
    entries = {entry["name"]: entry for entry in json.loads(reel("generators", "--json", env=env).stdout)}
    assert entries["studio"]["available"]
    assert not entries["broken"]["available"]
    assert "no licence file" in entries["broken"]["reason"]
    rows = json.loads(reel("doctor", "--json", env=env).stdout)
    assert [row["severity"] for row in rows if row["part"] == "broken"] == ["warning"]


@pytest.mark.parametrize("name", ["wan2.1", "hunyuan", "diffusers"])
def test_validate_inputs_reports_the_prompt_the_picture_and_the_length_at_once(name: str) -> None:
    said = create_video_generator(name, {}).validate_inputs("", "nope.jpg", 50)
    assert len(said) == 3
    for words in ("the prompt is empty", "nope.jpg", "50 s are requested"):
        assert any(words in text for text in said), said


def test_generate_in_python_reports_every_mistake_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        reelwright.generate("", tmp_path / "no.png", tmp_path / "gone" / "a.avi", size="big", num_frames=0, settings={})
    said = " | ".join(error.message for error in (caught.value, *caught.value.also))
    for words in ("prompt is empty", "no.png", "'big'", "num_frames", "does not end in .mp4"):
        assert words in said


def test_a_name_that_two_packages_claim_is_an_error_that_names_both_and_breaks_no_other(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "rival-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[reelwright.backends]\nstudio = rival:studio\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(
        reelwright.ConfigurationError, match="several packages provide a generator named 'studio'"
    ) as caught:
        create_video_generator("studio", {})
    assert "rival:studio, studio_generators:studio" in caught.value.message
    assert create_video_generator("draft", {}).get_backend_name() == "draft"
