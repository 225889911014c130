"""Ports, NCCL, what is not installed, options that are refused, clocks, and a machine without resources (P24-P30)."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import pytest

from reelwright.core.errors import AttemptError, BackendUnavailableError, ConfigurationError
from reelwright.core.events import AttemptStarted, Event, Log, Phase
from reelwright.launchers import shim
from reelwright.policy import retry
from reelwright.runs import journal, workspace
from reelwright.sites.local import leases
from tests.stand_ins.checkout import launches
from tests.stand_ins.interpreter import Knobs, make_interpreter
from tests.wan21.conftest import WanMachine


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_p24_the_usual_rendezvous_port_is_never_used(wan: WanMachine) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # somebody has it already: just as good
            listener.bind(("127.0.0.1", 29500))
            listener.listen()
        outcome = wan.run({}, gpu_count=2)
    assert outcome.code == "ok"
    assert len(outcome.manifest.attempts) == 1
    assert {entry["environ"]["MASTER_PORT"] for entry in launches(wan.checkout)} != {"29500"}
    wan.check()


def test_p24_a_port_that_another_program_took_is_replaced_without_counting_as_a_retry(
    wan: WanMachine, taken_port: int
) -> None:
    outcome = wan.run({"bind_port": taken_port}, {}, gpu_count=2, chaining_max_retries=0)
    first, second = outcome.manifest.attempts
    assert (first.failure, first.counts) == ("PORT", True)
    assert any("EADDRINUSE" in line for line in first.evidence)
    assert (second.outcome, second.counts, second.changed) == ("completed", False, ())
    wan.check()


def test_p24_a_port_that_is_always_taken_ends_the_run(wan: WanMachine, taken_port: int) -> None:
    outcome = wan.run({"bind_port": taken_port})
    assert isinstance(outcome.error, AttemptError)
    assert (outcome.code, outcome.error.exit_status) == ("PORT", 27)
    assert len(outcome.manifest.attempts) == 4
    wan.check()


@pytest.mark.parametrize("kind", [True, "watchdog"])
def test_p26_nccl_is_named_and_tried_once_more_in_fresh_processes(wan: WanMachine, kind: object) -> None:
    outcome = wan.run({"nccl": kind}, {}, gpu_count=2)
    first, second = outcome.manifest.attempts
    assert first.failure == "NCCL"
    assert any("NCCL" in line or "Watchdog" in line for line in first.evidence)
    assert (second.outcome, second.changed) == ("completed", ())
    wan.check()


def test_p26_nccl_twice_ends_the_run_unless_a_try_without_peer_to_peer_is_allowed(wan: WanMachine) -> None:
    outcome = wan.run({"nccl": True}, gpu_count=2)
    assert isinstance(outcome.error, AttemptError)
    assert (outcome.error.exit_status, len(outcome.manifest.attempts)) == (26, 2)
    allowed = wan.run(
        {"nccl": True}, {"nccl": True}, {"nccl": True}, {"nccl": True}, {}, gpu_count=2, nccl_p2p_retry=True
    )
    assert [attempt.failure for attempt in allowed.manifest.attempts] == ["NCCL", "NCCL", None]
    by_launch = {entry["launch"]: entry["environ"].get("NCCL_P2P_DISABLE") for entry in launches(wan.checkout)}
    assert list(by_launch.values()) == [None, None, None, None, "1"]
    wan.check()


def break_python(wan: WanMachine, way: str) -> Path:
    """An interpreter that cannot run the framework."""
    if way == "missing":
        return wan.folder / "nowhere" / "python"
    if way == "folder":
        return wan.folder
    if way == "not executable":
        path = wan.folder / "python"
        path.write_text("#!/bin/sh\n")
        return path
    if way == "not a python":
        path = wan.folder / "python"
        path.write_text("#!/bin/sh\nexit 3\n")
        path.chmod(0o755)
        return path
    return make_interpreter(wan.folder / "venv", Knobs(absent=(way,)))


WAYS = ["missing", "folder", "not executable", "not a python", "torch", "imageio_ffmpeg"]


@pytest.mark.parametrize("way", WAYS)
def test_p27_an_interpreter_that_cannot_run_it_is_reported_before_anything_starts(wan: WanMachine, way: str) -> None:
    python = break_python(wan, way)
    outcome = wan.run(python=str(python))
    assert isinstance(outcome.error, BackendUnavailableError)
    assert (outcome.code, outcome.error.exit_status) == ("ENV", 13)
    assert str(python) in outcome.error.message
    assert outcome.error.advice
    assert (outcome.manifest.attempts, launches(wan.checkout)) == ((), [])
    wan.check()


@pytest.mark.parametrize("what", ["generate.py", "wan/configs/__init__.py", ""])
def test_p27_a_checkout_without_its_program_is_reported_before_anything_starts(wan: WanMachine, what: str) -> None:
    lost = wan.checkout / what
    lost.rename(wan.folder / "lost")
    outcome = wan.run()
    assert isinstance(outcome.error, BackendUnavailableError)
    assert (outcome.code, outcome.error.exit_status) == ("ENV", 13)
    assert str(wan.checkout) in outcome.error.message
    assert outcome.manifest.attempts == ()
    wan.check()


def test_p27_an_interpreter_that_is_gone_after_the_checks_starts_nothing(wan: WanMachine) -> None:
    python = make_interpreter(wan.folder / "venv", Knobs())

    def remove(event: Event) -> None:
        if isinstance(event, AttemptStarted):
            python.unlink()
            wan.before = None

    outcome = wan.run({}, on=remove, python=str(python))
    assert (outcome.code, len(outcome.manifest.attempts)) == ("ENV", 1)
    assert "could not be started (ENOENT)" in outcome.manifest.attempts[0].message
    wan.check()


@pytest.mark.parametrize("ranks", [1, 2])
def test_p28_options_that_are_refused_are_a_matter_of_configuration_and_never_repeated(
    wan: WanMachine, ranks: int
) -> None:
    outcome = wan.run({"unknown_flag": True}, gpu_count=ranks)
    assert isinstance(outcome.error, ConfigurationError)
    assert (outcome.code, outcome.error.exit_status) == ("CONFIG", 11)
    (attempt,) = outcome.manifest.attempts
    assert any("unrecognized arguments: --base_seed=7" in line for line in attempt.evidence)
    assert "another version" in outcome.error.advice
    wan.check()


class Jumping(datetime):
    """A wall clock that is a day wrong, now in this direction and now in that."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + random.choice((-1, 1)) * timedelta(days=1)


def test_p29_a_wall_clock_that_jumps_by_days_changes_no_limit_and_no_duration(
    wan: WanMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + random.choice((-86400.0, 86400.0)))
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    for module in (journal, workspace, leases):
        monkeypatch.setattr(module, "datetime", Jumping)
    outcome = wan.run({"sig": 11}, {}, timeout=60.0, progress_timeout=60.0, lease_timeout_s=5.0)
    assert [attempt.failure for attempt in outcome.manifest.attempts] == ["CRASH", None]
    times = [outcome.manifest.seconds, *outcome.manifest.phase_seconds.values()]
    times += [attempt.seconds for attempt in outcome.manifest.attempts]
    assert all(0 <= seconds < 60 for seconds in times)
    wan.check()


class Scarce:
    """While the first attempt starts, only so many further files can be opened."""

    def __init__(self, left: int) -> None:
        self._left = left
        self._before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._held: list[int] = []
        self._over = False

    def __call__(self, event: Event) -> None:
        if event == Phase("starting") and not self._over:
            self._over = True
            self._take()
        elif isinstance(event, AttemptStarted | Phase):
            self.give_back()

    def _take(self) -> None:
        highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 32, self._before[1]))
        with contextlib.suppress(OSError):
            while True:
                self._held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(self._left):
            os.close(self._held.pop())

    def give_back(self) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self._before)
        while self._held:
            os.close(self._held.pop())


@pytest.fixture
def scarce() -> Iterator[Callable[[int], Scarce]]:
    """A listener that makes open files scarce; whatever happens, they are given back."""
    made: list[Scarce] = []

    def make(left: int) -> Scarce:
        made.append(Scarce(left))
        return made[-1]

    yield make
    for item in made:
        item.give_back()


def test_p30_without_open_files_nothing_is_half_started_with_any_number_left(
    wan: WanMachine, scarce: Callable[[int], Scarce]
) -> None:
    codes = []
    for left in range(20):
        outcome = wan.run({}, on=scarce(left), retry_policy="none", if_exists="overwrite")
        codes.append(outcome.code)
        # Emptying a folder needs files, too: what could not be removed is removed by the next run.
        wan.check(killed=outcome.code != "ok")
        if codes[-2:] == ["ok", "ok"]:
            break
    assert codes[:6] == ["ENV"] * 6
    assert codes == sorted(codes)  # ENV, ENV, ..., ok, ok
    assert set(codes) == {"ENV", "ok"}


def test_p30_a_lack_of_open_files_is_tried_again_once_after_a_pause(
    wan: WanMachine, scarce: Callable[[int], Scarce], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "RESOURCE_PAUSE_S", 0.2)
    want, times = scarce(2), {}

    def listen(event: Event) -> None:
        want(event)
        times[type(event)] = time.monotonic()

    outcome = wan.run({}, on=listen)
    first, second = outcome.manifest.attempts
    assert (first.failure, first.cause) == ("ENV", "start-transient")
    assert "EMFILE" in first.message
    assert (second.outcome, second.changed) == ("completed", ())
    assert times[AttemptStarted] - times[Log] >= 0.2  # from "trying again" to the second start
    wan.check()


#: A shim on a machine whose kernel refuses the first fork.
_REFUSED = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("real_shim", {real!r})
shim = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shim)
if not os.path.exists({once!r}):
    open({once!r}, "w").close()
    def refused():
        raise OSError({number}, os.strerror({number}))
    shim.os.fork = refused
sys.exit(shim.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_p30_a_refused_fork_is_tried_again_once_after_a_pause(
    wan: WanMachine, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    folder = wan.folder / "launchers"
    folder.mkdir()
    text = _REFUSED.format(real=shim.__file__, once=str(wan.state_dir / "once"), number=number)
    (folder / "shim.py").write_text(text)
    monkeypatch.setattr(shim, "__file__", str(folder / "shim.py"))
    monkeypatch.setattr(retry, "RESOURCE_PAUSE_S", 0.05)
    outcome = wan.run({})
    first, second = outcome.manifest.attempts
    assert (first.failure, first.cause) == ("ENV", "start-transient")
    assert errno.errorcode[number] in first.message
    assert second.outcome == "completed"
    wan.check()
