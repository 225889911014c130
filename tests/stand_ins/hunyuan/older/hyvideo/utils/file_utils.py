"""Saves the video and raises errors, unlike Wan's saving, which hides them."""

from __future__ import annotations

import os
from typing import Any

from hyvideo.stand_in.film import Film
from hyvideo.stand_in.frameworks import needs
from hyvideo.stand_in.saving import write_scripted

needs("torchvision")
needs("imageio")
needs("einops")


def save_videos_grid(
    videos: tuple[Film, Any], path: str, rescale: bool = False, n_rows: int = 1, fps: int = 24
) -> None:
    """Write the video; ``videos`` also has this launch's entry of the script."""
    film, plan = videos
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - as in the real file
    write_scripted(film, path, plan)
