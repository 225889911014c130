"""Denoised latents on disk, written before they are decoded: what took minutes is not lost to what takes seconds.

>>> save(Path("k.safetensors"), tensor, "k")  # doctest: +SKIP
>>> load(Path("k.safetensors"), "k") is not None  # doctest: +SKIP
True
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

_NAME, _KEY = "latents", "reelwright_key"


def save(path: Path, tensor: Any, key: str) -> None:
    """Write them under their final name at once or not at all; on the disk at the return."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({_NAME: tensor.detach().cpu().contiguous()}, str(partial), metadata={_KEY: key})
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path, key: str) -> Any | None:
    """The latents of this key; ``None`` when there are none, or not whole, or of another key."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            if (file.metadata() or {}).get(_KEY) != key:
                return None
            return file.get_tensor(_NAME)
    except (OSError, SafetensorError, ValueError):
        return None


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
