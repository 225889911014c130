"""Starts a process that holds an engine, and keeps the runner's end of its channel.

The process runs under the shim like a framework's script. `workers` decides which run uses it when, and
`worker_session` exchanges messages with it.

    >>> worker = start_worker(program, work)  # doctest: +SKIP
    >>> worker.channel.send(request)  # doctest: +SKIP
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...core.line_channel import LineChannel, Received, channel_to_child
from ...core.plan import Command
from .child import Child, ChildProgram, make_sure, program_of, start
from .execution import LocalWork


class Worker:
    """A process that holds an engine.

    Attributes:
        inbox: Messages that no session has read yet; messages after an answer belong to the next request.
        model: The model that it has loaded.
        greeted: Whether its `core.events.Hello` was accepted.
    """

    def __init__(self, child: Child, channel: LineChannel, program: ChildProgram) -> None:
        self.child, self.channel, self.program = child, channel, program
        self.inbox: deque[Received] = deque()
        self.model: Mapping[str, Any] | None = None
        self.greeted = False
        self.versions: Mapping[str, str] = {}
        self.closed = False

    @property
    def alive(self) -> bool:
        """Whether the process and its shim still run."""
        self.child.read_status()
        return not self.child.over

    def runs(self, command: Command, environ: Mapping[str, str]) -> bool:
        """Whether this is the program that the command starts in this environment."""
        return self.program == program_of(command, environ)

    def receive(self) -> None:
        """Move the messages that it has sent into the inbox."""
        received = self.channel.receive()
        self.closed = received is None
        self.inbox += received or ()

    def end(self, grace_s: float = 10.0) -> None:
        """End it, with all of its processes, memory and leases."""
        make_sure(self.child, grace_s)
        self.child.close()
        self.channel.close_sending()
        self.channel.close_receiving()


def start_worker(program: ChildProgram, work: LocalWork) -> Worker:
    """Start a worker; its last two arguments are the descriptors of its channel. Raises OSError."""
    with channel_to_child() as (channel, fds):
        started = replace(program, argv=(*program.argv, *map(str, fds)))
        child = start(started, work, pass_fds=fds)
    channel.set_nonblocking()
    return Worker(child, channel, program)
