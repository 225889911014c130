"""Saves as the script wants it: on a full disk, or one of the broken videos.

>>> write_scripted(Film(320, 192, 17), "out.mp4", {"write": "trunc"})  # doctest: +SKIP
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .film import Film, write_broken

_BALLAST_BYTES = 1 << 20


def write_scripted(film: Film, path: str, plan: Mapping[str, Any]) -> None:
    """Write the video, or what the script has in its place.

    Raises:
        OSError: the file cannot be written.
    """
    if plan.get("fill_disk"):
        _fill(Path(path).parent, int(plan.get("fill_disk_mb", 64)))
    write_broken(film, path, str(plan.get("write", "ok")))


def _fill(folder: Path, limit_mb: int) -> None:
    """Fill a small disk; ``limit_mb`` protects a large one."""
    written = 0
    with (folder / "ballast").open("wb", buffering=0) as file:
        for size in (_BALLAST_BYTES, 1):
            try:
                while written < limit_mb * _BALLAST_BYTES:
                    written += file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
