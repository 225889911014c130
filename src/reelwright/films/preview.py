"""Plans a film without running it: the stored clips, the time and memory of the others, and the findings.

>>> plan = preview(order)                                        # doctest: +SKIP
>>> [(clip.id, clip.stored) for clip in plan.clips], plan.errors  # doctest: +SKIP
([('opening', True), ('closer', False)], ())
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.plan import Finding
from ..sites import Site
from .estimate import times
from .film_outputs import film_findings, settled_output
from .planning import Planned, ShotFinding
from .render import FilmOrder, Looked, look
from .store import Store


@dataclass(frozen=True)
class ClipPlan:
    """One clip in a film's plan.

    Attributes:
        planned: The segment, its plan and its key.
        stored: Whether the store has it.
    """

    planned: Planned
    stored: bool

    @property
    def seconds(self) -> float | None:
        """Predicted duration; ``None`` if the clip is stored or the time is unknown."""
        return None if self.stored else self.planned.plan.seconds

    @property
    def id(self) -> str:
        """The segment's name."""
        return self.planned.segment.id

    def to_json(self) -> dict[str, Any]:
        """The clip's object in ``reel film --dry-run --json``."""
        segment, plan = self.planned.segment, self.planned.plan
        return {
            "segment": segment.id,
            "shot": segment.shot,
            "generator": self.planned.backend.name,
            "task": plan.task,
            "frames": segment.request.num_frames,
            "expected": plan.expected.to_json() if plan.expected else None,
            "goes_on_from": segment.upstream,
            "dissolve": segment.dissolve,
            "key": self.planned.key,
            "stored": self.stored,
            "seconds": self.seconds,
            "gpus": list(plan.gpus),
            "gpu_bytes": plan.gpu_bytes,
            "host_bytes": plan.host_bytes,
            "disk_bytes": plan.disk_bytes,
        }


@dataclass(frozen=True)
class FilmPlan:
    """The plan of a film: `assembly.film` would follow it for the same order.

    Attributes:
        output: The film's path.
        clips: Every clip, in the film's order.
        findings: Findings about the film, its shots and its pictures; an error stops the film before it starts.
        times: Sentences about the time that the missing clips take.
        policy: Sentences about what happens when a clip fails.
        generative: Whether a model makes any of the clips.
    """

    output: Path
    clips: tuple[ClipPlan, ...]
    findings: tuple[ShotFinding, ...]
    times: tuple[str, ...]
    policy: tuple[str, ...]
    generative: bool

    @property
    def errors(self) -> tuple[ShotFinding, ...]:
        """The findings that forbid the film."""
        return tuple(item for item in self.findings if item.finding.severity == "error")

    @property
    def missing(self) -> tuple[ClipPlan, ...]:
        """The clips that would be made."""
        return tuple(clip for clip in self.clips if not clip.stored)

    def to_json(self) -> dict[str, Any]:
        """The object of ``reel film --dry-run --json``."""
        return {
            "output": str(self.output),
            "generative": self.generative,
            "clips": [clip.to_json() for clip in self.clips],
            "to_make": len(self.missing),
            "gpu_bytes": max((clip.planned.plan.gpu_bytes or 0 for clip in self.missing), default=0),
            "host_bytes": max((clip.planned.plan.host_bytes or 0 for clip in self.missing), default=0),
            "disk_bytes": sum(clip.planned.plan.disk_bytes for clip in self.missing),
            "times": list(self.times),
            "policy": list(self.policy),
            "findings": [item.to_json() for item in self.findings],
        }


def preview(order: FilmOrder, site: Site) -> FilmPlan:
    """The plan of a film's order. It inspects pictures and reads stored clips; it writes nothing.

    Raises:
        InvalidInputError: the output has no usable name, or ``only`` or ``start`` names an unknown shot.
        ConfigurationError: a generator is unknown.
    """
    order = replace(order, output=settled_output(order))
    looked = look(order, Store(order.output.parent), site)
    planner, missing = looked.planner, looked.missing
    clips = tuple(ClipPlan(item, item.segment.id in looked.clips) for item in looked.planned)
    return FilmPlan(
        order.output,
        clips,
        (*film_findings(order, looked.planned), *planner.findings(missing), *_damaged(looked)),
        tuple(_times(order, missing)),
        tuple(_policy(order)),
        any(item.backend.generative for item in looked.planned),
    )


def _damaged(looked: Looked) -> Iterator[ShotFinding]:
    for name in looked.frames:
        text = "its last frame is damaged in the store: it is taken from the clip again, or the clip is made again"
        yield ShotFinding(Finding("store.frame", "warning", text), f"clip {name}")
    for name in looked.damaged:
        text = "the stored file is not the clip that was verified, or its manifest is damaged: it is made again"
        yield ShotFinding(Finding("store.clip", "warning", text), f"clip {name}")


def _times(order: FilmOrder, missing: Sequence[Planned]) -> Iterator[str]:
    yield from times(missing)
    parallel = order.settings.parallel_segments or 1
    if parallel > 1 and len(missing) > 1:
        yield f"up to {min(parallel, len(missing))} clips are made at the same time"


def _policy(order: FilmOrder) -> Iterator[str]:
    settings = order.settings
    if order.keep_going:
        yield "if a shot fails, the film is made of the others"
    else:
        yield "if a shot fails, the other clips are still made and kept, and there is no film"
    if settings.strict_quality:
        yield "quality is never lowered to succeed"
    elif settings.allow_degrade:
        yield f"a retry may lower {' and '.join(settings.allow_degrade)}"
    if settings.if_exists == "overwrite":
        yield "an existing file of the film's name is replaced"
