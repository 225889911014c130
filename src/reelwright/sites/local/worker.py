"""A process that holds an engine, and our ends of its two pipes; lines of `core.events` go both ways.

Started under the shim like any framework's process. Who may use it when is for `workers`, what is said for `talk`, and
what comes of it for `resident`.

    >>> worker = start_worker(program, files)  # doctest: +SKIP
    >>> worker.tell(request)  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.events import Message, decode, encode
from ...core.plan import Command
from .child import CHUNK, Child, Start, environment, make_sure, start
from .execution import AttemptFiles

_MAX_LINE_BYTES = 4 * 1024 * 1024

#: What a worker is: its words, folder and variables. Another program is another worker.
Program = tuple[tuple[str, ...], str, tuple[tuple[str, str], ...]]


def program_of(command: Command, environ: Mapping[str, str]) -> Program:
    """The program that a command starts under the runner's environment."""
    return command.argv, str(command.cwd), tuple(sorted(environment(command, environ).items()))


class Worker:
    """A process that holds an engine, and our ends of its pipes."""

    def __init__(self, child: Child, requests: int, answers: int, program: Program) -> None:
        self.child = child
        self.answers = answers
        self.program = program
        self.model: Mapping[str, Any] | None = None
        self.greeted = False
        self.versions: Mapping[str, str] = {}
        self._requests = requests
        self._unsent = self._rest = b""
        self._messages: list[Message] = []

    @property
    def alive(self) -> bool:
        """Whether it and its shim still run."""
        return self.child.read_status() and self.child.ended is None

    def tell(self, request: Message) -> None:
        """Send a request, as much of it as the pipe takes now; `flush` sends the rest. Never blocks."""
        self._unsent += (encode(request) + "\n").encode("ascii")
        self.flush()

    def flush(self) -> None:
        """Send more of it; that nobody reads it is seen by the end of the process."""
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._requests, self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self._unsent = b""

    @property
    def full(self) -> tuple[int, ...]:
        """The pipe of requests, if there is more to send than it takes."""
        return (self._requests,) if self._unsent else ()

    def receive(self) -> bool:
        """Take what it said; false at the end of its pipe.

        Raises:
            ValueError: what it said is no message of this version.
        """
        try:
            data = os.read(self.answers, CHUNK)
        except BlockingIOError:
            return True
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MAX_LINE_BYTES:
            raise ValueError(f"a line of more than {_MAX_LINE_BYTES:,} bytes")
        self._messages += [decode(line.decode("utf-8", "replace")) for line in lines]
        return bool(data)

    def said(self) -> list[Message]:
        """The messages that were not looked at yet."""
        messages, self._messages = self._messages, []
        return messages

    def put_back(self, messages: list[Message]) -> None:
        """What came after an answer belongs to the next request."""
        self._messages = messages + self._messages

    def end(self, grace_s: float = 10.0) -> None:
        """End it; no process, memory or lease of it is left at the return."""
        make_sure(self.child, grace_s)
        self.child.close()
        for fd in (self._requests, self.answers):
            with contextlib.suppress(OSError):
                os.close(fd)


def start_worker(program: Program, files: AttemptFiles) -> Worker:
    """A new worker with its two pipes; raises OSError."""
    words, cwd, variables = program
    with contextlib.ExitStack() as undo:
        theirs_in, requests = _pipe(undo)
        answers, theirs_out = _pipe(undo)
        argv = (*words, str(theirs_in), str(theirs_out))
        child = start(Start(argv, Path(cwd), dict(variables), files, pass_fds=(theirs_in, theirs_out)))
        undo.pop_all()
    os.close(theirs_in)
    os.close(theirs_out)
    for fd in (answers, requests):
        os.set_blocking(fd, False)
    return Worker(child, requests, answers, program)


def _pipe(undo: contextlib.ExitStack) -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC)
    undo.callback(os.close, read)
    undo.callback(os.close, write)
    return read, write
