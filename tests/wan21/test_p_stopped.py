"""Requests to stop: signals, a closed terminal, a caller's exception (row P22)."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from reelwright.core.errors import Cancelled, Interrupted
from reelwright.core.events import Event, Phase
from reelwright.sites.cancellation import Cancellation
from tests.conftest import eventually
from tests.stand_ins.checkout import launches, reached
from tests.wan21.conftest import WanMachine
from tests.wan21.test_p_signals import at_step

STATUS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


@pytest.mark.parametrize(
    ("name", "point", "ranks"),
    [("SIGINT", "load", 1), ("SIGTERM", "step 2", 2), ("SIGHUP", "save", 1), ("SIGTERM", "end", 1)],
)
def test_p22_a_signal_ends_everything_and_leaves_its_status_and_a_cancelled_record(
    wan: WanMachine, name: str, point: str, ranks: int
) -> None:
    wan.script({"hang_at": point})
    process = wan.start(gpu_count=ranks)
    eventually(lambda: len(reached(wan.checkout, "hang")) >= 1, what="the hang")
    process.send_signal(signal.Signals[name])
    done = wan.finish(process)
    assert done.status == STATUS[name]
    assert done.manifest.state == "cancelled"
    assert [attempt.outcome for attempt in done.manifest.attempts] == ["cancelled"]
    assert f"Stopped by {name}" in done.err
    wan.check()


def test_p22_a_second_ctrl_c_kills_at_once_what_ignores_the_first(wan: WanMachine) -> None:
    wan.script({"hang_at": "step 2", "ignore_term": True})
    process = wan.start(stop_grace_s=300.0)
    eventually(lambda: reached(wan.checkout, "hang"), what="the hang")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert any("a second interrupt kills" in line for line in process.stderr)  # reads up to that line
    process.send_signal(signal.SIGINT)
    assert wan.finish(process, within_s=100).status == 130  # before the grace is over
    wan.check()


#: `reel`, whose verification process starts when somebody has written to a FIFO.
_VERIFIES_BEHIND_A_GATE = """
import sys
from reelwright.cli import main
from reelwright.media import verification
verification._CHILD = "open({gate!r}).read(1); " + verification._CHILD
sys.exit(main())
"""


def test_p22_a_signal_while_the_clip_is_verified_publishes_nothing(wan: WanMachine) -> None:
    wan.script({})
    gate = wan.checkout / "fake_state" / "gate"
    gate.parent.mkdir()
    os.mkfifo(gate)
    held = os.open(gate, os.O_RDWR)
    process = wan.start("--json", program=_VERIFIES_BEHIND_A_GATE.format(gate=str(gate)))
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get("name") == "verifying":
            break
    process.send_signal(signal.SIGINT)
    os.write(held, b"x")
    done = wan.finish(process)
    os.close(held)
    assert (done.status, done.manifest.state) == (130, "cancelled")
    assert not wan.output.exists()
    assert len(launches(wan.checkout)) == 1
    wan.check()


class Terminal:
    """The other end of a terminal. It takes all that is shown: a program whose terminal is full stands still."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._thread.start()

    def _show(self) -> None:
        with contextlib.suppress(OSError):  # nobody has its other end any more
            while not self._closing.is_set():
                if select.select([self._master], [], [], 0.02)[0]:
                    os.read(self._master, 65536)

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        os.close(self._master)


def on_a_terminal(wan: WanMachine) -> tuple[subprocess.Popen[bytes], Terminal]:
    """`reel generate` as a shell starts it: the foreground job of its own terminal."""
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "reelwright", "generate", str(wan.photo), "a cat", "-o", str(wan.output)]
    argv += ["--config", str(wan.config_file()), "--frames", "5", "--steps", "3"]
    env = {**os.environ, **wan.environ, "TERM": "xterm"}
    start = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", start, *argv],
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=env,
    )  # fmt: skip
    os.close(slave)
    return process, Terminal(master)


def test_p22_ctrl_c_on_a_terminal_reaches_the_whole_group_and_ends_cleanly(wan: WanMachine) -> None:
    wan.script({"hang_at": "step 2"})
    process, terminal = on_a_terminal(wan)
    eventually(lambda: reached(wan.checkout, "hang"), what="the hang")
    terminal.type(b"\x03")
    assert process.wait(60) == 130
    terminal.close()
    assert wan.record().state == "cancelled"
    wan.check()


def test_p22_a_closed_terminal_ends_the_run_although_nothing_can_be_said_any_more(wan: WanMachine) -> None:
    wan.script({"hang_at": "step 2"})
    process, terminal = on_a_terminal(wan)
    eventually(lambda: reached(wan.checkout, "hang"), what="the hang")
    terminal.close()
    assert process.wait(60) == 129
    assert wan.record().state == "cancelled"
    wan.check()


def test_p22_under_nohup_a_closed_terminal_ends_nothing(wan: WanMachine) -> None:
    wan.script({"load_s": 0.4})
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited, as nohup does it
    try:
        process = wan.start()
    finally:
        signal.signal(signal.SIGHUP, before)
    eventually(lambda: reached(wan.checkout, "start"), what="the start")
    process.send_signal(signal.SIGHUP)
    assert wan.finish(process).status == 0
    wan.check()


def test_p22_a_stop_that_comes_while_publishing_is_too_late_and_the_clip_is_complete(wan: WanMachine) -> None:
    cancellation = Cancellation()

    def stop(event: Event) -> None:
        if event == Phase("publishing"):
            cancellation.request()

    outcome = wan.run({}, on=stop, cancellation=cancellation)
    assert outcome.code == "ok"
    wan.check()


def test_p22_a_stop_before_the_start_touches_no_gpu(wan: WanMachine) -> None:
    cancellation = Cancellation()
    cancellation.request(signal.SIGTERM)
    outcome = wan.run({}, cancellation=cancellation)
    assert isinstance(outcome.error, Cancelled)
    assert outcome.error.exit_status == 143
    assert launches(wan.checkout) == []
    wan.check()


def test_p22_ctrl_c_in_a_program_that_calls_us_ends_everything_too(wan: WanMachine) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        wan.run({"hang_at": "step 2"}, on=at_step(1, interrupt))
    assert isinstance(caught.value, Interrupted)
    assert not isinstance(caught.value, Exception)
    assert caught.value.cancelled.exit_status == 130
    assert wan.record().state == "cancelled"
    wan.check()


def test_p22_a_callers_own_mistake_in_its_callback_leaves_nothing_running(wan: WanMachine) -> None:
    with pytest.raises(ZeroDivisionError):
        wan.run({"hang_at": "step 2"}, on=at_step(1, lambda: 1 / 0))
    assert Path(f"/proc/{launches(wan.checkout)[0]['pid']}").exists() is False
    assert wan.record().state == "failed"
    wan.check()
