"""What a framework prints: floods, lines without end, bytes of every kind, pipes held by foreign processes (P15, P16, P18)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reelwright.core.events import Event, Phase
from tests.stand_ins.checkout import launches
from tests.wan21.conftest import WanMachine

MIB = 1024 * 1024


def peak_kb(pid: int) -> int:
    """The most resident memory that a living process has had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


@pytest.mark.parametrize(("key", "megabytes"), [("log_mb", 40), ("log_line_mb", 100)])
def test_p15_a_flood_in_lines_or_without_a_line_end_costs_the_runner_no_memory(
    wan: WanMachine, key: str, megabytes: int
) -> None:
    gates = [wan.checkout / "fake_state" / f"at-step-{step}" for step in (2, 3)]
    gates[0].parent.mkdir()
    for gate in gates:
        os.mkfifo(gate)
    wan.script({key: megabytes})
    process = wan.start()
    assert gates[0].read_bytes()  # the framework has got rid of all of it, and waits at the next gate
    peak = peak_kb(process.pid)
    assert gates[1].read_bytes()
    done = wan.finish(process)
    assert done.status == 0
    assert peak < 100 * 1024
    wan.check()


@pytest.mark.parametrize("key", ["log_mb", "log_line_mb"])
def test_p15_the_kept_log_is_bounded_says_what_is_missing_and_the_last_words_are_known(
    wan: WanMachine, key: str
) -> None:
    words = "\nTraceback (most recent call last):\n  File 'x'\nRuntimeError: the last words"
    outcome = wan.run({key: 5, "traceback": words}, retry_policy="none")
    assert "RuntimeError: the last words" in outcome.manifest.attempts[0].message
    log = Path(str(outcome.manifest.attempts[0].log)).read_bytes()
    assert len(log) < MIB + 100
    assert re.search(rb"\n\.\.\. \d{7} bytes dropped \.\.\.\n", log)
    assert b"RuntimeError: the last words\n" in log[-200:]
    wan.check()


RAW = "\x1b[2J\x1b]0;owned\x07\xff\xfe\xc3(\x00 broken\r\n\x1b[31mred words\x1b[0m\n\r 33%|\xff| oops\r\n"


def test_p16_bytes_of_every_kind_are_kept_raw_and_shown_clean(wan: WanMachine) -> None:
    wan.script({"bytes": RAW, "exit": 7})
    done = wan.finish(wan.start(retry_policy="none"))
    assert done.status == 28
    (attempt,) = done.manifest.attempts
    assert RAW.encode("latin-1") in Path(str(attempt.log)).read_bytes()
    for text in (done.err, *attempt.evidence):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    assert "red words" in done.err
    assert "\N{REPLACEMENT CHARACTER}" in "".join(attempt.evidence)
    wan.check()


def test_p16_carriage_returns_part_the_bar_into_steps(wan: WanMachine) -> None:
    outcome = wan.run({"bytes": "\r\r\n\r"}, ask={"steps": 7})
    steps = [event.step for event in outcome.events if hasattr(event, "step")]
    assert steps == list(range(1, 8))
    wan.check()


def test_p16_a_log_in_utf16_or_of_random_bytes_ends_no_run(wan: WanMachine) -> None:
    noise = bytes(range(256)) * 40 + "Traceback\nRuntimeError: x\n".encode("utf-16")
    assert wan.run({"bytes": noise.decode("latin-1")}).code == "ok"
    wan.check()


def test_p18_a_foreign_process_that_keeps_the_logs_pipe_open_delays_nothing(wan: WanMachine) -> None:
    foreign: list[subprocess.Popen[bytes]] = []
    gate = wan.checkout / "fake_state" / "at-encode"  # at which the framework waits for the foreign process
    gate.parent.mkdir()
    os.mkfifo(gate)

    def inherit(event: Event) -> None:
        if event == Phase("loading CLIP"):  # not a descendant of the run, and without its mark: nobody may end it
            with open(f"/proc/{launches(wan.checkout)[0]['pid']}/fd/1", "wb") as pipe:
                code = "import signal; signal.pause()"
                foreign.append(subprocess.Popen([sys.executable, "-S", "-c", code], stdout=pipe, env={}))
            assert gate.read_bytes()

    began = time.monotonic()
    try:
        outcome = wan.run({}, on=inherit)
        took = time.monotonic() - began
        assert foreign[0].poll() is None
    finally:
        for process in foreign:
            process.kill()
            process.wait()
    assert outcome.code == "ok"
    assert took < 60
    wan.check()


def test_p18_a_grandchild_with_the_logs_pipe_is_ended_with_the_run(wan: WanMachine) -> None:
    outcome = wan.run({"spawn": {"n": 2, "inherit_fd": True}})
    assert outcome.code == "ok"
    assert "2 processes that the generator left behind were ended" in outcome.manifest.warnings
    wan.check()
