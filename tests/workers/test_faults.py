"""Tests that every fault of a worker ends the attempt with the right failure code and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.events import Progress
from reelwright.runs.history import load_manifest
from reelwright.sites.cancellation import Cancellation
from tests.conftest import eventually
from tests.workers.conftest import Machine


def _faults(**steps: str) -> dict[str, Any]:
    return {"options": {"faults": {name.removeprefix("at"): kind for name, kind in steps.items()}}}


def _attempts(machine: Machine, name: str) -> list[str | None]:
    return [attempt.failure for attempt in load_manifest(machine.folder / name).attempts]


@pytest.mark.parametrize(("kind", "code"), [("crash", "CRASH"), ("kill", "CRASH"), ("gpu", "CRASH")])
def test_a_crash_in_a_step_is_a_failed_attempt_and_the_next_one_gives_the_same_bytes(
    machine: Machine, kind: str, code: str
) -> None:
    machine.run("good.mp4")
    machine.run("a.mp4", stand_in=_faults(at2=kind))
    assert _attempts(machine, "a.reel.json") == [code, None]
    assert len(machine.pids) == 2
    assert (machine.folder / "a.mp4").read_bytes() == (machine.folder / "good.mp4").read_bytes()


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("oom", "OOM_GPU", "Tried to allocate"),
        ("error", "FRAMEWORK", "the stand-in has to fail"),
        ("input", "INPUT", "no such picture"),
    ],
)
def test_a_failure_that_the_worker_reports_leaves_it_warm(machine: Machine, kind: str, code: str, words: str) -> None:
    error = machine.fails("a.mp4", stand_in=_faults(at2=kind), retry_policy="none")
    assert error.code == code
    assert words in error.message
    machine.run("b.mp4")
    assert len(machine.pids) == 1
    assert len(machine.noted("load")) == 1


def test_a_secret_that_the_worker_prints_and_reports_is_masked_everywhere(machine: Machine) -> None:
    secret = "hf_0123456789abcdef"
    error = machine.fails("a.mp4", stand_in=_faults(at2="secret"), env={"HF_TOKEN": secret}, retry_policy="none")
    assert "cannot log in with ***" in error.message
    kept = [path for path in machine.folder.rglob("*") if path.is_file()]
    assert any(b"my token is ***" in path.read_bytes() for path in kept)
    assert not [path for path in kept if secret.encode() in path.read_bytes()]
    assert secret not in str(error.to_json())


def test_an_end_without_an_answer_is_a_missing_video(machine: Machine) -> None:
    error = machine.fails("a.mp4", stand_in=_faults(at2="exit"), retry_policy="none")
    assert error.code == "OUTPUT"
    machine.run("b.mp4")


def test_a_hang_is_ended_by_the_limit_of_its_phase(machine: Machine) -> None:
    error = machine.fails("a.mp4", stand_in=_faults(at2="hang"), retry_policy="none", progress_timeout=0.5)
    assert error.code == "HANG"
    machine.check_gone()


def test_a_time_limit_ends_it(machine: Machine) -> None:
    error = machine.fails("a.mp4", stand_in=_faults(at2="hang"), retry_policy="none", timeout=0.5)
    assert error.code == "TIMEOUT"
    machine.check_gone()


def test_a_flood_of_output_is_bounded_and_harmless(machine: Machine) -> None:
    result = machine.run("a.mp4", stand_in=_faults(at2="flood"), log_limit_mb=1)
    assert result.attempts == 1


# ------------------------------------------------------------------------------------------------------- stopping


def _gate(machine: Machine) -> tuple[dict[str, Any], Path]:
    gate = machine.folder / "gate"
    os.mkfifo(gate)
    return {"options": {"gates": {"2": str(gate)}}}, gate


def _stopped(machine: Machine, stand_in: dict[str, Any], gate: Path | None) -> list[dict[str, Any]]:
    """Request a stop in step 2; returns the steps that were done."""
    cancellation = Cancellation()
    before = machine.events.append

    def listen(event: Any) -> None:
        before(event)
        if event == Progress("denoising", 2, 3):
            cancellation.request(signal.SIGINT)
            if gate:
                threading.Thread(target=gate.write_bytes, args=(b"",), daemon=True).start()

    machine.events = _Listening(listen)
    # Once its gate is open, the worker receives the request, even on a slow machine.
    error = machine.fails("a.mp4", cancellation, stand_in=stand_in, stop_grace_s=60.0 if gate else 2.0)
    assert error.code == "CANCELLED"
    return machine.noted("step")


class _Listening(list[Any]):
    def __init__(self, listen: Any) -> None:
        super().__init__()
        self._listen = listen
        self._inside = False

    def append(self, event: Any) -> None:
        super().append(event)
        if not self._inside:
            self._inside = True
            self._listen(event)
            self._inside = False


def test_a_cancelled_worker_ends_the_clip_before_the_next_step_and_stays_warm(machine: Machine) -> None:
    machine.run("before.mp4")
    stand_in, gate = _gate(machine)
    steps = _stopped(machine, stand_in, gate)
    assert len(steps) <= 3 + 3  # three of the run before; the running step may end, and one more may be in progress
    machine.events = []
    machine.run("b.mp4")
    assert len(machine.pids) == 1


def test_a_worker_that_does_not_stop_is_killed_after_the_grace(machine: Machine) -> None:
    stand_in, _ = _gate(machine)  # no writer opens the gate
    _stopped(machine, stand_in, None)
    machine.check_gone()


# ------------------------------------------------------------------------------------------------- foreign programs

_PROGRAMS = {
    "garbage": ("import os,sys; os.write(int(sys.argv[2]), b'hello\\n'); sys.stdin.read()", "FRAMEWORK"),
    "binary": ("import os,sys; os.write(int(sys.argv[2]), bytes(range(256))+b'\\n'); sys.stdin.read()", "FRAMEWORK"),
    "endless": (
        "import os,sys\nwhile True: os.write(int(sys.argv[2]), b'x'*65536)", "FRAMEWORK",
    ),
    "another version": (
        "import os,sys; os.write(int(sys.argv[2]), b'{\"event\":\"Hello\",\"protocol\":99,\"engine\":\"\"}\\n'); input()", "ENV",
    ),
    "wrong order": (
        "import os,sys; os.write(int(sys.argv[2]), b'{\"event\":\"Loaded\"}\\n'); sys.stdin.read()", "FRAMEWORK",
    ),
    "a progress bar in its log": (
        "import os,sys; print(' 50%|#    | 1/2 [00:01<00:01,  1.0s/it]', flush=True); os.write(int(sys.argv[2]), b'no\\n')",
        "FRAMEWORK",
    ),
    "cannot start": ("raise ImportError('no module named torch')", "ENV"),
}  # fmt: skip


@pytest.mark.parametrize("name", _PROGRAMS)
def test_a_program_that_is_no_worker_is_reported_and_ended(machine: Machine, name: str) -> None:
    text, code = _PROGRAMS[name]
    error = machine.fails("a.mp4", stand_in={"program": ["-c", text]}, retry_policy="none")
    assert error.code == code, error.message
    assert not machine.workers._warm
    machine.run("b.mp4")


_HELLO = (
    "import json,os,signal,sys; out=int(sys.argv[2]); say=lambda **m: os.write(out, json.dumps(m).encode()+b'\\n'); "
)
_HELLO += "say(event='Hello', protocol=1, engine='x'); "


def test_a_worker_that_reads_nothing_never_blocks_its_owner(machine: Machine) -> None:
    more = {"options": {"filler": "x" * 300_000}, "program": ["-c", _HELLO + "say(event='Loaded'); signal.pause()"]}
    error = machine.fails("a.mp4", stand_in=more, retry_policy="none", progress_timeout=0.5)
    assert error.code == "HANG"
    machine.check_gone()


def test_frames_outside_the_requested_folder_are_not_touched(machine: Machine) -> None:
    precious = machine.folder / "precious"
    precious.write_bytes(bytes(64 * 48 * 3 * 5))
    text = (
        _HELLO
        + f"""
say(event='Loaded')
say(event='Saved', path={str(precious)!r}, frames=5, width=64, height=48)
signal.pause()"""
    )
    error = machine.fails("a.mp4", stand_in={"program": ["-c", text]}, retry_policy="none")
    assert error.code == "OUTPUT"
    assert "in another folder" in error.message
    assert precious.exists()


def test_an_engine_that_cannot_be_imported_is_the_environments_fault(machine: Machine) -> None:
    error = machine.fails("a.mp4", stand_in={"engine": "tests.stand_ins.nothing:ENGINE"}, retry_policy="none")
    assert error.code == "ENV"
    assert "nothing" in error.message


def test_a_missing_interpreter_is_reported(machine: Machine) -> None:
    error = machine.fails("a.mp4", python=str(machine.folder / "none"), retry_policy="none")
    assert error.code == "ENV"


def test_reelwrights_own_packages_do_not_leak_into_another_interpreter(machine: Machine) -> None:
    folder = machine.folder / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    machine.run("a.mp4", python=str(folder / "bin" / "python"))
    assert machine.noted("load")[0]["pydantic"] is False


# -------------------------------------------------------------------------------------------------- killed from outside


def test_a_killed_shim_takes_the_worker_with_it_and_the_next_attempt_succeeds(machine: Machine) -> None:
    machine.run("before.mp4")
    (worker,) = machine.workers._warm.values()

    def listen(event: Any) -> None:
        if event == Progress("denoising", 1, 3):
            # Wait until the fault has struck; otherwise it would strike in the next attempt.
            eventually((machine.folder / "marks" / "sea-2").exists, what="the hang")
            worker.child.process.kill()

    machine.events = _Listening(listen)
    machine.run("a.mp4", stand_in=_faults(at2="hang"))
    assert _attempts(machine, "a.reel.json") == ["CRASH", None]


def test_a_worker_that_died_while_idle_is_replaced(machine: Machine) -> None:
    machine.run("a.mp4")
    os.kill(machine.pids[0], signal.SIGKILL)
    (worker,) = machine.workers._warm.values()
    eventually(lambda: not worker.alive)
    result = machine.run("b.mp4")
    assert result.attempts == 1
    assert len(machine.pids) == 2
