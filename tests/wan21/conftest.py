"""A machine with a stand-in Wan2.1: checkout, interpreter, weights, simulated GPUs, and the invariants."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reelwright import Settings, load_settings
from reelwright.core.errors import Failure, VideoGenerationError
from reelwright.core.events import AttemptStarted, Event
from reelwright.core.manifest import Manifest, Result, manifest_path
from reelwright.core.request import VideoRequest
from reelwright.runs.order import Order
from reelwright.runs.runner import generate
from reelwright.sites.cancellation import Cancellation
from reelwright.sites.local.leases import Leases, lease_directory
from reelwright.sites.local.probes import gpus
from reelwright.sites.local.site import LocalSite
from tests import warm
from tests.conftest import a_photo, eventually
from tests.stand_ins.checkout import make_wan_checkout, set_plan
from tests.stand_ins.checkpoints import make_wan_checkpoint
from tests.stand_ins.interpreter import Knobs, make_interpreter
from tests.wan21 import invariants

FAKE_NVML = Path(__file__).parents[1] / "sites" / "fake_nvml.py"
GIB = 1024**3
Driver = Callable[..., None]


@dataclass
class Outcome:
    """What a run of the stand-in came to."""

    result: Result | None
    error: VideoGenerationError | None
    manifest: Manifest
    events: list[Event] = field(default_factory=list)

    @property
    def code(self) -> str:
        return self.error.code if self.error else "ok"


@dataclass(frozen=True)
class Finished:
    """What a `reel generate` of its own said and left."""

    status: int
    out: str
    err: str
    manifest: Manifest


class ShortLimit(dict[str, float]):
    """No-progress limits: a second for one phase once ``begun``, and a minute else, as a busy machine may need.

    ``over`` ends it, for the attempts that follow and are healthy.
    """

    def __init__(self, phase: str, begun: Callable[[], object]) -> None:
        super().__init__({"": 60.0, phase: 1.0})
        self._phase, self._begun = phase, begun
        self.over = False

    def get(self, phase: str, default: Any = None) -> Any:
        return self[phase] if phase == self._phase and not self.over and self._begun() else self[""]

    def hear(self, event: Event) -> None:
        """A listener with which the limit is for the first attempt only."""
        self.over = self.over or (isinstance(event, AttemptStarted) and event.number > 1)


@dataclass
class WanMachine:
    """Everything a run needs, in one folder."""

    folder: Path
    checkout: Path
    photo: Path
    values: dict[str, Any]
    environ: dict[str, str]
    photo_bytes: bytes
    before: Mapping[str, tuple[int, int]] | None = None
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def site(self) -> LocalSite:
        return LocalSite(self.environ)

    @property
    def output(self) -> Path:
        return self.folder / "out" / "clip.mp4"

    @property
    def state_dir(self) -> Path:
        return Path(self.values["state_dir"])

    def script(self, *plan: Mapping[str, Any]) -> None:
        """What the next launches do, one entry each."""
        set_plan(self.checkout, plan)

    def settings(self, **values: Any) -> Settings:
        return load_settings(environ={}, arguments={**self.values, **values})

    def request(self, **values: Any) -> VideoRequest:
        given = {
            "prompt": "a cat turns its head",
            "image": self.photo,
            "num_frames": 5,
            "steps": 3,
            "seed": 7,
            **values,
        }
        return VideoRequest(**given)

    def run(
        self,
        *plan: Mapping[str, Any],
        ask: Mapping[str, Any] | None = None,
        on: Callable[[Event], None] = lambda _event: None,
        cancellation: Cancellation | None = None,
        **settings: Any,
    ) -> Outcome:
        """Generate in this process with a scripted framework; ``on`` gets every event as it comes."""
        if plan:
            self.script(*plan)
        if "simulate_gpus" in settings:  # a driver is played: then let the host be as large as its machine would be
            settings = {"simulate_memory": "512GiB", **settings}
        order = Order(self.request(**(ask or {})), self.settings(**settings), self.output)
        events: list[Event] = []

        def hear(event: Event) -> None:
            events.append(event)
            on(event)

        self._remember()
        try:
            result = generate(order, hear, cancellation or Cancellation(), self.site)
        except VideoGenerationError as error:
            outcome = Outcome(None, error, self.record(), events)
        else:
            outcome = Outcome(result, None, self.published(), events)
        assert (outcome.manifest.error or {"code": "ok"})["code"] == outcome.code
        return outcome

    def published(self) -> Manifest:
        return Manifest.from_json(json.loads(manifest_path(self.output).read_text()))

    def record(self) -> Manifest:
        """The record of the newest run without a film."""
        newest = max((self.state_dir / "runs").glob("*/manifest.json"), key=lambda path: path.stat().st_mtime_ns)
        return Manifest.from_json(json.loads(newest.read_text()))

    def config_file(self, **values: Any) -> Path:
        path = self.folder / "config.yaml"
        written = path.with_suffix(".written")
        written.write_text(json.dumps({**self.values, **values}))  # JSON is YAML
        return written.replace(path)  # in one step: a run that was started a moment ago may be reading it

    def command(self, *arguments: object, **settings: Any) -> list[str]:
        """The command line of `reel generate`."""
        argv = [sys.executable, "-m", "reelwright", "generate", str(self.photo), "a cat", "-o", str(self.output)]
        argv += ["--config", str(self.config_file(**settings)), "--frames", "5", "--steps", "3"]
        return [*argv, *map(str, arguments)]

    def start(self, *arguments: object, program: str = "", **settings: Any) -> subprocess.Popen[str]:
        """`reel generate` as a process of its own; ``program`` is the Python text that starts it in another way."""
        argv = self.command(*arguments, **settings)
        argv[1:3] = ["-c", program] if program else argv[1:3]
        env = {**os.environ, **self.environ}
        self._remember()
        self.started.append(warm.start(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env))
        return self.started[-1]

    def finish(self, process: subprocess.Popen[str], *, within_s: float = 100.0) -> Finished:
        """Wait for a started `reel`; its exit status must be that of the class in its record (I7)."""
        out, err = process.communicate(timeout=within_s)
        manifest = self.published() if process.returncode == 0 else self.record()
        if manifest.error is not None and manifest.state != "cancelled":
            assert process.returncode == Failure[manifest.error["code"]].exit_status
        return Finished(process.returncode, out, err, manifest)

    # --- invariants

    def survivors(self) -> list[int]:
        """Processes that belong to a run on this machine: marked ones that know its folder, and shims."""
        return invariants.survivors(self.folder)

    def leases(self) -> Mapping[str, Any]:
        """Who holds which GPU."""
        return Leases(lease_directory(self.environ)).holders()

    def check(self, *, killed: bool = False) -> None:
        """I1 to I8, as far as they can be seen from outside; ``killed``: the runner had no time to tidy up.

        Nothing runs, no lease is held, the output is absent or whole, nothing else was touched, every record has
        one end, logs are bounded, no secret is in any file. I7 is checked by `run` and `finish`.
        """
        eventually(lambda: not self.survivors(), what="the end of every process")
        eventually(lambda: not self.leases(), what="free leases")
        names = {path.name for path in self.output.parent.iterdir()}
        names = {name for name in names if not (killed and name.startswith(".reelwright-"))}
        assert names in (set(), {"clip.mp4", "clip.reel.json"}) or (killed and names == {"clip.mp4"}), names
        if self.output.exists() and (not killed or len(names) == 2):
            digest = hashlib.sha256(self.output.read_bytes()).hexdigest()
            manifest = self.published()
            assert manifest.output is not None
            assert manifest.output["sha256"] == digest
            invariants.assert_one_end(manifest)
        assert self.photo.read_bytes() == self.photo_bytes
        assert self.before is None or self._snapshot() == self.before
        invariants.assert_whole_records(self.state_dir, self.values["log_limit_mb"] * 1024 * 1024)
        invariants.assert_no_secret(self.folder)

    def _remember(self) -> None:
        """What the run must not change; beside a run that goes on, what that one must not change either."""
        if self.before is None or all(process.poll() is not None for process in self.started):
            self.before = self._snapshot()

    def _snapshot(self) -> Mapping[str, tuple[int, int]]:
        own = (self.output.parent, self.state_dir, lease_directory(self.environ), self.folder / "config.yaml")
        return invariants.snapshot(self.folder, own)


@pytest.fixture(scope="session")
def wan_parts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The parts that no test changes: weights and interpreters."""
    folder = tmp_path_factory.mktemp("wan")
    tasks = {"i2v": "i2v-14B", "flf2v": "flf2v-14B", "t2v": "t2v-14B", "t2v_1_3b": "t2v-1.3B"}
    parts = {name: make_wan_checkpoint(folder / name, task) for name, task in tasks.items()}
    return {**parts, "python": make_interpreter(folder / "venv", Knobs()), "state": folder / "probes"}


@pytest.fixture
def wan(tmp_path: Path, wan_parts: Mapping[str, Path]) -> Iterator[WanMachine]:
    """A machine with two simulated GPUs on which one is used."""
    (tmp_path / "out").mkdir()
    state = tmp_path / "state"
    state.mkdir()
    remembered = wan_parts["state"]  # what the interpreter said, remembered as on a real machine
    if remembered.exists():
        shutil.copytree(remembered, state / "interpreters")
    values: dict[str, Any] = {
        "generator": "wan2.1",
        "wan2_dir": str(make_wan_checkout(tmp_path / "Wan2.1")),
        "i2v_model_dir": str(wan_parts["i2v"]),
        "flf2v_model_dir": str(wan_parts["flf2v"]),
        "t2v_model_dir": str(wan_parts["t2v"]),
        "python": str(wan_parts["python"]),
        "state_dir": str(state),
        "simulate_gpus": "2x80GiB",
        "gpu_count": 1,
        "size": "832x480",
        "stop_grace_s": 1.0,
        "log_limit_mb": 1,
    }
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "TMPDIR": str(tmp_path / "tmp")}
    environ["CANARY_TOKEN"] = invariants.CANARY
    (tmp_path / "tmp").mkdir()
    photo = a_photo(tmp_path / "photo.png", (320, 180))
    machine = WanMachine(tmp_path, Path(values["wan2_dir"]), photo, values, environ, photo.read_bytes())
    yield machine
    for process in machine.started:
        process.kill()  # what a failed test has left would disturb the next
        process.communicate()
    if (state / "interpreters").exists() and not remembered.exists():
        shutil.copytree(state / "interpreters", remembered)


def a_card(number: int, **about: Any) -> dict[str, Any]:
    """A card of 80 GiB for `driver`."""
    return {"uuid": f"GPU-{'abcdef'[number] * 2}{number}", "name": "NVIDIA H100", "total": 80 * GIB, **about}


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Lets the GPUs be asked through a driver that plays a scenario, in the real protocol of `machine.nvml`."""
    real = gpus.nvml_program()[-1]

    def play(*cards: dict[str, Any], **scenario: Any) -> None:
        text = json.dumps({"gpus": list(cards), **scenario})
        monkeypatch.setattr(gpus, "nvml_program", lambda: (sys.executable, "-I", str(FAKE_NVML), real, text))

    return play
