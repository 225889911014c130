"""Makes one film from a storyboard of shots; finished clips are kept and are never rendered twice.

    storyboard --timeline--> segments --store--> missing segments --schedule, runner--> clips --assembly--> film

A segment is one clip of a generator. `storyboard` reads the file, `timeline` decides which clips it needs, `schedule`
decides their order, `store` keeps each clip under a key of everything that determines it, `render` makes the missing
ones, and `assembly` joins them. These modules know no GPU and no framework: `runs.runner.generate` makes the clips.
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
    """The new state of a segment; ``detail`` says why it failed, or what it waits for."""

    segment: str
    state: State
    detail: str = ""


@dataclass(frozen=True)
class SegmentEvent:
    """An event from the generation of a segment (see `core.events`)."""

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
    """The result of a successful `film`.

    Attributes:
        output, manifest, sheet: The film, its manifest, and a picture with a row per shot.
        rendered, stored: Segments that were made now, and segments from the store.
        how: Whether the clips were copied or encoded again, and why.
        joints: The measurements at every joint (`films.editing.joining.JointReport`).
        estimate: For a draft: sentences about the time and memory of the real film.
        unchanged: Whether the existing film is up to date and was left as it is.
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
