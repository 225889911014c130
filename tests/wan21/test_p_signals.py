"""Processes that are killed, crash, hang, stop or are too slow (rows P05 to P08, P23, P25)."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reelwright.backends.wan21 import facts
from reelwright.core.errors import AttemptError, GenerationTimeoutError
from reelwright.core.events import Event, Phase, Progress
from reelwright.launchers import shim
from tests.conftest import eventually, patiently
from tests.stand_ins.checkout import forget_launches, launches, reached
from tests.wan21.conftest import Outcome, ShortLimit, WanMachine

Patience = Callable[..., ShortLimit]


@pytest.fixture
def patience(wan: WanMachine, monkeypatch: pytest.MonkeyPatch) -> Patience:
    """Shorten the no-progress limit of one phase, from when the framework hangs or ``begun`` says so."""

    def shorten(phase: str, begun: Callable[[], object] = lambda: reached(wan.checkout, "hang")) -> ShortLimit:
        limits = ShortLimit(phase, begun)
        monkeypatch.setattr(facts, "QUIET_LIMITS_S", limits)
        return limits

    return shorten


def at_step(step: int, act: Callable[[], object]) -> Callable[[Event], None]:
    """Do it once, when a step has been reported."""
    done: list[bool] = []

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.step == step and not done:
            done.append(True)
            act()

    return listen


def kill(wan: WanMachine, rank: int, number: int) -> None:
    """Signal one rank of the newest launch."""
    (pid,) = [entry["pid"] for entry in launches(wan.checkout)[-2:] if entry["rank"] == rank][-1:]
    os.kill(pid, number)


def test_p05_a_foreign_sigkill_is_a_crash_and_tried_again_once_the_same(wan: WanMachine) -> None:
    outcome = wan.run({"hang_at": "step 2"}, {}, on=at_step(1, lambda: kill(wan, 0, signal.SIGKILL)))
    first, second = outcome.manifest.attempts
    assert (first.failure, first.cause, first.signal_number) == ("CRASH", "SIGKILL", 9)
    assert "while denoising (step 1 of 3)" in first.message
    assert (second.outcome, second.changed, second.parameters) == ("completed", (), first.parameters)
    assert not outcome.manifest.degraded
    wan.check()


def test_p05_a_foreign_sigkill_of_one_rank_ends_all_and_names_it(wan: WanMachine) -> None:
    kill_it = at_step(1, lambda: kill(wan, 1, signal.SIGKILL))
    outcome = wan.run({"hang_at": "step 2"}, on=kill_it, gpu_count=2, retry_policy="none")
    assert isinstance(outcome.error, AttemptError)
    assert (outcome.code, outcome.error.exit_status) == ("CRASH", 24)
    assert outcome.manifest.attempts[0].cause == "SIGKILL"
    wan.check()


def test_p05_one_sudden_death_of_a_rank_is_cured_by_the_second_attempt(wan: WanMachine) -> None:
    outcome = wan.run({"rank_die": {"rank": 1, "sig": 9}}, {}, gpu_count=2)
    assert [attempt.failure for attempt in outcome.manifest.attempts] == ["CRASH", None]
    wan.check()


@pytest.fixture
def cores_allowed() -> Iterator[None]:
    """A shell in which a crash would leave a core file of the size of the model."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.mark.usefixtures("cores_allowed")
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE"])
def test_p06_a_crash_names_its_signal_and_leaves_no_core(wan: WanMachine, name: str) -> None:
    outcome = wan.run({"sig": signal.Signals[name]}, chaining_max_retries=0)
    assert isinstance(outcome.error, AttemptError)
    assert (outcome.code, outcome.error.exit_status) == ("CRASH", 24)
    assert name in outcome.error.message
    (attempt,) = outcome.manifest.attempts
    assert (attempt.cause, attempt.signal_number) == (name, signal.Signals[name])
    assert [entry["core_limit"] for entry in launches(wan.checkout)] == [0]
    wan.check()


def test_p06_a_second_crash_alike_ends_the_run(wan: WanMachine) -> None:
    outcome = wan.run({"sig": signal.SIGSEGV})
    assert outcome.error is not None
    assert "failed the same way twice" in outcome.error.advice
    assert [attempt.cause for attempt in outcome.manifest.attempts] == ["SIGSEGV", "SIGSEGV"]
    assert outcome.manifest.attempts[1].changed == ()
    wan.check()


def test_p06_the_second_attempt_after_a_crash_takes_the_other_gpu(wan: WanMachine) -> None:
    used: list[set[str]] = []
    outcome = wan.run(
        {"sig": signal.SIGSEGV, "at": "step 3"}, {}, on=at_step(1, lambda: used.append(set(wan.leases())))
    )
    assert outcome.code == "ok"
    assert outcome.manifest.plan is not None
    assert outcome.manifest.plan["gpus"] == [1]
    assert len(used[0]) == 1
    wan.check()


@pytest.mark.parametrize(("point", "phase"), [("load", "loading text encoder"), ("encode", "encoding")])
def test_p07_a_hang_before_the_first_step_is_ended_and_tried_once_more(
    wan: WanMachine, patience: Patience, point: str, phase: str
) -> None:
    outcome = wan.run({"hang_at": point}, {}, on=patience(phase).hear)
    first, second = outcome.manifest.attempts
    assert (first.failure, first.exit_status, first.signal_number) == ("HANG", None, 15)
    assert first.phase == phase
    assert "no progress" in first.message
    assert (second.outcome, second.changed) == ("completed", ())
    wan.check()


@pytest.mark.parametrize(
    ("point", "phase"), [("step 2", "denoising"), ("vae", "decoding"), ("save", "decoding"), ("end", "saving")]
)
def test_p07_a_hang_after_sampling_has_begun_is_not_repeated(
    wan: WanMachine, patience: Patience, point: str, phase: str
) -> None:
    patience(phase)
    outcome = wan.run({"hang_at": point})
    assert isinstance(outcome.error, AttemptError)
    assert (outcome.code, outcome.error.exit_status) == ("HANG", 23)
    (attempt,) = outcome.manifest.attempts
    assert attempt.phase == phase
    assert "another attempt would cost as much again" in outcome.error.advice
    wan.check()


def test_p07_chatter_while_denoising_is_no_progress(wan: WanMachine, patience: Patience) -> None:
    chatter: list[subprocess.Popen[bytes]] = []
    patience("denoising", lambda: chatter)
    fifo = wan.checkout / "fake_state" / "at-step-3"
    fifo.parent.mkdir()
    os.mkfifo(fifo)

    def chat() -> None:
        target = f"/proc/{launches(wan.checkout)[-1]['pid']}/fd/1"
        code = f"import time\nwith open({target!r}, 'w') as log:\n  while True: print('still alive', file=log, flush=True); time.sleep(0.05)"
        chatter.append(subprocess.Popen([sys.executable, "-S", "-c", code]))

    try:
        outcome = wan.run({}, on=at_step(2, chat), retry_policy="none")
    finally:
        for process in chatter:
            process.kill()
            process.wait()
    assert outcome.code == "HANG"
    wan.check()


def test_p07_what_ignores_the_request_to_end_is_killed(wan: WanMachine, patience: Patience) -> None:
    patience("denoising")
    outcome = wan.run({"hang_at": "step 2", "ignore_term": True}, stop_grace_s=0.3)
    assert (outcome.code, outcome.manifest.attempts[0].signal_number) == ("HANG", 9)
    wan.check()


def test_p07_one_rank_that_never_comes_is_a_hang_of_all(wan: WanMachine, patience: Patience) -> None:
    patience("denoising")

    def wait(event: Event) -> None:
        if event == Phase("denoising"):  # of rank 0; the other may be slower
            eventually(lambda: reached(wan.checkout, "hang"), what="the hang of rank 1")

    outcome = wan.run({"ranks_hang": [1]}, on=wait, gpu_count=2, retry_policy="none")
    assert outcome.code == "HANG"
    assert len(reached(wan.checkout, "hang")) == 1
    wan.check()


def test_p08_slow_but_moving_ends_at_the_wall_clock_limit_and_fewer_steps_follow(wan: WanMachine) -> None:
    def within(limit_s: float) -> Outcome:
        wan.script({"step_s": 0.4 * limit_s, "steps": 9}, {})
        forget_launches(wan.checkout)
        return wan.run(timeout=limit_s, ask={"steps": 9}, if_exists="overwrite")

    def is_far_enough(outcome: Outcome) -> bool:
        return outcome.code == "ok" and "(step" in outcome.manifest.attempts[0].message

    outcome = patiently(within, is_far_enough, (5.0, 30.0))
    first, second = outcome.manifest.attempts
    assert (first.failure, first.phase) == ("TIMEOUT", "denoising")
    assert "the time limit was reached while denoising (step" in first.message
    assert (second.outcome, second.changed, second.helps) == ("completed", ("steps 9 -> 6",), ("time",))
    assert outcome.manifest.degraded
    wan.check()


def test_p08_with_strict_quality_the_limit_is_final(wan: WanMachine) -> None:
    def within(limit_s: float) -> Outcome:
        forget_launches(wan.checkout)
        return wan.run({"step_s": limit_s / 2, "steps": 9}, timeout=limit_s, ask={"steps": 9}, strict_quality=True)

    outcome = patiently(within, lambda outcome: "(step" in str(outcome.error), (2.0, 5.0, 30.0))
    assert isinstance(outcome.error, GenerationTimeoutError)
    assert outcome.error.exit_status == 22
    assert "strict-quality forbids it" in outcome.error.advice
    wan.check()


def test_p23_stopped_ranks_are_ended_anyway(wan: WanMachine, patience: Patience) -> None:
    stopped: list[int] = []
    patience("denoising", lambda: len(stopped) == 2)

    def stop() -> None:
        for rank in (0, 1):
            kill(wan, rank, signal.SIGSTOP)
            stopped.append(rank)

    outcome = wan.run({"hang_at": "step 2"}, on=at_step(1, stop), gpu_count=2, retry_policy="none")
    assert outcome.code == "HANG"
    wan.check()


#: A shim to whose signals one process is deaf, as one that waits in the kernel (state D) is.
_DEAF = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("real_shim", {real!r})
shim = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shim)
shim._KILL_WAIT_S = 0.3
kill = os.kill
def deaf(pid, number):
    with open({deaf!r}) as file:
        if str(pid) not in file.read().split():
            kill(pid, number)
shim.os.kill = deaf
sys.exit(shim.main(sys.argv[1:]))
"""


@pytest.fixture
def deaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The shim spares the process whose number is written into this file; it is ended after the test."""
    folder = tmp_path / "launchers"
    folder.mkdir()
    file = folder / "deaf"
    file.touch()
    (folder / "shim.py").write_text(_DEAF.format(real=shim.__file__, deaf=str(file)))
    monkeypatch.setattr(shim, "__file__", str(folder / "shim.py"))
    yield file
    for pid in file.read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def test_p23_what_cannot_be_killed_is_reported_in_bounded_time_and_its_gpu_stays_taken(
    wan: WanMachine, patience: Patience, deaf: Path
) -> None:
    patience("loading text encoder")

    def listen(event: Event) -> None:
        if launches(wan.checkout):
            deaf.write_text(str(launches(wan.checkout)[-1]["pid"]))

    outcome = wan.run({"hang_at": "load"}, on=listen, stop_grace_s=0.2)
    pid = launches(wan.checkout)[-1]["pid"]
    assert isinstance(outcome.error, AttemptError)
    assert (outcome.code, outcome.error.exit_status) == ("HANG", 23)
    assert f"process {pid} cannot be ended" in outcome.error.message
    assert len(outcome.manifest.attempts) == 1
    assert len(wan.leases()) == 1
    second = wan.run({}, gpus=[0])
    assert second.code == "BUSY"
    os.kill(pid, signal.SIGKILL)
    deaf.write_text("")
    eventually(lambda: not Path(f"/proc/{pid}").exists(), what="the end of the deaf process")
    wan.before = None
    wan.check()


def test_p25_the_first_rank_that_fails_is_the_cause_and_all_others_are_gone(wan: WanMachine) -> None:
    outcome = wan.run({"rank_die": {"rank": 1, "exit": 3}}, gpu_count=2, retry_policy="none")
    assert isinstance(outcome.error, AttemptError)
    assert outcome.code == "FRAMEWORK"
    assert len(launches(wan.checkout)) == 2
    wan.check()


def test_p25_a_rank_that_dies_by_a_signal_outranks_what_the_others_say(wan: WanMachine) -> None:
    outcome = wan.run({"rank_die": {"rank": 1, "sig": 11}}, gpu_count=2, retry_policy="none")
    assert (outcome.code, outcome.manifest.attempts[0].cause) == ("CRASH", "SIGSEGV")
    wan.check()
