"""Defines where a plan runs: the contract that every site fulfils.

`sites.local` is this machine. Another machine or a cluster is one more module with the same methods, and it must pass
``tests/sites/conformance.py``. A site answers questions about its hardware, reserves GPUs in the order of arrival,
runs a plan once, and ends everything that it started. It does not plan, retry, verify or publish.

    >>> with site.reserve(Claim("run-1")) as reservation:  # doctest: +SKIP
    ...     reservation.hold(plan, host, cancellation)
    ...     evidence = site.run(plan, reservation, work, emit, cancellation)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from ..config.settings import Settings
from ..core.events import Event, Log
from ..core.host import Host, HostQuery
from ..core.plan import Plan
from ..policy import Evidence
from .cancellation import Cancellation

#: Name of the lossless last frame, which is a file beside the clip.
LAST_FRAME = "last.png"

Emit = Callable[[Event], None]


def unreported(event: Event) -> None:
    """Drop an event: the default of a `report`."""


@dataclass(frozen=True)
class Place:
    """The indices of the GPUs on which one clip can run; empty for a clip on the CPU."""

    gpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class Claim:
    """The name of a run that reserves GPUs, and how long it waits for them.

    Attributes:
        run_id: The run's name, for others to read.
        wait_s: Seconds to wait for GPUs that another run holds.
        report: Receives messages for the user: which run this one waits for, what a dead run left behind.
    """

    run_id: str
    wait_s: float = 0.0
    report: Callable[[Log], None] = unreported


@dataclass(frozen=True)
class Work:
    """The paths and limits that one attempt gets in addition to its plan.

    Attributes:
        folder: The attempt's private folder, which exists.
        video: The path of the clip; the file does not exist yet.
        log: The path of the framework's output.
        log_limit_bytes: Size limit of the log, which keeps its beginning and its end.
        timeout_s: Wall-clock limit of the attempt; ``None``: no limit.
        stop_grace_s: Seconds between asking a process to end and killing it.
        tags: Metadata for a clip that Reelwright encodes.
    """

    folder: Path
    video: Path
    log: Path
    log_limit_bytes: int = 64 * 1024 * 1024
    timeout_s: float | None = None
    stop_grace_s: float = 10.0
    tags: Mapping[str, str] = field(default_factory=dict)


class Closing:
    """Something to close: leaving ``with`` calls `close`."""

    def close(self) -> None:
        """Give everything back; a second call does nothing."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class Reservation(Protocol):
    """The GPUs of one run; its attempts may need different ones. Leaving ``with`` gives them back."""

    def hold(self, plan: Plan, host: Host, cancellation: Cancellation, wait_s: float | None = None) -> None:
        """Hold the GPUs of this plan for the next attempt, and give back those that it does not need.

        Runs that wait are served in the order of arrival. ``wait_s`` replaces the claim's value for this call.

        Raises:
            BusyError: another run holds one of the GPUs for longer than this run waits.
            BackendUnavailableError: the site cannot reserve anything.
            Cancelled: a stop was requested while waiting.
        """
        ...

    def close(self) -> None:
        """Give everything back; a second call does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_error: object) -> None: ...


class Site(Protocol):
    """One place with GPUs. All methods may be called from several threads."""

    def look(self, query: HostQuery, settings: Settings, report: Callable[[Log], None] = unreported) -> Host:
        """The site's hardware, interpreters and weights. A value that the site could not read is ``None``.

        GPUs that its idle workers hold count as free. ``report`` receives the progress of long work, such as verifying
        weights.

        Raises:
            ConfigurationError: the simulated GPUs or memory of the settings cannot be read.
        """
        ...

    def busy_gpus(self) -> frozenset[str]:
        """UUIDs of the GPUs that other runs hold now."""
        ...

    def places(self, plans: Sequence[Plan], host: Host, settings: Settings) -> tuple[Place, ...]:
        """The places where clips with these plans can run side by side: at least one. A place may occur twice."""
        ...

    def reserve(self, claim: Claim) -> Reservation:
        """A reservation that does not hold any GPU yet."""
        ...

    def run(self, plan: Plan, reservation: Reservation, work: Work, emit: Emit, cancellation: Cancellation) -> Evidence:
        """Run ``plan`` once on the GPUs of ``reservation``; no process or open file of the attempt remains.

        A warm worker stays, and serves the next run. A requested stop ends the attempt; the evidence says so.
        Raises only for a fault in Reelwright itself: the evidence holds everything that the generator did.
        """
        ...

    def release_idle(self) -> None:
        """End the idle workers; runs in progress go on."""
        ...

    def close(self) -> None:
        """End every worker and give every GPU back; a second call does nothing."""
        ...
