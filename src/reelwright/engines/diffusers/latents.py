"""Keeps denoised latents on disk before they are decoded, so a failed decode does not cost minutes of denoising.

>>> save(Path("k.safetensors"), tensor, "k")  # doctest: +SKIP
>>> load(Path("k.safetensors"), "k") is not None  # doctest: +SKIP
True
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from ...core.files import flush, open_regular

_NAME, _METADATA = "latents", "reelwright"  # one entry: with more, their order in the file would vary


def save(path: Path, tensor: Any, key: str) -> None:
    """Write the complete file or none, and flush it to the disk.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    whole = tensor.detach().cpu().contiguous()
    try:
        save_file({_NAME: whole}, str(partial), metadata={_METADATA: _mark(key, whole)})
        flush(partial)
        partial.replace(path)
        flush(path.parent)
    except SafetensorError as error:  # safetensors raises it for a full disk
        raise OSError(str(error)) from error
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path, key: str) -> Any | None:
    """The latents of this key; ``None`` if there are none, or they are damaged or have another key."""
    from safetensors import SafetensorError, safe_open

    try:
        open_regular(path).close()  # opening a named pipe would wait for ever
        with safe_open(str(path), framework="pt") as file:
            mark = (file.metadata() or {}).get(_METADATA, "")
            if not mark.startswith(f"{key} "):
                return None
            tensor = file.get_tensor(_NAME)
            return tensor if mark == _mark(key, tensor) else None
    except (OSError, SafetensorError, ValueError):
        return None


def _mark(key: str, tensor: Any) -> str:
    """Key and digest of the values: the format has no checksum, and damaged latents would look like a bad model."""
    import torch

    return f"{key} {hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy()).hexdigest()}"
