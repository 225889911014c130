"""Clips joined packet by packet: what must be equal for that, and doing it. Nothing is decoded.

    >>> facts = [clip_facts(a), clip_facts(b)]
    >>> if facts[0].kind == facts[1].kind and not any(clip.b_frames for clip in facts):
    ...     copy([(a, facts[0].count - 1), (b, facts[1].count)], film, tags, told)

Without B-frames the last packet of a clip is the last frame shown and nothing refers to it, so that packets can be
left out at a clip's end; every clip begins with a frame that needs no other. Clips of other encoders may have edit
lists and other timing: they are copied with the timing of the film.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..errors import OutputError
from .decoding import decoding
from .joints import FILM_LIMIT_S
from .writer import add_copied, create_container, explained


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

    kind: tuple[Any, ...]
    size: tuple[int, int]
    fps: Fraction
    b_frames: bool
    count: int


def clip_facts(video: Path) -> ClipFacts:
    """Read a clip's header and the timestamps of its packets.

    Raises:
        OutputError: it cannot be read.
    """
    with decoding(video, FILM_LIMIT_S) as film:
        stream = film.stream
        if stream is None or not stream.average_rate:
            raise OutputError(f"{video} cannot be joined", evidence=film.problems)
        codec = stream.codec_context
        size = (codec.width, codec.height)
        colours = (codec.color_range, codec.colorspace, codec.color_primaries, codec.color_trc)
        clock = (stream.time_base, stream.average_rate)
        kind = (codec.name, size, str(codec.pix_fmt), *map(int, colours), bytes(codec.extradata or b""), *clock)
        stamps = [(packet.pts, packet.dts) for packet in film.packets(stream) if packet.dts is not None]
        demand_whole(video, film.problems)
        shuffled = any(pts != dts for pts, dts in stamps)
        return ClipFacts(kind, size, Fraction(stream.average_rate), shuffled, len(stamps))


def copy(
    pieces: Sequence[tuple[Path, int]], target: Path, tags: Mapping[str, str], told: Callable[[int], None]
) -> None:
    """Write the first packets of each clip, so many as said, into one film; ``told`` hears how many are written.

    Raises:
        OutputError: a clip cannot be read whole.
        BackendUnavailableError: the disk is full.
    """
    done, stream = 0, None
    with explained(target), create_container(target, tags) as container:
        for video, kept in pieces:
            with decoding(video, FILM_LIMIT_S) as film:
                assert film.stream is not None
                stream = stream or add_copied(container, film.stream)
                step = round(1 / Fraction(film.stream.average_rate or 1) / Fraction(film.stream.time_base or 1))
                end = done + kept
                for packet in film.packets(film.stream):
                    if packet.dts is None or done == end:
                        continue
                    packet.pts = packet.dts = done * step
                    packet.duration = step
                    packet.stream = stream
                    container.mux(packet)
                    done += 1
                    told(done)
                demand_whole(video, film.problems)


def demand_whole(video: Path, problems: tuple[str, ...]) -> None:
    """Raise if something was wrong with a clip."""
    if problems:
        raise OutputError(f"{video} cannot be read whole", evidence=problems)
