"""Defines the values that the three ways to run a plan share: `process`, `inline` and `engine_attempt`.

Each returns when no process and no open file of the attempt remains, whether the attempt finished, was cancelled or
was killed at a limit. It raises only for a bug in Reelwright; the returned `policy.Evidence` holds everything that the
generator did. Running twice with the same folder is the caller's error.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ...core.errors import Cancelled, VideoGenerationError
from ...core.events import Event, Phase, Progress, ReportLost
from ...core.plan import Command
from ...policy import Evidence, KillReason
from .. import Emit, Work
from ..cancellation import Cancellation
from .probes.memory import oom_kills

Report = TypeVar("Report")


class Reports(Generic[Report]):
    """Passes events on to a listener until it raises `ReportLost`: a lost listener never changes a run.

    Attributes:
        lost: Why the listener gets no more events; empty while it gets them.
    """

    def __init__(self, emit: Callable[[Report], None]) -> None:
        self._emit = emit
        self.lost = ""

    def __call__(self, event: Report) -> None:
        """Pass an event on. Any other exception of the listener reaches the caller."""
        if self.lost:
            return
        try:
            self._emit(event)
        except ReportLost as lost:
            self.lost = str(lost)


def ending(error: VideoGenerationError | None, kill_reason: KillReason | None = None) -> dict[str, Any]:
    """How an engine's attempt ended, as values of `Evidence`: with its error, or well."""
    return {
        "exit_status": error.exit_status if error else 0,
        "error": error,
        "kill_reason": "cancelled" if isinstance(error, Cancelled) else kill_reason,
    }


@dataclass(frozen=True)
class LocalWork(Work):
    """The work of one attempt on this machine.

    Attributes:
        run_id: The run's name, which is a part of the mark of its processes.
        lease_fds: Descriptors of the GPU locks, which the shim holds.
        environ: The environment whose allowed variables are passed on.
    """

    run_id: str = ""
    lease_fds: tuple[int, ...] = ()
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)


@dataclass
class PhaseClock:
    """Follows the events of one attempt: its phase and step, and the seconds that each phase took."""

    emit: Emit
    phase: str = "starting"
    step: int = 0
    total: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=time.monotonic)

    def __call__(self, event: Event) -> None:
        """Note an event and pass it on."""
        if isinstance(event, Phase) and event.name != self.phase:
            self.stop()
            self.phase = event.name
        elif isinstance(event, Progress):
            self.step, self.total = event.step, event.total
        self.emit(event)

    def stop(self) -> dict[str, float]:
        """End the current phase; returns the seconds of all phases."""
        now = time.monotonic()
        self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self._since
        self._since = now
        return self.seconds


@dataclass(frozen=True)
class RunningAttempt:
    """One attempt in a separate process; made before the process starts."""

    command: Command
    work: LocalWork
    phases: PhaseClock
    cancellation: Cancellation
    started_s: float = field(default_factory=time.monotonic)
    kills_before: int | None = field(default_factory=oom_kills)

    @property
    def wall_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started_s

    def not_started(self, error: int | None) -> Evidence:
        """The evidence for a program that the system did not start, with the errno."""
        return Evidence(start_errno=error, phase_seconds=self.phases.stop())
