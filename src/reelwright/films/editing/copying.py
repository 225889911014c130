"""Clips joined packet by packet: what must be equal for that, and doing it. Nothing is decoded.

    >>> facts = [clip_facts(a), clip_facts(b)]
    >>> if facts[0].kind == facts[1].kind and not any(clip.b_frames for clip in facts):
    ...     copy([(a, facts[0].count - 1), (b, facts[1].count)], film, tags, check)

Without B-frames the last packet of a clip is the last frame shown and nothing refers to it, so that packets can be
left out at a clip's end; every clip begins with a frame that needs no other. Clips of other encoders may have edit
lists and other timing: they are copied with the timing of the film.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import OutputError
from ...media.decoding import decoding
from ...media.writer import add_copied, create_container, explained
from .joints import FILM_LIMIT_S

if TYPE_CHECKING:
    from av.video.stream import VideoStream


@dataclass(frozen=True)
class ClipFacts:
    """A clip without decoding it.

    Attributes:
        kind: What must be equal for packets of two clips to lie in one track: codec, size, pixel format, colours,
            the decoder's settings (they differ between qualities of one encoder), clock and frame rate.
        size: Width and height.
        fps: Frames in a second.
        b_frames: Whether frames are stored in another order than they are shown.
        count: Frames.
    """

    kind: tuple[str, ...]
    size: tuple[int, int]
    fps: Fraction
    b_frames: bool
    count: int

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "kind": list(self.kind),
            "size": list(self.size),
            "fps": str(self.fps),
            "b_frames": self.b_frames,
            "count": self.count,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClipFacts:
        """The facts that `to_json` gave."""
        width, height = data["size"]
        return cls(tuple(data["kind"]), (width, height), Fraction(data["fps"]), data["b_frames"], data["count"])


def clip_facts(video: Path) -> ClipFacts:
    """Read a clip's header and the timestamps of its packets.

    Raises:
        OutputError: it cannot be read.
    """
    with decoding(video, FILM_LIMIT_S) as film:
        stream = film.stream
        if stream is None or not stream.average_rate:
            raise OutputError(f"{video} cannot be joined", evidence=film.problems)
        stamps = [(packet.pts, packet.dts) for packet in film.packets(stream) if packet.dts is not None]
        demand_whole(video, film.problems)
        shuffled = any(pts != dts for pts, dts in stamps)
        size = (stream.codec_context.width, stream.codec_context.height)
        return ClipFacts(kind_of(stream), size, Fraction(stream.average_rate), shuffled, len(stamps))


def kind_of(stream: VideoStream) -> tuple[str, ...]:
    """See `ClipFacts`."""
    codec = stream.codec_context
    colours = (codec.color_range, codec.colorspace, codec.color_primaries, codec.color_trc)
    return (
        codec.name,
        f"{codec.width}x{codec.height}",
        str(codec.pix_fmt),
        " ".join(str(int(value)) for value in colours),
        bytes(codec.extradata or b"").hex(),
        str(stream.time_base),
        str(stream.average_rate),
    )


def copy(pieces: Sequence[tuple[Path, int]], target: Path, tags: Mapping[str, str], check: Callable[[], None]) -> None:
    """Write the first packets of each clip, so many as said, into one film; ``check`` may raise before each.

    Raises:
        OutputError: a clip cannot be read whole.
        BackendUnavailableError: the disk is full.
    """
    done, stream = 0, None
    with explained(target), create_container(target, tags) as container:
        for video, kept in pieces:
            with decoding(video, FILM_LIMIT_S, packets_only=stream is not None) as film:
                assert film.stream is not None
                stream = stream or add_copied(container, film.stream)
                step = round(1 / Fraction(film.stream.average_rate or 1) / Fraction(film.stream.time_base or 1))
                end = done + kept
                for packet in film.packets(film.stream):
                    if packet.dts is None or done == end:
                        continue
                    check()
                    packet.pts = packet.dts = done * step
                    packet.duration = step
                    packet.stream = stream
                    container.mux(packet)
                    done += 1
                demand_whole(video, film.problems)


def demand_whole(video: Path, problems: tuple[str, ...]) -> None:
    """Raise if something was wrong with a clip."""
    if problems:
        raise OutputError(f"{video} cannot be read whole", evidence=problems)
