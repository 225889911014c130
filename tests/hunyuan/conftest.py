"""A machine with a stand-in of the HunyuanVideo family: every test runs on each member, unless it names some."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.request import VideoRequest
from tests.conftest import a_photo
from tests.stand_ins.checkout import HUNYUAN_LAYERS, make_hunyuan_checkout
from tests.stand_ins.checkpoints import make_hunyuan_checkpoint
from tests.stand_ins.interpreter import Knobs, make_interpreter
from tests.wan21 import invariants
from tests.wan21.conftest import WanMachine

MEMBERS = tuple(HUNYUAN_LAYERS)
PARALLEL = ("t2v", "i2v", "1.5")
OLDER = ("t2v", "i2v")
#: The phase in which each member is while it loads what it loads first.
FIRST_PHASE = {"t2v": "loading VAE", "i2v": "loading VAE", "1.5": "starting", "documented": "starting"}


@dataclass
class HunyuanMachine(WanMachine):
    """Everything a run needs, in one folder."""

    member: str = "t2v"

    def request(self, **values: Any) -> VideoRequest:
        picture = None if self.member == "t2v" else self.photo
        return super().request(**{"image": picture, "num_frames": 5, **values})


@pytest.fixture(scope="session")
def hunyuan_parts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The parts that no test changes: weights and the interpreter."""
    folder = tmp_path_factory.mktemp("hunyuan")
    parts = {member: make_hunyuan_checkpoint(folder / member, member) for member in MEMBERS}
    return {**parts, "python": make_interpreter(folder / "venv", Knobs()), "state": folder / "probes"}


@pytest.fixture(params=MEMBERS)
def member(request: pytest.FixtureRequest) -> str:
    """One member after the other."""
    name: str = request.param
    return name


@pytest.fixture
def hunyuan(member: str, tmp_path: Path, hunyuan_parts: Mapping[str, Path]) -> HunyuanMachine:
    """A machine with two simulated GPUs on which one is used."""
    state = tmp_path / "state"
    for folder in ("out", "state", "tmp"):
        (tmp_path / folder).mkdir()
    if hunyuan_parts["state"].exists():
        subprocess.run(["cp", "-a", f"{hunyuan_parts['state']}/.", str(state)], check=True)
    values: dict[str, Any] = {
        "generator": "hunyuan",
        "hunyuan_dir": str(make_hunyuan_checkout(tmp_path / "checkout", member)),
        "ckpt_path": str(hunyuan_parts[member]),
        "python": str(hunyuan_parts["python"]),
        "state_dir": str(state),
        "simulate_gpus": "2x80GiB",
        "gpu_count": 1,
        "size": "640x352" if member == "i2v" else "832x480" if member == "1.5" else "320x192",
        "stop_grace_s": 1.0,
        "log_limit_mb": 1,
    }
    if member == "documented":
        values["config_file"] = str(tmp_path / "model.yaml")
        (tmp_path / "model.yaml").write_text("width: 320\nheight: 192\nnum_frames: 5\n", "utf-8")
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "TMPDIR": str(tmp_path / "tmp")}
    environ["CANARY_TOKEN"] = invariants.CANARY
    photo = a_photo(tmp_path / "photo.png", (320, 180))
    checkout = Path(values["hunyuan_dir"])
    return HunyuanMachine(tmp_path, checkout, photo, values, environ, photo.read_bytes(), member=member)
