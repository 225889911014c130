"""That a joined film is what it should be, without decoding all of it again.

Each piece of the film was decoded once, completely, and the packets that decoded are known by their digest (`glance`).
Here the film is read back from the disk: every packet must be one of those, in their order and number and at its time,
the settings of the decoder must be theirs, and the first frame must decode to the promised size. What decoding does
with a packet depends on nothing else, for every piece begins with a frame that needs no other. Then the hash of the
whole file is taken. Not for: films of others, of which no piece is known (`video.verify`).

    >>> facts = proven(film, Promise(expected, kind, ((80, digest), (81, other)), tags))
    >>> facts.problems
    ()
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import OutputError
from ...core.plan import ExpectedVideo
from ...media.decoding import Decoding, decoding
from ...media.video import container_of
from ...media.video_facts import VideoFacts, look_of
from .clip_analysis import PacketDigest
from .copying import kind_of
from .joints import FILM_LIMIT_S

if TYPE_CHECKING:
    from av.packet import Packet

    from .clip_analysis import ClipAnalysis

_SOUND_SHORT_S = 0.1  # the last frame of sound ends so much before the last picture, at most


@dataclass(frozen=True)
class Promise:
    """What the film must be.

    Attributes:
        expected: Frames, size, rate.
        kind: See `copying.ClipFacts`; the clock may be another one.
        pieces: What was seen of each, in order.
        tags: Metadata that it must have.
        sound: Whether it has a sound track of its length, or none.
    """

    expected: ExpectedVideo
    kind: Sequence[str]
    pieces: Sequence[ClipAnalysis]
    tags: Mapping[str, str] = field(default_factory=dict)
    sound: bool = False


def proven(film: Path, promise: Promise) -> VideoFacts:
    """The facts of a film that is whole and made of the pieces that were seen.

    Raises:
        OutputError: it is not; the evidence lists everything found.
    """
    with decoding(film, FILM_LIMIT_S) as source:
        facts = _Reading(source, promise).facts()
    with film.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    facts = replace(facts, bytes=film.stat().st_size, sha256=digest)
    found = facts.problems + (facts.differences(promise.expected) if facts.num_frames else ())
    if found:
        raise OutputError(
            f"the film is not the promised one: {found[0]}",
            evidence=found,
            advice="Nothing was published; the clips are kept. The same command makes it again.",
        )
    return facts


class _Reading:
    def __init__(self, source: Decoding, promise: Promise) -> None:
        self._source, self._promise = source, promise
        self._look: dict[str, Any] = {}
        self._count = 0
        self._sound_s = 0.0
        self._notes: list[str] = []

    def facts(self) -> VideoFacts:
        """What was read, with every problem."""
        stream, promise = self._source.stream, self._promise
        if stream is None:
            return VideoFacts(problems=self._source.problems)
        rate = Fraction(stream.average_rate or 0)
        if kind_of(stream)[:-2] != tuple(promise.kind[:-2]):
            self._notes.append("its pictures are coded in another way than the clips")
        self._compare(self._pictures(rate))
        if stream.frames and stream.frames != self._count:
            self._notes.append(f"it declares {stream.frames} frames and has {self._count}")
        if promise.sound != self._source.has_audio:
            self._notes.append("it has no sound" if promise.sound else "it has sound that nobody asked for")
        elif promise.sound and self._sound_s < self._count / rate - _SOUND_SHORT_S:
            self._notes.append(f"its sound ends after {self._sound_s:.2f} s")
        lost = [name for name, value in promise.tags.items() if self._source.metadata.get(name, "") != value]
        self._notes += [f"its tag {name!r} is another one" for name in lost]
        shown = sum(piece.frames * piece.mean_luma for piece in promise.pieces)
        black = all(piece.is_black for piece in promise.pieces)
        return VideoFacts(
            num_frames=self._count,
            fps=float(rate),
            seconds=float(self._count / rate) if rate else 0.0,
            codec=stream.codec_context.codec.canonical_name,
            container=container_of(self._source),
            has_audio=self._source.has_audio,
            metadata=self._source.metadata,
            mean_luma=round(shown / max(1, self._count), 4),
            is_black=black,
            problems=(*self._source.problems, *self._notes),
            warnings=("every frame is black",) if black else (),
            **self._look,
        )

    def _compare(self, packets: Iterator[Packet[Any]]) -> None:
        """Every packet is that of the piece whose turn it is."""
        for number, piece in enumerate(self._promise.pieces, 1):
            digest = PacketDigest()
            for packet in itertools.islice(packets, piece.frames):
                digest.add(packet)
            if digest.value() != piece.packets:
                self._notes.append(f"its pictures are not those of clip {number}")
        more = sum(1 for _ in packets)
        if more:
            self._notes.append(f"{more} pictures belong to no clip")

    def _pictures(self, rate: Fraction) -> Iterator[Packet[Any]]:
        """The stored pictures, each at its time."""
        for packet in self._source.packets(*self._source.tracks):
            if packet.dts is None:
                continue
            time = (packet.pts or 0) * Fraction(packet.time_base or 0)
            if packet.stream.type != "video":
                self._sound_s = max(
                    self._sound_s, float(time + (packet.duration or 0) * Fraction(packet.time_base or 0))
                )
                continue
            if packet.pts != packet.dts or time * rate != self._count or packet.is_discard:
                self._notes += [] if self._notes else [f"frame {self._count} is not shown at its time"]
            if self._count == 0 and (frame := self._source.alone(packet)):
                self._look = look_of(frame)
            self._count += 1
            yield packet
