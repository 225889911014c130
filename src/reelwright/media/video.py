"""Films: the names that others use, and the proof that a film is the promised one.

For: a full check (`examine`, `verify`), exact first and last frames; `VideoWriter` and `write_metadata` come
from `writer`. Not for: what a hostile file can do (`decoding`), what the facts mean (`facts`), joining films.

    >>> verify(path, ExpectedVideo(1280, 720, 81, 16.0)).problems
    ()
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import OutputError
from ..core.files import sha256_of
from .decoding import LIMIT_S, Decoding, decoding, pixel_aspect, to_rgb
from .video_facts import CONTAINERS, Tally, VideoFacts, look_of
from .writer import Encoding, VideoWriter, write_metadata

if TYPE_CHECKING:
    import numpy as np
    from av.video.frame import VideoFrame
    from numpy.typing import NDArray

    from ..core.plan import ExpectedVideo

__all__ = [
    "Encoding",
    "VideoFacts",
    "VideoWriter",
    "examine",
    "first_frame",
    "last_frame",
    "verify",
    "write_metadata",
]


def examine(path: Path, *, hash_frames: bool = True, limit_s: float = LIMIT_S) -> VideoFacts:
    """Decode a film completely and say what is in it; a bad file is no error, its ``problems`` tell.

    Not all damage can be seen by decoding: a third of small films and one in thirty of large ones decode to other,
    valid pictures. Our own films carry a `seal`, and the manifest has the hashes.
    """
    with decoding(path, limit_s) as film:
        tally = Tally(hash_frames=hash_frames, in_order=film.container_format == "avi")
        for frame in film.frames():
            tally.add(frame)
        facts = _facts_of(film, tally)
    if path.is_file():
        with contextlib.suppress(OSError):
            facts = replace(facts, sha256=sha256_of(path), bytes=path.stat().st_size)
    return facts


def _facts_of(film: Decoding, tally: Tally) -> VideoFacts:
    stream = film.stream
    problems = list(film.problems)
    if stream is None:
        return VideoFacts(
            problems=tuple(problems), has_audio=film.has_audio, metadata=film.metadata, container=container_of(film)
        )
    trimmed = tally.count < stream.frames and _is_trimmed(film, stream.frames)
    if tally.count < stream.frames and not trimmed:  # a film in fragments declares those of the first one only
        problems.insert(0, f"it declares {stream.frames} frames, {tally.count} can be decoded")
    elif not tally.count:
        problems.insert(0, "no frame can be decoded")
    measured = tally.measured(stream.average_rate)
    return VideoFacts(
        codec=stream.codec_context.codec.canonical_name,
        container=container_of(film),
        trimmed=stream.frames - tally.count if trimmed else 0,
        pixel_aspect="{0.numerator}:{0.denominator}".format(pixel_aspect(stream)),
        has_audio=film.has_audio,
        metadata=film.metadata,
        problems=(*problems, *tally.problems),
        warnings=tally.warnings or (("every frame is black",) if measured["is_black"] else ()),
        **(look_of(tally.first) if tally.first else {}),
        **measured,
    )


def _is_trimmed(film: Decoding, declared: int) -> bool:
    """Whether all frames are there, and an edit list is why players show fewer of them."""
    return film.container_format.startswith("mov") and film.stored_frames() == declared and not film.problems


def container_of(film: Decoding) -> str:
    """What people call the container."""
    name = film.container_format
    if name.startswith("mov") and film.brand[:2] in ("qt", "3g"):
        return {"qt": "QuickTime", "3g": "3GP"}[film.brand[:2]]
    if name.startswith("matroska") and film.is_webm:
        return "WebM"
    return next((title for start, title in CONTAINERS.items() if name.startswith(start)), name)


def verify(path: Path, expected: ExpectedVideo, *, limit_s: float = LIMIT_S) -> VideoFacts:
    """The facts of a film that is whole and keeps every promise.

    Raises:
        OutputError: it is missing, damaged or another one; the evidence lists everything found.
    """
    facts = examine(path, limit_s=limit_s)
    found = facts.problems + (facts.differences(expected) if facts.num_frames else ())
    if found:
        raise OutputError(f"{path} is not the promised film: {found[0]}", evidence=found)
    return facts


def first_frame(path: Path) -> NDArray[np.uint8]:
    """The frame shown first, upright RGB. Raises `OutputError` for a film that cannot be read."""
    with decoding(path) as film:
        frame = next(film.frames(), None)
        if frame is None:
            raise OutputError(f"{path} has no first frame", evidence=film.problems)
        return to_rgb(frame)


def last_frame(path: Path) -> NDArray[np.uint8]:
    """The frame shown last, upright RGB, by decoding them all: right with B-frames, sound and uneven timing.

    Raises:
        OutputError: the film is damaged, so that its last frame cannot be known.
    """
    last: VideoFrame | None = None
    with decoding(path) as film:
        for last in film.frames():  # noqa: B007 (decoders give frames in the order in which they are shown)
            pass
        if last is None or film.problems:
            raise OutputError(f"{path} has no last frame that can be trusted", evidence=film.problems)
        return to_rgb(last)
