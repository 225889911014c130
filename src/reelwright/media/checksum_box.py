"""Stores a checksum in a video file, so that any later change of a byte is noticed, even without the manifest.

Decoding does not find all damage: H.264 with flipped bits often decodes to other valid pictures. Of 24 small videos
with 400 random bytes inside, the decoder accepted 8 with all frames. The checksum gives no security: a person who
changes a video can append a new one. Players skip the top-level ``uuid`` box; tools that copy streams drop it.

    >>> append_checksum(path)
    >>> checksum_problem(path) is None
    True
"""

from __future__ import annotations

import hashlib
from pathlib import Path

_BOX_BYTES = 56
_HEADER = _BOX_BYTES.to_bytes(4) + b"uuid" + bytes.fromhex("7265656c77726967687473616c763031")


def append_checksum(path: Path) -> None:
    """Append a box with the SHA-256 of the file."""
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        file.seek(0, 2)
        file.write(_HEADER + digest)


def checksum_problem(path: Path) -> str | None:
    """The problem with the checksum; ``None`` if it matches, or if the video has none (another program made it)."""
    wrong = _fits(path) is False
    return "its checksum does not match: the file has changed since it was written" if wrong else None


def has_valid_checksum(path: Path) -> bool:
    """Whether the file has a checksum that matches."""
    return _fits(path) is True


def _fits(path: Path) -> bool | None:
    """Whether the checksum matches; ``None`` if the file has none."""
    content = hashlib.sha256()
    with path.open("rb") as file:
        rest = file.seek(0, 2) - _BOX_BYTES
        file.seek(max(0, rest))
        box = file.read()
        if rest < 0 or not box.startswith(_HEADER):
            return None
        file.seek(0)
        while rest > 0 and (part := file.read(min(rest, 1 << 20))):
            content.update(part)
            rest -= len(part)
    return content.digest() == box[len(_HEADER) :]
