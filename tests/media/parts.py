"""Clips to be joined, and what can be read from the film that they became."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from reelwright.core.request import Size
from reelwright.films.editing.artifact_cache import ArtifactCache
from reelwright.films.editing.joining import JoinReport
from reelwright.films.editing.joining import join as join_kept
from reelwright.films.editing.timing import JoinOptions, JoinPart
from reelwright.media.decoding import decoding, to_rgb
from reelwright.media.writer import Encoding, VideoWriter
from tests.media.clips import a_picture, number_in

Pixels = NDArray[np.uint8]
SIZE = Size(128, 96)
OPTIONS = JoinOptions(SIZE, 16.0, "Film")


def a_grey_clip(path: Path, numbers: Sequence[int], *, size: Size = SIZE, crf: int = 1, fps: float = 16) -> Path:
    """A clip whose frames' brightness is their number."""
    with VideoWriter(path, size, fps, Encoding(crf=crf), {}) as film:
        for number in numbers:
            film.write(np.full((size.height, size.width, 3), 40 + number * 2, np.uint8))
    return path


def a_coded_clip(path: Path, numbers: Sequence[int], encoding: Encoding | None = None, *, fps: float = 16) -> Path:
    """A clip whose frames have their number in blocks that no encoder can change."""
    with VideoWriter(path, SIZE, fps, encoding or Encoding(crf=10), {}) as film:
        for number in numbers:
            film.write(a_picture(number, SIZE))
    return path


def a_chain(folder: Path) -> list[JoinPart]:
    """Three clips, each of which begins with the last frame of the one before."""
    clips = [a_coded_clip(folder / f"{n}.mp4", range(n * 10, n * 10 + 11)) for n in range(3)]
    return [JoinPart(clips[0]), JoinPart(clips[1], chained=True), JoinPart(clips[2], chained=True)]


def join(
    parts: Sequence[JoinPart],
    target: Path,
    options: JoinOptions,
    *,
    cache: ArtifactCache | None = None,
    check: Callable[[], None] = lambda: None,
) -> JoinReport:
    """Join clips, with a cache for this film alone unless one is given."""
    cache = cache or ArtifactCache(target.parent / "caches" / target.stem)
    return join_kept(parts, target, options, cache, lambda *_: None, check)


def frames(path: Path) -> list[Pixels]:
    """Every frame of a film."""
    with decoding(path) as film:
        return [to_rgb(frame) for frame in film.frames()]


def read(path: Path) -> list[int]:
    """The numbers coded into a film's frames."""
    return [number_in(frame) for frame in frames(path)]


def seen(path: Path) -> list[int]:
    """The numbers that a film's brightness is."""
    return [round((float(np.median(frame)) - 40) / 2) for frame in frames(path)]


def packets(path: Path) -> list[bytes]:
    """The stored pictures."""
    with av.open(str(path)) as film:
        return [bytes(packet) for packet in film.demux(video=0) if packet.size]


def save(picture: Pixels, path: Path) -> Path:
    """An RGB picture as a PNG."""
    assert cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return path
