"""One stand-in checkout, interpreter and checkpoint, and a way to start them by hand, as a user would."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.stand_ins.checkout import launches, make_wan_checkout, set_plan
from tests.stand_ins.checkpoints import make_wan_checkpoint
from tests.stand_ins.interpreter import Knobs, make_interpreter

I2V = (
    "--task",
    "i2v-14B",
    "--size",
    "832*480",
    "--frame_num",
    "5",
    "--sample_steps",
    "3",
    "--base_seed",
    "42",
)
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max-restarts=0")
SPLIT = ("--ulysses_size", "2", "--dit_fsdp", "--t5_fsdp")


@dataclass
class Bench:
    """The folders of one test, and the processes it started."""

    folder: Path
    checkout: Path
    python: Path
    weights: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def out(self) -> Path:
        """Where the film goes."""
        return self.folder / "out.mp4"

    def plan(self, *entries: Mapping[str, Any]) -> None:
        """What the next launches do."""
        set_plan(self.checkout, entries)

    def argv(self, *arguments: str, launcher: tuple[str, ...] = (), task: tuple[str, ...] = I2V) -> list[str]:
        """A whole command; later arguments win."""
        where = ("--ckpt_dir", str(self.weights), "--save_file", str(self.out), "--prompt=hi")
        return [str(self.python), *launcher, "generate.py", *task, *where, *arguments]

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start it and come back at once."""
        environ = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        with (self.folder / "stdout").open("wb") as out, (self.folder / "stderr").open("wb") as err:
            process = subprocess.Popen(
                self.argv(*arguments, **options),
                cwd=self.checkout,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        self.running.append(process)
        return process

    def run(self, *arguments: str, **options: Any) -> int:
        """Start it and wait for its exit status."""
        return self.start(*arguments, **options).wait(timeout=100)

    @property
    def stdout(self) -> str:
        """What the last one printed."""
        return (self.folder / "stdout").read_bytes().decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """What the last one printed on standard error."""
        return (self.folder / "stderr").read_bytes().decode("utf-8", "replace")


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete stand-in interpreter; nobody changes it."""
    return make_interpreter(tmp_path_factory.mktemp("interpreter") / "env")


@pytest.fixture
def own_python(tmp_path: Path) -> Callable[[Knobs], Path]:
    """A stand-in interpreter of one's own."""
    return lambda knobs: make_interpreter(tmp_path / "env", knobs)


@pytest.fixture
def bench(tmp_path: Path, python: Path) -> Iterator[Bench]:
    """A checkout that works, with i2v weights; what it started and still runs is killed."""
    checkout = make_wan_checkout(tmp_path / "Wan2.1")
    made = Bench(tmp_path, checkout, python, make_wan_checkpoint(tmp_path / "i2v", "i2v-14B"))
    yield made
    for process in made.running:
        if process.poll() is None:
            process.kill()
            process.wait(timeout=60)
    # Ranks have sessions of their own: a test that failed half-way must not leave them behind.
    for entry in launches(checkout):
        with contextlib.suppress(OSError):
            if started_at(entry["pid"]) == entry["started"]:
                os.kill(entry["pid"], signal.SIGKILL)


def started_at(pid: int) -> int:
    """Start time of a process in clock ticks since boot."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
