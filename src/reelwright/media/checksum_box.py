"""A checksum inside a video file, so that any byte that changes later is noticed, even without the manifest.

Decoding cannot see all damage: H.264 with flipped bits often decodes to other valid pictures. Of 24 small videos with
400 random bytes inside, the decoder accepted 8 with all frames. Not for security: a person who changes a video can
append a new checksum. Players skip the top-level ``uuid`` box; tools that copy streams drop it.

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
    """Append the SHA-256 of the whole file as a box of its own."""
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        file.seek(0, 2)
        file.write(_HEADER + digest)


def checksum_problem(path: Path) -> str | None:
    """What is wrong with the checksum; ``None`` if it fits or there is none (videos made by other programs)."""
    wrong = _fits(path) is False
    return "its checksum does not fit: the file has changed since it was written" if wrong else None


def has_valid_checksum(path: Path) -> bool:
    """Whether there is a checksum, and it fits."""
    return _fits(path) is True


def _fits(path: Path) -> bool | None:
    """``None``: there is no checksum."""
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
