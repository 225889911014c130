"""A command under the shim, as it is started, measured and surely ended: what `process` and `worker` share.

Not for watching it while it runs (`watch`, `worker`), and not for what dead runners left (`dead_runs`).

    >>> child = start(Start(command.argv, command.cwd, env, files))  # doctest: +SKIP
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
from ...core.plan import Command
from ...launchers import shim
from .dead_runs import end_marked, run_mark
from .execution import AttemptFiles
from .monitor import Sampler
from .probes.gpus import GpuWatch

CHUNK = 256 * 1024
#: How long the shim may take beyond the grace to end everything.
SHIM_MARGIN_S = 15.0
_COLLECT_S = 2.0


@dataclass
class Child:
    """The running shim and the runner's ends of its pipes."""

    process: subprocess.Popen[bytes]
    mark: str
    control: int
    status: int
    log: int
    pid: int | None = None
    told: bytes = b""
    ended: dict[str, Any] | None = None
    fds: list[int] = field(default_factory=list)

    def ask(self, what: bytes) -> None:
        """``T``: TERM, grace, KILL; ``K``: KILL at once."""
        with contextlib.suppress(OSError):
            os.write(self.control, what)

    def close(self) -> None:
        """Give the pipes back; the shim takes the end of its control pipe for ``T``."""
        for fd in self.fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.fds = []

    def read_status(self) -> bool:
        """Take what the shim says; false once it is gone."""
        while True:
            try:
                data = os.read(self.status, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            *lines, self.told = (self.told + data).split(b"\n")
            for line in lines:
                event = json.loads(line)
                if event["event"] == "started":
                    self.pid = event["pid"]
                else:
                    self.ended = event
                    return True


@dataclass(frozen=True)
class Start:
    """What is started: a command with all that it sees.

    ``pass_fds`` are descriptors that the command gets; the caller closes its own copies of them.
    """

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    files: AttemptFiles
    grace_s: float = 10.0
    pass_fds: tuple[int, ...] = ()


def environment(command: Command, environ: Mapping[str, str]) -> dict[str, str]:
    """What the command sees: its own variables over the allowed ones of the runner's environment."""
    return {**passed_through(environ, command.env_names), **command.env}


def start(what: Start) -> Child:
    """Start the shim, which starts the command.

    Raises:
        OSError: the shim cannot be started; a command that cannot is told by its status.
    """
    files, mark = what.files, run_mark(what.files.run_id)
    spec = {
        "argv": list(what.argv),
        "cwd": str(what.cwd),
        "env": {**what.env, shim.MARK: mark},
        "mark": mark,
        "grace_s": what.grace_s,
        "pass_fds": list(what.pass_fds),
    }
    with contextlib.ExitStack() as undo:  # whatever happens here: the end of the control pipe ends the shim
        control_read, control = _pipe(undo)
        status, status_write = _pipe(undo)
        log, log_write = _pipe(undo)
        keep = [str(fd) for fd in files.lease_fds]
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", shim.__file__, str(control_read), str(status_write), *keep],
            stdin=subprocess.PIPE,
            stdout=log_write,
            stderr=log_write,
            pass_fds=(control_read, status_write, *files.lease_fds, *what.pass_fds),
            env={},
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the shim died at once; its status pipe tells
            process.stdin.write(json.dumps(spec).encode("utf-8", "surrogateescape"))
            process.stdin.close()
        os.set_blocking(log, False)
        os.set_blocking(status, False)
        undo.pop_all()
    for fd in (control_read, status_write, log_write):
        os.close(fd)
    return Child(process, mark, control, status, log, fds=[control, status, log])


def _pipe(undo: contextlib.ExitStack) -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC)
    undo.callback(os.close, read)
    undo.callback(os.close, write)
    return read, write


@contextlib.contextmanager
def sampled(child: Child, environ: Mapping[str, str], *, gpus: bool) -> Iterator[Sampler]:
    """Measure the tree, and the GPUs if there are any."""
    with contextlib.ExitStack() as stack:
        read: Any = lambda: None  # noqa: E731 -- the sampler's own way to say that there are none
        if gpus:
            watch = GpuWatch(environ)
            stack.callback(watch.close)
            read = watch.read
        with Sampler(root_pid=lambda: child.pid, read_gpus=read) as sampler:
            yield sampler


def make_sure(child: Child, grace_s: float) -> None:
    """Nothing is left when this returns, also when the shim was killed or an exception passes through."""
    if child.process.poll() is None and child.ended is None:
        child.ask(b"T")
        deadline = time.monotonic() + grace_s + SHIM_MARGIN_S
        while child.ended is None and time.monotonic() < deadline and child.read_status():
            select.select([child.status], [], [], 0.2)
            with contextlib.suppress(OSError):
                os.read(child.log, CHUNK)
    unkillable = (child.ended or {}).get("unkillable")
    if unkillable:  # the shim stays and holds the lease; it is collected whenever it ends
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
    """Take the command's end, if the shim that was killed could not: else it stays a zombie of ours."""
    deadline = time.monotonic() + _COLLECT_S
    with contextlib.suppress(ChildProcessError):  # not ours, as it should be
        while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.01)


class _Subreaping:
    """How many runs of this process need it to be a subreaper, and what it was before the first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.runs = 0
        self.before = False


_subreaping = _Subreaping()


@contextlib.contextmanager
def subreaping() -> Iterator[None]:
    """Orphans among our descendants become our children meanwhile; runs side by side share it."""
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
