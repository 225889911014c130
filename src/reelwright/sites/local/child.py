"""Starts a program under the shim, asks it to end, and makes sure that it has ended, for `process` and `worker`.

It does not watch the program while it runs (`attempt_monitor`), and does not handle dead runners (`dead_runs`).

    >>> child = start(program_of(command, work.environ), work)  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.host import passed_through
from ...core.line_channel import LineBuffer, open_pipe
from ...core.plan import Command
from ...launchers import shim
from ...media.child_starts import starting
from .dead_runs import end_marked, run_mark
from .execution import LocalWork

CHUNK = 256 * 1024
#: Seconds that the shim may take beyond the grace to end everything.
SHIM_MARGIN_S = 15.0
_COLLECT_S = 2.0


@dataclass
class Child:
    """The running shim and the runner's ends of its pipes.

    Attributes:
        pid: The program's process, once it has started.
        ended: The shim's last event: how the program ended, or why it could not start.
        over: Whether the program has ended or the shim was killed, so that no more events come.
    """

    process: subprocess.Popen[bytes]
    mark: str
    control: int
    status: int
    log: int
    pid: int | None = None
    ended: dict[str, Any] | None = None
    over: bool = False
    _lines: LineBuffer = field(default_factory=LineBuffer)
    _fds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._fds = (self.control, self.status, self.log)

    def ask(self, command: bytes) -> None:
        """Send the shim a command: ``T`` for TERM, the grace, then KILL; ``K`` for KILL at once."""
        with contextlib.suppress(OSError):
            os.write(self.control, command)

    def close(self) -> None:
        """Close the pipes; a second call does nothing. The shim treats the end of its control pipe as ``T``."""
        fds, self._fds = self._fds, ()
        for fd in fds:
            os.close(fd)

    def read_status(self) -> None:
        """Read the events that the shim has written."""
        while not self.over:
            try:
                data = os.read(self.status, 65536)
            except BlockingIOError:
                return
            self.over = not data
            for event in map(json.loads, self._lines.feed(data)):
                if event["event"] == "started":
                    self.pid = event["pid"]
                else:
                    self.ended, self.over = event, True


@dataclass(frozen=True)
class ChildProgram:
    """The arguments, folder and variables with which a program is started."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]


def program_of(command: Command, environ: Mapping[str, str]) -> ChildProgram:
    """The program that a command starts: its variables replace the allowed ones of the runner's environment."""
    return ChildProgram(command.argv, command.cwd, {**passed_through(environ, command.env_names), **command.env})


def start(program: ChildProgram, work: LocalWork, grace_s: float = 10.0, *, pass_fds: tuple[int, ...] = ()) -> Child:
    """Start the shim, which starts the program and passes it the descriptors ``pass_fds``.

    Raises:
        OSError: the shim cannot be started. If the program cannot be started, `Child.ended` says why.
    """
    mark = run_mark(work.run_id, work.environ)
    spec = {
        "argv": list(program.argv),
        "cwd": str(program.cwd),
        "env": {**program.env, shim.MARK: mark},
        "mark": mark,
        "grace_s": grace_s,
        "pass_fds": list(pass_fds),
    }
    with contextlib.ExitStack() as undo:  # if anything fails here, the end of the control pipe ends the shim
        control_read, control = open_pipe(undo)
        status, status_write = open_pipe(undo)
        log, log_write = open_pipe(undo)
        keep = [str(fd) for fd in work.lease_fds]
        with starting():
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", shim.__file__, str(control_read), str(status_write), *keep],
                stdin=subprocess.PIPE,
                stdout=log_write,
                stderr=log_write,
                pass_fds=(control_read, status_write, *work.lease_fds, *pass_fds),
                env={},
            )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the shim died at once; the end of its status pipe says so
            process.stdin.write(json.dumps(spec).encode("utf-8", "surrogateescape"))
            process.stdin.close()
        os.set_blocking(log, False)
        os.set_blocking(status, False)
        undo.pop_all()
    for fd in (control_read, status_write, log_write):
        os.close(fd)
    return Child(process, mark, control, status, log)


def make_sure(child: Child, grace_s: float) -> None:
    """End every remaining process, even if the shim was killed or an exception is being raised."""
    if child.process.poll() is None and child.ended is None:
        child.ask(b"T")
        deadline = time.monotonic() + grace_s + SHIM_MARGIN_S
        while not child.over and time.monotonic() < deadline:
            select.select([child.status], [], [], 0.2)
            child.read_status()
            with contextlib.suppress(OSError):
                os.read(child.log, CHUNK)
    unkillable = (child.ended or {}).get("unkillable")
    if unkillable:  # the shim stays and holds the lease; a thread collects it when it ends
        threading.Thread(target=child.process.wait, name="stuck shim", daemon=True).start()
        return
    if child.ended is None:
        child.process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.process.wait(SHIM_MARGIN_S)
    if child.ended is None:
        end_marked(child.mark)
    if child.pid is not None:
        _collect(child.pid)


def _collect(pid: int) -> None:
    """Collect the program's exit status if the killed shim could not: otherwise the program stays a zombie."""
    deadline = time.monotonic() + _COLLECT_S
    with contextlib.suppress(ChildProcessError):  # usual: it is not this process's child
        while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.01)


class _Subreaping:
    """The number of runs that need this process to be a subreaper, and whether it was one before."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.runs = 0
        self.before = False


_subreaping = _Subreaping()


@contextlib.contextmanager
def subreaping() -> Iterator[None]:
    """Make this process the parent of orphans among its descendants inside ``with``; concurrent runs share it."""
    with _subreaping.lock:
        _subreaping.runs += 1
        if _subreaping.runs == 1:
            _subreaping.before = shim.become_subreaper()
    try:
        yield
    finally:
        with _subreaping.lock:
            _subreaping.runs -= 1
            if _subreaping.runs == 0:
                shim.become_subreaper(_subreaping.before)
