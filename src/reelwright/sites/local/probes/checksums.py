"""Finds the published checksums beside weights, and hashes files to compare with them.

It knows three places: the download records of huggingface_hub (``.cache/huggingface/download/NAME.metadata``), the
hub cache (the target of a link is named by its checksum), and ``SHA256SUMS`` or ``reelwright.sha256`` as ``sha256sum``
writes them. `sites.local.probes.checkpoints` knows which files a model needs.

    >>> Checksum("sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855").kind
    'sha256'
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

SUM_FILES = ("SHA256SUMS", "reelwright.sha256")
HUB_RECORDS = Path(".cache/huggingface/download")
_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class Checksum:
    """A recorded checksum; ``git`` is Git's blob SHA-1, which the hub uses for small files."""

    kind: Literal["sha256", "git"]
    digest: str


def recorded(directory: Path, names: Iterable[str], read_text: Callable[[Path], str]) -> Mapping[str, Checksum]:
    """The checksums recorded for these files; ``read_text`` returns ``""`` for a missing file."""
    listed: dict[str, Checksum] = {}
    for source in SUM_FILES:
        for line in read_text(directory / source).splitlines():
            match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](.+)", line.strip())
            if match:
                listed[match[2].removeprefix("./")] = Checksum("sha256", match[1].lower())
    found = {name: listed.get(name) or _of_the_hub(directory, name, read_text) for name in names}
    return {name: checksum for name, checksum in found.items() if checksum is not None}


def _of_the_hub(directory: Path, name: str, read_text: Callable[[Path], str]) -> Checksum | None:
    path = directory / name
    if path.is_symlink() and path.readlink().parent.name == "blobs":
        etag = path.readlink().name
    else:  # three lines: commit, etag, time
        lines = read_text(directory / HUB_RECORDS / f"{name}.metadata").splitlines()
        etag = lines[1].strip().strip('"') if len(lines) > 1 else ""
    if re.fullmatch(r"[0-9a-f]{64}", etag):
        return Checksum("sha256", etag)
    return Checksum("git", etag) if re.fullmatch(r"[0-9a-f]{40}", etag) else None


def digest_of(kind: Literal["sha256", "git"], file: BinaryIO, size: int, on_bytes: Callable[[int], None]) -> str:
    """Hash a file; ``on_bytes`` gets the number of bytes of each piece."""
    hasher = hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    while count := file.readinto(view):  # type: ignore[attr-defined]  # every binary file has it, BinaryIO not
        hasher.update(view[:count])
        on_bytes(count)
    return hasher.hexdigest()
