"""Turns an order into a plan for one site, or into a list of all obstacles, before a GPU starts.

`Preparer` is the only place in which a site is asked and a backend plans: for ``reel plan`` and ``reel generate``, for
the segments of a film, for ``reel doctor``, and for ``is_available`` and ``validate_inputs`` of the Python interface.
It asks the site each question once, takes each picture in once, and reads the learned facts once. It runs nothing, and
writes only the private copies of pictures.

    >>> Preparer(site).prepare(order, folder).plan.errors  # doctest: +SKIP
    ()
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import backends
from ..backends import Backend
from ..backends.shared.job import Job
from ..config.fields import here
from ..config.settings import Settings
from ..core.errors import Failure, VideoGenerationError, all_of
from ..core.events import Log
from ..core.files import expanded
from ..core.host import Host, HostQuery
from ..core.plan import Finding, Plan
from ..core.request import MAX_SEED, Picture, Size, VideoRequest
from ..media.framing import parse_anchor
from ..policy import fitting, preflight, unused
from ..sites import Site, unreported
from . import history, workspace
from .order import Order

if TYPE_CHECKING:
    from ..media.image import Intake
    from .journal import Journal

#: The pictures of a job, and the fields of the request that name them.
ROLES: Mapping[str, str] = {"first": "image", "last": "last_image", "depth": "depth_image"}
#: The size assumed for an unreadable picture, so that the plan can be checked for other mistakes.
_ASSUMED_SIZE = Size(1280, 720)


@dataclass(frozen=True)
class Prepared:
    """An order with its plan.

    Attributes:
        backend: The generator.
        job: The input of the backend's plan.
        plan: The plan, with every finding.
        first_plan: The plan before learned facts changed it: the machine stores what it learns under its key.
        unusable: The errors of the order's pictures.
    """

    backend: Backend
    job: Job
    plan: Plan
    first_plan: Plan
    unusable: tuple[VideoGenerationError, ...] = ()


@dataclass
class Preparer:
    """Plans orders on one site. Keep it for orders that belong together; make a new one for a later look."""

    site: Site
    _hosts: list[tuple[HostQuery, Settings, Host]] = field(default_factory=list)
    _learned: dict[Path, history.Learned] = field(default_factory=dict)
    _taken: dict[tuple[Path, Path, Intake], Picture | VideoGenerationError] = field(default_factory=dict)
    _busy: frozenset[str] | None = None
    _passed_over: list[tuple[Settings, tuple[Finding, ...]]] = field(default_factory=list)
    _report: Callable[[Log], None] = unreported

    def prepare(self, order: Order, folder: workspace.RunFolder, journal: Journal | None = None) -> Prepared:
        """Take in the pictures, look at the site, plan and check. Without a journal (``reel plan``) it writes nothing.

        Findings of severity ``error`` do not raise: the caller decides (`preflight.raise_for`).

        Raises:
            VideoGenerationError: a picture cannot be used; ``also`` holds the faults of the other pictures and the
                errors of the plan.
        """
        self._report = journal or unreported
        prepared = self._first_able(order, folder, write=journal is not None)
        if prepared.unusable:
            raise all_of([*prepared.unusable, *preflight.errors_of(prepared.plan.findings)])
        if journal:
            journal.host = prepared.job.host
            journal.planned(prepared.plan)
            for role in ROLES:
                picture: Picture | None = getattr(prepared.job, role)
                if picture:
                    journal.took(role, picture)
        return prepared

    def mistakes(self, order: Order, *, inputs_only: bool = False) -> list[VideoGenerationError]:
        """Every obstacle of an order: in its output, in its pictures, and the errors of its plan.

        It writes nothing. A caller that refuses an order for another mistake adds these mistakes.

        Args:
            order: The order.
            inputs_only: Leave out the output, faults of the machine, and missing settings.
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
            prepared = self._first_able(order, workspace.plan_folder(output, "PLAN"), write=False)
        except VideoGenerationError as error:
            return [*found, error]
        findings = [item for item in prepared.plan.findings if not inputs_only or _concerns_inputs(item)]
        if found:  # the folder is refused already
            findings = [item for item in findings if item.code != "disk.writable"]
        return [*found, *prepared.unusable, *preflight.errors_of(findings)]

    def plan(
        self, backend: Backend, order: Order, pictures: Mapping[str, Picture], video: Path, *, learn: bool = True
    ) -> Prepared:
        """The plan of one backend for an order and its pictures, with the findings that every run checks.

        Args:
            backend: The generator.
            order: The order; its pictures may be assumed ones.
            pictures: The pictures by role: ``first``, ``last``, ``depth``.
            video: The file that the plan writes.
            learn: Start from learned facts and avoid busy GPUs. A film plans without: the key of a clip must not
                depend on either.
        """
        settings = order.settings.for_generator(backend.name)
        host = self.look(backend.query(order.request, settings), settings, order.output.parent)
        if order.gpus and host.gpus:
            host = replace(host, gpus=tuple(gpu for gpu in host.gpus if gpu.index in order.gpus))
        job = Job(order.request, settings, host, video, **pictures, overrides=order.overrides)
        overrides: dict[str, Any] = {}
        peaks: dict[str, int] = {}
        learned = self._learned_in(settings)
        if learn:
            job = job.evolve(overrides={**self._avoided(backend, host, settings), **order.overrides})
        first_plan = planned(backend, job)
        plan = first_plan
        if learn:
            overrides = learned.starting_overrides(first_plan, host)
            peaks = learned.measured_peaks(first_plan, host)
        if overrides and first_plan.gpus:  # they were learned with this number of GPUs
            overrides = {"gpu_count": len(first_plan.gpus), **overrides}
        if overrides or peaks:
            job = job.evolve(overrides={**job.overrides, **overrides, **({"measured_peaks": peaks} if peaks else {})})
            plan = planned(backend, job)
        findings = fitting.advised(
            (
                *plan.findings,
                *preflight.findings(plan, host),
                *unused.findings(backend, settings, plan, joined=bool(order.key)),
            ),
            backend,
            job,
        )
        seconds = plan.seconds or learned.predicted_seconds(first_plan, host)
        plan = plan.evolve(
            findings=(
                *findings,
                *_picture_findings(pictures),
                *_learned_findings(overrides),
                *(self._passed_over_findings(order.settings) if generator_of(order) == "auto" else ()),
            ),
            seconds=seconds,
        )
        return Prepared(backend, job, plan, first_plan)

    def look(self, query: HostQuery, settings: Settings, folder: Path) -> Host:
        """The site's answer to a backend's query, with the disk of ``folder``; the site is asked once."""
        query = replace(query, disks=(folder,))
        for before, of, host in self._hosts:
            if before == query and of == settings:
                return host
        host = self.site.look(query, settings, self._report)
        self._hosts.append((query, settings, host))
        return host

    def avoided_gpus(self, backend: Backend, host: Host, settings: Settings) -> dict[str, Any]:
        """An override that avoids GPUs that failed last time or that another run holds; asks the site again."""
        self._busy = None
        return self._avoided(backend, host, settings)

    def _avoided(self, backend: Backend, host: Host, settings: Settings) -> dict[str, Any]:
        if not backend.requires_gpu or not host.gpus:
            return {}
        if self._busy is None:
            self._busy = self.site.busy_gpus()
        avoided = {*self._learned_in(settings).suspect_gpus(), *self._busy}
        return {"avoid_gpus": tuple(gpu.index for gpu in host.gpus if gpu.uuid in avoided)}

    def _passed_over_findings(self, settings: Settings) -> tuple[Finding, ...]:
        """A warning for each generator that ``auto`` passes over because its settings exclude each other."""
        for before, found in self._passed_over:
            if before == settings:
                return found
        refused = backends.refused_settings(settings).items()
        found = tuple(
            Finding("generator.settings", "warning", f"{name} is passed over: {error.message}", error.advice)
            for name, error in refused
        )
        self._passed_over.append((settings, found))
        return found

    def _learned_in(self, settings: Settings) -> history.Learned:
        if settings.state_dir not in self._learned:
            self._learned[settings.state_dir] = history.Learned(settings.state_dir)
        return self._learned[settings.state_dir]

    def _first_able(self, order: Order, folder: workspace.RunFolder, *, write: bool) -> Prepared:
        """The plan of the first candidate generator that can make the clip, else of the first candidate."""
        drawn = secrets.randbelow(min(2**31, MAX_SEED))
        first: Prepared | None = None
        for backend in backends.candidates(generator_of(order), order.settings):
            pictures, unusable = self._pictures(backend, order, folder, write=write)
            seed = _seed(order.request, order.settings.for_generator(backend.name), drawn)
            placed = replace(order, output=folder.output, request=replace(order.request, seed=seed))
            prepared = self.plan(backend, placed, pictures, folder.video(1))
            prepared = replace(prepared, unusable=tuple(unusable))
            if not prepared.plan.errors:
                return prepared
            first = first or prepared
        assert first is not None  # `candidates` is never empty
        return first

    def _pictures(
        self, backend: Backend, order: Order, folder: workspace.RunFolder, *, write: bool
    ) -> tuple[dict[str, Picture], list[VideoGenerationError]]:
        """The private copies of the order's pictures; without ``write`` they are inspected and not written.

        For an unusable picture, the list has an error and the plan uses an assumed picture.
        """
        intake, errors = _intake(backend, order)
        found: dict[str, Picture] = {}
        for role, name in ROLES.items():
            source: Path | None = getattr(order.request, name)
            if source is None:
                continue
            own = intake if role == "first" else replace(intake, size=found["first"].size if found else None)
            if role == "depth":  # a depth picture holds numbers: 16 bits and any size are allowed
                own = replace(intake, strict=False, size=None)
            target, path = folder.picture(role), _absolute_source(source)
            taken = self._take(path, target, own, write=write)
            if isinstance(taken, VideoGenerationError):
                errors.append(taken)
                size = own.size or _ASSUMED_SIZE
                taken = Picture(target, path, size, size, "0" * 64)
            found[role] = taken
        return found, errors

    def _take(self, path: Path, target: Path, intake: Intake, *, write: bool) -> Picture | VideoGenerationError:
        from ..media.image import inspect_picture, take_picture

        place = (path, target, intake)
        if place not in self._taken:
            try:
                self._taken[place] = (
                    take_picture(path, target, intake) if write else replace(inspect_picture(path, intake), path=target)
                )
            except VideoGenerationError as error:
                self._taken[place] = error
        return self._taken[place]


def generator_of(order: Order) -> str:
    """The generator that the request names, else the one of the settings; ``auto`` if neither names one."""
    return order.request.generator if order.request.generator != "auto" else order.settings.generator


def planned(backend: Backend, job: Job) -> Plan:
    """The backend's plan, which hides the values of variables that the user set."""
    plan = backend.plan(job)
    if plan.program is None:
        return plan
    return plan.with_program(replace(plan.program, hidden=frozenset(job.settings.env)))


def _concerns_inputs(finding: Finding) -> bool:
    return finding.failure in (Failure.INPUT, Failure.CONFIG, Failure.OOM_GPU) and not finding.code.endswith(".unset")


def _seed(request: VideoRequest, settings: Settings, drawn: int) -> int:
    """The requested, configured or drawn seed: ranks with different seeds make noise, and a replay needs the seed."""
    known = (seed for seed in (request.seed, settings.base_seed) if seed is not None and seed >= 0)
    return next(known, drawn)


def intake_of(backend: Backend, request: VideoRequest, settings: Settings) -> Intake:
    """The rules for taking in a request's first picture; ``settings`` are those of the backend."""
    from ..media.image import Intake

    return Intake(
        strict=settings.strict_input if request.strict_input is None else request.strict_input,
        fit=request.fit or settings.fit,
        anchor=settings.anchor if request.anchor is None else request.anchor,
        size=backend.frame(request, settings),
        fitted_later=backend.fits_pictures,
    )


def _intake(backend: Backend, order: Order) -> tuple[Intake, list[VideoGenerationError]]:
    """`intake_of` an order, and its mistakes: the center replaces an anchor that cannot be read."""
    intake = intake_of(backend, order.request, order.settings.for_generator(backend.name))
    try:
        parse_anchor(intake.anchor)
    except VideoGenerationError as error:
        return replace(intake, anchor="center"), [error]
    return intake, []


def _picture_findings(pictures: Mapping[str, Picture]) -> Iterator[Finding]:
    """A warning for each normalisation or crop."""
    noted = dict.fromkeys(f"{picture.source.name}: {note}" for picture in pictures.values() for note in picture.notes)
    return (Finding("picture", "warning", text) for text in noted)


def _learned_findings(overrides: Mapping[str, Any]) -> tuple[Finding, ...]:
    if not overrides:
        return ()
    changed = ", ".join(f"{name}: {value}" for name, value in overrides.items())
    text = f"starts with what worked last time for this task, size and GPU ({changed})"
    return (Finding("learned", "info", text),)


def _absolute_source(source: Path) -> Path:
    return Path(os.path.abspath(expanded(source)))  # noqa: PTH100 -- symlinks are the intake's business
