"""Attempts until a film is good: lease, run, verify; or diagnose, decide, and the next plan.

Three rings: `attempt_until_good` knows the policy, `_attempt` one executor run and the verification of its film. What
is published, and where a run's record lies, is `runs.runner`'s business.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import BusyError, Cancelled, Failure, OutputError, VideoGenerationError, error_for
from ..core.events import AttemptStarted, Event, Log, Phase
from ..core.host import Host
from ..core.plan import Command, EngineCall, Plan
from ..core.request import VideoRequest
from ..media import verification
from ..policy import Evidence, Next, Stop, diagnosis, preflight, retry
from ..sites.cancellation import Cancellation
from ..sites.local.execution import AttemptFiles, Executor
from ..sites.local.inline import InlineExecutor
from ..sites.local.workers import WorkerReservation, Workers
from . import history, workspace
from .journal import Journal
from .prepare import Order, Prepared, avoided_gpus, planned

if TYPE_CHECKING:
    from ..sites.local.leases import LeaseHolder

#: A film in the private folder, and what a full decode found in it.
Film = tuple[Path, dict[str, Any]]


@dataclass
class Run:
    """What the rings share; ``latents`` is what a film was decoded from, of no more use once it is published."""

    order: Order
    folder: workspace.RunFolder
    journal: Journal
    cancellation: Cancellation
    workers: Workers = field(default_factory=Workers)
    published: bool = False
    latents: Path | None = None

    def unfinished(self) -> bool:
        """Whether the film has its name and the manifest could not follow: the next `runs.recovery.recover` moves it."""
        return self.published and self.folder.manifest.exists()


def attempt_until_good(run: Run, prepared: Prepared) -> Film:
    """Attempts until one gives a verified film or the policy says stop; returns the film and what is in it."""
    from ..sites.local.leases import LeaseHolder

    settings = prepared.job.settings
    rules = retry.rules(settings)
    plan, step = prepared.plan, None
    past: list[retry.Past] = []

    def waiting(holder: str) -> None:
        run.journal(Log(f"waiting for up to {settings.lease_timeout_s:g} s: {holder}", "warning"))

    _sweep(run, plan)
    with LeaseHolder(run.order.environ, run.folder.run_id, settings.lease_timeout_s, waiting) as leases:
        while True:
            number = len(past) + 1
            run.journal(AttemptStarted(number, rules.max_retries + 1, step.why if step else ""))
            with _turn(run, prepared, plan) as turn:
                plan, lease_fds = _hold(run, prepared, _Try(number, plan, step), leases, turn)
                evidence, good = _attempt(run, plan, number, _Means(lease_fds, turn))
            if good is not None:
                run.journal.ended(plan, evidence, None, step)
                history.remember_success(settings.state_dir, prepared.asked, plan, prepared.job.host, evidence)
                return good
            evidence = replace(evidence, planned_used_bytes=_used_before(plan, prepared.job.host))
            found = diagnosis.diagnose(evidence, plan)
            run.journal.ended(plan, evidence, found, step)
            run.journal.attempts[-1] = run.journal.attempts[-1].evolve(log=_keep_log(run, number))
            past.append(retry.Past(found, evidence.wall_s, step))
            history.remember_failure(settings.state_dir, plan, prepared.job.host, found)
            before = _Try(number, plan, step)
            step = _next_step(run, rules, prepared.plan, past, evidence)
            plan = _replan(run, prepared, before, step)


@dataclass(frozen=True)
class _Try:
    """The next attempt, and the decision that led to it."""

    number: int
    plan: Plan
    step: Next | None


@dataclass(frozen=True)
class _Means:
    """What an attempt may use: the locks of its GPUs, or its turn with a worker that holds them."""

    lease_fds: tuple[int, ...]
    turn: WorkerReservation | None


def _turn(run: Run, prepared: Prepared, plan: Plan) -> contextlib.AbstractContextManager[WorkerReservation | None]:
    """The turn with the worker of the plan's GPUs; a script gets GPUs that no idle worker of ours holds."""
    uuids = _uuids(plan, prepared.job.host)
    if isinstance(plan.run, EngineCall) and plan.run.worker is not None:
        return run.workers.turn(uuids, run.cancellation)
    run.workers.release_idle(uuids)
    return contextlib.nullcontext()


def _hold(
    run: Run, prepared: Prepared, attempt: _Try, leases: LeaseHolder, turn: WorkerReservation | None
) -> tuple[Plan, tuple[int, ...]]:
    """The GPUs of the plan; others where another run was faster and there is a choice; else it waits for them.

    A warm worker holds its GPUs itself.
    """
    plan, host = attempt.plan, prepared.job.host
    if turn is not None:
        warm = turn.worker is not None and isinstance(plan.run, EngineCall) and turn.serves(plan.run, run.order.environ)
        if warm:
            return plan, ()
        turn.end_worker()
        turn.when_kept = leases.give_back  # else nobody could start another worker while we encode this one's frames
        return plan, leases.hold(_uuids(plan, host), run.cancellation)
    for _ in plan.gpus:
        try:
            return plan, leases.hold(_uuids(plan, host), run.cancellation, wait_s=0)
        except BusyError:
            avoided = avoided_gpus(prepared.backend, host, run.order)
            other = _plan_of(run, prepared, attempt, avoided)
            if other.gpus == plan.gpus:
                break
            plan = plan.evolve(run=other.run, gpus=other.gpus)
            run.journal.planned(plan)
    return plan, leases.hold(_uuids(plan, host), run.cancellation)


def _plan_of(run: Run, prepared: Prepared, attempt: _Try, more: Mapping[str, Any]) -> Plan:
    """What the backend plans for an attempt; ``more`` overrides come last."""
    step = attempt.step
    overrides = {**prepared.job.overrides, **(step.overrides if step else {}), **more}
    output = run.folder.video(attempt.number)
    plan = planned(prepared.backend, prepared.job.evolve(overrides=overrides, output=output))
    if plan.program is not None and step and step.env:
        plan = plan.with_program(replace(plan.program, env={**plan.program.env, **step.env}))
    return plan


def _sweep(run: Run, plan: Plan) -> None:
    """End what a killed runner whose shim was killed as well left on the GPUs (row P21)."""
    if plan.program is not None:
        from ..sites.local.dead_runs import sweep_dead_runs

        for run_id in sweep_dead_runs(run.order.environ):
            run.journal(Log(f"ended what was left of the killed run {run_id}", "warning"))


def _next_step(run: Run, rules: retry.RetryRules, original: Plan, past: list[retry.Past], evidence: Evidence) -> Next:
    """The policy's decision; raises the failure's own exception when it is to stop."""
    found = past[-1].diagnosis
    if found.failure is Failure.CANCELLED or run.cancellation.requested:
        raise Cancelled(signal_number=run.cancellation.signal_number or 2)
    decision = retry.decide(rules, original, past)
    if isinstance(decision, Stop):
        kept = _keep_video(run, len(past), evidence)
        error = evidence.error or error_for(
            found.failure,
            found.message,
            evidence=found.evidence,
            advice=" ".join(part for part in (found.advice, decision.why, kept) if part),
        )
        error.log = run.journal.attempts[-1].log
        raise error
    log = run.journal.attempts[-1].log
    where = f" (log: {log})" if log else ""
    run.journal(Log(f"{found.failure.name}: {found.message}{where}; trying again: {decision.why}", "warning"))
    run.cancellation.pause(decision.pause_s)
    return decision


def _replan(run: Run, prepared: Prepared, before: _Try, step: Next) -> Plan:
    avoided = prepared.job.overrides.get("avoid_gpus", ())
    more: dict[str, Any] = {"avoid_gpus": (*avoided, *before.plan.gpus)} if step.other_gpus else {}
    if before.plan.gpus and "gpu_count" not in step.overrides:
        more["gpu_count"] = len(before.plan.gpus)  # a retry changes what it says and nothing else
    plan = _plan_of(run, prepared, replace(before, number=before.number + 1, step=step), more)
    preflight.raise_for(plan.findings)
    run.journal.planned(plan)
    return plan


def _attempt(run: Run, plan: Plan, number: int, means: _Means) -> tuple[Evidence, Film | None]:
    """One executor run and the full verification of its film; the second value is ``None`` unless it is good."""
    folder = run.folder
    folder.attempt(number).mkdir(mode=0o700)
    settings = run.order.settings
    files = AttemptFiles(
        folder=folder.attempt(number),
        video=folder.video(number),
        log=folder.log(number),
        log_limit_bytes=settings.log_limit_mb * 1024 * 1024,
        run_id=folder.run_id,
        lease_fds=means.lease_fds,
    )
    with contextlib.closing(verification.VerificationProcess()) as examiner:
        emit = _Listening(run, examiner) if isinstance(plan.run, Command) else run.journal
        evidence = _executor(run, plan, means).run(plan, files, emit, run.cancellation)
        good_enough = evidence.ran_to_end or (settings.accept_valid_on_nonzero and evidence.kill_reason is None)
        if not good_enough:
            return evidence, None
        run.journal(Phase("verifying"))
        try:
            return evidence, _verified(run, plan, number, examiner)
        except OutputError as error:
            return replace(evidence, output_problem=error.message, output_exists=files.video.exists()), None
        except VideoGenerationError as error:  # it could not be looked at; it may be good, and have cost hours of a GPU
            kept = history.keep_file(
                settings.state_dir, folder.run_id, files.video, "unexamined.mp4", run.journal.warn_at_once
            )
            if kept:
                error.advice = f"{error.advice} The film is kept, unexamined, as {kept}."
            error.log = _keep_log(run, number)
            raise


@dataclass(frozen=True)
class _Listening:
    """The journal, and the examiner of a stranger's film: it gets up while the film is being written."""

    run: Run
    examiner: verification.VerificationProcess

    def __call__(self, event: Event) -> None:
        self.run.journal(event)
        if isinstance(event, Phase) and event.name in ("decoding", "saving"):
            self.examiner.start()


def _executor(run: Run, plan: Plan, means: _Means) -> Executor:
    settings, environ = run.order.settings, run.order.environ
    if isinstance(plan.run, Command):
        from ..sites.local.process import ProcessExecutor

        return ProcessExecutor(settings.timeout, settings.stop_grace_s, environ)
    if means.turn is None or plan.run is None:
        return InlineExecutor()
    from ..sites.local.engine_attempt import Limits, WorkerExecutor

    latents = plan.run.options.get("latents")
    run.latents = Path(latents) if latents else None
    limits = Limits(settings.timeout, settings.stop_grace_s, environ)
    return WorkerExecutor(means.turn, limits, _tags(plan, run.order.request))


def _verified(run: Run, plan: Plan, number: int, examiner: verification.VerificationProcess) -> Film:
    """The film of an attempt and what a full decode finds in it; raises `OutputError` if it is not the promised one.

    A stranger's film is decoded in a process of its own, and what is published is its copy with our tags and seal.
    """
    video = run.folder.video(number)
    if not isinstance(plan.run, Command):
        facts = verification.verify(video, plan.expected, apart=False)
    else:
        tagging = verification.Tagging(run.folder.tagged(number), _tags(plan, run.order.request))
        facts = verification.verify(video, plan.expected, apart=examiner, tagging=tagging)
        video = tagging.target if tagging.target.exists() else video
    for warning in facts["warnings"]:
        run.journal.warn(warning)
    return video, facts


def _tags(plan: Plan, request: VideoRequest) -> dict[str, str]:
    return {
        "title": request.prompt[:500],
        "comment": f"Made with {plan.generator} through reelwright; a model generated it.",
        "generator": plan.generator,
        "generative": str(plan.generative).lower(),
        "seed": str(plan.parameters.get("seed")),
    }


def _uuids(plan: Plan, host: Host) -> tuple[str, ...]:
    return tuple(gpu.uuid for gpu in host.gpus or () if gpu.index in plan.gpus)


def _used_before(plan: Plan, host: Host) -> int | None:
    """The most memory of one of the plan's GPUs that others held when it was made."""
    chosen = [gpu for gpu in host.gpus or () if gpu.index in plan.gpus]
    used = [gpu.total_bytes - gpu.free_bytes for gpu in chosen if gpu.total_bytes and gpu.free_bytes is not None]
    return max(used, default=None)


def _keep_log(run: Run, number: int) -> str | None:
    """Keep the log of a failed attempt, whatever becomes of the run; where it is."""
    state_dir, run_id = run.order.settings.state_dir, run.folder.run_id
    name = f"attempt-{number}.log"
    kept = history.keep_file(state_dir, run_id, run.folder.log(number), name, run.journal.warn_at_once)
    return str(kept) if kept else None


def _keep_video(run: Run, number: int, evidence: Evidence) -> str:
    """Keep a video that may be whole although its program failed (row P13); says where it is."""
    state_dir, run_id, settings = run.order.settings.state_dir, run.folder.run_id, run.order.settings
    ended_badly = bool(evidence.exit_status) and evidence.kill_reason is None
    if not evidence.output_exists or not (ended_badly or settings.keep_failed):
        return ""
    name = f"attempt-{number}.partial.mp4"
    film = history.keep_file(state_dir, run_id, run.folder.video(number), name, run.journal.warn_at_once)
    return f"The unverified film is kept as {film}." if film else ""
