"""Denoised latents on disk, written before they are decoded: what took minutes is not lost to what takes seconds.

>>> save(Path("k.safetensors"), tensor, "k")  # doctest: +SKIP
>>> load(Path("k.safetensors"), "k") is not None  # doctest: +SKIP
True
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from ...core.files import open_regular

_NAME, _TOLD = "latents", "reelwright"  # one entry: the file's bytes do not depend on the order of a hash table


def save(path: Path, tensor: Any, key: str) -> None:
    """Write them under their final name at once or not at all; on the disk at the return.

    Raises:
        OSError: they cannot be written there.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    whole = tensor.detach().cpu().contiguous()
    try:
        save_file({_NAME: whole}, str(partial), metadata={_TOLD: _told(key, whole)})
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    except SafetensorError as error:  # its own name for a full disk
        raise OSError(str(error)) from error
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path, key: str) -> Any | None:
    """The latents of this key; ``None`` when there are none, or not whole, or of another key."""
    from safetensors import SafetensorError, safe_open

    try:
        open_regular(path).close()  # opening a named pipe would wait for ever
        with safe_open(str(path), framework="pt") as file:
            told = (file.metadata() or {}).get(_TOLD, "")
            if not told.startswith(f"{key} "):
                return None
            tensor = file.get_tensor(_NAME)
            return tensor if told == _told(key, tensor) else None
    except (OSError, SafetensorError, ValueError):
        return None


def _told(key: str, tensor: Any) -> str:
    """Key and digest of the values: the format has no checksum, and a damaged film would look like a bad model."""
    import torch

    return f"{key} {hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy()).hexdigest()}"


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
