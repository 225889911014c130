"""Makes attempts until a clip is verified: reserve, run, verify; or diagnose, decide, and run the next plan.

`attempt_until_good` applies the policy. `_attempt` makes one run on the site and verifies its clip. `runs.runner`
publishes the clip and records the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.errors import BusyError, Cancelled, Failure, OutputError, VideoGenerationError, error_for
from ..core.events import AttemptStarted, Event, Log, Phase
from ..core.host import Host
from ..core.plan import EngineCall, Plan
from ..core.request import VideoRequest
from ..media import verification
from ..policy import Evidence, Next, Stop, diagnosis, preflight, retry
from ..sites import Claim, Emit, Reservation, Site, Work
from ..sites.cancellation import Cancellation
from . import history, workspace
from .journal import Journal
from .order import Order
from .prepare import Prepared, Preparer, planned

#: A clip in the private folder, and the facts that a full decode found in it.
Clip = tuple[Path, dict[str, Any]]


@dataclass
class Run:
    """The parts of one run. ``latents`` is the file from which the clip was decoded; it is deleted after publishing."""

    order: Order
    folder: workspace.RunFolder
    journal: Journal
    cancellation: Cancellation
    site: Site
    preparer: Preparer
    published: bool = False
    latents: Path | None = None

    def unfinished(self) -> bool:
        """Whether the clip is published but its manifest is not: the next `runs.recovery.recover` publishes it."""
        return self.published and self.folder.manifest.exists()

    def keep(self, file: Path, name: str) -> Path | None:
        """Keep a file of this run with its record; ``None`` if it does not exist or cannot be kept."""
        state_dir = self.order.settings.state_dir
        return history.keep_file(state_dir, self.folder.run_id, file, name, self.journal.warn_at_once)

    def keep_log(self, number: int) -> str | None:
        """Keep the log of a failed attempt; returns its path."""
        kept = self.keep(self.folder.log(number), f"attempt-{number}.log")
        return str(kept) if kept else None


def attempt_until_good(run: Run, prepared: Prepared) -> Clip:
    """Make attempts until one gives a verified clip; raises the last failure when the policy stops."""
    settings = prepared.job.settings
    rules = retry.rules(settings)
    plan, step = prepared.plan, None
    past: list[retry.Past] = []
    with run.site.reserve(Claim(run.folder.run_id, settings.lease_timeout_s, run.journal)) as reservation:
        while True:
            number = len(past) + 1
            run.journal(AttemptStarted(number, rules.max_retries + 1, step.why if step else ""))
            plan = _hold(run, prepared, _Try(number, plan, step), reservation)
            evidence, good = _attempt(run, plan, number, reservation)
            if good is not None:
                run.journal.ended(plan, evidence, None, step)
                history.remember_success(settings.state_dir, prepared.first_plan, plan, prepared.job.host, evidence)
                return good
            evidence = replace(evidence, planned_used_bytes=_used_before(plan, prepared.job.host))
            found = diagnosis.diagnose(evidence, plan)
            run.journal.ended(plan, evidence, found, step)
            run.journal.attempts[-1] = run.journal.attempts[-1].evolve(log=run.keep_log(number))
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


def _hold(run: Run, prepared: Prepared, attempt: _Try, reservation: Reservation) -> Plan:
    """Reserve the plan's GPUs; if another run holds them, reserve other GPUs, or wait if there are none."""
    plan, host = attempt.plan, prepared.job.host
    if not plan.stays_warm:
        for _ in plan.gpus:
            try:
                reservation.hold(plan, host, run.cancellation, wait_s=0)
            except BusyError:
                avoided = run.preparer.avoided_gpus(prepared.backend, host, run.order.settings)
                other = _plan_of(run, prepared, attempt, avoided)
                if other.gpus == plan.gpus:
                    break
                plan = plan.evolve(run=other.run, gpus=other.gpus)
                run.journal.planned(plan)
            else:
                return plan
    reservation.hold(plan, host, run.cancellation)
    return plan


def _plan_of(run: Run, prepared: Prepared, attempt: _Try, more: Mapping[str, Any]) -> Plan:
    """The backend's plan for an attempt; the overrides in ``more`` win."""
    step = attempt.step
    overrides = {**prepared.job.overrides, **(step.overrides if step else {}), **more}
    output = run.folder.video(attempt.number)
    plan = planned(prepared.backend, prepared.job.evolve(overrides=overrides, output=output))
    if plan.program is not None and step and step.env:
        plan = plan.with_program(replace(plan.program, env={**plan.program.env, **step.env}))
    return plan


def _next_step(run: Run, rules: retry.RetryRules, original: Plan, past: list[retry.Past], evidence: Evidence) -> Next:
    """The policy's decision for the next attempt; raises the failure's exception if the policy stops."""
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
        more["gpu_count"] = len(before.plan.gpus)  # a retry changes only what it reports
    plan = _plan_of(run, prepared, replace(before, number=before.number + 1, step=step), more)
    preflight.raise_for(plan.findings)
    run.journal.planned(plan)
    return plan


def _attempt(run: Run, plan: Plan, number: int, reservation: Reservation) -> tuple[Evidence, Clip | None]:
    """Run once on the site and verify the clip; the second value is ``None`` unless the clip is verified."""
    folder, settings = run.folder, run.order.settings
    folder.attempt(number).mkdir(mode=0o700)
    work = Work(
        folder=folder.attempt(number),
        video=folder.video(number),
        log=folder.log(number),
        log_limit_bytes=settings.log_limit_mb * 1024 * 1024,
        timeout_s=settings.timeout,
        stop_grace_s=settings.stop_grace_s,
        tags=_tags(plan, run.order.request),
    )
    latents = plan.run.options.get("latents") if isinstance(plan.run, EngineCall) else None
    run.latents = Path(latents) if latents else None
    with contextlib.closing(verification.VerificationProcess()) as verifier:
        trusted = plan.run is not None and plan.run.trusted_output
        emit: Emit = run.journal if trusted else _Listening(run, verifier)
        evidence = run.site.run(plan, reservation, work, emit, run.cancellation)
        good_enough = evidence.ran_to_end or (settings.accept_valid_on_nonzero and evidence.kill_reason is None)
        if not good_enough:
            return evidence, None
        run.journal(Phase("verifying"))
        try:
            return evidence, _verified(run, plan, number, verifier)
        except OutputError as error:
            return replace(evidence, output_problem=error.message, output_exists=work.video.exists()), None
        except (
            VideoGenerationError
        ) as error:  # the clip could not be read; it may be valid, and have cost hours of GPU time
            if kept := run.keep(work.video, "unexamined.mp4"):
                error.advice = f"{error.advice} The unverified clip is kept as {kept}."
            error.log = run.keep_log(number)
            raise


@dataclass(frozen=True)
class _Listening:
    """Passes events to the journal, and starts the verification process while the framework is still saving."""

    run: Run
    verifier: verification.VerificationProcess

    def __call__(self, event: Event) -> None:
        self.run.journal(event)
        if isinstance(event, Phase) and event.name in ("decoding", "saving"):
            self.verifier.start()


def _verified(run: Run, plan: Plan, number: int, verifier: verification.VerificationProcess) -> Clip:
    """The clip of an attempt and the facts of a full decode; raises `OutputError` if it is not the promised clip.

    A framework's output is decoded in a separate process; a copy with Reelwright's tags and checksum is published.
    """
    video = run.folder.video(number)
    if plan.run is not None and plan.run.trusted_output:
        facts = verification.verify(video, plan.expected, apart=False)
    else:
        tagging = verification.Tagging(run.folder.tagged(number), _tags(plan, run.order.request))
        facts = verification.verify(video, plan.expected, apart=verifier, tagging=tagging)
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


def _used_before(plan: Plan, host: Host) -> int | None:
    """The most memory that other programs held on one of the plan's GPUs when the plan was made."""
    chosen = [gpu for gpu in host.gpus or () if gpu.index in plan.gpus]
    used = [gpu.total_bytes - gpu.free_bytes for gpu in chosen if gpu.total_bytes and gpu.free_bytes is not None]
    return max(used, default=None)


def _keep_video(run: Run, number: int, evidence: Evidence) -> str:
    """Keep a video that may be complete although its program failed (row P13); returns a sentence with its path."""
    ended_badly = bool(evidence.exit_status) and evidence.kill_reason is None
    if not evidence.output_exists or not (ended_badly or run.order.settings.keep_failed):
        return ""
    clip = run.keep(run.folder.video(number), f"attempt-{number}.partial.mp4")
    return f"The unverified clip is kept as {clip}." if clip else ""
