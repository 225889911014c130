"""Clips become one film: copied packet by packet where that is possible, encoded again where not, and told which.

Where a clip goes on from the one before, its first frame repeats the last frame of that one, which is dropped: the
last one of the clip before, because nothing refers to it (our clips have no B-frames), while the first one is what
all others of its clip refer to. Frames stream: a film of an hour needs no more memory than one of a second.

    >>> join([Part(a), Part(b, first_picture=a_last, chained=True)], target, options).num_frames
    161
"""

from __future__ import annotations

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

from ..errors import InvalidInputError, OutputError
from ..request import Size
from .continuity import ColourMatch, match, read_picture
from .decoding import decoding, to_rgb
from .finishing import doubled, enlarged, fitted
from .joints import FILM_LIMIT_S, Joint, measured
from .seal import seal
from .sound import with_sound
from .video import first_frame
from .writer import Encoding, VideoWriter, create_container, explained

Pixels = NDArray[np.uint8]
Look = Callable[[int, VideoFrame], None]


@dataclass(frozen=True)
class Part:
    """One clip in the film's order.

    Attributes:
        video: The clip.
        first_picture: The picture that it went on from, lossless; for chained clips.
        chained: Its first frame repeats the last one of the clip before.
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
        size, fps: Of the film, before enlargement and doubling.
        color: ``off``, or correct each chained clip by the picture that it was given. ``joint`` adds the corrections
            of a chain up; with ``anchor`` those pictures were corrected already.
        overlap: Frames of crossfade at chained joints; 0 only drops the frame that is there twice.
        double_fps, upscale: See `finishing`.
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


def expected_frames(lengths: Sequence[int], parts: Sequence[Part], options: JoinOptions) -> int:
    """Frames of the film: every overlap is counted once, and between each two comes one if the rate is doubled."""
    total = sum(lengths) - sum(overlaps(parts, options))
    return 2 * total - 1 if options.double_fps else total


def places(lengths: Sequence[int], parts: Sequence[Part], options: JoinOptions) -> tuple[int, ...]:
    """For each part, the film's frame with which it begins."""
    found, place = [], 0
    for length, overlap in zip(lengths, overlaps(parts, options), strict=True):
        place -= overlap
        found.append(place * 2 if options.double_fps else place)
        place += length
    return tuple(found)


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
        InvalidInputError: the sound cannot be read.
        BackendUnavailableError: the disk is full.
    """
    try:
        return _Join(parts, options, emit, check).made(target, look if measure else None)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class _Facts:
    """What must be equal for packets to be copied, and how many there are."""

    codec: str
    size: tuple[int, int]
    pixels: str
    extradata: bytes
    time_base: Fraction | None
    rate: Fraction | None
    b_frames: bool
    count: int

    @property
    def kind(self) -> tuple[Any, ...]:
        return (self.codec, self.size, self.pixels, self.extradata, self.time_base, self.rate)


class _Join:
    def __init__(
        self,
        parts: Sequence[Part],
        options: JoinOptions,
        emit: Callable[[int, int], None],
        check: Callable[[], None],
    ) -> None:
        self._parts, self._options, self._emit, self._check = parts, options, emit, check
        self._facts = [_facts(part.video) for part in parts]
        self._overlaps = overlaps(parts, options)
        self._demand_room()
        self._total = expected_frames([facts.count for facts in self._facts], parts, options)
        self._colours = self._matches()

    def made(self, target: Path, look: Look | None) -> JoinReport:
        reason = self._why_not_copied()
        size, fps = finished(self._options)
        if reason is None:
            self._copy(target)
        else:
            self._encode(target, size, fps)
        if self._options.audio:
            with_sound(target, self._options.audio, self._options.audio_fade_s)
        elif reason is None:
            seal(target)
        joints = self._measured(target, look) if look else ()
        how = "copied without encoding again" if reason is None else f"encoded again: {reason}"
        warnings = tuple(f"a jump can be seen where clip {joint.part + 1} begins" for joint in joints if joint.jump)
        return JoinReport(self._total, size.width, size.height, fps, how, joints, warnings)

    # --- what is to be done

    def _demand_room(self) -> None:
        """Every clip must be longer than what its neighbours lie over."""
        for index, facts in enumerate(self._facts):
            after = self._overlaps[index + 1] if index + 1 < len(self._parts) else 0
            if self._overlaps[index] + after >= facts.count and len(self._parts) > 1:
                raise InvalidInputError(
                    f"clip {index + 1} has {facts.count} frames, too few for its transitions",
                    advice="Make the shot longer or its dissolves shorter.",
                )

    def _matches(self) -> list[ColourMatch | None]:
        """For each part, how its colours differ from the picture that it was given."""
        found: list[ColourMatch | None] = []
        for part in self._parts:
            wanted = part.first_picture is not None and part.chained and self._options.color != "off"
            self._check()
            found.append(match(read_picture(part.first_picture), first_frame(part.video)) if wanted else None)  # type: ignore[arg-type]
        return found

    def _matrices(self) -> list[NDArray[np.float64] | None]:
        """The correction of each part; with ``joint`` those of a chain add up."""
        found: list[NDArray[np.float64] | None] = []
        for part, colour in zip(self._parts, self._colours, strict=True):
            own = colour.matrix if colour is not None and not colour.is_identity else None
            before = found[-1] if found and part.chained and self._options.color == "joint" else None
            found.append(_composed(before, own))
        return found

    def _why_not_copied(self) -> str | None:
        options, first = self._options, self._facts[0]
        others = [index for index, facts in enumerate(self._facts) if facts.kind != first.kind]
        reasons = {
            "a clip dissolves into the next": any(part.dissolve for part in self._parts),
            "chained clips are crossfaded": options.overlap > 1 and any(part.chained for part in self._parts),
            "the frame rate is doubled": options.double_fps,
            "the film is enlarged": options.upscale > 1,
            "colours are corrected": any(matrix is not None for matrix in self._matrices()),
            f"clip {others[0] + 1} is coded in another way than the first" if others else "": bool(others),
            "a clip has B-frames": any(facts.b_frames for facts in self._facts),
            "the clips have another size than the film": first.size != tuple(options.size),
        }
        return next((text for text, holds in reasons.items() if holds), None)

    def _tags(self) -> dict[str, str]:
        return {"title": self._options.title, "generator": "film", **self._options.metadata}

    # --- copying

    def _copy(self, target: Path) -> None:
        done, stream = 0, None
        with explained(target), create_container(target, self._tags()) as container:
            for index, part in enumerate(self._parts):
                ends = self._overlaps[index + 1] if index + 1 < len(self._parts) else 0
                with decoding(part.video, FILM_LIMIT_S) as film:
                    assert film.stream is not None
                    if stream is None:
                        stream = container.add_stream_from_template(film.stream)
                    step = round(1 / Fraction(film.stream.average_rate or 1) / Fraction(film.stream.time_base or 1))
                    kept = self._facts[index].count - ends
                    for packet in film.packets(film.stream):
                        if packet.dts is None or kept == 0:
                            continue
                        kept -= 1
                        packet.pts = packet.dts = done * step
                        packet.duration = step
                        packet.stream = stream
                        container.mux(packet)
                        done += 1
                        self._check()
                    _demand_whole(part.video, film.problems)
                self._emit(done, self._total)

    # --- encoding

    def _encode(self, target: Path, size: Size, fps: float) -> None:
        frames = self._frames()
        if self._options.double_fps:
            frames = doubled(frames)
        frames = enlarged(frames, self._options.upscale)
        with VideoWriter(target, size, fps, Encoding(codec=self._options.codec), self._tags()) as film:
            for done, frame in enumerate(frames, 1):
                self._check()
                film.write(frame)
                self._emit(done, self._total)

    def _frames(self) -> Iterator[Pixels]:
        """Every frame of the film in its own size; at most an overlap of them is held."""
        matrices = self._matrices()
        held: deque[Pixels] = deque()
        for index, part in enumerate(self._parts):
            over = deque(held)
            held = deque()
            ends = self._overlaps[index + 1] if index + 1 < len(self._parts) else 0
            dropped = part.chained and self._options.overlap <= 1 and not part.dissolve
            for number, frame in enumerate(self._decoded(part.video, matrices[index])):
                if over:
                    shown = (
                        frame if dropped else _mixed(over.popleft(), frame, (number + 1) / (self._overlaps[index] + 1))
                    )
                    over = deque() if dropped else over
                else:
                    shown = frame
                held.append(shown)
                if len(held) > ends:
                    yield held.popleft()
        yield from held

    def _decoded(self, video: Path, matrix: NDArray[np.float64] | None) -> Iterator[Pixels]:
        size = self._options.size
        with decoding(video, FILM_LIMIT_S) as film:
            for frame in film.frames():
                picture = fitted(to_rgb(frame), size.width, size.height)
                yield picture if matrix is None else np.asarray(cv2.transform(picture, matrix), dtype=np.uint8)
            _demand_whole(video, film.problems)

    # --- looking at the result

    def _measured(self, target: Path, look: Look) -> tuple[Joint, ...]:
        """What is seen at each joint of the film."""

        def seen(number: int, frame: VideoFrame) -> None:
            self._check()
            look(number, frame)

        begins = places([facts.count for facts in self._facts], self._parts, self._options)
        kinds = ["dissolve" if part.dissolve else "chained" if part.chained else "cut" for part in self._parts]
        colours = [colour.to_json() if colour is not None else None for colour in self._colours]
        return measured(target, list(zip(kinds, begins, colours, strict=True)), seen)


def _facts(video: Path) -> _Facts:
    with decoding(video, FILM_LIMIT_S) as film:
        stream = film.stream
        if stream is None:
            raise OutputError(f"{video} cannot be joined", evidence=film.problems)
        codec = stream.codec_context
        stamps = [(packet.pts, packet.dts) for packet in film.packets(stream) if packet.dts is not None]
        return _Facts(
            codec.name,
            (codec.width, codec.height),
            str(codec.pix_fmt),
            bytes(codec.extradata or b""),
            stream.time_base,
            stream.average_rate,
            any(pts != dts for pts, dts in stamps),
            len(stamps),
        )


def _demand_whole(video: Path, problems: tuple[str, ...]) -> None:
    if problems:
        raise OutputError(f"{video} cannot be read whole", evidence=problems)


def _mixed(one: Pixels, other: Pixels, share: float) -> Pixels:
    return np.asarray(cv2.addWeighted(one, 1 - share, other, share, 0), dtype=np.uint8)


def _composed(before: NDArray[np.float64] | None, own: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """First a part's own correction, then that of the part before."""
    if before is None or own is None:
        return own if before is None else before
    whole = np.vstack([own, [0, 0, 0, 1]])
    return np.asarray(before @ whole, dtype=np.float64)
