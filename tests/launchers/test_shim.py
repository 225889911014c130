"""launchers/shim.py as a process: its events, what it ends and how, and what the command gets from it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from reelwright.launchers import shim
from tests.conftest import eventually, is_running, patiently
from tests.launchers.conftest import Start


def state(pid: int | str) -> str:
    """Its letter in /proc; ``X`` when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


# ------------------------------------------------------------------------------------------------- its events


def test_it_tells_the_start_and_the_end_of_a_command(start: Start) -> None:
    one = start("say(os.getpid()); sys.stdin.read(); sys.exit(7)")
    begun = one.event()
    assert one.word() == [str(begun["pid"])]
    assert begun["start_time"] > 0
    assert one.ended() == {"status": 7, "signal": None, "leftovers": 0, "unkillable": []}


def test_it_tells_the_signal_that_ended_a_command(start: Start) -> None:
    one = start("os.kill(os.getpid(), signal.SIGSEGV)")
    one.event()
    end = one.ended()
    assert (end["status"], end["signal"]) == (None, signal.SIGSEGV)


def test_p27_it_tells_why_a_command_cannot_be_started(start: Start, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    causes: dict[int, dict[str, Any]] = {
        errno.ENOENT: {"argv": [str(tmp_path / "missing")]},
        errno.EACCES: {"argv": [str(plain)]},
        errno.E2BIG: {"argv": ["true", "x" * 200_000]},
        errno.ENOTDIR: {"cwd": str(plain)},
    }
    for number, spec in causes.items():
        one = start("", **spec)
        assert one.event() == {"event": "failed", "errno": number}
        assert one.process.wait(60) == 0


def test_the_log_is_the_commands_alone(start: Start) -> None:
    """Else the runner would never see the end of it, or would read our words as the framework's."""
    one = start("say('its own'); os.close(1); os.close(2); wait()")
    assert one.line(one.log) == "its own"
    assert one.line(one.log) == ""
    assert is_running(one.event()["pid"])


def test_nothing_of_the_command_is_on_the_shims_own_command_line(start: Start) -> None:
    one = start("say('up'); wait()", env={"SECRET": "canary"})
    one.word()
    assert "canary" not in Path(f"/proc/{one.process.pid}/cmdline").read_text()
    assert "canary" not in Path(f"/proc/{one.process.pid}/environ").read_text()
    one.ask(b"K")
    one.event()
    assert one.ended()["signal"] == 9


# -------------------------------------------------------------------------------------------- what the command gets


def test_the_command_gets_its_environment_folder_and_an_empty_input(start: Start, tmp_path: Path) -> None:
    code = (
        "say(os.getcwd()); say(*sorted(os.environ)); say(os.readlink('/proc/self/fd/0'), *os.listdir('/proc/self/fd'))"
    )
    one = start(code, env={"ONE": "1"})
    assert one.line(one.log) == str(tmp_path)
    assert {*one.word()} - {"LC_CTYPE"} == {"ONE", shim.MARK}
    assert one.word() == ["/dev/null", "0", "1", "2", "3"]  # the last is that of the listing itself


def test_a_lease_stays_held_until_all_is_over_and_the_command_does_not_have_it(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "lease"
    with path.open("w") as lease, path.open() as other:
        fcntl.flock(lease, fcntl.LOCK_EX)
        one = start(
            "say(*(os.path.realpath(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd'))); another(); wait()",
            keep=(lease.fileno(),),
        )
        lease.close()
        assert str(path) not in one.word()
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        one.ask(b"T")
        one.event()
        one.ended()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_command_ignores_and_blocks_none_of_the_usual_signals_whatever_the_runner_does(start: Start) -> None:
    """Python ignores SIGPIPE, nohup SIGHUP; a thread's own block would leave SIGKILL as the only way to end it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])
    try:
        one = start("", argv=["cat", "/proc/self/status"])
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGCHLD])
        signal.signal(signal.SIGHUP, before)
    said = iter(lambda: one.line(one.log).partition(":"), ("", "", ""))
    lines = {name: value for name, _, value in said}
    deadly = sum(1 << (number - 1) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM))
    assert (int(lines["SigIgn"], 16) & deadly, int(lines["SigBlk"], 16)) == (0, 0)
    one.event()
    assert one.ended()["status"] == 0


# ------------------------------------------------------------------------------------------------- how it is ended


@pytest.mark.parametrize("what", [b"T", b"K", b""], ids=["asked", "hurried", "runner gone"])
def test_the_whole_tree_is_ended(start: Start, what: bytes) -> None:
    one = start("say(another(), another(session=False), os.getpid()); wait()")
    pids = one.word()
    one.event()
    one.ask(what)
    assert one.ended()["signal"] == (9 if what == b"K" else 15)
    assert not any(map(is_running, pids))


def test_p19_it_ends_the_tree_although_nobody_listens_any_more(start: Start) -> None:
    one = start("say(another(), os.getpid()); wait()")
    pids = one.word()
    one.event()
    one.close(one.status, one.log, one.control)
    assert one.process.wait(60) == 0
    assert not any(map(is_running, pids))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_shim_itself_is_a_request_to_stop(start: Start, number: int) -> None:
    one = start("say(another(), os.getpid()); wait()")
    pids = one.word()
    one.event()
    one.process.send_signal(number)
    assert one.ended()["signal"] == signal.SIGTERM
    assert not any(map(is_running, pids))


def test_ctrl_c_in_the_runners_terminal_does_not_reach_shim_or_command(start: Start) -> None:
    one = start("say(os.getsid(0)); wait()")
    pid = one.event()["pid"]
    assert one.word() == [str(pid)]
    assert os.getsid(one.process.pid) == one.process.pid != os.getsid(0)


def test_a_command_may_tidy_up_when_asked_and_its_own_status_is_told(start: Start) -> None:
    one = start("signal.signal(signal.SIGTERM, lambda *_: (say('tidied'), os._exit(5))); say('up'); wait()")
    one.word()
    one.event()
    one.ask(b"T")
    assert one.word() == ["tidied"]
    assert one.ended()["status"] == 5


def test_what_does_not_listen_is_asked_once_and_killed_after_the_grace(start: Start) -> None:
    def ended_after(grace_s: float) -> tuple[list[str], list[str]]:
        one = start("signal.signal(signal.SIGTERM, lambda *_: say('heard')); say('up'); wait()", grace_s=grace_s)
        one.word()
        one.event()
        began = time.monotonic()
        one.ask(b"T")
        assert one.ended()["signal"] == 9
        assert time.monotonic() - began >= grace_s
        return one.word(), one.word()

    assert patiently(ended_after, lambda said: said[0], (0.3, 3.0, 30.0)) == (["heard"], [])


def test_p22_a_second_request_kills_at_once(start: Start) -> None:
    one = start("signal.signal(signal.SIGTERM, lambda *_: say('heard')); say('up'); wait()")
    one.word()
    one.event()
    one.ask(b"T")
    assert one.word() == ["heard"]
    one.ask(b"K")
    assert one.ended()["signal"] == 9


def test_p23_a_stopped_process_is_woken_to_be_asked(start: Start) -> None:
    one = start("signal.signal(signal.SIGTERM, lambda *_: os._exit(5)); say('up'); wait()")
    one.word()
    pid = one.event()["pid"]
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: state(pid) == "T", what="the stop")
    one.ask(b"T")
    assert one.ended()["status"] == 5


# ------------------------------------------------------------------------------------------- who belongs to the tree


def test_p17_what_a_command_leaves_behind_is_counted_and_ended(start: Start) -> None:
    one = start("say(another(), another(stubborn=True), another(session=False))")
    pids = one.word()
    one.event()
    assert one.ended() == {"status": 0, "signal": None, "leftovers": 3, "unkillable": []}
    assert not any(map(is_running, pids))


def test_p17_a_daemon_without_our_mark_is_found_by_its_descent(start: Start) -> None:
    daemon = "if os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    os.execve('/bin/sleep', ['sleep', '600'], {})\n  os._exit(0)"
    one = start(f"{daemon}\nos.wait(); say('gone'); wait()")
    one.word()
    pid = one.event()["pid"]
    below = eventually(lambda: shim.descendants(one.process.pid).keys() - {pid}, what="the daemon below the shim")
    one.ask(b"T")
    one.ended()
    assert not any(map(is_running, below))


def test_what_is_started_while_the_tree_is_ended_is_ended_too(start: Start) -> None:
    code = "signal.signal(signal.SIGTERM, lambda *_: (say(another(stubborn=True)), os._exit(0))); say('up'); wait()"
    one = start(code)
    one.word()
    one.event()
    one.ask(b"T")
    (late,) = one.word()
    one.ask(b"K")
    one.ended()
    assert not is_running(late)


def test_p21_a_process_elsewhere_that_carries_the_mark_belongs_to_the_run(start: Start) -> None:
    one = start("say('up'); wait()")
    one.word()
    one.event()
    argv = ["/bin/sleep", "600"]
    ours = subprocess.Popen(argv, env={shim.MARK: one.mark})
    others = subprocess.Popen(argv, env={shim.MARK: one.mark + "0", "X": f"{shim.MARK}={one.mark}"})
    eventually(lambda: ours.pid in shim.marked(one.mark), what="the mark")
    one.ask(b"T")
    one.ended()
    assert ours.wait(60) == -15
    assert others.poll() is None
    others.kill()
    others.wait()


def test_a_pid_that_belongs_to_somebody_else_by_now_is_not_signalled() -> None:
    process = subprocess.Popen(["/bin/sleep", "600"])
    started = shim.start_time(process.pid)
    assert started is not None
    shim.send({process.pid: started - 1}, signal.SIGKILL)
    shim.send({process.pid: started}, signal.SIGTERM)
    assert process.wait(60) == -15
    assert shim.start_time(process.pid) is None


def test_a_zombie_counts_as_ended() -> None:
    process = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert process.pid not in shim.descendants(os.getpid())
    process.wait()


def test_the_status_of_a_command_is_known_also_to_a_shim_that_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shim, "_REAP_WAIT_S", 0.0)  # over before the first look
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    status = shim.Tree(-1, "").status_of(pid)
    assert status is not None
    assert os.waitstatus_to_exitcode(status) == 7
