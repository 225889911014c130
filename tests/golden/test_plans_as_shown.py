"""What `reel plan` says of representative requests, word for word, with paths made neutral.

A change of a default, a flag, a formula or a wording shows here as a difference to be read. `make golden` writes the
texts anew.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import reelwright
from tests.stand_ins.interpreter import Knobs, make_interpreter
from tests.wan21.conftest import WanMachine

TEXTS = Path(__file__).with_name("plans")
Reel = Callable[..., subprocess.CompletedProcess[str]]
CAT = ("cat.png", "the cat turns its head")

#: What the resident engine is set to; `@` stands for a part of the machine.
ENGINE = {"generator": "diffusers", "python": "@engine", "weights": "@i2v", "simulate_gpus": "1x80GiB"}
#: Name -> the words behind `reel plan`, and settings.
REQUESTS: Mapping[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "i2v-documented-defaults": (CAT, {"simulate_gpus": "1x80GiB"}),
    "i2v-8-gpus-fsdp": (CAT, {"simulate_gpus": "8x80GiB"}),
    "i2v-3-gpus-without-fsdp": ((*CAT, "--gpus", "3"), {"simulate_gpus": "8x80GiB", "chaining_use_fsdp_flags": False}),
    "i2v-480p-portrait": (("tall.png", CAT[1], "--size", "480x832", "--seconds", "3"), {"simulate_gpus": "1x80GiB"}),
    "i2v-1024x576-launcher": ((*CAT, "--size", "1024x576"), {"simulate_gpus": "2x80GiB"}),
    "i2v-preset-framework": (CAT, {"simulate_gpus": "1x80GiB", "preset": "framework"}),
    "i2v-with-variables-of-the-user": (CAT, {"simulate_gpus": "1x80GiB", "env": {"HF_TOKEN": "a secret"}}),
    "i2v-card-too-small": (CAT, {"simulate_gpus": "1x24GiB"}),
    "i2v-size-refused": ((*CAT, "--size", "1000x1000"), {"simulate_gpus": "1x80GiB"}),
    "flf2v": ((*CAT, "--last-image", "tall.png"), {"simulate_gpus": "4x80GiB"}),
    "t2v-14b": (("-", CAT[1]), {"simulate_gpus": "2x80GiB"}),
    "t2v-1.3b-480p": (("-", CAT[1], "--size", "832x480"), {"simulate_gpus": "1x12GiB", "t2v_model_dir": None}),
    "engine-i2v": (CAT, ENGINE),
    "engine-first-and-last": ((*CAT, "--last-image", "tall.png"), {**ENGINE, "weights": "@flf2v"}),
    "engine-balanced-on-two-gpus": (
        (*CAT, "--size", "832x480", "--gpus", "2"), {**ENGINE, "simulate_gpus": "2x80GiB", "speed": "balanced"},
    ),
    "engine-streamed": (CAT, {**ENGINE, "placement": "group_offload", "preset": "framework"}),
    "engine-old-packages": (CAT, {**ENGINE, "python": "@python"}),
    "engine-wrong-folder": (("-", CAT[1]), {**ENGINE, "simulate_gpus": "1x8GiB"}),
    "draft": ((*CAT, "--generator", "draft", "--size", "640x360", "--camera", "pan_left slow"), {}),
}  # fmt: skip


@pytest.fixture
def machine(wan: WanMachine, wan_parts: Mapping[str, Path]) -> WanMachine:
    """The stand-in machine with both text-to-video models and two pictures, and no setting of a size."""
    from tests.conftest import a_photo

    for key in ("size", "gpu_count", "log_limit_mb", "stop_grace_s"):
        del wan.values[key]
    wan.values["t2v_1_3b_model_dir"] = str(wan_parts["t2v_1_3b"])
    a_photo(wan.folder / "cat.png", (1280, 720))
    a_photo(wan.folder / "tall.png", (720, 1280))
    return wan


@pytest.fixture(scope="session")
def parts(wan_parts: Mapping[str, Path]) -> Mapping[str, Path]:
    """The parts of the Wan machine, and an interpreter with packages as new as the resident engine needs."""
    python = make_interpreter(wan_parts["python"].parents[1].parent / "engine-venv", Knobs(torch="2.13.0+cu130"))
    site = next((python.parent.parent / "lib").glob("python3.*")) / "site-packages"
    for name, version in (("diffusers", "0.42.1"), ("transformers", "5.23.0")):
        (site / name / "__init__.py").write_text(f'__version__ = "{version}"\n')
    return {**wan_parts, "engine": python}


def neutral(text: str, machine: WanMachine, parts: Mapping[str, Path]) -> str:
    """Without what differs between two computers."""
    names = {
        str(Path(reelwright.__file__).parent): "REELWRIGHT",
        str(machine.folder): "MACHINE",
        str(parts["python"].parents[1].parent): "PARTS",
    }
    for path, name in names.items():
        text = text.replace(path, name)
    text = re.sub(r"about \d+ s \(estimated\)", "about N s (estimated)", text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@pytest.mark.parametrize("name", REQUESTS)
def test_the_plan_reads_as_it_did(
    name: str, machine: WanMachine, parts: Mapping[str, Path], reel: Reel, request: pytest.FixtureRequest
) -> None:
    words, settings = REQUESTS[name]
    settings = {
        key: str(parts[value[1:]]) if isinstance(value, str) and value.startswith("@") else value
        for key, value in settings.items()
    }
    config = machine.config_file(**settings)
    env = {**os.environ, **machine.environ, "COLUMNS": "4000"}
    done = reel("plan", *words, "--seed", "7", "--config", config, "-o", "clip.mp4", cwd=machine.folder, env=env)
    assert done.stderr == ""
    shown = neutral(f"$ reel plan {' '.join(words)}\n{done.stdout}exit status {done.returncode}\n", machine, parts)
    golden = TEXTS / f"{name}.txt"
    if request.config.getoption("--golden-rewrite", default=False):
        TEXTS.mkdir(exist_ok=True)
        golden.write_text(shown, "utf-8")
    assert shown == golden.read_text("utf-8"), "run `make golden` if this is meant, and have the difference read"


def test_there_is_no_text_of_a_request_that_is_gone(request: pytest.FixtureRequest) -> None:
    gone = [path for path in TEXTS.glob("*.txt") if path.stem not in REQUESTS]
    if request.config.getoption("--golden-rewrite", default=False):
        while gone:
            gone.pop().unlink()
    assert gone == []
