"""What is seen where clips meet in a finished film: how much frames differ there, against those around.

>>> [joint.jump for joint in measured(film, [Place("cut", 0), Place("chained", 80)], look)]
[False]
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from .decoding import decoding

#: Reading a whole film may take long; this only ends what never would.
FILM_LIMIT_S = 24 * 3600.0
_JUMP = 3.0
_EVERY = 8  # pixels: enough to see a jump
_FLAT = 1 / 3  # levels, for still clips: grain and encoding differ too, and a jump of under a level is not seen
_ENOUGH = 8  # differences that have a median worth comparing with


@dataclass(frozen=True)
class Place:
    """A clip's place in the film.

    Attributes:
        kind: How it begins: ``cut``, ``chained`` or ``dissolve``.
        begin: The film's frame with which it begins.
        mixed: How many frames from there show the clip before as well.
        colour: What was measured and corrected, for chained clips (`continuity.ColourMatch`).
    """

    kind: str
    begin: int
    mixed: int = 0
    colour: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Joint:
    """Where part ``part`` begins.

    Attributes:
        kind, colour: See `Place`.
        frame: The film's frame with which it begins.
        difference: Mean difference of the two frames that meet, in levels of brightness; of a crossfade the greatest.
        ratio: That over the median difference of neighbouring frames in the two clips that meet.
        jump: Whether a chained joint can be seen: its ratio is over 3.
    """

    part: int
    kind: str
    frame: int
    difference: float
    ratio: float
    colour: Mapping[str, Any] | None
    jump: bool


def measured(film: Path, places: Sequence[Place], look: Callable[[int, VideoFrame], None]) -> tuple[Joint, ...]:
    """A joint for each clip but the first.

    ``look`` is shown every frame with its number, so that nobody has to decode the film once more; it may raise.
    """
    differences = _differences(film, look)
    joints = []
    for index, place in enumerate(places[1:], 1):
        meeting = differences[max(0, place.begin - 1) : place.begin + place.mixed]
        difference = max(meeting, default=0.0)
        ratio = difference / _usual(differences, places, index)
        jump = place.kind == "chained" and ratio > _JUMP
        joints.append(Joint(index, place.kind, place.begin, round(difference, 3), round(ratio, 2), place.colour, jump))
    return tuple(joints)


def _usual(differences: Sequence[float], places: Sequence[Place], index: int) -> float:
    """The median in the two clips that meet: one lively clip must not hide a jump between two quiet ones."""
    place = places[index]
    end = places[index + 1].begin - 1 if index + 1 < len(places) else len(differences)
    near = [*differences[places[index - 1].begin : place.begin - 1], *differences[place.begin + place.mixed : end]]
    around = near if len(near) >= _ENOUGH else differences
    return max(_FLAT, statistics.median(around)) if around else _FLAT


def _differences(film: Path, look: Callable[[int, VideoFrame], None]) -> list[float]:
    """Mean difference in brightness of each two neighbouring frames."""
    found: list[float] = []
    before: NDArray[np.int16] | None = None
    with decoding(film, FILM_LIMIT_S) as source:
        for number, frame in enumerate(source.frames()):
            look(number, frame)
            plane = frame.planes[0]
            luma = np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)
            now = luma[::_EVERY, : plane.width : _EVERY].astype(np.int16)
            if before is not None:
                found.append(float(np.abs(now - before).mean()))
            before = now
    return found
