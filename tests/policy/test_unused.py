"""Settings and options that the chosen generator does not have are said, and others are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reelwright import Settings, load_settings
from reelwright.backends import GENERATORS, load_backend
from reelwright.backends.shared.job import Job
from reelwright.backends.shared.rules import request_findings
from reelwright.core.host import Host
from reelwright.core.plan import Plan
from reelwright.core.request import Picture, Size, VideoRequest
from reelwright.policy import unused
from reelwright.runs.order import Order
from reelwright.runs.prepare import Preparer
from reelwright.runs.runner import generate
from reelwright.runs.workspace import plan_folder
from reelwright.sites.local.site import LocalSite

#: A value for every key that not all generators have.
VALUES: dict[str, Any] = {
    "fps": 30.0, "guide_scale": 3.0, "sample_steps": 7, "sample_shift": 2.0, "preset": "framework", "model": "x",
    "python": "/p", "gpu_count": 2, "gpus": [0], "total_gpus": 3, "chaining_use_fsdp_flags": False, "timeout": 5.0,
    "progress_timeout": 6.0, "lease_timeout_s": 7.0, "stop_grace_s": 8.0, "attention": "sdpa", "verify_model": True,
    "accept_valid_on_nonzero": True, "nccl_p2p_retry": True, "env": {"A": "1"}, "wan2_dir": "/w", "i2v_model_dir": "/i",
    "flf2v_model_dir": "/f", "t2v_model_dir": "/t", "t2v_1_3b_model_dir": "/s", "hunyuan_dir": "/h", "config_file": "/c",
    "ckpt_path": "/k", "max_duration": 4.0, "super_resolution": True, "weights": "/x", "speed": "balanced",
    "compile": False, "placement": "resident", "lora": ["/a.safetensors"], "engine_device": "cpu", "codec": "av1",
    "label": False,
}  # fmt: skip
NOT_OF_WAN = {"fps", "hunyuan_dir", "config_file", "ckpt_path", "max_duration", "super_resolution", "weights", "speed",
              "compile", "placement", "lora", "engine_device", "codec", "label"}  # fmt: skip


def said(generator: str, settings: Settings) -> dict[str, str]:
    """Key and fix of each warning of a plan."""
    backend = load_backend(generator)
    own = settings.for_generator(generator)
    size = Size(1280, 720)
    picture = Picture(Path("/p.png"), Path("p.png"), size, size, "0" * 64)
    request = VideoRequest(prompt="x", image=Path("p.png"), generator=generator)
    plan = backend.plan(Job(request, own, Host(), Path("/film.mp4"), picture))
    found = list(unused.findings(backend, own, plan))
    assert {item.severity for item in found} <= {"warning"}
    return {item.message.split(": ")[1].split()[0]: item.fix for item in found}


def test_every_key_is_common_or_somebody_uses_it() -> None:
    used = {key for name in GENERATORS for key in unused.uses(load_backend(name))}
    assert set(VALUES) == used
    assert set(VALUES) | unused.COMMON == set(Settings.model_fields)


@pytest.mark.parametrize("key", VALUES)
def test_an_argument_that_wan_does_not_have_is_said_and_the_others_are_not(key: str) -> None:
    settings = load_settings(environ={}, arguments={key: VALUES[key]})
    assert set(said("wan2.1", settings)) == ({key} & NOT_OF_WAN)


@pytest.mark.parametrize("key", sorted(NOT_OF_WAN - {"fps"}))
def test_it_is_said_for_whom_the_setting_is(key: str) -> None:
    fix = said("wan2.1", load_settings(environ={}, arguments={key: VALUES[key]}))[key]
    hunyuans = ("hunyuan_dir", "config_file", "ckpt_path", "max_duration", "super_resolution")
    others = {"codec": "diffusers, draft", "label": "draft"}
    assert fix == f"It is for {'hunyuan' if key in hunyuans else others.get(key, 'diffusers')}."


@pytest.mark.parametrize("key", sorted(set(VALUES) - {"fps", "codec", "label"}))
def test_the_draft_says_every_setting_of_a_model(key: str) -> None:
    assert set(said("draft", load_settings(environ={}, arguments={key: VALUES[key]}))) == {key}


@pytest.mark.parametrize(
    ("text", "generator", "keys"),
    [
        ("speed: fast\n", "wan2.1", {"speed"}),
        ("speed: fast\nweights: /w\n", "wan2.1", set()),  # a file for two generators
        ("speed: fast\nweights: /w\n", "hunyuan", set()),
        ("speed: exact\n", "wan2.1", set()),  # what it is anyway
        ("fps: 16\n", "wan2.1", set()),
        ("fps: 24\n", "wan2.1", {"fps"}),
        ("hunyuan_dir: /h\n", "wan2.1", set()),  # it only says where something lies
        ("generators: {wan2.1: {speed: fast}}\nweights: /w\n", "wan2.1", {"speed"}),
        ("generators: {diffusers: {speed: fast}}\n", "wan2.1", set()),
        ("sample_steps: 30\nwan2_dir: /w\n", "draft", set()),
        ("sample_steps: 30\n", "draft", {"sample_steps"}),
        ("codec: av1\nlabel: false\n", "wan2.1", set()),  # for drafts and films
        ("generators: {wan2.1: {codec: av1}}\n", "wan2.1", {"codec"}),
        ("speed: fast\ngenerators: {diffusers: {weights: /w}}\n", "wan2.1", set()),
    ],
)
def test_a_file_for_several_generators_is_no_mistake(tmp_path: Path, text: str, generator: str, keys: set[str]) -> None:
    (tmp_path / "config.yaml").write_text(text)
    settings = load_settings(tmp_path / "config.yaml", environ={})
    assert set(said(generator, settings)) == keys


def test_a_clip_of_a_film_leaves_the_codec_to_the_film() -> None:
    backend, settings = load_backend("wan2.1"), load_settings(environ={}, arguments={"codec": "av1"})
    plan = Plan("wan2.1", "t2v", True, None, None)
    assert len(list(unused.findings(backend, settings, plan))) == 1
    assert list(unused.findings(backend, settings, plan, joined=True)) == []


def test_the_environment_counts_like_the_file() -> None:
    assert set(said("wan2.1", load_settings(environ={"REELWRIGHT_SPEED": "fast"}))) == {"speed"}
    both = {"REELWRIGHT_SPEED": "fast", "REELWRIGHT_WEIGHTS": "/w"}
    assert said("wan2.1", load_settings(environ=both)) == {}


@pytest.mark.parametrize(
    ("ask", "option"),
    [
        ({"camera": "pan_left"}, "--camera"),
        ({"depth_image": Path("d.png")}, "--depth"),
        ({"label": False}, "--no-label"),
        ({"codec": "av1"}, "--codec"),
        ({"codec": "h264"}, "--codec"),
    ],
)
def test_an_option_that_a_script_ignores_is_a_warning(ask: dict[str, Any], option: str) -> None:
    request = VideoRequest(prompt="x", image=Path("a.png"), **ask)
    (found,) = request_findings(request, "Wan2.1", 16.0, tokens=512)
    assert (found.severity, option in found.message, found.fix) == ("warning", True, f"Leave out {option}.")
    encoded = list(request_findings(request, "the engine", 16.0, tokens=512, encodes=True))
    assert len(encoded) == (0 if option == "--codec" else 1)


def in_a_section(photo: Path, tmp_path: Path, **section: Any) -> Plan:
    """The plan of a draft with these keys in its section."""
    settings = load_settings(environ={}, arguments={"generators": {"draft": section}, "state_dir": str(tmp_path)})
    order = Order(VideoRequest(prompt="x", image=photo, generator="draft"), settings, tmp_path / "a.mp4")
    with LocalSite() as site:
        return Preparer(site).prepare(order, plan_folder(order.output, "PLAN")).plan


def test_a_seed_in_a_generators_section_is_its_seed(photo: Path, tmp_path: Path) -> None:
    assert in_a_section(photo, tmp_path, base_seed=7).parameters["seed"] == 7


@pytest.mark.parametrize(("key", "value"), [("output_dir", "/somewhere"), ("if_exists", "overwrite")])
def test_a_key_that_is_read_before_the_generator_is_known_has_no_effect_in_a_section_and_is_said(
    photo: Path, tmp_path: Path, key: str, value: str
) -> None:
    found = in_a_section(photo, tmp_path, **{key: value}).findings
    assert [item.severity for item in found if f"{key} has no effect in the section" in item.message] == ["warning"]


def test_the_policy_that_let_a_run_begin_also_publishes_its_clip(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    values = {"if_exists": "overwrite", "generators": {"draft": {"if_exists": "error"}}, "state_dir": str(tmp_path)}
    settings = load_settings(environ={}, arguments=values)
    request = VideoRequest(prompt="x", image=photo, generator="draft", size=Size(96, 64), num_frames=2)
    assert generate(Order(request, settings, tmp_path / "a.mp4")).num_frames == 2
