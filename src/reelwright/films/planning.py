"""Finds the plan, the key and the mistakes of every segment, before any clip is made.

For a picture that does not exist yet (the last frame of the clip before), the planner uses a placeholder of the film's
size, which that picture will have.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import backends
from .._version import RENDERING_VERSION
from ..backends import Backend
from ..config.settings import Settings
from ..core.errors import VideoGenerationError, all_of, error_for
from ..core.host import Host
from ..core.plan import Finding, Plan
from ..core.request import Picture
from ..runs.order import Order
from ..runs.prepare import ROLES, Prepared, Preparer, intake_of
from ..runs.workspace import file_digest
from ..sites import Site
from .store import clip_key
from .timeline import Segment

if TYPE_CHECKING:
    from ..media.image import Intake


def overrides_for(segment: Segment) -> dict[str, Any]:
    """The overrides of a segment's plan: a clean last frame, and an exact start if it continues another segment."""
    return {"last_frame": True, **({"identity_start": True} if segment.upstream else {})}


@dataclass(frozen=True)
class ShotFinding:
    """A finding about a film before it is made, with the shots that it concerns.

    Attributes:
        finding: The finding.
        whom: ``shot opening``, ``shots one, two``, ``every shot``, or empty for the film itself.
    """

    finding: Finding
    whom: str = ""

    @property
    def message(self) -> str:
        """The finding's message, after the shots."""
        return f"{self.whom}: {self.finding.message}" if self.whom else self.finding.message

    def as_error(self) -> VideoGenerationError:
        """The finding as an error."""
        return error_for(self.finding.failure, self.message, advice=self.finding.fix)

    def to_json(self) -> dict[str, Any]:
        """The finding's own fields and ``concerns``."""
        return {**self.finding.to_json(), "concerns": self.whom}


@dataclass(frozen=True)
class Planned:
    """A segment with its plan, its key, and the machine that the plan is for."""

    segment: Segment
    backend: Backend
    plan: Plan
    key: str
    host: Host


@dataclass
class Planner:
    """Plans the segments of one film on one site with `runs.prepare`, and computes their keys.

    Attributes:
        settings: The film's settings.
        folder: The folder for its clips.
        site: Where they run.
        color: How the storyboard matches colours between clips.
    """

    settings: Settings
    folder: Path
    site: Site
    color: str = "anchor"
    _chosen: dict[str, Backend] = field(default_factory=dict)
    _digests: dict[Path, str] = field(default_factory=dict)
    _problems: dict[tuple[Path, Intake], Finding | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._preparer = Preparer(self.site)

    def backend(self, segment: Segment) -> Backend:
        """The generator of a segment; ``auto`` is the first that can make it, and stays the same for the film."""
        asked = segment.request.generator
        name = asked if asked != "auto" else self.settings.generator
        if name not in self._chosen:
            able = backends.candidates(name, self.settings)
            clean = (item for item in able if not self._prepared(item, segment).plan.errors)
            self._chosen[name] = able[0] if len(able) == 1 else next(clean, able[0])
        return self._chosen[name]

    def plan(self, segments: Sequence[Segment]) -> tuple[Planned, ...]:
        """Plan all segments, in their order; the key of a chained one includes the key of its upstream."""
        found: dict[str, Planned] = {}
        for segment in segments:
            backend = self.backend(segment)
            prepared = self._prepared(backend, segment)
            upstream = found[segment.upstream].key if segment.upstream else None
            key = self._key(segment, prepared, upstream)
            found[segment.id] = Planned(segment, backend, prepared.plan, key, prepared.job.host)
        return tuple(found.values())

    def findings(self, planned: Sequence[Planned]) -> tuple[ShotFinding, ...]:
        """The findings of these segments and of their pictures; one that holds for several shots appears once."""
        found = [(item.segment.shot, finding) for item in planned for finding in item.plan.findings]
        return grouped([*found, *self._picture_problems(planned)], [item.segment.shot for item in planned])

    def _picture_problems(self, planned: Sequence[Planned]) -> Iterator[tuple[str, Finding]]:
        from ..media.image import inspect_picture

        wanted: dict[tuple[Path, Intake], list[str]] = {}
        for item in planned:
            settings = self.settings.for_generator(item.backend.name)
            intake = intake_of(item.backend, item.segment.request, settings)
            for role, path in _pictures_by_role(item.segment).items():
                if role != "depth":
                    wanted.setdefault((path, intake), []).append(item.segment.shot)

        def problem(use: tuple[Path, Intake]) -> Finding | None:
            try:
                inspect_picture(*use)
            except VideoGenerationError as error:
                return Finding("picture", "error", error.message, error.advice, error.failure)
            return None

        new = [use for use in wanted if use not in self._problems]
        with ThreadPoolExecutor(max_workers=4) as pool:
            self._problems.update(zip(new, pool.map(problem, new), strict=True))
        for use, shots in wanted.items():
            if found := self._problems[use]:
                yield from ((shot, found) for shot in shots)

    def _prepared(self, backend: Backend, segment: Segment) -> Prepared:
        """The plan of a segment. A picture that does not exist yet is assumed to have the segment's size."""
        request = segment.request
        size, paths = request.size, {role: getattr(request, name) for role, name in ROLES.items()}
        assert size is not None
        pictures = {role: Picture(path, path, size, size, "0" * 64) for role, path in paths.items() if path}
        video = self.folder / "film.mp4"
        order = Order(request, self.settings, video, overrides_for(segment))
        return self._preparer.plan(backend, order, pictures, video, learn=False)

    def _key(self, segment: Segment, prepared: Prepared, upstream: str | None) -> str:
        backend, plan, host = prepared.backend, prepared.plan, prepared.job.host
        shaping = {name: str(value) for name, value in plan.parameters.items() if name not in backend.execution}
        checkouts = {str(path): found.commit for path, found in host.checkouts.items()}
        weights = [found.fingerprint for found in host.checkpoints.values()]
        return clip_key(
            **{
                "generator": backend.name,
                "task": plan.task,
                "prompt": segment.request.prompt,
                "negative_prompt": segment.request.negative_prompt,
                "parameters": shaping,
                "pictures": {role: self._digest(path) for role, path in _pictures_by_role(segment).items()},
                "upstream": [upstream, self.color] if upstream else None,
                "model": [sorted(checkouts.values(), key=str), sorted(weights)],
                "engine": RENDERING_VERSION if plan.run and plan.run.trusted_output else None,
                **self._framing(segment, backend, plan),
            }
        )

    def _framing(self, segment: Segment, backend: Backend, plan: Plan) -> dict[str, Any]:
        """How Reelwright fits pictures for this generator; empty for the default way."""
        request, usual = segment.request, {"fit": "cover", "anchor": "center"}
        if not _pictures_by_role(segment):
            return {}
        anchor = request.anchor or self.settings.for_generator(backend.name).anchor
        asked = {"fit": request.fit, "anchor": anchor}
        other = {key: how for key, how in asked.items() if how not in (None, usual[key]) and key not in plan.parameters}
        return {"framing": other} if other else {}

    def _digest(self, path: Path) -> str:
        if path not in self._digests:
            self._digests[path] = file_digest(path) or "unreadable"  # `findings` reports it
        return self._digests[path]


def grouped(found: Iterable[tuple[str, Finding]], shots: Collection[str]) -> tuple[ShotFinding, ...]:
    """The findings of single shots, each message once with all shots that it concerns."""
    concerned: dict[str, dict[str, None]] = {}
    findings: dict[str, Finding] = {}
    for shot, finding in found:
        concerned.setdefault(finding.message, {})[shot] = None
        findings.setdefault(finding.message, finding)
    everything = dict.fromkeys(shots)
    return tuple(ShotFinding(findings[text], _named(names, everything)) for text, names in concerned.items())


def raise_for(found: Iterable[ShotFinding]) -> None:
    """Raise for the first error, with all others in ``also``.

    Raises:
        VideoGenerationError: of the class of the first error; the message names the shot.
    """
    errors = [item.as_error() for item in found if item.finding.severity == "error"]
    if errors:
        raise all_of(errors)


def _named(names: Collection[str], shots: Collection[str]) -> str:
    """Shots in words."""
    if len(names) == 1:
        return f"shot {next(iter(names))}"
    return "every shot" if len(names) == len(shots) else f"shots {', '.join(names)}"


def _pictures_by_role(segment: Segment) -> dict[str, Path]:
    pictures = {role: getattr(segment.request, name) for role, name in ROLES.items()}
    if segment.upstream:
        pictures["first"] = None  # it comes from upstream, whose key is part of this one
    return {role: path for role, path in pictures.items() if path}
