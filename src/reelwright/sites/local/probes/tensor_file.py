"""Checks from its first and last bytes that a tensor file is complete, without torch and without reading the tensors.

The header of a safetensors file says where the last tensor ends, and a .pth file is a zip archive whose directory is
at its end. That is enough to find a cut download, a pointer file of Git LFS and a preallocated file with holes. It
does not find a flipped byte inside a tensor: `sites.local.probes.checksums` does.

    >>> weights_problem(Path("model.safetensors").open("rb"), 0, "model.safetensors")  # doctest: +SKIP
    'is empty'
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any, BinaryIO

LFS_MAGIC = b"version https://git-lfs"
# The safetensors library refuses longer headers too.
_MAX_HEADER_BYTES = 100_000_000
# First bytes of torch.save before 1.6: a pickle of its magic number 0x1950a86a20f9469cfc6c.
_LEGACY_TORCH = bytes.fromhex("8a0a6cfc9c46f9206aa85019")
_AGAIN = "log in to the hub, or accept the model's terms there, and download the file again"
_REFUSALS = (b'{"error', b"{'error", b'{"message', b"entry not found", b"repository not found", b"access to ")
_SAMPLED_WHOLE_BYTES = 1 << 16
_PIECES, _PIECE_BYTES = 24, 4096
_END, _END_64, _ENTRY, _DIRECTORY = b"PK\x05\x06", b"PK\x06\x06", b"PK\x03\x04", b"PK\x01\x02"
_END_BYTES, _LOCATOR_BYTES, _MAX_COMMENT_BYTES = 22, 20, 65535


def weights_problem(file: BinaryIO, size: int, name: str) -> str | None:
    """The fault, as the end of a sentence that begins with the file's name; ``None`` if the file is complete."""
    if size == 0:
        return "is empty"
    head = file.read(64)
    if problem := _head_problem(head):
        return problem
    if name.endswith(".safetensors"):
        return _header(file, size)[1]
    if name.endswith((".pth", ".pt", ".bin", ".ckpt")):
        return _archive_problem(file, size, head)
    return None


def _head_problem(head: bytes) -> str | None:
    """The fault of a file that holds a pointer or a server's answer in place of its content."""
    if head.startswith(LFS_MAGIC):
        return "is a Git LFS pointer: run `git lfs pull` or download it from the hub"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return f"is a web page: {_AGAIN}"
    return f"is a server's refusal: {_AGAIN}" if start.startswith(_REFUSALS) else None


def sample_digest(file: BinaryIO, size: int) -> str:
    """A digest of a small file's content, or of a large file's beginning and pieces all over it.

    Other weights of the same shapes have the same size. Training changes nearly every number, so pieces are enough,
    and a folder of 65 GB still takes milliseconds. The digest misses a single changed tensor between the pieces.
    """
    digest = hashlib.sha256()
    file.seek(0)
    digest.update(file.read(_SAMPLED_WHOLE_BYTES))
    if size > _SAMPLED_WHOLE_BYTES:
        for number in range(1, _PIECES + 1):
            file.seek((size - _PIECE_BYTES) * number // _PIECES)
            digest.update(file.read(_PIECE_BYTES))
    return digest.hexdigest()


def header_of(file: BinaryIO, size: int) -> dict[str, Any]:
    """The header of a safetensors file (dtype, shape and place of each tensor); empty if it cannot be read."""
    return _header(file, size)[0]


def tensor_names(file: BinaryIO, size: int) -> frozenset[str]:
    """Names of the tensors in a safetensors file; empty if its header cannot be read."""
    return frozenset(_header(file, size)[0]) - {"__metadata__"}


def _header(file: BinaryIO, size: int) -> tuple[dict[str, Any], str | None]:
    if size < 8:
        return {}, f"is cut off: {size} bytes"
    file.seek(0)
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _MAX_HEADER_BYTES or length < 2:
        return {}, "is not a safetensors file (impossible header length)"
    if 8 + length > size:
        return {}, f"is cut off: its header alone needs {8 + length} bytes and the file has {size}"
    try:
        header = json.loads(file.read(length))
        spans = [item["data_offsets"] for key, item in header.items() if key != "__metadata__"]
        end = max((int(stop) for _, stop in spans), default=0)
        held = sum(int(stop) - int(start) for start, stop in spans)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}, "is not a safetensors file (unreadable header)"
    if 8 + length + end != size:
        more = "is cut off" if size < 8 + length + end else "is longer than its header says"
        return header, f"{more}: {size} bytes where {8 + length + end} are expected"
    return header, None if held == end else "has a damaged header (tensors overlap or leave gaps)"


def _archive_problem(file: BinaryIO, size: int, head: bytes) -> str | None:
    if _LEGACY_TORCH in head[:20]:
        return None  # the old format has no mark at its end
    if not head.startswith((_ENTRY, _END)):
        return "is not a PyTorch file (neither a zip archive nor the old format)"
    place = max(0, size - _END_BYTES - _MAX_COMMENT_BYTES)
    file.seek(place)
    tail = file.read(size - place)
    at = tail.rfind(_END)
    while at >= 0 and at + _END_BYTES + int.from_bytes(tail[at + 20 : at + 22], "little") != len(tail):
        at = tail.rfind(_END, 0, at)
    if at < 0:
        return f"is cut off: no zip directory at its end ({size} bytes)"
    start = _directory_start(file, tail[at : at + _END_BYTES], place + at)
    if start is None:
        return "has a damaged zip directory"
    file.seek(start)
    return None if file.read(4) in (_DIRECTORY, _END) else "has a damaged zip directory"


def _directory_start(file: BinaryIO, end: bytes, end_at: int) -> int | None:
    """Offset of the central directory, also in archives beyond 4 GiB (zip64)."""
    size, start = struct.unpack("<II", end[12:20])
    if start != 0xFFFFFFFF and size != 0xFFFFFFFF:
        return int(start) if start + size <= end_at else None
    if end_at < _LOCATOR_BYTES:
        return None
    file.seek(end_at - _LOCATOR_BYTES)
    locator = file.read(_LOCATOR_BYTES)
    if not locator.startswith(b"PK\x06\x07"):
        return None
    file.seek(int.from_bytes(locator[8:16], "little"))
    record = file.read(56)
    if len(record) < 56 or not record.startswith(_END_64):
        return None
    size, start = struct.unpack("<QQ", record[40:56])
    return int(start) if start + size <= end_at else None
