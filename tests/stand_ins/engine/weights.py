"""Opens checkpoint files as torch and diffusers do: in the same order, with the same messages for broken files.

It reads only ends and headers. The messages are those of torch 2.13, safetensors 0.6 and transformers, from
tests/logs.

    >>> open_archive("/models/i2v/Wan2.1_VAE.pth")  # doctest: +SKIP
"""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

from .bars import bar

_LFS = b"version https://git-lfs"
_CUT_ZIP = (
    "PytorchStreamReader failed reading zip archive: failed finding central directory. This is an internal "
    "miniz error. If you are "
    "seeing this error, there is a high likelihood that your checkpoint file is corrupted. This can happen "
    "if the checkpoint was not "
    "saved properly, was transferred incorrectly, or the file was modified after saving."
)
_WEIGHTS_ONLY = (
    "Weights only load failed. In PyTorch 2.6, we changed the default value of the `weights_only` argument "
    "in `torch.load` from "
    "`False` to `True`. Re-running `torch.load` with `weights_only` set to `False` will likely succeed, but "
    "it can result in "
    "arbitrary code execution. Do it only if you got the file from a trusted source.\n"
    "Please file an issue with the following so that we can make `weights_only=True` compatible with your "
    "use case: "
    "WeightsUnpickler error: \n\nUnsupported operand {operand}\n\n"
    "Check the documentation of torch.load to learn more about types accepted by default with weights_only "
    "https://pytorch.org/docs/stable/generated/torch.load.html."
)
_NO_REPO = (
    "Repo id must be in the form 'repo_name' or 'namespace/repo_name': '{name}'. Use `repo_type` argument if needed."
)
_NO_GIT_LFS = (
    "You seem to have cloned a repository without having git-lfs installed. Please install git-lfs and run "
    "`git lfs install` "
    "followed by `git lfs pull` in the folder you cloned."
)


class SafetensorError(Exception):
    """The error of safetensors, under the name that tracebacks show."""

    __module__ = "safetensors._safetensors_rust"


class HFValidationError(ValueError):
    """The error of huggingface_hub, under the name that tracebacks show."""

    __module__ = "huggingface_hub.errors"


def open_archive(path: str) -> None:
    """Open a .pth file as ``torch.load`` does, but read only its two ends."""
    with Path(path).open("rb") as file:
        head = file.read(4)
        if not head:
            raise EOFError
        if head != b"PK\x03\x04":
            raise pickle.UnpicklingError(_WEIGHTS_ONLY.format(operand=head[0]))
        size = file.seek(0, 2)
        file.seek(max(0, size - 65_557))
        tail = file.read()
        end = tail.rfind(b"PK\x05\x06")
        # The end record has 22 bytes; a cut inside it fails like a missing one.
        if end < 0 or end + 22 > len(tail):
            raise RuntimeError(_CUT_ZIP)


def open_tokenizer(folder: str) -> None:
    """Open as ``AutoTokenizer.from_pretrained`` does: a missing folder is taken for the name of a repository."""
    if not Path(folder).is_dir():
        try:
            raise HFValidationError(_NO_REPO.format(name=folder))
        except HFValidationError as error:
            raise OSError(str(error)) from error


def open_transformer(folder: str, show_bar: bool) -> dict[str, Any]:
    """Open as ``WanModel.from_pretrained`` does: the index, then every shard; returns config.json."""
    root = Path(folder)
    try:
        config: dict[str, Any] = json.loads((root / "config.json").read_text("utf-8"))
    except FileNotFoundError:
        raise OSError(f"Error no file named config.json found in directory {folder}.") from None
    shards = _shards(folder, root)
    # Several shards have a bar, on the first rank only; a single file has none.
    for number in bar(len(shards), "Loading checkpoint shards", show_bar and len(shards) > 1):
        open_shard(root / shards[number - 1])
    return config


def _shards(folder: str, root: Path) -> list[str]:
    index = root / "diffusion_pytorch_model.safetensors.index.json"
    if index.exists():
        shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        for shard in shards:
            if not (root / shard).exists():
                raise FileNotFoundError(
                    f"{folder}/ does not appear to have a file named {root / shard} which is required "
                    "according to the checkpoint index."
                )
        return shards
    if (root / "diffusion_pytorch_model.safetensors").exists():
        return ["diffusion_pytorch_model.safetensors"]
    raise OSError(f"Error no file named diffusion_pytorch_model.bin found in directory {folder}.")


def open_shard(path: Path) -> None:
    """Open one tensor file in diffusers' two steps: read the safetensors header; if that fails, look for a pointer."""
    problem = _header_problem(path)
    if problem is None:
        return
    try:
        raise SafetensorError(f"Error while deserializing header: {problem}")
    except SafetensorError as error:
        with path.open("rb") as file:
            if file.read(len(_LFS)) == _LFS:
                raise OSError(_NO_GIT_LFS) from error
        raise OSError(f"Unable to load weights from checkpoint file for '{path}' at '{path}'. ") from error


def _header_problem(path: Path) -> str | None:
    size = path.stat().st_size
    if size < 8:
        return "header too small"
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > 100_000_000:
            return "header too large"
        if 8 + length > size:
            return "invalid header length"
        header = json.loads(file.read(length))
    ends = [item["data_offsets"][1] for name, item in header.items() if name != "__metadata__"]
    return None if 8 + length + max(ends, default=0) == size else "incomplete metadata, file not fully covered"
