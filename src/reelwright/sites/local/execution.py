"""Carrying out a plan once: one contract, one event stream, whatever runs (a framework's process or our engine).

``run`` blocks until nothing of the attempt is left (no process, no open file), whether it ended by itself, was
cancelled or was killed for a limit. It raises only for what is our own fault; everything the generator did is in
the returned `policy.Evidence`. Calling ``run`` twice with the same folder is an error of the caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from ...core.events import Event, Phase, Progress, ReportLost
from ...core.plan import Plan
from ...policy import Evidence
from ..cancellation import Cancellation

Emit = Callable[[Event], None]
Heard = TypeVar("Heard")


class Reports(Generic[Heard]):
    """Passes events on to a listener, until it raises `ReportLost`: what is reported never changes a run.

    Attributes:
        lost: Why nobody hears the events any more; empty as long as somebody does.
    """

    def __init__(self, emit: Callable[[Heard], None]) -> None:
        self._emit = emit
        self.lost = ""

    def __call__(self, event: Heard) -> None:
        """Pass an event on. Whatever else the listener raises goes to the caller."""
        if self.lost:
            return
        try:
            self._emit(event)
        except ReportLost as lost:
            self.lost = str(lost)


@dataclass(frozen=True)
class AttemptFiles:
    """Where one attempt may write, all inside the run's private folder.

    ``video`` does not exist yet; ``folder`` does. ``log`` is bounded to ``log_limit_bytes``.
    """

    folder: Path
    video: Path
    log: Path
    log_limit_bytes: int = 64 * 1024 * 1024
    run_id: str = ""
    lease_fds: tuple[int, ...] = ()


@dataclass
class PhaseClock:
    """Follows the events of one attempt: the phase and step it is in, and the seconds each phase took."""

    emit: Emit
    phase: str = "starting"
    step: int = 0
    total: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=time.monotonic)

    def __call__(self, event: Event) -> None:
        """Take note of an event and pass it on."""
        if isinstance(event, Phase) and event.name != self.phase:
            self.stop()
            self.phase = event.name
        elif isinstance(event, Progress):
            self.step, self.total = event.step, event.total
        self.emit(event)

    def stop(self) -> dict[str, float]:
        """Close the running phase; returns all durations."""
        now = time.monotonic()
        self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self._since
        self._since = now
        return self.seconds


class Executor(Protocol):
    """Runs a plan once."""

    def run(self, plan: Plan, files: AttemptFiles, emit: Emit, cancellation: Cancellation) -> Evidence:
        """Carry out ``plan``; see the module for what is guaranteed at the return."""
        ...
