"""Prompts and pictures that are hostile, exchanged or unfit, in whole runs: rows N01, N09, N10."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reelwright.core.errors import InvalidInputError
from reelwright.core.events import Event, Phase
from reelwright.core.request import MAX_PROMPT_BYTES, Size
from tests.conftest import a_photo
from tests.stand_ins.checkout import launches
from tests.wan21.conftest import WanMachine

PROMPTS = {
    "an option": "--size=1*1 --help",
    "dashes": "--",
    "one dash": "-",
    "spaces around": "  a cat \t",
    "quotes": "say \"yes\" and 'no' and `id` $(id) $HOME",
    "line breaks": "first\nsecond\r\nthird\ttab",
    "emoji": "🎬🐈‍⬛ 猫 кошка",
    "right to left": "قطة \u202eevil\u202c חתול",
    "escape sequences": "\x1b]0;owned\x07\x1b[31mred",
    "only a failure": "torch.OutOfMemoryError: CUDA out of memory",
    "very long": "x" * MAX_PROMPT_BYTES,
    "very long emoji": "🎬" * (MAX_PROMPT_BYTES // 4),
    "as a shell sees it": "; rm -rf / #",
    "equals": "=--save_file=/etc/passwd",
}


def options_of(launch: dict[str, Any]) -> dict[str, str]:
    words = [word.removeprefix("--").partition("=") for word in launch["argv"] if word.startswith("--")]
    return {name: value for name, _, value in words}


@pytest.mark.parametrize("name", PROMPTS)
def test_n01_every_prompt_arrives_byte_for_byte(wan: WanMachine, name: str) -> None:
    outcome = wan.run({}, ask={"prompt": PROMPTS[name]})
    assert outcome.code == "ok"
    (launch,) = launches(wan.checkout)
    assert options_of(launch)["prompt"].encode() == PROMPTS[name].encode()
    assert outcome.manifest.requested["prompt"] == PROMPTS[name]
    wan.check()


@pytest.mark.parametrize("name", ["an option", "quotes", "line breaks", "emoji", "right to left"])
def test_n01_a_prompt_from_the_command_line_arrives_byte_for_byte_on_two_ranks(wan: WanMachine, name: str) -> None:
    argv = wan.command("--gpus", 2)
    place = argv.index("a cat")
    argv[place : place + 1] = ["--", PROMPTS[name]] if PROMPTS[name].startswith("-") else [PROMPTS[name]]
    if PROMPTS[name].startswith("-"):  # what stands behind -- are the picture and the prompt
        argv = [*argv[:3], "generate", *argv[place + 2 :], "--", str(wan.photo), PROMPTS[name]]
    env = {**os.environ, **wan.environ}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env, timeout=100)
    assert done.returncode == 0, done.stderr
    assert [options_of(launch)["prompt"] for launch in launches(wan.checkout)] == [PROMPTS[name]] * 2
    wan.check()


@pytest.mark.parametrize(
    "prompt", ["", "  \n ", "nul \0 inside", "half \ud83c pair", "x" * (MAX_PROMPT_BYTES + 1), "🎬" * 100_000]
)
def test_n01_a_prompt_that_cannot_arrive_is_refused_as_input(wan: WanMachine, prompt: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        wan.request(prompt=prompt)
    assert caught.value.exit_status == 10
    assert "prompt" in caught.value.message


@pytest.mark.parametrize("prompt", [b"", b"\xff\xfe not UTF-8", b"x" * (MAX_PROMPT_BYTES + 1)])
def test_n01_a_prompt_that_cannot_arrive_is_status_10_on_the_command_line(wan: WanMachine, prompt: bytes) -> None:
    argv: list[str | bytes] = [prompt if word == "a cat" else word for word in wan.command()]
    done = subprocess.run(argv, capture_output=True, check=False, env={**os.environ, **wan.environ}, timeout=100)
    assert (done.returncode, launches(wan.checkout)) == (10, [])
    assert b"reel: INPUT: the prompt" in done.stderr
    wan.check()


def test_n09_a_picture_exchanged_while_the_framework_loads_changes_nothing(wan: WanMachine, tmp_path: Path) -> None:
    expected = wan.run({}).manifest
    before = wan.photo.read_bytes()
    other = a_photo(tmp_path / "out" / "other.png", (640, 640))
    replacement = other.read_bytes()
    other.unlink()

    def on(event: Event) -> None:
        if event == Phase("starting"):
            wan.photo.write_bytes(replacement)

    try:
        outcome = wan.run({}, on=on, if_exists="overwrite")
    finally:
        wan.photo.write_bytes(before)
    wan.before = None  # its time has changed, and its bytes are checked
    assert outcome.code == "ok"
    assert outcome.manifest.inputs[0]["sha256"] == hashlib.sha256(before).hexdigest()
    assert outcome.manifest.output is not None
    assert expected.output is not None
    assert outcome.manifest.output["frames_sha256"] == expected.output["frames_sha256"]
    given = Path(options_of(launches(wan.checkout)[-1])["image"])
    assert given != wan.photo
    assert given.parent.name.startswith(".reelwright-")
    wan.check()


def test_n09_a_framework_that_writes_to_its_pictures_reaches_only_the_private_copy(wan: WanMachine) -> None:
    assert wan.run({"touch_input": True}).code == "ok"
    wan.check()


@pytest.mark.parametrize("size", [(1000, 100), (60, 600), (2, 3), (4000, 20)])
def test_n10_a_ribbon_or_a_speck_is_refused_before_the_gpu_is_touched(wan: WanMachine, size: tuple[int, int]) -> None:
    picture = a_photo(wan.output.parent / "odd.png", size)
    outcome = wan.run({}, ask={"image": picture})
    picture.unlink()
    assert outcome.code == "INPUT"
    assert launches(wan.checkout) == []
    wan.check()


@pytest.mark.parametrize(("fit", "notes"), [("cover", "crop"), ("contain", "black bars"), ("stretch", "stretch")])
def test_n10_a_ribbon_is_fitted_to_the_size_only_on_request_and_reported(wan: WanMachine, fit: str, notes: str) -> None:
    picture = a_photo(wan.output.parent / "odd.png", (1000, 100))
    outcome = wan.run({}, ask={"image": picture, "fit": fit})
    picture.unlink()
    assert outcome.code == "ok"
    assert outcome.manifest.output is not None
    assert (outcome.manifest.output["width"], outcome.manifest.output["height"]) == (832, 464)
    assert notes in " ".join(outcome.manifest.warnings)
    wan.check()


def test_n10_a_portrait_keeps_its_aspect_and_the_plan_says_so(wan: WanMachine) -> None:
    picture = a_photo(wan.output.parent / "tall.png", (480, 832))
    outcome = wan.run({}, ask={"image": picture})
    picture.unlink()
    assert outcome.code == "ok"
    assert outcome.manifest.output is not None
    assert (outcome.manifest.output["width"], outcome.manifest.output["height"]) == (480, 832)
    assert outcome.manifest.plan is not None
    assert "size.derived" in [finding["code"] for finding in outcome.manifest.plan["findings"]]
    wan.check()


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        ({"size": Size(1000, 1000)}, "i2v-14B cannot make 1000x1000"),
        ({"size": Size(16, 16)}, "i2v-14B cannot make 16x16"),
        ({"size": Size(1280, 720), "image": None}, "t2v-1.3B cannot make 1280x720"),
    ],
)
def test_n10_a_size_that_the_task_does_not_have_is_refused_with_those_it_has(
    wan: WanMachine, wan_parts: dict[str, Path], ask: dict[str, Any], words: str
) -> None:
    outcome = wan.run({}, ask=ask, t2v_model_dir=None, t2v_1_3b_model_dir=str(wan_parts["t2v_1_3b"]), model="t2v-1.3B")
    assert (outcome.code, launches(wan.checkout)) == ("CONFIG", [])
    assert outcome.error is not None
    assert words in outcome.error.message
    assert "Choose one of" in outcome.error.advice
    wan.check()


def image_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_n10_frames_of_differing_size_reach_flf2v_with_equal_pixels(wan: WanMachine) -> None:
    first = a_photo(wan.output.parent / "first.png", (640, 360))
    last = a_photo(wan.output.parent / "last.png", (500, 700))
    # Sizes are read while the framework holds the private pictures.
    sizes: list[Any] = []

    def on(event: Event) -> None:
        if event == Phase("starting"):
            (folder,) = wan.output.parent.glob(".reelwright-*")
            sizes.extend(image_size(folder / name) for name in ("first.png", "last.png"))

    outcome = wan.run({}, ask={"image": first, "last_image": last, "num_frames": 81}, on=on)
    for path in (first, last):
        path.unlink()
    assert outcome.code == "ok"
    assert sizes == [(640, 360), (640, 360)]
    assert "last.png" in " ".join(outcome.manifest.warnings)
    wan.check()
