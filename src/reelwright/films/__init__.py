"""Films: a storyboard of shots becomes one film, and nothing is ever rendered twice or lost.

    storyboard --timeline--> segments --store--> what is missing --schedule, runner--> clips --assembly--> film

A segment is one clip of a generator. `storyboard` reads what a person wrote, `timeline` says which clips it needs,
`schedule` in which order, `store` keeps every clip under a key of all that determines it, `render` does the work,
`assembly` joins. Nothing here knows a GPU or a framework: clips are made by `runs.runner.generate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..core.events import Event

State = Literal["waiting", "stored", "rendering", "rendered", "failed", "blocked", "stopped"]


@dataclass(frozen=True)
class SegmentState:
    """A segment is now in this state; ``detail`` says why it failed, or what it waits for."""

    segment: str
    state: State
    detail: str = ""


@dataclass(frozen=True)
class SegmentEvent:
    """What the generation of a segment said (see `core.events`)."""

    segment: str
    event: Event


@dataclass(frozen=True)
class Joining:
    """``step`` of ``total`` frames of the film are written."""

    step: int
    total: int


FilmEvent = SegmentState | SegmentEvent | Joining
EmitFilm = Callable[[FilmEvent], None]


@dataclass(frozen=True)
class FilmResult:
    """What a successful `film` returns.

    Attributes:
        output, manifest, sheet: The film, its manifest, and a picture with a row per shot.
        rendered, stored: Segments that were made now, and that were there.
        how: Whether the clips were copied or encoded again, and why.
        joints: What was measured at every joint (`films.editing.joining.JointReport`).
        estimate: For a draft: what the real film would take, in words.
        unchanged: The film was there already, and is what would be made now.
    """

    output: Path
    manifest: Path
    sheet: Path
    width: int
    height: int
    num_frames: int
    fps: float
    seconds: float
    generative: bool
    degraded: bool
    rendered: tuple[str, ...]
    stored: tuple[str, ...]
    failed: tuple[str, ...]
    how: str
    joints: tuple[Mapping[str, Any], ...]
    warnings: tuple[str, ...]
    estimate: tuple[str, ...] = ()
    unchanged: bool = False

    def to_json(self) -> dict[str, Any]:
        """The result object that ``--json`` prints as its last line."""
        data = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        data["frames"] = data.pop("num_frames")
        return {key: str(value) if isinstance(value, Path) else value for key, value in data.items()}
