"""Runs a short program with a deadline and bounded output, without waiting for the program's children.

Probes use it to ask an interpreter, Git or the driver. A framework's script runs under the shim instead (`process`).

    >>> run_bounded(["/bin/echo", "hello"], deadline_s=30, env={}).output
    b'hello\\n'
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...media.child_starts import starting

_MAX_OUTPUT_BYTES = 1 << 20
_MAX_ERROR_BYTES = 64 << 20
_KEPT_ERROR_BYTES = 4096
_KILL_WAIT_S = 1.0


@dataclass(frozen=True)
class BoundedRun:
    """The end of a program.

    Attributes:
        status: Its exit status, negative for a signal; ``None`` if it could not be killed in time.
        output: Its standard output.
        errors: The end of its standard error.
        given_up: Why it was killed; empty if it was not.
    """

    status: int | None
    output: bytes = b""
    errors: bytes = b""
    given_up: str = ""

    @property
    def ending(self) -> str:
        """A description of the end."""
        if self.given_up:
            return self.given_up
        if self.status is not None and self.status < 0:
            return f"killed by {signal.Signals(-self.status).name}"
        return f"exit status {self.status}"

    @property
    def last_line(self) -> str:
        """The last line that it wrote to standard error."""
        return "".join(self.errors.decode("utf-8", "replace").strip().splitlines()[-1:])


def run_bounded(
    argv: Sequence[str], *, deadline_s: float, env: Mapping[str, str], cwd: Path | str | None = None
) -> BoundedRun:
    """Run a program until it ends, or reaches the deadline or the output limit; then kill its session.

    A process in a hung driver call does not die: Reelwright stops waiting for it after a second.

    Raises:
        OSError: the program cannot be started.
    """
    with starting():
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
        )
    written = _Output(process)
    try:
        given_up = _read(process, written, time.monotonic() + deadline_s)
    finally:
        end_session(process)
    return BoundedRun(process.returncode, written.output, written.errors, given_up)


class _Output:
    """The output of a program, and the end of its errors."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.fds = (process.stdout.fileno(), process.stderr.fileno())
        self.output = self.errors = b""
        self._error_bytes = 0

    def read(self, fd: int) -> bool:
        """Read the next bytes of a descriptor; false at its end."""
        chunk = os.read(fd, 65536)
        if fd == self.fds[0]:
            self.output += chunk
        else:
            self.errors = (self.errors + chunk)[-_KEPT_ERROR_BYTES:]
            self._error_bytes += len(chunk)
        return bool(chunk)

    @property
    def endless(self) -> bool:
        """Whether the program has written more than an answer can be."""
        return len(self.output) > _MAX_OUTPUT_BYTES or self._error_bytes > _MAX_ERROR_BYTES


def _read(process: subprocess.Popen[bytes], written: _Output, deadline: float) -> str:
    """Read until the program ends; returns why it must be killed, or an empty string.

    It does not wait for a background process that keeps a pipe open.
    """
    ended = os.pidfd_open(process.pid)
    with contextlib.closing(os.fdopen(ended, "rb", buffering=0)), selectors.DefaultSelector() as selector:
        for fd in (*written.fds, ended):
            selector.register(fd, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select(max(0.0, deadline - time.monotonic()))}
            if ready == {ended}:
                return ""
            if not ready or time.monotonic() > deadline:
                return "no answer in time"
            for fd in ready - {ended}:
                if not written.read(fd):
                    selector.unregister(fd)
            if written.endless:
                return "endless output"


def end_session(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its session, wait up to a second for it, and close its pipes."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_KILL_WAIT_S)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
