"""Verifies the last frame beside a stored clip before another clip begins with it, and repairs a damaged one.

The clip's manifest has the frame's SHA-256 and a digest of its content, which does not depend on the PNG writer. A
frame that was decoded from the clip can be decoded again. A frame that a renderer saved before it encoded the clip
cannot be restored from the clip, so that clip is made again.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..core.errors import VideoGenerationError
from ..runs.workspace import file_digest, place
from .store import Clip

#: A decoded frame differs less than this from the lossless one, even for a small, strongly compressed clip: in levels,
#: on average.
_CODED = 12.0


def is_whole(clip: Clip) -> bool:
    """Whether the last frame is the one that was saved with the clip, or may be for a clip of an older version."""
    recorded = (clip.manifest.output or {}).get("last_frame")
    if isinstance(recorded, dict):
        return file_digest(clip.last_frame) == recorded.get("sha256")
    return _resembles(clip)


def _resembles(clip: Clip) -> bool:
    """Whether the frame can be the clip's last one, for a clip whose manifest has no digest of it."""
    import numpy as np

    from ..media.continuity import read_picture
    from ..media.video import last_frame

    if file_digest(clip.last_frame) is None:
        return False
    try:
        kept, decoded = read_picture(clip.last_frame), last_frame(clip.video)
    except VideoGenerationError:
        return False
    return kept.shape == decoded.shape and float(np.abs(kept.astype(float) - decoded).mean()) < _CODED


def mended(clip: Clip, match_to: Path | None) -> bool:
    """Decode the last frame from the clip again; return false if it is not the frame that was saved with the clip.

    Args:
        clip: A clip whose last frame is damaged.
        match_to: The picture whose colours the frame got, see `runs.order.Order.match_last_frame_to`.

    Raises:
        VideoGenerationError: DISK or PERM, the frame cannot be written.
    """
    from ..media.continuity import content_digest, correct_last_frame
    from ..media.verification import save_last_frame

    unfinished = clip.last_frame.with_name(f".{clip.key}.{os.getpid()}.png")
    recorded = (clip.manifest.output or {}).get("last_frame")
    try:
        save_last_frame(clip.video, unfinished)
        if match_to:
            correct_last_frame(match_to, clip.video, unfinished)
        if isinstance(recorded, dict) and content_digest(unfinished) != recorded.get("content"):
            return False
        if clip.last_frame.is_dir():
            return False
        place(unfinished, clip.last_frame)
    finally:
        unfinished.unlink(missing_ok=True)
    return True
