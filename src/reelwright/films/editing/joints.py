"""What is seen where clips meet in a film: how much frames differ there, against those around.

>>> [joint.jump for joint in measured(stretches, [Place("cut", 0), Place("chained", 80)])]
[False]
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

#: Reading a whole film may take long; this only ends what never would.
FILM_LIMIT_S = 24 * 3600.0
_JUMP = 3.0
_BLOCK = 8  # pixels a side
_FLAT = 1 / 3  # levels, for still clips: a jump of under a level is not seen
_ENOUGH = 8  # differences that have a median worth comparing with


class Stretch(Protocol):
    """What of a piece of film tells how it meets its neighbours (`glance.ClipAnalysis`)."""

    @property
    def differences(self) -> NDArray[np.float64]: ...
    @property
    def first(self) -> NDArray[np.float32]: ...
    @property
    def last(self) -> NDArray[np.float32]: ...


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


def measured(stretches: Sequence[Stretch], places: Sequence[Place]) -> tuple[Joint, ...]:
    """A joint for each clip but the first; ``stretches`` are the film's frames from each place to the next."""
    differences: list[float] = []
    for before, stretch in zip((None, *stretches), stretches, strict=False):
        differences += [difference(before.last, stretch.first)] if before else []
        differences += stretch.differences.tolist()
    joints = []
    for index, place in enumerate(places[1:], 1):
        meeting = differences[max(0, place.begin - 1) : place.begin + place.mixed]
        most = max(meeting, default=0.0)
        ratio = most / _usual(differences, places, index)
        jump = place.kind == "chained" and ratio > _JUMP
        joints.append(Joint(index, place.kind, place.begin, round(most, 3), round(ratio, 2), place.colour, jump))
    return tuple(joints)


def _usual(differences: Sequence[float], places: Sequence[Place], index: int) -> float:
    """The median in the two clips that meet: one lively clip must not hide a jump between two quiet ones."""
    place = places[index]
    end = places[index + 1].begin - 1 if index + 1 < len(places) else len(differences)
    near = [*differences[places[index - 1].begin : place.begin - 1], *differences[place.begin + place.mixed : end]]
    around = near if len(near) >= _ENOUGH else differences
    return max(_FLAT, statistics.median(around)) if around else _FLAT


def thinned(frame: VideoFrame) -> NDArray[np.float32]:
    """The mean brightness of each block of a frame: grain and encoding, which differ from clip to clip, cancel out."""
    plane = frame.planes[0]
    luma = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:, : plane.width]
    size = (max(1, plane.width // _BLOCK), max(1, plane.height // _BLOCK))
    return np.asarray(cv2.resize(luma.astype(np.float32), size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Mean difference of two such pictures, in levels."""
    return float(np.abs(one - other).mean())
