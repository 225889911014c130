"""One generation from request to result; read this file first.

`generate` is a set of rings, each of which knows only the next:

    generate        the output's name: free? writable? something to recover?
      _recorded     whatever ends the run is written down, in this one place
        prepare     pictures -> machine -> plan (pure) -> preflight; no GPU is touched before this has passed
          _attempt_until_good   lease -> attempt -> diagnose -> decide -> next plan
            _attempt            one executor run and the full verification of its film
          publish   the atomic move to the final name

Nothing here knows a framework, a flag, or how a film is decoded.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import backends, history, workspace
from .backends import Backend
from .errors import (
    BusyError,
    Cancelled,
    Failure,
    InvalidInputError,
    OutputError,
    StateError,
    VideoGenerationError,
    error_for,
)
from .executors import AttemptFiles, Cancellation, Emit, Executor
from .executors.inline import InlineExecutor
from .host import Host
from .journal import Journal
from .plan import Command, Finding, Job, Plan
from .policy import Evidence, Next, Stop, diagnosis, preflight, retry
from .protocol import AttemptStarted, Event, Log, Phase
from .request import MAX_SEED, Picture, VideoRequest
from .result import Manifest, Result, manifest_path
from .settings import Settings

if TYPE_CHECKING:
    from .machine.leases import LeaseHolder

_ROLES = ("first", "last", "depth")
#: A film in the private folder, and what a full decode found in it.
Film = tuple[Path, dict[str, Any]]


def _ignore(event: Event) -> None:
    """The default listener."""


@dataclass(frozen=True)
class Order:
    """A request with everything about where and how it is to be carried out.

    Attributes:
        overrides: Effective parameters to force, as a retry does.
        last_frame: Where to leave the film's last frame as a PNG, lossless where the renderer is ours, for a film
            that goes on from it. It is there whenever the film is.
    """

    request: VideoRequest
    settings: Settings
    output: Path
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    overrides: Mapping[str, Any] = field(default_factory=dict)
    last_frame: Path | None = None


@dataclass(frozen=True)
class Prepared:
    """An order that has passed every check that needs no GPU; ``asked`` is its plan before anything learned."""

    backend: Backend
    job: Job
    plan: Plan
    asked: Plan


@dataclass
class _Run:
    """What the rings share."""

    order: Order
    folder: workspace.RunFolder
    journal: Journal
    cancellation: Cancellation
    published: bool = False

    def unfinished(self) -> bool:
        """Whether the film has its name and the manifest could not follow: the next `workspace.recover` moves it."""
        return self.published and self.folder.manifest.exists()


def generate(order: Order, emit: Emit = _ignore, cancellation: Cancellation | None = None) -> Result:
    """Make the film of an order, verify it and publish it with its manifest.

    Blocks until the film is at ``order.output`` or nothing is left of the run. On cancellation nothing half-made
    remains. Two calls with the same output cannot both succeed unless the settings say ``overwrite``.

    Raises:
        VideoGenerationError: see `errors`; the exception's class says what a caller can do.
    """
    output = workspace.absolute_output(order.output)
    workspace.check_folder(output)
    for recovery in workspace.recover(output.parent):
        if recovery.output:
            emit(Log(f"finished publishing {recovery.output} of an interrupted run", "warning"))
    settled = workspace.settle_output(output, order.settings.if_exists)
    if settled is None:
        return _skipped(output)
    run_id = workspace.new_run_id()
    folder = workspace.plan_folder(settled, run_id)
    run = _Run(order, folder, Journal(run_id, order.request, emit), cancellation or Cancellation())
    return _recorded(run)


def _recorded(run: _Run) -> Result:
    """Whatever happens inside leaves one record: beside the film, or in the state folder when there is none."""
    try:
        with workspace.open_folder(run.folder, keep=run.unfinished):
            try:
                return _generate(run)
            except VideoGenerationError as error:
                _record_failure(run, error)
                raise
            except KeyboardInterrupt:
                cancelled = Cancelled()
                _record_failure(run, cancelled)
                raise cancelled from None
            except Exception as error:
                internal = StateError(f"{type(error).__name__}: {error}", failure=Failure.INTERNAL)
                _record_failure(run, internal)
                raise
    finally:
        run.journal(Phase("done"))


def _generate(run: _Run) -> Result:
    prepared = prepare(run.order, run.folder, run.journal)
    preflight.raise_for(prepared.plan.findings)
    run.cancellation.check()
    run.order = replace(run.order, settings=prepared.job.settings)  # with what is set for this generator only
    video, facts = _attempt_until_good(run, prepared)
    run.cancellation.check()  # the last chance: what is published stays
    run.journal.output = {"path": run.folder.output.name, **facts}
    run.journal(Phase("publishing"))
    _hand_over(run, video)
    manifest = run.journal.manifest()
    try:
        workspace.publish(run.folder, video, manifest, replace=run.order.settings.if_exists == "overwrite")
    except VideoGenerationError as error:
        _rescue(run, video, error)
        raise
    run.published = True
    return _result(manifest, run.folder.output)


def _rescue(run: _Run, video: Path, error: VideoGenerationError) -> None:
    """Keep a verified film that cannot have its name: it may have cost hours of a GPU."""
    run.journal.output = None
    kept = history.keep_file(run.order.settings.state_dir, run.folder.run_id, video, "unpublished.mp4")
    if kept:
        error.advice = f"{error.advice} The finished film is kept as {kept}."


def _hand_over(run: _Run, video: Path) -> None:
    """Leave the last frame where the order wants it, before the film is there."""
    target = run.order.last_frame
    if target is None:
        return
    from .media import examination

    frame = video.with_name(workspace.LAST_FRAME)
    if not frame.exists():
        examination.save_last_frame(video, frame)
    workspace.place(frame, target)


# ------------------------------------------------------------------------------------------- before the GPU starts


def prepare(order: Order, folder: workspace.RunFolder, journal: Journal | None = None) -> Prepared:
    """Pictures, machine, plan and preflight findings. Without a journal (``reel plan``) nothing is written.

    Findings of severity ``error`` do not raise: the caller decides (`preflight.raise_for`).
    """
    request = replace(order.request, seed=_seed(order))
    chosen: Prepared | None = None
    candidates = backends.candidates(_generator(order), order.settings)
    for backend in candidates:
        prepared = _prepare_for(backend, replace(order, request=request), folder, journal)
        chosen = chosen or prepared
        if not prepared.plan.errors:
            chosen = prepared
            break
    assert chosen is not None
    if journal:
        journal.host = chosen.job.host
        journal.planned(chosen.plan)
        for role in _ROLES:
            picture: Picture | None = getattr(chosen.job, role)
            if picture:
                journal.took(role, picture)
    return chosen


def _generator(order: Order) -> str:
    return order.request.generator if order.request.generator != "auto" else order.settings.generator


def _seed(order: Order) -> int:
    """A concrete seed, always: ranks that draw their own make noise, and an unknown seed cannot be repeated."""
    for seed in (order.request.seed, order.settings.base_seed):
        if seed is not None and seed >= 0:
            return seed
    return secrets.randbelow(min(2**31, MAX_SEED))


def _prepare_for(backend: Backend, order: Order, folder: workspace.RunFolder, journal: Journal | None) -> Prepared:
    from .machine.probes import take_host  # imported where used: `reel --help` must not wait for it

    settings = order.settings.for_generator(backend.name)
    pictures = _pictures(backend, order, folder, write=journal is not None)
    query = replace(backend.query(order.request, settings), disks=(folder.output.parent,))
    host = take_host(query, environ=order.environ, simulated=settings.simulate_gpus, state_dir=settings.state_dir)
    job = Job(
        order.request,
        settings,
        host,
        folder.video(1),
        pictures.get("first"),
        pictures.get("last"),
        pictures.get("depth"),
    )
    job = job.evolve(overrides={**_avoided_gpus(backend, host, order), **order.overrides})
    asked = _planned(backend, job)
    learned = history.starting_overrides(settings.state_dir, asked, host)
    job = job.evolve(overrides={**job.overrides, **learned})
    plan = _planned(backend, job)
    seen = _picture_findings(pictures)
    findings = (*plan.findings, *preflight.findings(plan, host, settings), *seen, *_learned(learned))
    seconds = plan.seconds or history.predicted_seconds(settings.state_dir, asked, host)
    return Prepared(backend, job, plan.evolve(findings=findings, seconds=seconds), asked)


def _planned(backend: Backend, job: Job) -> Plan:
    """The backend's plan, in which the values of the user's own variables are shown to nobody."""
    plan = backend.plan(job)
    if isinstance(plan.run, Command):
        return plan.evolve(run=replace(plan.run, hidden=frozenset(job.settings.env)))
    return plan


def _avoided_gpus(backend: Backend, host: Host, order: Order) -> dict[str, Any]:
    """Where there is a choice, not the GPUs that failed last time or that another run of ours has just now."""
    if not backend.requires_gpu or not host.gpus:
        return {}
    from .machine.leases import Leases, lease_directory

    avoided = set(history.suspect_gpus(order.settings.state_dir))
    with contextlib.suppress(VideoGenerationError):  # a folder that cannot be used is told by the claim
        avoided |= set(Leases(lease_directory(order.environ)).holders())
    return {"avoid_gpus": tuple(gpu.index for gpu in host.gpus if gpu.uuid in avoided)}


def _picture_findings(pictures: Mapping[str, Picture]) -> tuple[Finding, ...]:
    """What was normalised or cropped, which a plan must tell too."""
    noted = dict.fromkeys(f"{picture.source.name}: {note}" for picture in pictures.values() for note in picture.notes)
    return tuple(Finding("picture", "warning", text) for text in noted)


def _learned(overrides: Mapping[str, Any]) -> tuple[Finding, ...]:
    if not overrides:
        return ()
    changed = ", ".join(f"{name}: {value}" for name, value in overrides.items())
    text = f"starts on what worked last time for this task, size and GPU ({changed})"
    return (Finding("learned", "info", text),)


def _pictures(backend: Backend, order: Order, folder: workspace.RunFolder, *, write: bool) -> dict[str, Picture]:
    """The private copies of the request's pictures; only looked at, not written, when planning."""
    from .media.image import Intake, inspect_picture, take_picture

    request, settings = order.request, order.settings.for_generator(backend.name)
    anchor = request.anchor if request.anchor != "center" else settings.anchor
    intake = Intake(
        strict=request.strict_input or settings.strict_input,
        fit=request.fit or settings.fit,
        anchor=anchor,
        size=backend.frame(request, settings),
    )
    found: dict[str, Picture] = {}
    sources = dict(zip(_ROLES, (request.image, request.last_image, request.depth_image), strict=True))
    for role, source in sources.items():
        if source is None:
            continue
        own = intake if role == "first" else replace(intake, size=found["first"].size if found else None)
        if role == "depth":  # numbers, not a picture: 16 bits and any size are as good
            own = replace(intake, strict=False, size=None)
        target = folder.picture(role)
        path = _absolute_source(source)
        found[role] = take_picture(path, target, own) if write else replace(inspect_picture(path, own), path=target)
    return found


def _absolute_source(source: Path) -> Path:
    return Path(os.path.abspath(source.expanduser()))  # noqa: PTH100 -- symlinks are the intake's business


# ------------------------------------------------------------------------------------------------------- attempts


def _attempt_until_good(run: _Run, prepared: Prepared) -> Film:
    """Attempts until one gives a verified film or the policy says stop; returns the film and what is in it."""
    from .machine.leases import LeaseHolder

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
            plan, lease_fds = _hold(run, prepared, _Try(number, plan, step), leases)
            evidence, good = _attempt(run, plan, number, lease_fds)
            if good is not None:
                run.journal.ended(plan, evidence, None, step)
                history.remember_success(settings.state_dir, prepared.asked, plan, prepared.job.host, evidence)
                return good
            found = diagnosis.diagnose(evidence, plan)
            run.journal.ended(plan, evidence, found, step)
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


def _hold(run: _Run, prepared: Prepared, attempt: _Try, leases: LeaseHolder) -> tuple[Plan, tuple[int, ...]]:
    """The GPUs of the plan; others where another run was faster and there is a choice; else it waits for them."""
    plan, host = attempt.plan, prepared.job.host
    for _ in plan.gpus:
        try:
            return plan, leases.hold(_uuids(plan, host), run.cancellation, wait_s=0)
        except BusyError:
            avoided = _avoided_gpus(prepared.backend, host, run.order)
            other = _plan_of(run, prepared, attempt, avoided)
            if other.gpus == plan.gpus:
                break
            plan = plan.evolve(run=other.run, gpus=other.gpus)
            run.journal.planned(plan)
    return plan, leases.hold(_uuids(plan, host), run.cancellation)


def _plan_of(run: _Run, prepared: Prepared, attempt: _Try, more: Mapping[str, Any]) -> Plan:
    """What the backend plans for an attempt; ``more`` overrides come last."""
    step = attempt.step
    overrides = {**prepared.job.overrides, **(step.overrides if step else {}), **more}
    output = run.folder.video(attempt.number)
    plan = _planned(prepared.backend, prepared.job.evolve(overrides=overrides, output=output))
    if isinstance(plan.run, Command) and step and step.env:
        plan = plan.evolve(run=replace(plan.run, env={**plan.run.env, **step.env}))
    return plan


def _sweep(run: _Run, plan: Plan) -> None:
    """End what a killed runner whose shim was killed as well left on the GPUs (row P21)."""
    if isinstance(plan.run, Command):
        from .executors.process import sweep_dead_runs

        for run_id in sweep_dead_runs():
            run.journal(Log(f"ended what was left of the killed run {run_id}", "warning"))


def _next_step(run: _Run, rules: retry.RetryRules, original: Plan, past: list[retry.Past], evidence: Evidence) -> Next:
    """The policy's decision; raises the failure's own exception when it is to stop."""
    found = past[-1].diagnosis
    if found.failure is Failure.CANCELLED or run.cancellation.requested:
        raise Cancelled(signal_number=run.cancellation.signal_number or 2)
    decision = retry.decide(rules, original, past)
    if isinstance(decision, Stop):
        kept = _keep(run, len(past), evidence)
        raise evidence.error or error_for(
            found.failure,
            found.message,
            evidence=found.evidence,
            advice=" ".join(part for part in (found.advice, decision.why, kept) if part),
        )
    run.journal(Log(f"{found.failure.name}: {found.message}; trying again: {decision.why}", "warning"))
    run.cancellation.pause(decision.pause_s)
    return decision


def _replan(run: _Run, prepared: Prepared, before: _Try, step: Next) -> Plan:
    avoided = prepared.job.overrides.get("avoid_gpus", ())
    more = {"avoid_gpus": (*avoided, *before.plan.gpus)} if step.other_gpus else {}
    plan = _plan_of(run, prepared, replace(before, number=before.number + 1, step=step), more)
    preflight.raise_for(plan.findings)
    run.journal.planned(plan)
    return plan


def _attempt(run: _Run, plan: Plan, number: int, lease_fds: tuple[int, ...]) -> tuple[Evidence, Film | None]:
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
        lease_fds=lease_fds,
    )
    evidence = _executor(plan, run.order).run(plan, files, run.journal, run.cancellation)
    good_enough = evidence.ran_to_end or (settings.accept_valid_on_nonzero and evidence.kill_reason is None)
    if not good_enough:
        return evidence, None
    run.journal(Phase("verifying"))
    try:
        return evidence, _verified(run, plan, number)
    except OutputError as error:
        return replace(evidence, output_problem=error.message, output_exists=files.video.exists()), None


def _executor(plan: Plan, order: Order) -> Executor:
    if isinstance(plan.run, Command):
        from .executors.process import ProcessExecutor

        return ProcessExecutor(order.settings.timeout, order.settings.stop_grace_s, order.environ)
    return InlineExecutor()


def _verified(run: _Run, plan: Plan, number: int) -> Film:
    """The film of an attempt and what a full decode finds in it; raises `OutputError` if it is not the promised one.

    A stranger's film is decoded in a process of its own, and what is published is its copy with our tags and seal.
    """
    from .media import examination

    video = run.folder.video(number)
    if not isinstance(plan.run, Command):
        facts = examination.verify(video, plan.expected, apart=False)
    else:
        tagging = examination.Tagging(run.folder.tagged(number), _tags(plan, run.order.request))
        facts = examination.verify(video, plan.expected, apart=True, tagging=tagging)
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


# --------------------------------------------------------------------------------------------------------- records


def _record_failure(run: _Run, error: VideoGenerationError) -> None:
    history.keep_record(run.order.settings.state_dir, run.journal.manifest(error))


def _keep(run: _Run, number: int, evidence: Evidence) -> str:
    """Keep the log, and a film that may be whole although its program failed (row P13); says where the film is."""
    state_dir, run_id, settings = run.order.settings.state_dir, run.folder.run_id, run.order.settings
    kept = history.keep_file(state_dir, run_id, run.folder.log(number), f"attempt-{number}.log")
    if kept and run.journal.attempts:
        run.journal.attempts[-1] = run.journal.attempts[-1].evolve(log=str(kept))
    ended_badly = bool(evidence.exit_status) and evidence.kill_reason is None
    if not evidence.output_exists or not (ended_badly or settings.keep_failed):
        return ""
    film = history.keep_file(state_dir, run_id, run.folder.video(number), f"attempt-{number}.partial.mp4")
    return f"The unverified film is kept as {film}." if film else ""


def _result(manifest: Manifest, output: Path, *, skipped: bool = False) -> Result:
    facts = manifest.output or {}
    return Result(
        output=output,
        manifest=manifest_path(output),
        width=facts["width"],
        height=facts["height"],
        num_frames=facts["frames"],
        fps=facts["fps"],
        seconds=facts["seconds"],
        attempts=len(manifest.attempts),
        degraded=manifest.degraded,
        warnings=manifest.warnings,
        generator=manifest.generator,
        generative=manifest.generative,
        seed=manifest.seed,
        skipped=skipped,
    )


def _skipped(output: Path) -> Result:
    manifest = history.load_manifest(manifest_path(output))
    if manifest.output is None:
        raise OutputError(f"{output} exists, but its manifest describes no film")
    return _result(manifest, output, skipped=True)


def replay_order(manifest: Manifest, settings: Settings, output: Path) -> Order:
    """The order that makes a film again: the request as it was asked, with the seed that was used.

    Raises:
        InvalidInputError: an input picture is gone or has changed.
    """
    for item in manifest.inputs:
        path = Path(str(item["path"]))
        if _sha256(path) != item["sha256"]:
            raise InvalidInputError(
                f"{path} is gone or has changed since {manifest.created_at}",
                advice="Bring the picture back to where the manifest names it.",
            )
    sources = {str(item["role"]): Path(str(item["path"])) for item in manifest.inputs}
    request = manifest.request.evolve(
        seed=manifest.seed,
        generator=manifest.generator,
        image=sources.get("first"),
        last_image=sources.get("last"),
        depth_image=sources.get("depth"),
    )
    return Order(request, settings, output)


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
