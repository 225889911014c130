"""Where a plan runs: the contract that every site fulfils.

`sites.local` is this machine. Another machine or a cluster is one more module with the same methods, and
``tests/sites/conformance.py`` is what it has to pass. A site answers questions about its hardware, reserves GPUs in
the order of arrival, runs a plan once, and ends everything it started. It does not plan, retry, verify or publish.

    >>> with site.reserve(Claim("run-1")) as reservation:  # doctest: +SKIP
    ...     reservation.hold(plan, host, cancellation)
    ...     evidence = site.run(plan, reservation, work, emit, cancellation)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from ..config.settings import Settings
from ..core.events import Event, Log
from ..core.host import Host, HostQuery
from ..core.plan import Plan
from ..policy import Evidence
from .cancellation import Cancellation

#: The lossless last frame of a clip lies beside it under this name.
LAST_FRAME = "last.png"

Emit = Callable[[Event], None]


def unreported(event: Event) -> None:
    """The default of a `report`: nobody receives it."""


@dataclass(frozen=True)
class Place:
    """GPUs on which one clip can run, by index; none for what runs on the CPU."""

    gpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class Claim:
    """Who reserves, and for how long it waits.

    Attributes:
        run_id: The run's name, for others to read.
        wait_s: Seconds to wait for GPUs that another run holds.
        report: Receives what the user should know: whom the run waits for, what a dead run left behind.
    """

    run_id: str
    wait_s: float = 0.0
    report: Callable[[Log], None] = unreported


@dataclass(frozen=True)
class Work:
    """What one attempt gets beside its plan.

    Attributes:
        folder: Its private folder, which exists.
        video: Where the clip goes; nothing is there yet.
        log: Where the framework's output goes.
        log_limit_bytes: The log keeps its beginning and its end within this size.
        timeout_s: Limit of the whole attempt, wall clock; ``None``: no limit.
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


class Reservation(Protocol):
    """The GPUs of one run over its attempts, which may need different ones. Leaving ``with`` gives them back."""

    def hold(self, plan: Plan, host: Host, cancellation: Cancellation, wait_s: float | None = None) -> None:
        """Hold the GPUs of this plan for the next attempt, and give back those that it does not need.

        Those who wait are served in the order of arrival. ``wait_s`` replaces the claim's for this call.

        Raises:
            BusyError: another run holds one of them for longer than this one waits.
            BackendUnavailableError: the site cannot reserve anything.
            Cancelled: a stop was requested while waiting.
        """
        ...

    def release(self) -> None:
        """Give everything back; a second call does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Site(Protocol):
    """One place with GPUs. All methods may be called from several threads."""

    def look(self, query: HostQuery, settings: Settings, report: Callable[[Log], None] = unreported) -> Host:
        """What the site has. GPUs that its idle workers hold count as free; what it could not ask is ``None``.

        ``report`` receives the progress of a long look, such as verifying weights.

        Raises:
            ConfigurationError: the simulated GPUs or memory of the settings cannot be read.
        """
        ...

    def busy_gpus(self) -> frozenset[str]:
        """UUIDs of the GPUs that other runs hold now."""
        ...

    def places(self, plans: Sequence[Plan], host: Host, settings: Settings) -> tuple[Place, ...]:
        """Where clips with these plans can run side by side, at least one place. A place may occur several times."""
        ...

    def reserve(self, claim: Claim) -> Reservation:
        """A reservation that holds nothing yet."""
        ...

    def run(self, plan: Plan, reservation: Reservation, work: Work, emit: Emit, cancellation: Cancellation) -> Evidence:
        """Run ``plan`` once on what ``reservation`` holds; nothing of the attempt is left when this returns.

        A warm worker stays, and serves the next run. A stop that is requested ends the attempt; the evidence says so.
        Raises only for a fault of Reelwright's own: what the generator did is in the evidence.
        """
        ...

    def release_idle(self) -> None:
        """End the workers that have nothing to do; runs in progress go on."""
        ...

    def close(self) -> None:
        """End every worker and give every GPU back; a second call does nothing."""
        ...
