"""The machine with a stand-in Wan2.1 serves here as well; and a shim with the runner's ends of its pipes."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reelwright.launchers import shim
from tests.wan21.conftest import wan, wan_parts

__all__ = ["wan", "wan_parts"]

#: What every command below can say and do.
PRELUDE = """
import os, signal, sys
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def wait():
    while True: signal.pause()
def deaf(): signal.signal(signal.SIGTERM, signal.SIG_IGN)
def another(session=True, stubborn=False):
    ready, started = os.pipe()
    pid = os.fork()
    if pid == 0:
        if session: os.setsid()
        if stubborn: deaf()
        os.write(started, b"x")
        wait()
    os.read(ready, 1)
    return pid
"""


@dataclass
class Running:
    """A shim, and the runner's ends of its pipes."""

    process: subprocess.Popen[bytes]
    mark: str
    control: int
    status: int
    log: int
    rest: dict[int, bytes] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)

    def line(self, fd: int) -> str:
        """The next line of the log or of its status; empty at the end."""
        deadline = time.monotonic() + 60
        while b"\n" not in self.rest.setdefault(fd, b""):
            ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"nothing within 60 s after {self.rest[fd]!r}"
            data = os.read(fd, 65536)
            if not data:
                break
            self.rest[fd] += data
        head, _, self.rest[fd] = self.rest[fd].partition(b"\n")
        return head.decode()

    def word(self) -> list[str]:
        """The next line of the command's log, in words."""
        return self.line(self.log).split()

    def event(self) -> dict[str, Any]:
        """The next event of the shim."""
        return dict(json.loads(self.line(self.status)))

    def ended(self) -> dict[str, Any]:
        """The end of the command; after it the shim goes too."""
        event = self.event()
        assert event.pop("event") == "exited", event
        assert self.line(self.status) == ""
        assert self.process.wait(60) == 0
        return event

    def ask(self, what: bytes) -> None:
        """``T`` or ``K``; the end of file for nothing."""
        if what:
            os.write(self.control, what)
        else:
            self.close(self.control)

    def close(self, *fds: int) -> None:
        """As if the runner were gone."""
        for fd in set(fds) - self.closed:
            os.close(fd)
        self.closed |= set(fds)


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a shim as the runner does; whatever it leaves is ended after the test."""
    running: list[Running] = []

    def begin(code: str, *, grace_s: float = 60.0, keep: tuple[int, ...] = (), env: Any = None, **spec: Any) -> Running:
        mark = f"test-{os.getpid()}-{len(running)}:{os.getpid()}:{shim.start_time(os.getpid())}"
        environ = {**({"PATH": os.environ["PATH"]} if env is None else env), shim.MARK: mark}
        whole = {
            "argv": [sys.executable, "-I", "-S", "-c", PRELUDE + code],
            "cwd": str(tmp_path), "env": environ, "mark": mark, "grace_s": grace_s, **spec,
        }  # fmt: skip
        (control_read, control), (status, status_write), (log, log_write) = (os.pipe() for _ in range(3))
        argv = [sys.executable, "-I", "-S", shim.__file__, *map(str, (control_read, status_write, *keep))]
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=log_write, stderr=log_write, env={},
            pass_fds=(control_read, status_write, *keep),
        )  # fmt: skip
        for fd in (control_read, status_write, log_write):
            os.close(fd)
        assert process.stdin is not None
        process.stdin.write(json.dumps(whole).encode())
        process.stdin.close()
        running.append(Running(process, mark, control, status, log))
        return running[-1]

    yield begin
    for one in running:
        one.process.kill()
        one.process.wait()
        assert shim.Tree(-1, one.mark).end(0.0) == []
        one.close(one.control, one.status, one.log)
