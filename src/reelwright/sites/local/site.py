"""Implements the site for this machine: probes look, lock files reserve, supervised processes and workers run.

>>> with LocalSite() as site:
...     site.busy_gpus() <= {gpu.uuid for gpu in site.look(HostQuery(gpus=True), Settings()).gpus or ()}
True
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ...config.settings import Settings
from ...core.errors import VideoGenerationError
from ...core.events import Log
from ...core.host import Host, HostQuery
from ...core.plan import Command, EngineCall, Plan
from ...policy import Evidence
from .. import Claim, Closing, Emit, Place, Reservation, Work, unreported
from ..cancellation import Cancellation
from ..places import gpu_places
from .workers import WorkerReservation, Workers

#: Clips at once on the GPUs of one warm engine: the engine makes one, the clip before it is encoded, verified and
#: published, and the clip after it is prepared and waits.
_IN_FLIGHT = 3


class LocalSite(Closing):
    """The GPUs of this machine, and the workers that stay warm on them until `close`.

    Args:
        environ: The environment of every process that is started; by default this process's own at that time.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self.environ: Mapping[str, str] = os.environ if environ is None else environ
        self.workers = Workers()

    def look(self, query: HostQuery, settings: Settings, report: Callable[[Log], None] = unreported) -> Host:
        """See `sites.Site.look`."""
        from .probes.host import take_host  # imported where used: `reel --help` must not wait for it

        host = take_host(
            query,
            environ=self.environ,
            simulated=settings.simulate_gpus,
            simulated_memory=settings.simulate_memory,
            state_dir=settings.state_dir,
            report=lambda message: report(Log(message)),
        )
        return replace(host, gpus=self.workers.as_if_idle(host.gpus)) if host.gpus else host

    def busy_gpus(self) -> frozenset[str]:
        """See `sites.Site.busy_gpus`."""
        from .leases import Leases, lease_directory

        with contextlib.suppress(VideoGenerationError):  # a folder that cannot be used fails at the reservation
            return frozenset(Leases(lease_directory(self.environ)).holders()) - self.workers.gpus
        return frozenset()

    def places(self, plans: Sequence[Plan], host: Host, settings: Settings) -> tuple[Place, ...]:
        """See `sites.Site.places`. Clips of one warm engine overlap; drafts share the processor's cores."""
        warm = all(plan.stays_warm for plan in plans)
        if warm and not any(plan.gpus for plan in plans):
            return (Place(),) * _IN_FLIGHT
        if not any(plan.gpus for plan in plans):
            # One draft uses about one and a half cores to render and encode, and waits in between.
            return (Place(),) * (settings.parallel_segments or min(4, os.cpu_count() or 1))
        gpus = {gpu.index: gpu for gpu in sorted(host.gpus or (), key=lambda gpu: -gpu.speed)}
        listed = [gpus[index] for index in settings.gpus or gpus if index in gpus]
        total = settings.total_gpus
        if settings.gpu_count:
            total = min(total or len(listed), settings.gpu_count * (settings.parallel_segments or 1))
        needed = max((plan.gpu_bytes or 0 for plan in plans), default=0)
        groups = gpu_places(listed, parallel=settings.parallel_segments, total=total, needs_bytes=needed)
        return groups * _IN_FLIGHT if warm else groups

    def reserve(self, claim: Claim) -> LocalReservation:
        """See `sites.Site.reserve`."""
        return LocalReservation(self, claim)

    def run(self, plan: Plan, reservation: Reservation, work: Work, emit: Emit, cancellation: Cancellation) -> Evidence:
        """See `sites.Site.run`."""
        from .execution import LocalWork

        assert isinstance(reservation, LocalReservation)
        run_id, lease_fds = reservation.claim.run_id, reservation.lease_fds
        local = LocalWork(**vars(work), run_id=run_id, lease_fds=lease_fds, environ=self.environ)
        try:  # each way is imported where it is used: a draft needs no supervision
            if isinstance(plan.run, Command):
                from .process import run_script

                return run_script(plan, local, emit, cancellation)
            if reservation.turn is None:
                from .inline import run_inline

                return run_inline(plan, local, emit, cancellation)
            from .engine_attempt import run_in_worker

            return run_in_worker(plan, local, reservation.turn, emit, cancellation)
        finally:
            reservation.end_turn()

    def release_idle(self) -> None:
        """See `sites.Site.release_idle`."""
        self.workers.release_idle()

    def close(self) -> None:
        """See `sites.Site.close`."""
        self.workers.close()


class LocalReservation(Closing):
    """The lock files of a run's GPUs, and its turn with the worker that is warm on them.

    Attributes:
        turn: The turn with a worker, for an engine that stays warm.
    """

    def __init__(self, site: LocalSite, claim: Claim) -> None:
        from .leases import Lease, Leases, lease_directory

        self.claim = claim
        self.turn: WorkerReservation | None = None
        self._site = site
        self._swept = False
        self._leases = Leases(lease_directory(site.environ), on_wait=self._report_wait)
        self._lease = Lease((), ())

    @property
    def lease_fds(self) -> tuple[int, ...]:
        """Descriptors of the locks, for the process that uses the GPUs; empty if a warm worker holds them."""
        return self._lease.fds

    def _report_wait(self, holder: str) -> None:
        self.claim.report(Log(f"waiting for up to {self.claim.wait_s:g} s: {holder}", "warning"))

    def hold(self, plan: Plan, host: Host, cancellation: Cancellation, wait_s: float | None = None) -> None:
        """See `sites.Reservation.hold`. A warm worker keeps the locks of its GPUs.

        If the GPUs differ from the last attempt's, all are given back first: two runs that each hold some and wait for
        others would wait for each other forever.
        """
        self.end_turn()
        self._sweep(plan)
        uuids = host.uuids(plan.gpus)
        workers = self._site.workers
        if isinstance(plan.run, EngineCall) and plan.stays_warm:
            self.turn = workers.turn(uuids, cancellation)
            assert plan.run.worker is not None
            if self.turn.worker is not None and self.turn.worker.runs(plan.run.worker, self._site.environ):
                self._lease.close()
                return
            self.turn.end_worker()
        else:
            workers.release_idle(uuids)
        if set(uuids) != set(self._lease.uuids):
            self._lease.close()
        if uuids and not self._lease.fds:
            patience_s, owner = self.claim.wait_s if wait_s is None else wait_s, {"run": self.claim.run_id}
            self._lease = self._leases.claim(uuids, wait_s=patience_s, owner=owner, cancellation=cancellation)
        if self.turn is not None:
            self.turn.when_kept = self._lease.close  # the new worker holds the locks during the encoding

    def _sweep(self, plan: Plan) -> None:
        """End, once per run, the GPU processes of a killed run whose supervisor was killed too."""
        if self._swept or plan.program is None:
            return
        from .dead_runs import sweep_dead_runs

        self._swept = True
        for run_id in sweep_dead_runs(self._site.environ):
            self.claim.report(Log(f"ended the leftover processes of the killed run {run_id}", "warning"))

    def end_turn(self) -> None:
        """Give the worker to the next run; a second call does nothing."""
        turn, self.turn = self.turn, None
        if turn is not None:
            turn.close()

    def close(self) -> None:
        """See `sites.Reservation.close`."""
        self.end_turn()
        self._lease.close()
