"""Clips become one film: copied packet by packet where that is possible, encoded again where not, and told which.

Where a clip goes on from the one before, its first frame repeats the last frame of that one, which is dropped: the
last one of the clip before, because nothing refers to it (our clips have no B-frames), while the first one is what
all others of its clip refer to. Frames stream: a film of an hour needs no more memory than one of a second.

    >>> join([Part(a), Part(b, first_picture=a_last, chained=True)], target, options).num_frames
    161
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from ..errors import InvalidInputError
from ..request import Size
from .continuity import ColourMatch, match_given
from .copying import clip_facts, copy, demand_whole
from .decoding import decoding, to_rgb
from .finishing import doubled, fitted
from .joints import FILM_LIMIT_S, Joint, Place, measured
from .seal import seal
from .sound import with_sound
from .upscaling import LANCZOS, enlarged
from .writer import Encoding, VideoWriter

Pixels = NDArray[np.uint8]
Look = Callable[[int, VideoFrame], None]


@dataclass(frozen=True)
class Part:
    """One clip in the film's order.

    Attributes:
        video: The clip.
        first_picture: The picture that it went on from, as it was handed on; also if the clip that handed it on is not
            shown before this one. Its colours are matched to it.
        chained: It goes on from the clip before: unless it dissolves, its first frame is the last one of that clip.
        dissolve: Frames of the dissolve at its beginning; 0 is a cut.
    """

    video: Path
    first_picture: Path | None = None
    chained: bool = False
    dissolve: int = 0


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


@dataclass(frozen=True)
class JoinReport:
    """What was made of the clips."""

    num_frames: int
    width: int
    height: int
    fps: float
    how: str
    joints: tuple[Joint, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For the film's manifest."""
        return {"how": self.how, "joints": [asdict(joint) for joint in self.joints], "warnings": list(self.warnings)}


def overlaps(parts: Sequence[Part], options: JoinOptions) -> tuple[int, ...]:
    """For each part, how many of its first frames lie over the end of the clip before."""
    return tuple(part.dissolve or (max(1, options.overlap) if part.chained else 0) for part in parts)


def length_in_film(count: int, fps: float | Fraction, options: JoinOptions) -> int:
    """How many of the film's frames so many frames of a clip with another rate take."""
    pace = _pace(fps, options)
    return count if pace == 1 else max(1, math.ceil(count / pace - Fraction(1, 2)))


def _pace(fps: float | Fraction, options: JoinOptions) -> Fraction:
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
    return tuple(begin * times for begin in _begins(lengths, overlaps(parts, options)))


def finished(options: JoinOptions) -> tuple[Size, float]:
    """Size and frame rate of the film as it will be."""
    size = Size(options.size.width * options.upscale, options.size.height * options.upscale)
    return size, options.fps * 2 if options.double_fps else options.fps


def _unseen(number: int, frame: VideoFrame) -> None:
    """Nobody looks."""


def _silent(done: int, total: int) -> None:
    """Nobody listens."""


def join(  # noqa: PLR0913 -- the last one by name only
    parts: Sequence[Part],
    target: Path,
    options: JoinOptions,
    emit: Callable[[int, int], None] = _silent,
    check: Callable[[], None] = lambda: None,
    *,
    measure: bool = True,
    look: Look = _unseen,
) -> JoinReport:
    """Write the film to ``target``, which does not exist yet; it is removed if anything goes wrong.

    ``emit`` hears the frames done and in all; ``check`` raises when the caller wants to stop. Without ``measure``
    the film is not decoded once more to look at its joints; with it, ``look`` is shown each of its frames.

    Raises:
        OutputError: a clip cannot be read whole.
        InvalidInputError: a clip is too short for its transitions, or the sound cannot be read.
        BackendUnavailableError: the disk is full.
    """
    if not parts:
        raise InvalidInputError("there is no clip to join", advice="Name at least one shot that is there.")
    if any(target.exists() and target.samefile(part.video) for part in parts):
        raise ValueError(f"{target} would be written over while it is read")
    try:
        return _Join(parts, options, emit, check).made(target, look if measure else None)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


class _Join:
    def __init__(
        self,
        parts: Sequence[Part],
        options: JoinOptions,
        emit: Callable[[int, int], None],
        check: Callable[[], None],
    ) -> None:
        self._parts, self._options, self._emit, self._check = parts, options, emit, check
        self._facts = [clip_facts(part.video) for part in parts]
        self._lengths = [length_in_film(facts.count, facts.fps, options) for facts in self._facts]
        self._overlaps = overlaps(parts, options)
        demand_room(self._lengths, self._overlaps)
        self._total = expected_frames(self._lengths, parts, options)
        self._colours = self._matches()

    def made(self, target: Path, look: Look | None) -> JoinReport:
        reason = self._why_not_copied()
        size, fps = finished(self._options)
        if reason is None:
            pieces = [(part.video, length - end) for part, length, end in self._with_ends()]
            copy(pieces, target, self._tags(), self._told)
        else:
            self._encode(target, size, fps)
        if self._options.audio:
            with_sound(target, self._options.audio, self._options.audio_fade_s)
        elif reason is None:
            seal(target)
        joints = self._measured(target, look) if look else ()
        how = "copied without encoding again" if reason is None else f"encoded again: {reason}"
        jumps = [f"a jump can be seen where clip {joint.part + 1} begins" for joint in joints if joint.jump]
        warnings = (*self._adjusted(), *jumps)
        return JoinReport(self._total, size.width, size.height, fps, how, joints, warnings)

    def _with_ends(self) -> list[tuple[Part, int, int]]:
        """Each part, its length in the film's frames, and how many of its last ones lie under the next part."""
        return list(zip(self._parts, self._lengths, (*self._overlaps[1:], 0), strict=True))

    def _told(self, done: int) -> None:
        self._check()
        self._emit(done, self._total)

    # --- what is to be done

    def _matches(self) -> list[ColourMatch | None]:
        """For each part, how its colours differ from those of its chain's beginning."""
        found: list[ColourMatch | None] = []
        for part in self._parts:
            self._check()
            before = found[-1] if found and part.chained and self._options.color == "joint" else None
            if part.first_picture is None or self._options.color == "off":
                found.append(None)
            else:
                found.append(match_given(part.first_picture, part.video, before.matrix if before else None))
        return found

    def _adjusted(self) -> Iterator[str]:
        """What was done to clips that are not as the film is."""
        size, fps = self._options.size, self._options.fps
        for number, facts in enumerate(self._facts, 1):
            if facts.size != tuple(size):
                yield f"clip {number} is {facts.size[0]}x{facts.size[1]}: it is fitted into {size} on black"
            if _pace(facts.fps, self._options) != 1:
                change = "frames are left out" if facts.fps > fps else "frames are shown again"
                yield f"clip {number} has {float(facts.fps):g} frames a second, the film {fps:g}: {change}"

    def _why_not_copied(self) -> str | None:
        options, first = self._options, self._facts[0]
        others = [index for index, facts in enumerate(self._facts) if facts.kind != first.kind]
        reasons = {
            "a clip dissolves into the next": any(part.dissolve for part in self._parts),
            "chained clips are crossfaded": options.overlap > 1 and any(part.chained for part in self._parts),
            "the frame rate is doubled": options.double_fps,
            "the film is enlarged": options.upscale > 1,
            "colours are corrected": any(colour and colour.corrects for colour in self._colours),
            f"clip {others[0] + 1} is coded in another way than the first" if others else "": bool(others),
            "a clip has B-frames": any(facts.b_frames for facts in self._facts),
            "the clips have another size than the film": first.size != tuple(options.size),
            "the clips have another frame rate than the film": _pace(first.fps, options) != 1,
        }
        return next((text for text, holds in reasons.items() if holds), None)

    def _tags(self) -> dict[str, str]:
        return {"title": self._options.title, "generator": "film", **self._options.metadata}

    # --- encoding

    def _encode(self, target: Path, size: Size, fps: float) -> None:
        options, frames = self._options, self._frames()
        if options.double_fps:
            begins = _begins(self._lengths, self._overlaps)
            cuts = {begin for begin, part in zip(begins, self._parts, strict=True) if _kind(part) == "cut"}
            frames = doubled(frames, cuts)
        frames = enlarged(frames, options.upscale, options.upscaler)
        with VideoWriter(target, size, fps, Encoding(codec=options.codec), self._tags()) as film:
            for done, frame in enumerate(frames, 1):
                film.write(frame)
                self._told(done)

    def _frames(self) -> Iterator[Pixels]:
        """Every frame of the film in its own size; at most an overlap of them is held."""
        held: deque[Pixels] = deque()
        for index, (part, _, end) in enumerate(self._with_ends()):
            over, held, overlap = held, deque(), self._overlaps[index]
            if overlap == 1 and _kind(part) == "chained":
                over.clear()  # the frame that is there twice
            for number, frame in enumerate(self._paced(index), 1):
                held.append(_mixed(over.popleft(), frame, number / (overlap + 1)) if over else frame)
                if len(held) > end:
                    yield held.popleft()
        yield from held

    def _paced(self, index: int) -> Iterator[Pixels]:
        """A part's frames, so many as the film shows."""
        pace, shown, length = _pace(self._facts[index].fps, self._options), 0, self._lengths[index]
        last = self._facts[index].count - 1
        for number, frame in enumerate(self._decoded(index)):
            while shown < length and min(last, int((shown + Fraction(1, 2)) * pace)) == number:
                yield frame
                shown += 1

    def _decoded(self, index: int) -> Iterator[Pixels]:
        video, colour, size = self._parts[index].video, self._colours[index], self._options.size
        with decoding(video, FILM_LIMIT_S) as film:
            for frame in film.frames():
                picture = to_rgb(frame)
                yield fitted(picture if colour is None else colour.applied(picture), size.width, size.height)
            demand_whole(video, film.problems)

    # --- looking at the result

    def _measured(self, target: Path, look: Look) -> tuple[Joint, ...]:
        """What is seen at each joint of the film."""

        def seen(number: int, frame: VideoFrame) -> None:
            self._check()
            look(number, frame)

        where = [
            Place(_kind(part), begin, self._mixed_frames(index), colour.to_json() if colour else None)
            for index, (part, begin, colour) in enumerate(
                zip(self._parts, places(self._lengths, self._parts, self._options), self._colours, strict=True)
            )
        ]
        return measured(target, where, seen)

    def _mixed_frames(self, index: int) -> int:
        part, overlap = self._parts[index], self._overlaps[index]
        if _kind(part) == "chained" and overlap == 1:
            return 0
        return overlap * 2 if self._options.double_fps else overlap


def demand_room(lengths: Sequence[int], overlapping: Sequence[int]) -> None:
    """Every clip must be longer than what its neighbours lie over.

    Raises:
        InvalidInputError: one is not; its number is in the message.
    """
    mixed = [0 if overlap == 1 else overlap for overlap in overlapping]  # one frame is only the one that is there twice
    for number, (length, before, after) in enumerate(zip(lengths, mixed, (*overlapping[1:], 0), strict=True), 1):
        if before + after >= length and len(lengths) > 1:
            raise InvalidInputError(
                f"clip {number} has {length} frames, too few for its transitions",
                advice="Make the shot longer or its dissolves shorter.",
            )


def _kind(part: Part) -> str:
    return "dissolve" if part.dissolve else "chained" if part.chained else "cut"


def _begins(lengths: Sequence[int], overlapping: Sequence[int]) -> list[int]:
    """The film's frame with which each part begins, before doubling."""
    found, place = [], 0
    for length, overlap in zip(lengths, overlapping, strict=True):
        place -= overlap
        found.append(place)
        place += length
    return found


def _mixed(one: Pixels, other: Pixels, share: float) -> Pixels:
    return np.asarray(cv2.addWeighted(one, 1 - share, other, share, 0), dtype=np.uint8)
