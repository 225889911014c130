"""Settings: rows C01 and C02, the order of the sources, and an existing pipeline's file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelwright import Settings, load_settings
from reelwright.backends.diffusers.settings import Lora
from reelwright.backends.settings import parse_assignment
from reelwright.core.errors import ConfigurationError, InvalidInputError

#: Every key of the pipeline's own sample file (its names are its interface), and some that people add.
PIPELINE = """\
task: "I2V-14B"
size: "1280*720"
prompt: >
  a story
  of two lines
default_backend: wan2.1
generation_mode: keyframe
wan2_dir: ./frameworks/Wan2.1
i2v_model_dir: "./models/i2v"
flf2v_model_dir: "./models/flf2v"
hunyuan_video:
  hunyuan_dir: ./HunyuanVideo
  config_file: ./HunyuanVideo/options.yaml
  ckpt_path: ./models/weights.pt
  max_duration: 5
  sample_steps: 30
total_gpus: 8
parallel_segments: 2
gpu_count: 1
chaining_max_retries: 3
chaining_use_fsdp_flags: true
framepack_dir: ./FramePack
runway_ml: {api_key: sk-secret, seed: null}
google_veo: {project_id: x}
minimax: {api_key: sk-secret}
fal: {api_key: sk-secret, default_input: {}}
remote_api_settings: {max_retries: 3, timeout: 600}
image_generation_model: some-model
reference_images_dir: input
image_size: "1024x1024"
auto_generate_initial: true
single_keyframe_mode: true
keyframe_position: first
gemini_api_key: "sk-secret"
openai_api_key: "sk-secret"
openai_base_url: https://example.invalid/v1
stability_api_key: "sk-secret"
image_router_api_key: "sk-secret"
prompt_enhancement_model: some-model
video_aspect_ratio: "16:9"
segment_duration_seconds: 5.0
frame_num: 81
sample_steps: 40
sample_shift: 5.0
guide_scale: 5.0
base_seed: 42
initial_image: first.png
output_dir: output
"""


def a_file(folder: Path, text: str | bytes) -> Path:
    path = folder / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def loaded(folder: Path, text: str | bytes) -> Settings:
    return load_settings(a_file(folder, text), environ={})


NUMBERS = ["frame_num", "sample_steps", "chaining_max_retries", "gpu_count", "log_limit_mb", "total_gpus"]
WRONG = ["true", '"50"', "1e3", ".nan", ".inf", "-.inf", "-1", "9223372036854775808", "[1]", "{a: 1}", "fifty"]


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("text", WRONG)
def test_c01_a_value_of_the_wrong_type_names_the_key_and_its_line(tmp_path: Path, key: str, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, f"# a comment\n{key}: {text}\n")
    assert f"config.yaml:2: {key}" in caught.value.message


OTHER_KINDS = [
    ("strict_input", ["1", "0", '"true"', "[true]", "2.5"]),  # true and false alone
    ("guide_scale", ["true", '"5"', ".nan", "-1", "[5]"]),
    ("timeout", ["true", "0", "-5", ".inf", "soon"]),
    ("size", ["1280", "0x720", "big", "[1280, 720]"]),
    ("gpus", ["1", "[-1]", '["0"]', "[0.5]", "two"]),
    ("base_seed", ["-2", "1.5", "true", "9223372036854775808"]),
    ("codec", ["h265", "264", "true"]),
    ("generator", ["[draft]", "1", "{a: 1}"]),
    ("wan2_dir", ["1", "[a]", "true"]),
    ("weights", ["1", "[a]", "true"]),
    ("speed", ["quick", "1", "[fast]", "true"]),
    ("placement", ["gpu", "2", "[resident]"]),
    ("engine_device", ["tpu", "0", "true"]),
    ("lora", ["3", "[1]", "[{scale: 1}]", "[{path: a, scale: much}]", "[{path: a, scale: true}]",
              "[{path: a, scale: .nan}]", "[{path: a, into: vae}]", "[{path: a, strength: 1}]"]),
    ("env", ["[A]", "{A: 1}", "{1A: x}", "A=1"]),
]  # fmt: skip


def test_lora_files_are_paths_or_mappings_and_lie_beside_the_file_that_names_them(tmp_path: Path) -> None:
    text = "lora: [a.safetensors, {path: /b.safetensors, scale: 0.5, into: transformer_2}]\n"
    expected = (Lora(tmp_path / "a.safetensors"), Lora(Path("/b.safetensors"), 0.5, "transformer_2"))
    assert loaded(tmp_path, text).lora == expected
    inner = "".join(f"  {line}\n" for line in text.splitlines())
    assert loaded(tmp_path, f"generators:\n  diffusers:\n  {inner}").for_generator("diffusers").shown("lora") == [
        {"path": str(item.path), "scale": item.scale, "into": item.into} for item in expected
    ]
    environ = {"REELWRIGHT_LORA": "[/c.safetensors]"}
    assert load_settings(environ=environ).lora == (Lora(Path("/c.safetensors")),)
    single = {"REELWRIGHT_LORA": "{path: /d.safetensors, scale: 2}"}
    assert load_settings(environ=single).lora == (Lora(Path("/d.safetensors"), 2.0),)


@pytest.mark.parametrize(("key", "text"), [(key, text) for key, texts in OTHER_KINDS for text in texts])
def test_c01_every_kind_of_setting_takes_its_kind_alone_and_says_so_in_plain_words(
    tmp_path: Path, key: str, text: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, f"{key}: {text}\n")
    assert f"config.yaml:1: {key}" in caught.value.message
    for jargon in ("Input should", "valid tuple", "instance of", "pydantic"):
        assert jargon not in caught.value.message


@pytest.mark.parametrize("variable", ["REELWRIGHT_SAMPLE_STEPS=true", "REELWRIGHT_GPUS=two", "REELWRIGHT_SIZE=0x1"])
def test_c01_a_wrong_variable_is_named(variable: str) -> None:
    name, _, value = variable.partition("=")
    with pytest.raises(ConfigurationError, match=f"environment {name}: "):
        load_settings(environ={name: value})


@given(st.one_of(st.booleans(), st.floats(), st.text(), st.lists(st.integers()), st.integers(max_value=0), st.binary()))
def test_c01_no_value_but_a_positive_whole_number_is_a_number_of_steps(value: object) -> None:
    with pytest.raises(ConfigurationError):
        load_settings(environ={}, arguments={"sample_steps": value})


@given(st.floats() | st.integers())
def test_c01_guidance_is_finite_or_refused(value: float) -> None:
    fine = math.isfinite(value) and 0 <= value < 1000
    try:
        settings = load_settings(environ={}, arguments={"guide_scale": value})
    except ConfigurationError:
        assert not fine
    else:
        assert fine
        assert settings.guide_scale == value


@given(st.text(min_size=1).filter(lambda name: name not in Settings.model_fields))
def test_c01_no_unknown_key_is_taken(key: str) -> None:
    with pytest.raises(ConfigurationError):
        load_settings(environ={}, arguments={key: 1})


def test_c01_an_unknown_key_is_told_with_the_nearest_known_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, "size: 1280x720\nsample_step: 30\n")
    assert "config.yaml:2" in caught.value.message
    assert "sample_steps" in caught.value.advice


def test_c01_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="sample_steps"):
        loaded(tmp_path, "sample_steps: 30\nsize: 1280x720\nsample_steps: 40\n")


def test_c01_null_means_not_set(tmp_path: Path) -> None:
    assert loaded(tmp_path, "sample_steps: null\n").sample_steps is None


def test_c01_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, "sample_steps: x\nframe_num: y\n")
    lines = [caught.value.message, *caught.value.evidence]
    assert [line.split(": ")[1] for line in lines] == ["sample_steps", "frame_num"] or len(lines) == 2


HOSTILE: dict[str, Any] = {
    "python object": b"size: !!python/object/apply:os.system ['true']\n",
    "billion laughs": b"a: &a [x,x]\n"
    + b"".join(b"%c: &%c [*%c,*%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 117)),
    "deep": b"size: " + b"[" * 1000 + b"]" * 1000,
    "latin-1": "prompt: Käse\n".encode("latin-1"),
    "NUL": b"size: a\0b\n",
    "tab": b"size:\n\t- x\n",
    "no mapping": b"- size\n",
    "two documents": b"size: 1280x720\n---\nsize: 832x480\n",
    "not closed": b"size: [1280\n",
    "merge bomb": b"x: &x {a: 1}\n<<: *x\n",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_c02_hostile_yaml_is_refused_and_nothing_of_it_is_run(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, HOSTILE[kind])
    assert "config.yaml" in caught.value.message


def test_c02_a_file_may_repeat_a_value_some_times_and_not_often(tmp_path: Path) -> None:
    def repeated(times: int) -> str:
        return "".join(["env:\n  A0: &x value\n", *(f"  A{number}: *x\n" for number in range(1, times + 1))])

    assert len(loaded(tmp_path, repeated(32)).env) == 33
    with pytest.raises(ConfigurationError, match="aliases"):
        loaded(tmp_path, repeated(1001))


def test_c02_a_file_of_100_mb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(InvalidInputError, match=r"config\.yaml"):
        load_settings(path, environ={})


def test_c02_a_byte_order_mark_and_windows_line_ends_are_no_mistakes(tmp_path: Path) -> None:
    settings = loaded(tmp_path, "\ufeffsample_steps: 30\r\nsize: 832x480\r\n".encode())
    assert (settings.sample_steps, settings.size) == (30, "832x480")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"nowhere\.yaml"):
        load_settings(tmp_path / "nowhere.yaml", environ={})


def test_arguments_win_over_the_environment_over_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = a_file(tmp_path, "sample_steps: 10\nframe_num: 33\nguide_scale: 3.0\n")
    environ = {"REELWRIGHT_SAMPLE_STEPS": "20", "REELWRIGHT_FRAME_NUM": "49"}
    settings = load_settings(path, environ=environ, arguments={"sample_steps": 30})
    assert (settings.sample_steps, settings.frame_num, settings.guide_scale, settings.codec) == (30, 49, 3.0, "h264")
    origins = [settings.origin(key) for key in ("sample_steps", "frame_num", "guide_scale", "codec")]
    assert origins == ["argument", "environment REELWRIGHT_FRAME_NUM", f"{path}:3", "default"]


def test_an_unknown_variable_with_our_prefix_is_told() -> None:
    with pytest.raises(ConfigurationError, match="environment REELWRIGHT_SAMPEL_STEPS"):
        load_settings(environ={"REELWRIGHT_SAMPEL_STEPS": "3"})


def test_an_existing_pipeline_config_is_understood_as_it_is(tmp_path: Path) -> None:
    settings = loaded(tmp_path, PIPELINE)
    assert settings.generator == "wan2.1"
    assert settings.size == "1280x720"
    assert settings.wan2_dir == tmp_path / "frameworks" / "Wan2.1"
    assert (settings.total_gpus, settings.parallel_segments, settings.base_seed) == (8, 2, 42)
    assert (settings.sample_shift, settings.chaining_use_fsdp_flags) == (5.0, True)
    assert settings.output_dir == tmp_path / "output"
    assert settings.configured_order == ("wan2.1", "hunyuan")
    assert settings.for_generator("hunyuan").sample_steps == 30
    assert settings.for_generator("wan2.1").sample_steps == 40


@pytest.mark.parametrize("remote", ["runway", "runway_ml", "veo3", "google_veo", "minimax", "fal", "fal.ai"])
def test_a_pipeline_that_names_a_remote_service_gets_its_configured_local_generator(
    tmp_path: Path, remote: str
) -> None:
    settings = loaded(tmp_path, PIPELINE.replace("default_backend: wan2.1", f"default_backend: {remote}"))
    assert (settings.generator, settings.configured_order[0]) == ("auto", "wan2.1")
    assert any("default_backend names a remote service" in note for note in settings.notes)


def test_what_belongs_to_the_pipeline_is_noted_and_not_kept(tmp_path: Path) -> None:
    settings = loaded(tmp_path, PIPELINE)
    noted = {note.split(": ")[1].split()[0] for note in settings.notes}
    assert {"task", "prompt", "openai_api_key", "runway_ml", "fal", "segment_duration_seconds"} <= noted
    assert not any("sk-secret" in note for note in settings.notes)
    assert "sk-secret" not in repr(settings)


def test_what_is_set_on_the_command_line_is_stronger_than_a_generators_own_section(tmp_path: Path) -> None:
    settings = load_settings(a_file(tmp_path, PIPELINE), environ={}, arguments={"sample_steps": 7})
    assert settings.for_generator("hunyuan").sample_steps == 7


def test_a_mistake_in_a_generators_section_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"generators\.wan2\.1"):
        loaded(tmp_path, "generators:\n  wan2.1:\n    sample_steps: many\n")


def test_settings_cannot_be_changed() -> None:
    settings = load_settings(environ={})
    with pytest.raises(Exception, match="frozen"):
        settings.sample_steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sample_steps=30", ("sample_steps", 30)),
        ("gpus=[0,1]", ("gpus", [0, 1])),
        ("size=1280x720", ("size", "1280x720")),
        ("default_backend=draft", ("generator", "draft")),
        ("wan2_dir=/a=b", ("wan2_dir", "/a=b")),
    ],
)
def test_an_assignment_is_read_like_the_file(text: str, expected: tuple[str, Any]) -> None:
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["sample_steps", "=3", ""])
def test_an_assignment_without_a_key_or_a_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_assignment(text)
