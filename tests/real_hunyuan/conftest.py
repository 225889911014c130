"""The official checkouts, named by the environment, and a way to give them a planned command.

make test-real HUNYUAN_DIR=~/HunyuanVideo HUNYUAN_I2V_DIR=~/HunyuanVideo-I2V HUNYUAN15_DIR=~/HunyuanVideo-1.5
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.plan import Plan
from reelwright.core.request import Size
from tests.conftest import a_photo
from tests.hunyuan.planning import MEMBERS, World, command_of
from tests.stand_ins.checkpoints import make_hunyuan_checkpoint

VARIABLES = {"t2v": "HUNYUAN_DIR", "i2v": "HUNYUAN_I2V_DIR", "1.5": "HUNYUAN15_DIR"}
DRIVE = Path(__file__).with_name("drive.py")


def checkout_of(member: str) -> Path:
    """The official checkout of a member; skips the test if nobody named one."""
    path = os.environ.get(VARIABLES[member])
    if not path:
        pytest.skip(f"{VARIABLES[member]} names no checkout of the real {MEMBERS[member].title}")
    return Path(path).expanduser().resolve()


def drive(what: str, script: Path, *words: str, environ: Mapping[str, str] | None = None) -> tuple[int, Any, str]:
    """(exit status, what was seen, all that was printed) of an official script in `drive`."""
    argv = [sys.executable, str(DRIVE), what, str(script), *words]
    env = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONUTF8": "1", **(environ or {})}
    done = subprocess.run(argv, cwd=script.parent, env=env, capture_output=True, text=True, timeout=60, check=False)
    last = done.stdout.strip().splitlines()[-1:]
    seen = json.loads(last[0]) if done.returncode == 0 and last else {}
    return done.returncode, seen, done.stdout + done.stderr


@dataclass
class Bench:
    """One member's real checkout with tiny weights."""

    member: str
    folder: Path
    weights: Path
    picture: Path
    settings: dict[str, Any] = field(default_factory=dict)

    def world(self, **values: Any) -> World:
        settings = {"ckpt_path": str(self.weights), **self.settings, **values.pop("settings", {})}
        output = self.folder / "attempt-1" / "film.mp4"
        return World(self.member, picture_file=self.picture, output=output, settings=settings, **values)

    def plan(self, world: World, size: Size | None = None, **ask: Any) -> Plan:
        """The plan for a picture of that size (none for text-to-video)."""
        if size:
            a_photo(self.picture, size)
        return world.plan(size, **ask)

    def carry_out(self, plan: Plan, *further: str) -> tuple[int, Any, str]:
        """Give the planned command to the official script, as rank 0 of its processes."""
        command = command_of(plan)
        (self.folder / "attempt-1").mkdir(exist_ok=True)
        for film in (self.folder / "attempt-1").iterdir():
            film.unlink()
        start = command.argv.index(MEMBERS[self.member].script)
        ranks = dict.fromkeys(("RANK", "LOCAL_RANK"), "0") | {"WORLD_SIZE": str(command.ranks)}
        environ = {**command.env, **(ranks if command.ranks > 1 else {})}
        script = checkout_of(self.member) / command.argv[start]
        return drive("run", script, *command.argv[start + 1 :], *further, environ=environ)


@pytest.fixture
def bench(member: str, tmp_path: Path) -> Bench:
    checkout_of(member)
    return Bench(member, tmp_path, make_hunyuan_checkpoint(tmp_path / "weights", member), tmp_path / "first.png")
