"""Encodes the frames that a worker wrote, with the same encoder, tags and checksum box as every clip.

>>> encode_frames(saved, Path("clip.mp4"), 16.0, "h264", {}, cancellation.check)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...core.errors import OutputError
from ...core.events import Saved
from ...core.request import Size
from .. import LAST_FRAME


def encode_frames(  # noqa: PLR0913 -- all that a video is made of
    saved: Saved, video: Path, fps: float, codec: Any, tags: Mapping[str, str], check: Callable[[], None]
) -> None:
    """Encode the frames, keep the last one lossless beside the video, and remove them.

    Raises:
        OutputError: the number of frames differs from the worker's answer.
        BackendUnavailableError: the disk is full or cannot be written.
    """
    import numpy as np
    from PIL import Image

    from ...media.writer import Encoding, VideoWriter

    source = Path(saved.path)
    shape = (saved.frames, saved.height, saved.width, 3)
    expected = saved.frames * saved.height * saved.width * 3
    found = source.stat().st_size if source.is_file() else 0
    if found != expected or min(shape) < 1:
        raise OutputError(f"the worker promised {expected:,} bytes of frames and wrote {found:,}")
    frames = np.memmap(source, np.uint8, "r", shape=shape)
    with VideoWriter(video, Size(saved.width, saved.height), fps, Encoding(codec), dict(tags)) as writer:
        for frame in frames:
            check()
            writer.write(np.ascontiguousarray(frame))
    Image.fromarray(np.ascontiguousarray(frames[-1])).save(video.with_name(LAST_FRAME), compress_level=1)
    del frames
    source.unlink()
