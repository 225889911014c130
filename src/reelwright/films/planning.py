"""What each segment will be before any of it is made: its plan, its key, and every mistake, with the shot's name.

The machine is asked once for all segments of a generator and task. Pictures that do not exist yet (the last frame of
a clip before) are stood in for by one of the film's size, which they will have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import backends
from .._version import __version__
from ..backends import Backend
from ..backends.shared.job import Job
from ..config.settings import Settings
from ..core.errors import VideoGenerationError, all_of, error_for
from ..core.files import open_regular
from ..core.host import Host
from ..core.plan import Finding, Plan
from ..core.request import Picture, VideoRequest
from ..policy import fitting, preflight, unused
from ..runs import history
from ..sites.local.workers import Workers
from .store import key_of
from .timeline import Segment


def overrides_for(segment: Segment) -> dict[str, Any]:
    """A clip of a film leaves a clean last frame; one that goes on from another begins exactly on its picture."""
    return {"last_frame": True, **({"identity_start": True} if segment.upstream else {})}


@dataclass(frozen=True)
class ShotFinding:
    """Something that was seen before a film is begun, and whom it concerns.

    Attributes:
        finding: What was seen.
        whom: ``shot opening``, ``shots one, two``, ``every shot``, or empty for the film itself.
    """

    finding: Finding
    whom: str = ""

    @property
    def message(self) -> str:
        """The finding, with whom it concerns in front."""
        return f"{self.whom}: {self.finding.message}" if self.whom else self.finding.message

    def as_error(self) -> VideoGenerationError:
        """The same, to be raised."""
        return error_for(self.finding.failure, self.message, advice=self.finding.fix)

    def to_json(self) -> dict[str, Any]:
        """The finding's own fields and ``concerns``."""
        return {**self.finding.to_json(), "concerns": self.whom}


@dataclass(frozen=True)
class Planned:
    """A segment with its plan and its key."""

    segment: Segment
    backend: Backend
    plan: Plan
    key: str

    @property
    def resident(self) -> bool:
        """Whether an engine that stays warm makes it."""
        return self.plan.stays_warm


@dataclass
class Planner:
    """Plans segments; keeps what it learnt of machine and pictures."""

    settings: Settings
    folder: Path
    environ: Mapping[str, str]
    color: str = "anchor"
    workers: Workers | None = None
    _hosts: dict[Any, Host] = field(default_factory=dict)
    _chosen: dict[str, Backend] = field(default_factory=dict)
    _digests: dict[Path, str] = field(default_factory=dict)

    def backend(self, segment: Segment) -> Backend:
        """The generator of that name; ``auto`` is the first that could make this, and the same for the whole film."""
        asked = segment.request.generator
        name = asked if asked != "auto" else self.settings.generator
        if name not in self._chosen:
            able = backends.candidates(name, self.settings)
            clean = (item for item in able if not self._plan(item, segment).errors)
            self._chosen[name] = able[0] if len(able) == 1 else next(clean, able[0])
        return self._chosen[name]

    def plan(self, segments: Sequence[Segment]) -> tuple[Planned, ...]:
        """All segments, in their order; a chained one's key holds its upstream's."""
        found: dict[str, Planned] = {}
        for segment in segments:
            backend = self.backend(segment)
            plan = self._plan(backend, segment)
            upstream = found[segment.upstream].key if segment.upstream else None
            found[segment.id] = Planned(segment, backend, plan, self._key(segment, backend, plan, upstream))
        return tuple(found.values())

    def check(self, planned: Sequence[Planned]) -> None:
        """Look at every picture of these segments, and raise for the first mistake, with the others as evidence.

        Raises:
            VideoGenerationError: see `raise_for`.
        """
        raise_for(self.findings(planned))

    def findings(self, planned: Sequence[Planned]) -> tuple[ShotFinding, ...]:
        """What is to be said of these segments and of their pictures; what holds for several shots is said once."""
        found = [(item.segment.shot, finding) for item in planned for finding in item.plan.findings]
        return grouped([*found, *self._picture_problems(planned)], [item.segment.shot for item in planned])

    def _picture_problems(self, planned: Sequence[Planned]) -> Iterator[tuple[str, Finding]]:
        from ..media.image import Intake, inspect_picture

        wanted: dict[tuple[Path, Intake], str] = {}
        for item in planned:
            request = item.segment.request
            intake = Intake(
                strict=self.settings.strict_input,
                fit=request.fit or self.settings.fit,
                size=request.size,
                anchor=self.settings.anchor if request.anchor is None else request.anchor,
                fitted_later=item.backend.fits_pictures,
            )
            for path in _own_pictures(item.segment):
                wanted.setdefault((path, intake), item.segment.shot)

        def problem(place: tuple[Path, Intake]) -> Finding | None:
            try:
                inspect_picture(*place)
            except VideoGenerationError as error:
                return Finding("picture", "error", error.message, error.advice, error.failure)
            return None

        with ThreadPoolExecutor(max_workers=4) as pool:
            for (_, shot), found in zip(wanted.items(), pool.map(problem, wanted), strict=True):
                if found:
                    yield shot, found

    def _plan(self, backend: Backend, segment: Segment) -> Plan:
        request = segment.request
        settings = self.settings.for_generator(backend.name)
        host = self._host(backend, request, settings)
        pictures = {role: _imagined(getattr(request, name), request) for role, name in _ROLES.items()}
        job = Job(request, settings, host, self.folder / "film.mp4", **pictures, overrides=overrides_for(segment))
        plan = backend.plan(job)
        shared = (*preflight.findings(plan, host, settings), *unused.findings(backend, settings, plan))
        found = (*plan.findings, *shared)
        return plan.evolve(findings=fitting.advised(found, backend, job))

    def _host(self, backend: Backend, request: VideoRequest, settings: Settings) -> Host:
        from ..sites.local.probes.host import take_host

        place = (backend.name, request.task)
        if place not in self._hosts:
            query = replace(backend.query(request, settings), disks=(self.folder,))
            host = take_host(
                query,
                environ=self.environ,
                simulated=settings.simulate_gpus,
                simulated_memory=settings.simulate_memory,
                state_dir=settings.state_dir,
            )
            if self.workers is not None and host.gpus:
                host = replace(host, gpus=self.workers.as_if_idle(host.gpus))
            self._hosts[place] = host
        return self._hosts[place]

    def measured_seconds(self, planned: Planned) -> float | None:
        """How long this machine took for such a clip; ``None`` if it never made one."""
        host = self._hosts[(planned.backend.name, planned.segment.request.task)]
        known = history.predicted_seconds(self.settings.state_dir, planned.plan, host)
        return planned.plan.seconds if known is None else known

    def gpu_indices(self) -> tuple[int, ...]:
        """The GPUs that were seen."""
        return next((tuple(gpu.index for gpu in host.gpus) for host in self._hosts.values() if host.gpus), ())

    def _key(self, segment: Segment, backend: Backend, plan: Plan, upstream: str | None) -> str:
        host = self._hosts[(backend.name, segment.request.task)]
        shaping = {name: str(value) for name, value in plan.parameters.items() if name not in backend.execution}
        checkouts = {str(path): found.commit for path, found in host.checkouts.items()}
        weights = [found.fingerprint for found in host.checkpoints.values()]
        return key_of(
            {
                "generator": backend.name,
                "task": plan.task,
                "prompt": segment.request.prompt,
                "negative_prompt": segment.request.negative_prompt,
                "parameters": shaping,
                "pictures": {role: self._digest(path) for role, path in _pictures_by_role(segment).items()},
                "upstream": [upstream, self.color] if upstream else None,
                "model": [sorted(checkouts.values(), key=str), sorted(weights)],
                "engine": __version__ if plan.run and plan.run.trusted_output else None,
                **self._framing(segment, backend, plan),
            }
        )

    def _framing(self, segment: Segment, backend: Backend, plan: Plan) -> dict[str, Any]:
        """How pictures come to the size, where a generator leaves that to us; empty if it is the usual way."""
        request, usual = segment.request, {"fit": "cover", "anchor": "center"}
        if not _pictures_by_role(segment):
            return {}
        anchor = request.anchor or self.settings.for_generator(backend.name).anchor
        asked = {"fit": request.fit, "anchor": anchor}
        other = {key: how for key, how in asked.items() if how not in (None, usual[key]) and key not in plan.parameters}
        return {"framing": other} if other else {}

    def _digest(self, path: Path) -> str:
        if path not in self._digests:
            try:
                with open_regular(path) as file:
                    self._digests[path] = hashlib.file_digest(file, "sha256").hexdigest()
            except (OSError, ValueError):
                self._digests[path] = "unreadable"  # told by `check`
        return self._digests[path]


def grouped(found: Iterable[tuple[str, Finding]], shots: Collection[str]) -> tuple[ShotFinding, ...]:
    """Findings of single shots, each message once with the names of all shots that it concerns."""
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


_ROLES = {"first": "image", "last": "last_image", "depth": "depth_image"}


def _imagined(path: Path | None, request: VideoRequest) -> Picture | None:
    size = request.size
    assert size is not None
    return Picture(path, path, size, size, "0" * 64) if path else None


def _pictures_by_role(segment: Segment) -> dict[str, Path]:
    pictures = {role: getattr(segment.request, name) for role, name in _ROLES.items()}
    if segment.upstream:
        pictures["first"] = None  # it comes from upstream, whose key is in ours
    return {role: path for role, path in pictures.items() if path}


def _own_pictures(segment: Segment) -> list[Path]:
    return [path for role, path in _pictures_by_role(segment).items() if role != "depth"]
