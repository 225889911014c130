"""What is seen where clips meet in a finished film: how much the two frames differ, against all others.

>>> [joint.jump for joint in measured(film, [("cut", 0, None), ("chained", 80, None)], check)]
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
_FLAT = 0.25  # levels: what a still film differs by from frame to frame


@dataclass(frozen=True)
class Joint:
    """Where part ``part`` begins.

    Attributes:
        kind: ``cut``, ``chained`` or ``dissolve``.
        frame: The film's frame with which it begins.
        difference: Mean difference of the two frames that meet, in levels of brightness.
        ratio: That over the median difference of neighbouring frames of the whole film.
        colour: What was measured and corrected, for chained clips (`continuity.ColourMatch`).
        jump: Whether a chained joint can be seen: its ratio is over 3.
    """

    part: int
    kind: str
    frame: int
    difference: float
    ratio: float
    colour: Mapping[str, Any] | None
    jump: bool


def measured(
    film: Path, parts: Sequence[tuple[str, int, Mapping[str, Any] | None]], look: Callable[[int, VideoFrame], None]
) -> tuple[Joint, ...]:
    """A joint for each part but the first; ``parts`` are (kind, first frame in the film, colour).

    ``look`` is shown every frame with its number, so that nobody has to decode the film once more; it may raise.
    """
    differences = _differences(film, look)
    median = max(_FLAT, statistics.median(differences)) if differences else _FLAT
    joints = []
    for index, (kind, begin, colour) in enumerate(parts[1:], 1):
        difference = differences[begin - 1] if 0 < begin <= len(differences) else 0.0
        ratio = difference / median
        jump = kind == "chained" and ratio > _JUMP
        joints.append(Joint(index, kind, begin, round(difference, 3), round(ratio, 2), colour, jump))
    return tuple(joints)


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
