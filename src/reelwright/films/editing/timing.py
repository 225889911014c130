"""Computes a film's timing: which frames overlap, how many frames it has, and where each clip begins.

>>> parts = [JoinPart(a), JoinPart(b, chained=True)]
>>> expected_frames([81, 81], parts, options), places([81, 81], parts, options)
(161, (0, 80))
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

from ...core.errors import InvalidInputError
from ...core.request import Size


@dataclass(frozen=True)
class JoinPart:
    """One clip in the film's order.

    Attributes:
        video: The clip.
        first_picture: The picture that the clip continues, even if the clip it comes from is not in the film. The
            colours are matched to it.
        chained: Whether it continues the clip before; unless it dissolves, its first frame is that clip's last one.
        dissolve: Frames of the dissolve at its beginning; 0 is a cut.
        digest: The clip's SHA-256, if the caller has just computed it.
    """

    video: Path
    first_picture: Path | None = None
    chained: bool = False
    dissolve: int = 0
    digest: str = ""


@dataclass(frozen=True)
class JoinOptions:
    """How clips are joined.

    Attributes:
        size, fps: The film's size and rate, before enlargement and doubling. A clip of another size is fitted in on
            black. A clip of another rate keeps its duration: frames are left out or shown again.
        color: ``off`` changes no colours; the others correct each chained clip by the picture that it was made from.
            ``joint`` adds up the corrections of a chain; with ``anchor`` those pictures are already corrected.
        overlap: Frames of crossfade at chained joints; 0 only drops the repeated frame.
        double_fps: Whether to double the frame rate, see `reencode`.
        upscale: The factor by which each side is enlarged.
        audio, audio_fade_s: The sound of the film, and its fade-out in seconds.
        metadata: Further tags of the file.
    """

    size: Size
    fps: float
    title: str = ""
    color: Literal["joint", "anchor", "off"] = "anchor"
    overlap: int = 0
    double_fps: bool = False
    upscale: int = 1
    audio: Path | None = None
    audio_fade_s: float = 1.0
    metadata: Mapping[str, str] = field(default_factory=dict)
    codec: Literal["h264", "av1"] = "h264"


def overlaps(parts: Sequence[JoinPart], options: JoinOptions) -> tuple[int, ...]:
    """For each part, how many of its first frames overlap the end of the clip before."""
    return tuple(part.dissolve or (max(1, options.overlap) if part.chained else 0) for part in parts)


def length_in_film(count: int, fps: float | Fraction, options: JoinOptions) -> int:
    """How many of the film's frames ``count`` frames of a clip fill."""
    rate = pace(fps, options)
    return count if rate == 1 else max(1, math.ceil(count / rate - Fraction(1, 2)))


def pace(fps: float | Fraction, options: JoinOptions) -> Fraction:
    """The number of the clip's frames for each frame of the film."""
    clip, film = (Fraction(rate).limit_denominator(1001) for rate in (fps, options.fps))
    return Fraction(1) if abs(clip - film) < film / 1000 else clip / film


def expected_frames(lengths: Sequence[int], parts: Sequence[JoinPart], options: JoinOptions) -> int:
    """The number of the film's frames. Every overlap counts once, and doubling the rate adds one between each two.

    ``lengths`` are those of the parts in the film's frames (`length_in_film`).
    """
    total = sum(lengths) - sum(overlaps(parts, options))
    return 2 * total - 1 if options.double_fps else total


def places(lengths: Sequence[int], parts: Sequence[JoinPart], options: JoinOptions) -> tuple[int, ...]:
    """For each part, the film's frame at which it begins."""
    times, over = 2 if options.double_fps else 1, overlaps(parts, options)
    ends = itertools.accumulate(length - overlap for length, overlap in zip(lengths, over, strict=True))
    return tuple((end - length) * times for end, length in zip(ends, lengths, strict=True))


def finished(options: JoinOptions) -> tuple[Size, float]:
    """Size and frame rate of the finished film."""
    size = Size(options.size.width * options.upscale, options.size.height * options.upscale)
    return size, options.fps * 2 if options.double_fps else options.fps


def demand_room(lengths: Sequence[int], overlapping: Sequence[int]) -> None:
    """Refuse a clip that is not longer than its overlaps.

    Raises:
        InvalidInputError: the message has the clip's number.
    """
    for index in crowded(lengths, overlapping):
        raise InvalidInputError(
            f"clip {index + 1} has {lengths[index]} frames, too few for its transitions",
            advice="Make the shot longer or its dissolves shorter.",
        )


def crowded(lengths: Sequence[int], overlapping: Sequence[int]) -> list[int]:
    """The numbers, from 0, of the clips that are not longer than their overlaps."""
    mixed = [0 if overlap == 1 else overlap for overlap in overlapping]  # an overlap of one frame is the repeated frame
    sides = zip(lengths, mixed, (*overlapping[1:], 0), strict=True)
    return [
        index for index, (length, before, after) in enumerate(sides) if before + after >= length and len(lengths) > 1
    ]


def kind_of_joint(part: JoinPart) -> str:
    """How a clip begins: ``dissolve``, ``chained`` or ``cut``."""
    return "dissolve" if part.dissolve else "chained" if part.chained else "cut"
