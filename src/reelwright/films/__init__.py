"""Films: a storyboard of shots becomes one film, and nothing is ever rendered twice or lost.

    storyboard --timeline--> segments --store--> what is missing --schedule, runner--> clips --assembly--> film

A segment is one clip of a generator. `storyboard` reads what a person wrote, `timeline` says which clips it needs,
`schedule` in which order, `store` keeps every clip under a key of all that determines it, `render` does the work,
`assembly` joins. Nothing here knows a GPU or a framework: clips are made by `runner.generate`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..protocol import Event

State = Literal["waiting", "stored", "rendering", "rendered", "failed", "blocked"]


@dataclass(frozen=True)
class SegmentState:
    """A segment is now in this state; ``detail`` says why it failed, or what it waits for."""

    segment: str
    state: State
    detail: str = ""


@dataclass(frozen=True)
class SegmentEvent:
    """What the generation of a segment said (see `protocol`)."""

    segment: str
    event: Event


@dataclass(frozen=True)
class Joining:
    """``step`` of ``total`` frames of the film are written."""

    step: int
    total: int


FilmEvent = SegmentState | SegmentEvent | Joining
EmitFilm = Callable[[FilmEvent], None]
