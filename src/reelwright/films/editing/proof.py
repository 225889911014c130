"""Verifies a joined film without decoding all of it again.

Each stretch of the film was decoded completely once, and the digest of its packets is known (`clip_analysis`). This
module reads the film back from disk. The packets must be the same, in order and number and at their times. The
decoder's settings must be the same, and the first frame must decode to the promised size. Decoding a packet depends on
nothing else, because every stretch begins with a frame that needs no other. Then the complete file is hashed. Other
videos, which Reelwright did not join, need `media.verification`.

    >>> facts = proven(film, report.promise)
    >>> facts.problems
    ()
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import OutputError
from ...core.files import sha256_of
from ...core.plan import ExpectedVideo
from ...media.decoding import Decoding, decoding
from ...media.video import container_of
from ...media.video_facts import VideoFacts, look_of
from .clip_analysis import FILM_LIMIT_S, ClipAnalysis, PacketDigest, kind_of

if TYPE_CHECKING:
    from av.packet import Packet

_SOUND_SHORT_S = 0.1  # the sound may end at most this long before the pictures


@dataclass(frozen=True)
class Promise:
    """The properties that the film must have.

    Attributes:
        expected: Frames, size and rate.
        kind: See `ClipFacts.kind`; its clock and rate are not compared.
        analyses: The analysis of each stretch, in order.
        tags: The metadata.
        sound: Whether the film must have a sound track of its length; otherwise it must have none.
    """

    expected: ExpectedVideo
    kind: Sequence[str]
    analyses: Sequence[ClipAnalysis]
    tags: Mapping[str, str] = field(default_factory=dict)
    sound: bool = False


def proven(film: Path, promise: Promise) -> VideoFacts:
    """Verify that a film is complete and consists of the promised packets; return its facts.

    Raises:
        OutputError: the film differs; the evidence lists every difference.
    """
    with decoding(film, FILM_LIMIT_S) as source:
        facts = _FilmReading(source, promise).facts()
    facts = replace(facts, bytes=film.stat().st_size, sha256=sha256_of(film))
    found = facts.problems + (facts.differences(promise.expected) if facts.num_frames else ())
    if found:
        raise OutputError(
            f"the film does not match its plan: {found[0]}",
            evidence=found,
            advice="Nothing was published; the clips are kept. Run the same command again.",
        )
    return facts


class _FilmReading:
    def __init__(self, source: Decoding, promise: Promise) -> None:
        self._source, self._promise = source, promise
        self._look: dict[str, Any] = {}
        self._count = 0
        self._sound_s = 0.0
        self._notes: list[str] = []

    def facts(self) -> VideoFacts:
        """The facts as far as the file could be read, with every problem."""
        stream, promise = self._source.stream, self._promise
        if stream is None:
            return VideoFacts(problems=self._source.problems)
        rate = Fraction(stream.average_rate or 0)
        if kind_of(stream)[:-2] != tuple(promise.kind[:-2]):
            self._notes.append("its frames are encoded differently from the clips")
        self._compare(self._pictures(rate))
        if stream.frames and stream.frames != self._count:
            self._notes.append(f"it declares {stream.frames} frames and has {self._count}")
        if promise.sound != self._source.has_audio:
            self._notes.append("it has no sound" if promise.sound else "it has sound, and the storyboard has none")
        elif promise.sound and rate and self._sound_s < self._count / rate - _SOUND_SHORT_S:
            self._notes.append(f"its sound ends after {self._sound_s:.2f} s")
        lost = [name for name, value in promise.tags.items() if self._source.metadata.get(name, "") != value]
        self._notes += [f"its tag {name!r} has another value" for name in lost]
        luma = sum(analysis.frames * analysis.mean_luma for analysis in promise.analyses)
        black = all(analysis.is_black for analysis in promise.analyses)
        return VideoFacts(
            num_frames=self._count,
            fps=float(rate),
            seconds=float(self._count / rate) if rate else 0.0,
            codec=stream.codec_context.codec.canonical_name,
            container=container_of(self._source),
            has_audio=self._source.has_audio,
            metadata=self._source.metadata,
            mean_luma=round(luma / max(1, self._count), 4),
            is_black=black,
            problems=(*self._source.problems, *self._notes),
            warnings=("every frame is black",) if black else (),
            **self._look,
        )

    def _compare(self, packets: Iterator[Packet[Any]]) -> None:
        """Compare the packets with those of each stretch in turn."""
        for number, analysis in enumerate(self._promise.analyses, 1):
            digest = PacketDigest()
            for packet in itertools.islice(packets, analysis.frames):
                digest.add(packet)
            if digest.value() != analysis.packets:
                self._notes.append(f"its pictures are not those of clip {number}")
        more = sum(1 for _ in packets)
        if more:
            self._notes.append(f"{more} pictures belong to no clip")

    def _pictures(self, rate: Fraction) -> Iterator[Packet[Any]]:
        """The packets of the pictures. Notes a picture at a wrong time, and measures the sound on the way."""
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
