"""One attempt by a resident engine: it stays warm in a worker, watched like any framework's process.

The worker is started if none is warm (`workers.Workers` owns them), gets the model and the request, and is given free
for the next one as soon as its frames are there; they are encoded here. What fails is either told by the worker
(`core.events.Failed`) or seen from outside: a crash, a hang, a time limit. In every case but a failure that the worker
told, the worker is ended, and the next attempt starts another.

    >>> WorkerExecutor(turn, Limits(3600)).run(plan, files, emit, cancellation)  # doctest: +SKIP
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...core.errors import Cancelled, Failure, OutputError, VideoGenerationError
from ...core.events import VERSION, Answer, Failed, Generate, Hello, Load, Message, Phase, Saved
from ...core.plan import Command, EngineCall, Plan
from ...policy import Evidence
from ..cancellation import Cancellation
from .child import sampled
from .execution import AttemptFiles, Emit, PhaseClock
from .probes.memory import oom_kills
from .worker import Worker, program_of, start_worker
from .worker_frames import encode_frames
from .worker_session import Watching, WorkerSession
from .workers import WorkerReservation


@dataclass(frozen=True)
class Limits:
    """What holds for an attempt: its wall clock, the time between asking to end and killing, the environment."""

    timeout_s: float | None = None
    grace_s: float = 10.0
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


class WorkerExecutor:
    """Carries out an `EngineCall` in a worker; ``turn`` is given free as soon as the worker is.

    ``tags`` go into the film.
    """

    def __init__(self, turn: WorkerReservation, limits: Limits, tags: Mapping[str, str] | None = None) -> None:
        self._turn = turn
        self._limits = limits
        self._tags = tags or {}

    def run(self, plan: Plan, files: AttemptFiles, emit: Emit, cancellation: Cancellation) -> Evidence:
        """See `sites.local.execution.Executor`."""
        call = plan.run
        assert isinstance(call, EngineCall)
        assert call.worker is not None
        phases = PhaseClock(emit)
        phases(Phase("starting"))
        files.video.unlink(missing_ok=True)
        try:
            worker = self._worker(call.worker, files)
        except OSError as error:
            return Evidence(start_errno=error.errno, phase_seconds=phases.stop())
        part = _Part(worker, call, files, phases, cancellation)
        evidence, saved = self._attempt(plan, part)
        if saved is None:
            return evidence
        self._turn.release()
        return self._encoded(plan, saved, part, evidence)

    def _worker(self, command: Command, files: AttemptFiles) -> Worker:
        """The warm one if it is the right program; else a new one in its place."""
        warm = self._turn.worker
        program = program_of(command, self._limits.environ)
        if warm is not None and warm.program == program:
            return warm
        self._turn.end_worker()
        worker = start_worker(program, files)
        self._turn.keep(worker)
        return worker

    def _attempt(self, plan: Plan, part: _Part) -> tuple[Evidence, Saved | None]:
        worker, call = part.worker, part.call
        assert call.worker is not None
        kills_before = oom_kills()
        watching = Watching(call.worker, self._limits.timeout_s, self._limits.grace_s, part.files)
        talk = WorkerSession(worker, watching, part.phases, part.cancellation)
        answer: Answer | None = None
        try:
            with sampled(worker.child, self._limits.environ, gpus=bool(plan.gpus)) as sampler:
                answer = _asked(talk, worker, call, part.files)
            metrics = sampler.metrics().to_json()
        finally:
            if answer is None or talk.distrusted:
                self._turn.end_worker()
            talk.close()
        kills = oom_kills()
        happened = kills - kills_before if kills is not None and kills_before is not None else None
        evidence = talk.evidence(answer, happened, metrics)
        return evidence, answer if isinstance(answer, Saved) and evidence.kill_reason is None else None

    def _encoded(self, plan: Plan, saved: Saved, part: _Part, evidence: Evidence) -> Evidence:
        """The frames as a film; the worker has the next request meanwhile."""
        assert plan.expected is not None
        part.phases(Phase("saving"))
        error: VideoGenerationError | None = None
        try:
            if Path(saved.path).parent != part.files.folder:
                raise OutputError(f"the worker left its frames in another place than it was given: {saved.path}")
            codec = part.call.options.get("codec", "h264")
            encode_frames(saved, part.files.video, plan.expected.fps, codec, self._tags, part.cancellation.check)
        except VideoGenerationError as caught:
            error = caught
        return replace(
            evidence,
            exit_status=0 if error is None else error.exit_status,
            error=error,
            kill_reason="cancelled" if isinstance(error, Cancelled) else None,
            output_exists=part.files.video.exists(),
            facts={**saved.facts, "versions": dict(part.worker.versions)},
            phase_seconds=part.phases.stop(),
            wall_s=time.monotonic() - part.since,
        )


@dataclass(frozen=True)
class _Part:
    """What one attempt is about."""

    worker: Worker
    call: EngineCall
    files: AttemptFiles
    phases: PhaseClock
    cancellation: Cancellation
    since: float = field(default_factory=time.monotonic)


def _asked(talk: WorkerSession, worker: Worker, call: EngineCall, files: AttemptFiles) -> Answer | None:
    """Greeting, model, clip: the last answer, which is the first that is not what was asked for."""
    for request, expected in _requests(worker, call, files.folder):
        answer: Answer | None = talk.ask(request)
        if isinstance(answer, Hello) and answer.protocol != VERSION:
            talk.distrusted = True
            return Failed(
                Failure.ENV.name,
                f"the worker speaks version {answer.protocol} of the protocol, not {VERSION}",
                advice="Install the same reelwright in both interpreters.",
            )
        if type(answer).__name__ != expected:
            if not isinstance(answer, Failed | None):
                talk.distrusted = True
                return Failed(Failure.FRAMEWORK.name, f"the worker answered {type(answer).__name__}, not {expected}")
            return answer
        worker.greeted = True
        if isinstance(answer, Hello):
            worker.versions = answer.versions
        if isinstance(request, Load):
            worker.model = call.model
    return answer


def _requests(worker: Worker, call: EngineCall, folder: Path) -> Iterator[tuple[Message | None, str]]:
    if not worker.greeted:
        yield None, "Hello"
    if call.model and worker.model != call.model:
        worker.model = None  # whatever becomes of it, the one before is gone
        yield Load(call.model), "Loaded"
    yield Generate(call.options, str(folder)), "Saved"
