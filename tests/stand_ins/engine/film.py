"""Writes a playable H.264 video without a model: a bright moving pattern that depends on the seed and the picture.

It is fast rather than pretty: 81 frames of 1280x720 take about a second. It also writes every kind of broken video
that a verification must refuse.

    >>> write(Film(320, 192, 17, seed=1), "out.mp4")  # doctest: +SKIP
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
            frame = av.VideoFrame.from_ndarray(_picture(film, number), format="yuv420p")
            container.mux(stream.encode(frame))
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


def _picture(film: Film, number: int) -> NDArray[np.uint8]:
    """The planes of one frame, one above the other: a gradient with blocks that drifts to the left."""
    import numpy as np

    if film.black:
        luma = np.full((film.height, film.width), 16, np.uint8)
        return np.vstack([luma, np.full((film.height // 2, film.width), 128, np.uint8)])
    row = np.arange(film.height, dtype=np.int32)[:, None]
    column = np.arange(film.width, dtype=np.int32)[None, :] + number * 4 + film.seed % 997
    luma = (
        110 + (column + row) * 100 // (film.width + film.height) % 100 + ((column // 64 + row // 64) % 2) * 20
    ).astype(np.uint8)
    chroma = np.empty((film.height // 2, film.width), np.uint8)
    # Two stacked planes of a quarter each: U fills the upper half of these rows, V the lower half.
    chroma[: film.height // 4], chroma[film.height // 4 :] = film.tint
    return np.vstack([luma, chroma])
