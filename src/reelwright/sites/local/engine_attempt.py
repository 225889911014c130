"""Runs an engine that stays loaded: in a worker, watched like a framework's script.

A warm worker (`workers.Workers` owns them) gets the model and the request; if none is warm, one is started. It is
released for the next request as soon as it has written its frames, and the frames are encoded here. A worker that
answers with a failure stays warm. After a crash, a hang or a time limit the worker is ended, and the next attempt
starts another.

    >>> evidence = run_in_worker(plan, work, reservation, emit, cancellation)  # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...core.errors import OutputError, VideoGenerationError
from ...core.events import Phase, Saved
from ...core.plan import Command, EngineCall, Plan
from ...policy import Evidence
from .. import Emit
from ..cancellation import Cancellation
from .child import program_of
from .execution import LocalWork, PhaseClock, RunningAttempt, ending
from .worker import Worker, start_worker
from .worker_frames import encode_frames
from .worker_session import WorkerSession
from .workers import WorkerReservation


def run_in_worker(
    plan: Plan, work: LocalWork, reservation: WorkerReservation, emit: Emit, cancellation: Cancellation
) -> Evidence:
    """Run an `EngineCall` in a worker, and release the worker as soon as it is free.

    `execution` describes the state after the return.
    """
    call = plan.run
    assert isinstance(call, EngineCall)
    assert call.worker is not None
    attempt = RunningAttempt(call.worker, work, PhaseClock(emit), cancellation)
    attempt.phases(Phase("starting"))
    work.video.unlink(missing_ok=True)
    try:
        worker = _worker(call.worker, work, reservation)
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
            reservation.end_worker()
    evidence = session.evidence()
    if not isinstance(answer, Saved) or evidence.kill_reason is not None:
        return evidence
    reservation.close()
    facts = {**answer.facts, "versions": dict(worker.versions)}
    return replace(_encoded(plan, answer, attempt, evidence), facts=facts)


def _worker(command: Command, work: LocalWork, reservation: WorkerReservation) -> Worker:
    """The warm worker if it runs the right program, or a new worker in its place."""
    if reservation.worker is not None and reservation.worker.runs(command, work.environ):
        return reservation.worker
    reservation.end_worker()
    worker = start_worker(program_of(command, work.environ), work)
    reservation.keep(worker)
    return worker


def _encoded(plan: Plan, saved: Saved, attempt: RunningAttempt, evidence: Evidence) -> Evidence:
    """Encode the frames as a video; the worker serves others meanwhile."""
    assert plan.expected is not None
    assert isinstance(plan.run, EngineCall)
    attempt.phases(Phase("saving"))
    work, error = attempt.work, None
    try:
        if Path(saved.path).parent != work.folder:
            raise OutputError(f"the worker left its frames in another folder than it was given: {saved.path}")
        codec = plan.run.options.get("codec", "h264")
        encode_frames(saved, work.video, plan.expected.fps, codec, work.tags, attempt.cancellation.check)
    except VideoGenerationError as caught:
        error = caught
    return replace(
        evidence,
        **ending(error),
        output_exists=work.video.exists(),
        phase_seconds=attempt.phases.stop(),
        wall_s=attempt.wall_s,
    )
