"""Where clips lie in a film: what lies over what, how many frames there will be, and where each clip begins. Pure.

>>> parts = [Part(a), Part(b, chained=True)]
>>> expected_frames([81, 81], parts, options), places([81, 81], parts, options)
(161, (0, 80))
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

from ...core.errors import InvalidInputError
from ...core.request import Size
from .upscaling import LANCZOS


@dataclass(frozen=True)
class Part:
    """One clip in the film's order.

    Attributes:
        video: The clip.
        first_picture: The picture that it went on from, as it was handed on; also if the clip that handed it on is not
            shown before this one. Its colours are matched to it.
        chained: It goes on from the clip before: unless it dissolves, its first frame is the last one of that clip.
        dissolve: Frames of the dissolve at its beginning; 0 is a cut.
        digest: The clip's SHA-256, if it was just taken.
    """

    video: Path
    first_picture: Path | None = None
    chained: bool = False
    dissolve: int = 0
    digest: str = ""


@dataclass(frozen=True)
class JoinOptions:
    """The film.

    Attributes:
        size, fps: Of the film, before enlargement and doubling. A clip of another size is fitted in on black; of one
            with another rate frames are left out or shown again, so that it takes the time it takes.
        color: ``off``, or correct each chained clip by the picture that it was given. ``joint`` adds the corrections
            of a chain up; with ``anchor`` those pictures were corrected already.
        overlap: Frames of crossfade at chained joints; 0 only drops the frame that is there twice.
        double_fps: Twice the frame rate, see `finishing`.
        upscale, upscaler: How many times as long each side is, and what enlarges it, see `upscaling`.
        audio, audio_fade_s: Sound for the whole film, and its fade-out.
        metadata: More tags.
    """

    size: Size
    fps: float
    title: str = ""
    color: Literal["joint", "anchor", "off"] = "anchor"
    overlap: int = 0
    double_fps: bool = False
    upscale: int = 1
    upscaler: str = LANCZOS
    audio: Path | None = None
    audio_fade_s: float = 1.0
    metadata: Mapping[str, str] = field(default_factory=dict)
    codec: Literal["h264", "av1"] = "h264"


def overlaps(parts: Sequence[Part], options: JoinOptions) -> tuple[int, ...]:
    """For each part, how many of its first frames lie over the end of the clip before."""
    return tuple(part.dissolve or (max(1, options.overlap) if part.chained else 0) for part in parts)


def length_in_film(count: int, fps: float | Fraction, options: JoinOptions) -> int:
    """How many of the film's frames so many frames of a clip with another rate take."""
    rate = pace(fps, options)
    return count if rate == 1 else max(1, math.ceil(count / rate - Fraction(1, 2)))


def pace(fps: float | Fraction, options: JoinOptions) -> Fraction:
    """The clip's frames for each of the film's."""
    clip, film = (Fraction(rate).limit_denominator(1001) for rate in (fps, options.fps))
    return Fraction(1) if abs(clip - film) < film / 1000 else clip / film


def expected_frames(lengths: Sequence[int], parts: Sequence[Part], options: JoinOptions) -> int:
    """Frames of the film: every overlap is counted once, and between each two comes one if the rate is doubled.

    ``lengths`` are those of the parts in the film's frames (`length_in_film`).
    """
    total = sum(lengths) - sum(overlaps(parts, options))
    return 2 * total - 1 if options.double_fps else total


def places(lengths: Sequence[int], parts: Sequence[Part], options: JoinOptions) -> tuple[int, ...]:
    """For each part, the film's frame with which it begins."""
    times = 2 if options.double_fps else 1
    return tuple(begin * times for begin in begins(lengths, overlaps(parts, options)))


def finished(options: JoinOptions) -> tuple[Size, float]:
    """Size and frame rate of the film as it will be."""
    size = Size(options.size.width * options.upscale, options.size.height * options.upscale)
    return size, options.fps * 2 if options.double_fps else options.fps


def demand_room(lengths: Sequence[int], overlapping: Sequence[int]) -> None:
    """Every clip must be longer than what its neighbours lie over.

    Raises:
        InvalidInputError: one is not; its number is in the message.
    """
    for index in crowded(lengths, overlapping):
        raise InvalidInputError(
            f"clip {index + 1} has {lengths[index]} frames, too few for its transitions",
            advice="Make the shot longer or its dissolves shorter.",
        )


def crowded(lengths: Sequence[int], overlapping: Sequence[int]) -> list[int]:
    """The numbers, from 0, of the clips that are no longer than what their neighbours lie over."""
    mixed = [0 if overlap == 1 else overlap for overlap in overlapping]  # one frame is only the one that is there twice
    sides = zip(lengths, mixed, (*overlapping[1:], 0), strict=True)
    return [
        index for index, (length, before, after) in enumerate(sides) if before + after >= length and len(lengths) > 1
    ]


def kind_of_joint(part: Part) -> str:
    """How a clip begins, in a word."""
    return "dissolve" if part.dissolve else "chained" if part.chained else "cut"


def begins(lengths: Sequence[int], overlapping: Sequence[int]) -> list[int]:
    """The film's frame with which each part begins, before doubling."""
    found: list[int] = []
    place = 0
    for length, overlap in zip(lengths, overlapping, strict=True):
        place -= overlap
        found.append(place)
        place += length
    return found
