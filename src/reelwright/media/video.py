"""Examines a video completely, and reads its exact first and last frames.

`verification` compares a video with what was promised, and `writer` writes one. Limits for hostile files are in `decoding`, the meaning of the
facts in `video_facts`, joining in `films.editing`.

    >>> examine(path).problems
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

if TYPE_CHECKING:
    import numpy as np
    from av.video.frame import VideoFrame
    from numpy.typing import NDArray


def examine(path: Path, *, limit_s: float = LIMIT_S) -> VideoFacts:
    """Decode a video completely; a damaged file is not an error, but has ``problems``.

    Decoding does not find all damage: a third of the small damaged videos and one in thirty of the large ones decode to
    other, valid pictures. Reelwright's videos carry a checksum (`checksum_box`), and the manifest has the hashes.
    """
    with decoding(path, limit_s) as video:
        tally = Tally(hash_frames=True, in_order=video.container_format == "avi")
        for frame in video.frames():
            tally.add(frame)
        facts = _facts_of(video, tally)
    if path.is_file():
        with contextlib.suppress(OSError):
            facts = replace(facts, sha256=sha256_of(path), bytes=path.stat().st_size)
    return facts


def _facts_of(video: Decoding, tally: Tally) -> VideoFacts:
    stream = video.stream
    problems = list(video.problems)
    if stream is None:
        return VideoFacts(
            problems=tuple(problems), has_audio=video.has_audio, metadata=video.metadata, container=container_of(video)
        )
    trimmed = tally.count < stream.frames and _is_trimmed(video, stream.frames)
    if tally.count < stream.frames and not trimmed:  # a fragmented video declares only the frames of its first fragment
        problems.insert(0, f"it declares {stream.frames} frames, {tally.count} can be decoded")
    elif not tally.count:
        problems.insert(0, "no frame can be decoded")
    measured = tally.measured(stream.average_rate)
    return VideoFacts(
        codec=stream.codec_context.codec.canonical_name,
        container=container_of(video),
        trimmed=stream.frames - tally.count if trimmed else 0,
        pixel_aspect="{0.numerator}:{0.denominator}".format(pixel_aspect(stream)),
        has_audio=video.has_audio,
        metadata=video.metadata,
        problems=(*problems, *tally.problems),
        warnings=tally.warnings or (("every frame is black",) if measured["is_black"] else ()),
        **(look_of(tally.first) if tally.first else {}),
        **measured,
    )


def _is_trimmed(video: Decoding, declared: int) -> bool:
    """Whether all frames are stored, and an edit list makes players show fewer of them."""
    return video.container_format.startswith("mov") and video.stored_frames() == declared and not video.problems


def container_of(video: Decoding) -> str:
    """The container's common name."""
    name = video.container_format
    if name.startswith("mov") and video.brand[:2] in ("qt", "3g"):
        return {"qt": "QuickTime", "3g": "3GP"}[video.brand[:2]]
    if name.startswith("matroska") and video.is_webm:
        return "WebM"
    return next((title for start, title in CONTAINERS.items() if name.startswith(start)), name)


def first_frame(path: Path) -> NDArray[np.uint8]:
    """The frame shown first, upright RGB. Raises `OutputError` for a video that cannot be read."""
    with decoding(path) as video:
        frame = next(video.frames(), None)
        if frame is None:
            raise OutputError(f"{path} has no first frame", evidence=video.problems)
        return to_rgb(frame)


def last_frame(path: Path) -> NDArray[np.uint8]:
    """The frame shown last, upright RGB. All frames are decoded: right with B-frames, sound and uneven timing.

    Raises:
        OutputError: the video is damaged, so its last frame is unknown.
    """
    last: VideoFrame | None = None
    with decoding(path) as video:
        for last in video.frames():  # noqa: B007 (decoders give frames in the order in which they are shown)
            pass
        if last is None or video.problems:
            raise OutputError(f"{path} has no undamaged last frame", evidence=video.problems)
        return to_rgb(last)
