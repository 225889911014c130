"""Writes a playable H.264 video without a model: a bright moving pattern that depends on the seed and the picture.

It is fast rather than pretty, and does without numpy, whose import takes longer than such a video. It also writes every kind of broken video
that a verification must refuse.

    >>> write(Film(320, 192, 17, seed=1), "out.mp4")  # doctest: +SKIP
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av import VideoFrame


@dataclass(frozen=True)
class Film:
    """The properties of the video."""

    width: int
    height: int
    frames: int
    seed: int = 0
    tint: tuple[int, int] = (128, 128)
    black: bool = False
    fps: int = 16


def write(film: Film, path: str, options: dict[str, str] | None = None) -> None:
    """Encode to ``path``, always as mp4.

    Raises:
        OSError: the file cannot be opened or the disk is full; the unfinished file stays.
    """
    import av  # here, because most scripted runs fail before they write

    container = av.open(path, "w", format="mp4", options=options or {})
    try:
        stream = container.add_stream("libx264", rate=film.fps)
        stream.width, stream.height, stream.pix_fmt = film.width, film.height, "yuv420p"
        # The number of threads is fixed: x264's output depends on it, and one seed must give one file.
        stream.codec_context.thread_count = 2
        stream.options = {"preset": "ultrafast", "crf": "26"}
        for number in range(film.frames):
            container.mux(stream.encode(_picture(film, number)))
        container.mux(stream.encode())
    finally:
        container.close()


def write_broken(film: Film, path: str, way: str) -> None:
    """Write a video that is wrong in one way: see the table in tests/stand_ins/README.md.

    Raises:
        KeyError: ``way`` is unknown.
    """
    whole = {
        "ok": film,
        "trunc": film,
        "black": replace(film, black=True),
        "wrong_frames": replace(film, frames=max(1, film.frames - 4)),
        "wrong_size": replace(film, width=film.width - 16, height=film.height + 16),
        "tiny": replace(film, width=2, height=2),
    }
    if way == "none":
        return
    if way == "empty":
        Path(path).write_bytes(b"")
    elif way == "text":
        Path(path).write_text("This is not a film. " * 2000, "utf-8")
    elif way == "faststart_trunc":
        # The index is at the start, so the header promises every frame although half of the data is missing.
        write(film, path, {"movflags": "faststart"})
        _cut(path, 0.5)
    else:
        write(whole[way], path)
        if way == "trunc":
            # The index is at the end, so it is lost.
            _cut(path, 0.95)


def _cut(path: str, share: float) -> None:
    os.truncate(path, int(Path(path).stat().st_size * share))


def _picture(film: Film, number: int) -> VideoFrame:
    """One frame: a gradient with blocks that drifts to the left, or black."""
    import av

    frame = av.VideoFrame(film.width, film.height, "yuv420p")
    luma, *chroma = frame.planes
    rows = [bytes([16]) * film.width] * film.height if film.black else _rows(film, number)
    luma.update(b"".join(row.ljust(luma.line_size, b"\0") for row in rows))
    for plane, value in zip(chroma, (128, 128) if film.black else film.tint, strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    return frame


def _rows(film: Film, number: int) -> Iterator[bytes]:
    """The brightness of each row: a part of one gradient, plus 20 in every second block of 64 x 64."""
    first, span = number * 4 + film.seed % 997, film.width + film.height
    gradient = bytes(110 + (first + place) * 100 // span % 100 for place in range(span))
    blocks = [bytes((column // 64 + odd) % 2 * 20 for column in range(first, first + film.width)) for odd in (0, 1)]
    added = [int.from_bytes(row, "big") for row in blocks]  # one sum of large numbers adds all bytes: none reaches 256
    for row in range(film.height):
        total = int.from_bytes(gradient[row : row + film.width], "big") + added[row // 64 % 2]
        yield total.to_bytes(film.width, "big")
