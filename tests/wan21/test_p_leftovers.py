"""What outlives a framework, a shim or a runner, and who ends it (rows P17, P20, P21)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reelwright.core.events import Log
from reelwright.launchers import shim
from reelwright.sites.local.dead_runs import run_mark, sweep_dead_runs
from tests.conftest import eventually, is_running
from tests.stand_ins.checkout import launches, reached, spawned
from tests.wan21.conftest import WanMachine
from tests.wan21.test_p_signals import at_step

STUBBORN = {"n": 2, "setsid": True, "ignore_term": True}


def shim_of(runner: int) -> int:
    """The one shim below a runner."""
    (pid,) = [pid for pid in shim.descendants(runner) if b"shim.py" in command_line(pid)]
    return pid


def command_line(pid: int) -> bytes:
    """Its words; none when it has just ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_p17_grandchildren_in_their_own_sessions_that_ignore_sigterm_are_ended_after_a_success(
    wan: WanMachine,
) -> None:
    outcome = wan.run({"spawn": STUBBORN})
    assert outcome.code == "ok"
    assert len(spawned(wan.checkout)) == 2
    assert not any(is_running(pid) for pid in spawned(wan.checkout))
    assert "2 processes that the generator left behind were ended" in outcome.manifest.warnings
    wan.check()


def test_p17_grandchildren_of_ranks_are_ended_when_the_run_fails(wan: WanMachine) -> None:
    outcome = wan.run({"spawn": {"n": 2, "setsid": True}, "exit": 1}, gpu_count=2, retry_policy="none")
    assert outcome.code == "FRAMEWORK"
    assert len(spawned(wan.checkout)) == 4
    assert not any(is_running(pid) for pid in spawned(wan.checkout))
    wan.check()


@pytest.mark.parametrize("ranks", [1, 2])
def test_p20_the_runner_does_the_work_of_a_shim_that_was_killed(wan: WanMachine, ranks: int) -> None:
    outcome = wan.run(
        {"hang_at": "step 2", "spawn": {**STUBBORN, "ignore_term": ranks == 2}},
        on=at_step(1, lambda: os.kill(shim_of(os.getpid()), signal.SIGKILL)),
        gpu_count=ranks,
        retry_policy="none",
    )
    assert outcome.error is not None
    assert (outcome.code, outcome.error.exit_status) == ("CRASH", 24)
    assert not any(is_running(pid) for pid in spawned(wan.checkout))
    wan.check()


def test_p20_a_killed_shim_is_tried_again_once(wan: WanMachine) -> None:
    outcome = wan.run({"hang_at": "step 2"}, {}, on=at_step(1, lambda: os.kill(shim_of(os.getpid()), signal.SIGKILL)))
    assert [attempt.failure for attempt in outcome.manifest.attempts] == ["CRASH", None]
    wan.check()


def kill_runner_and_shim(wan: WanMachine, ranks: int) -> list[int]:
    """What is left after both were killed in a run that hangs: the ranks and their grandchildren, all alive."""
    wan.script({"hang_at": "step 2", "spawn": {"n": 1, "setsid": True}}, {})
    process = wan.start(gpu_count=ranks)
    eventually(lambda: len(reached(wan.checkout, "hang")) == ranks, what="the hang")
    watcher = shim_of(process.pid)
    os.kill(process.pid, signal.SIGSTOP)  # so that it cannot do the shim's work
    os.kill(watcher, signal.SIGKILL)
    process.kill()
    process.communicate()
    left = [entry["pid"] for entry in launches(wan.checkout)] + spawned(wan.checkout)
    assert all(is_running(pid) for pid in left)
    return left


@pytest.mark.parametrize("ranks", [1, 2])
def test_p21_the_next_run_ends_what_a_killed_runner_with_a_killed_shim_left(wan: WanMachine, ranks: int) -> None:
    left = kill_runner_and_shim(wan, ranks)
    outcome = wan.run()
    assert outcome.code == "ok"
    assert not any(is_running(pid) for pid in left)
    assert any(
        isinstance(event, Log) and "leftover processes of the killed run" in event.text for event in outcome.events
    )
    wan.check()


def test_p21_reel_doctor_ends_it_too(wan: WanMachine) -> None:
    left = kill_runner_and_shim(wan, 1)
    argv = [sys.executable, "-m", "reelwright", "doctor", "--config", str(wan.config_file())]
    said = subprocess.run(
        argv, capture_output=True, text=True, env={**os.environ, **wan.environ}, timeout=100, check=False
    )
    assert "ended the leftover processes of the killed run" in said.stderr
    assert not any(is_running(pid) for pid in left)
    wan.check(killed=True)


@pytest.fixture
def pausing() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that a test has started; ended after it."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def a_marked_process(mark: str) -> subprocess.Popen[bytes]:
    code = "import signal; signal.pause()"
    return subprocess.Popen([sys.executable, "-S", "-c", code], env={shim.MARK: mark}, start_new_session=True)


def test_p21_the_sweep_knows_the_dead_by_pid_and_start_time_and_spares_the_living(
    pausing: list[subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # the sweep of another test must not end these first
    started = shim.start_time(os.getpid())
    assert started is not None
    mark = run_mark("living-run")
    living = a_marked_process(mark)
    # Our number, when another process had it.
    dead = a_marked_process(mark.replace("living", "dead").replace(f":{started}:", f":{started - 1}:"))
    pausing += [living, dead]
    assert sweep_dead_runs({"TMPDIR": str(tmp_path / "others")}) == ()  # who has other GPU locks leaves it alone
    assert is_running(dead.pid)
    assert sweep_dead_runs() == ("dead-run",)
    assert not is_running(dead.pid)
    assert living.poll() is None
