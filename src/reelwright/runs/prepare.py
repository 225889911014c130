"""Before the GPU starts: an order becomes a plan for this machine, or a list of what stands in the way.

Pictures are taken in, the machine is asked, the backend plans (pure), and what this machine has learnt is put in.
`prepare` is all of ``reel plan``, and the first half of a generation.

    >>> prepare(Order(request, settings, Path("clip.mp4")), folder).plan.errors  # doctest: +SKIP
    ()
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import backends
from ..backends import Backend
from ..backends.shared.job import Job
from ..config.layers import here
from ..config.settings import Settings
from ..core.errors import Failure, VideoGenerationError, all_of
from ..core.files import expanded
from ..core.host import Host
from ..core.plan import Finding, Plan
from ..core.request import MAX_SEED, Picture, Size, VideoRequest
from ..policy import fitting, preflight, unused
from . import history, workspace
from .journal import Journal

if TYPE_CHECKING:
    from ..sites.local.workers import Workers

_ROLES = ("first", "last", "depth")


@dataclass(frozen=True)
class Order:
    """A request with everything about where and how it is to be carried out.

    Attributes:
        overrides: Effective parameters to force, as a retry does.
        gpus: The only GPUs that may be used, by index: those of a place in a film; empty: all that are visible.
        last_frame: Where to leave the film's last frame as a PNG, lossless where the renderer is ours, for a film
            that goes on from it. It is there whenever the film is.
        adjust_last_frame: Called with the film and that PNG before either has its name.
        key: The name under which a store keeps the film; the manifest repeats it.
        workers: The owner of engines that stay warm for the next order; ``None``: they end with this one.
    """

    request: VideoRequest
    settings: Settings
    output: Path
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    overrides: Mapping[str, Any] = field(default_factory=dict)
    gpus: tuple[int, ...] = ()
    last_frame: Path | None = None
    adjust_last_frame: Callable[[Path, Path], object] | None = None
    key: str | None = None
    workers: Workers | None = None


@dataclass(frozen=True)
class Prepared:
    """An order that has passed every check that needs no GPU; ``backends.shared.rules`` is its plan before anything learned."""

    backend: Backend
    job: Job
    plan: Plan
    asked: Plan


def prepare(order: Order, folder: workspace.RunFolder, journal: Journal | None = None) -> Prepared:
    """Pictures, machine, plan and preflight findings. Without a journal (``reel plan``) nothing is written.

    Findings of severity ``error`` do not raise: the caller decides (`preflight.raise_for`).

    Raises:
        VideoGenerationError: a picture cannot be used; ``also`` holds the other pictures' faults and what a plan for
            them would have found.
    """
    chosen, unusable = _chosen(order, folder, journal)
    if unusable:
        raise all_of([*unusable, *preflight.errors_of(chosen.plan.findings)])
    if journal:
        journal.host = chosen.job.host
        journal.planned(chosen.plan)
        for role in _ROLES:
            picture: Picture | None = getattr(chosen.job, role)
            if picture:
                journal.took(role, picture)
    return chosen


def mistakes(order: Order, *, inputs_only: bool = False) -> list[VideoGenerationError]:
    """Everything that stands in the way of an order: its output, its pictures, and the findings of its plan.

    Nothing is written. For saying it beside a mistake that was found earlier.

    Args:
        order: What is asked.
        inputs_only: Leave out the output, what the machine lacks, and what nobody has set.
    """
    found: list[VideoGenerationError] = []
    output = here() / "film.mp4"
    try:
        if not inputs_only:
            output = workspace.absolute_output(order.output)
            workspace.check_folder(output)
            workspace.settle_output(output, order.settings.if_exists)
    except VideoGenerationError as error:
        found.append(error)
    try:
        chosen, unusable = _chosen(order, workspace.plan_folder(output, "PLAN"), None)
    except VideoGenerationError as error:
        return [*found, error]
    findings = [item for item in chosen.plan.findings if not inputs_only or _concerns_inputs(item)]
    if found:  # the folder is refused already
        findings = [item for item in findings if item.code != "disk.writable"]
    return [*found, *unusable, *preflight.errors_of(findings)]


def _concerns_inputs(finding: Finding) -> bool:
    return finding.failure in (Failure.INPUT, Failure.CONFIG, Failure.OOM_GPU) and not finding.code.endswith(".unset")


def _chosen(
    order: Order, folder: workspace.RunFolder, journal: Journal | None
) -> tuple[Prepared, list[VideoGenerationError]]:
    """The plan of the first generator that can do it, else of the first; and what is wrong with the pictures."""
    order = replace(order, request=replace(order.request, seed=_seed(order)))
    found: list[tuple[Prepared, list[VideoGenerationError]]] = []
    for backend in backends.candidates(generator_of(order), order.settings):
        found.append(_prepare_for(backend, order, folder, journal))
        if not found[-1][0].plan.errors:
            return found[-1]
    return found[0]


def generator_of(order: Order) -> str:
    """The name that the request says, else the settings; ``auto`` where neither names one."""
    return order.request.generator if order.request.generator != "auto" else order.settings.generator


def _seed(order: Order) -> int:
    """A concrete seed, always: ranks that draw their own make noise, and an unknown seed cannot be repeated."""
    for seed in (order.request.seed, order.settings.base_seed):
        if seed is not None and seed >= 0:
            return seed
    return secrets.randbelow(min(2**31, MAX_SEED))


def _prepare_for(
    backend: Backend, order: Order, folder: workspace.RunFolder, journal: Journal | None
) -> tuple[Prepared, list[VideoGenerationError]]:
    from ..sites.local.probes.host import take_host  # imported where used: `reel --help` must not wait for it

    settings = order.settings.for_generator(backend.name)
    pictures, unusable = _pictures(backend, order, folder, write=journal is not None)
    query = replace(backend.query(order.request, settings), disks=(folder.output.parent,))
    host = take_host(
        query,
        environ=order.environ,
        simulated=settings.simulate_gpus,
        simulated_memory=settings.simulate_memory,
        state_dir=settings.state_dir,
    )
    if order.workers is not None and host.gpus:
        host = replace(host, gpus=order.workers.as_if_idle(host.gpus))
    if order.gpus and host.gpus:
        host = replace(host, gpus=tuple(gpu for gpu in host.gpus if gpu.index in order.gpus))
    job = Job(
        order.request,
        settings,
        host,
        folder.video(1),
        pictures.get("first"),
        pictures.get("last"),
        pictures.get("depth"),
    )
    job = job.evolve(overrides={**avoided_gpus(backend, host, order), **order.overrides})
    asked = planned(backend, job)
    learned = history.starting_overrides(settings.state_dir, asked, host)
    peaks = history.measured_peaks(settings.state_dir, asked, host)
    if learned and asked.gpus:  # what was learned is of this number of GPUs
        learned = {"gpu_count": len(asked.gpus), **learned}
    job = job.evolve(overrides={**job.overrides, **learned, **({"measured_peaks": peaks} if peaks else {})})
    plan = planned(backend, job)
    seen = _picture_findings(pictures)
    own = (*preflight.findings(plan, host, settings), *unused.findings(backend, settings, plan, joined=bool(order.key)))
    findings = (*fitting.advised((*plan.findings, *own), backend, job), *seen, *_learned(learned))
    seconds = plan.seconds or history.predicted_seconds(settings.state_dir, asked, host)
    return Prepared(backend, job, plan.evolve(findings=findings, seconds=seconds), asked), unusable


def planned(backend: Backend, job: Job) -> Plan:
    """The backend's plan, in which the values of the user's own variables are shown to nobody."""
    plan = backend.plan(job)
    if plan.program is None:
        return plan
    return plan.with_program(replace(plan.program, hidden=frozenset(job.settings.env)))


def avoided_gpus(backend: Backend, host: Host, order: Order) -> dict[str, Any]:
    """Where there is a choice, not the GPUs that failed last time or that another run of ours has just now."""
    if not backend.requires_gpu or not host.gpus:
        return {}
    from ..sites.local.leases import Leases, lease_directory

    avoided = set(history.suspect_gpus(order.settings.state_dir))
    ours = order.workers.gpus if order.workers else frozenset()
    with contextlib.suppress(VideoGenerationError):  # a folder that cannot be used is told by the claim
        avoided |= set(Leases(lease_directory(order.environ)).holders()) - ours
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


def _pictures(
    backend: Backend, order: Order, folder: workspace.RunFolder, *, write: bool
) -> tuple[dict[str, Picture], list[VideoGenerationError]]:
    """The private copies of the request's pictures; only looked at, not written, when planning.

    A picture that cannot be used is an error in the list, and an imagined one takes its place in the plan.
    """
    from ..media.image import Intake, inspect_picture, parse_anchor, take_picture

    request, settings = order.request, order.settings.for_generator(backend.name)
    intake = Intake(
        strict=settings.strict_input if request.strict_input is None else request.strict_input,
        fit=request.fit or settings.fit,
        anchor=settings.anchor if request.anchor is None else request.anchor,
        size=backend.frame(request, settings),
        fitted_later=backend.fits_pictures,
    )
    found: dict[str, Picture] = {}
    errors: list[VideoGenerationError] = []
    try:
        parse_anchor(intake.anchor)
    except VideoGenerationError as error:
        errors.append(error)
        intake = replace(intake, anchor="center")
    sources = dict(zip(_ROLES, (request.image, request.last_image, request.depth_image), strict=True))
    for role, source in sources.items():
        if source is None:
            continue
        own = intake if role == "first" else replace(intake, size=found["first"].size if found else None)
        if role == "depth":  # numbers, not a picture: 16 bits and any size are as good
            own = replace(intake, strict=False, size=None)
        target = folder.picture(role)
        path = _absolute_source(source)
        try:
            found[role] = take_picture(path, target, own) if write else replace(inspect_picture(path, own), path=target)
        except VideoGenerationError as error:
            errors.append(error)
            size = own.size or _IMAGINED
            found[role] = Picture(target, path, size, size, "0" * 64)
    return found, errors


#: The size of a picture that cannot be read, for what else can be said about a plan.
_IMAGINED = Size(1280, 720)


def _absolute_source(source: Path) -> Path:
    return Path(os.path.abspath(expanded(source)))  # noqa: PTH100 -- symlinks are the intake's business
