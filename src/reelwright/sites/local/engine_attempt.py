"""Runs a resident engine in a worker that stays warm, watched like a framework's script.

A warm worker (`workers.Workers` owns them) gets the model and the request; if none is warm, one is started. It is
released for the next request as soon as its frames are there, and they are encoded here. A worker that answers with a
failure stays warm. After a crash, a hang or a time limit it is ended, and the next attempt starts another.

    >>> WorkerExecutor(reservation, Limits(3600)).run(plan, files, emit, cancellation)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...core.errors import Cancelled, OutputError, VideoGenerationError
from ...core.events import Phase, Saved
from ...core.plan import Command, EngineCall, Plan
from ...policy import Evidence
from .. import Emit
from ..cancellation import Cancellation
from .child import program_of
from .execution import Attempt, AttemptFiles, Limits, PhaseClock
from .worker import Worker, start_worker
from .worker_frames import encode_frames
from .worker_session import WorkerSession
from .workers import WorkerReservation

__all__ = ["Limits", "WorkerExecutor"]


class WorkerExecutor:
    """Runs an `EngineCall` in a worker; ``reservation`` is released as soon as the worker is free.

    ``tags`` are written into the video.
    """

    def __init__(self, reservation: WorkerReservation, limits: Limits, tags: Mapping[str, str] | None = None) -> None:
        self._reservation = reservation
        self._limits = limits
        self._tags = tags or {}

    def run(self, plan: Plan, files: AttemptFiles, emit: Emit, cancellation: Cancellation) -> Evidence:
        """See `sites.local.execution.Executor`."""
        call = plan.run
        assert isinstance(call, EngineCall)
        assert call.worker is not None
        attempt = Attempt(call.worker, files, self._limits, PhaseClock(emit), cancellation)
        attempt.phases(Phase("starting"))
        files.video.unlink(missing_ok=True)
        try:
            worker = self._worker(call.worker, files)
        except OSError as error:
            return attempt.not_started(error.errno)
        session = WorkerSession(worker, attempt)
        try:
            with session.monitor.sampling(gpus=bool(plan.gpus)):
                answer = session.make(call)
        except BaseException:
            session.distrusted = True
            raise
        finally:
            session.monitor.close()
            if session.answer is None or session.distrusted:
                self._reservation.end_worker()
        evidence = session.evidence()
        if not isinstance(answer, Saved) or evidence.kill_reason is not None:
            return evidence
        self._reservation.release()
        return replace(
            self._encoded(plan, answer, attempt, evidence),
            facts={**answer.facts, "versions": dict(worker.versions)},
        )

    def _worker(self, command: Command, files: AttemptFiles) -> Worker:
        """The warm worker if it is the right program, or a new one in its place."""
        warm = self._reservation.worker
        program = program_of(command, self._limits.environ)
        if warm is not None and warm.program == program:
            return warm
        self._reservation.end_worker()
        worker = start_worker(program, files)
        self._reservation.keep(worker)
        return worker

    def _encoded(self, plan: Plan, saved: Saved, attempt: Attempt, evidence: Evidence) -> Evidence:
        """Encode the frames as a video; the worker serves others meanwhile."""
        assert plan.expected is not None
        assert isinstance(plan.run, EngineCall)
        attempt.phases(Phase("saving"))
        files, error = attempt.files, None
        try:
            if Path(saved.path).parent != files.folder:
                raise OutputError(f"the worker left its frames in another folder than it was given: {saved.path}")
            codec = plan.run.options.get("codec", "h264")
            encode_frames(saved, files.video, plan.expected.fps, codec, self._tags, attempt.cancellation.check)
        except VideoGenerationError as caught:
            error = caught
        return replace(
            evidence,
            exit_status=error.exit_status if error else 0,
            error=error,
            kill_reason="cancelled" if isinstance(error, Cancelled) else None,
            output_exists=files.video.exists(),
            phase_seconds=attempt.phases.stop(),
            wall_s=attempt.wall_s,
        )
