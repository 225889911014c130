"""What a source of weights is: something that lists a repository's files and lets them be read from any byte on.

>>> Listing("Wan-AI/Wan2.1-T2V-1.3B", (RemoteFile("config.json", 250),)).total_bytes
250
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from ..sites.local.probes.checksums import Checksum


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository; ``checksum`` if the source tells one."""

    name: str
    size: int
    checksum: Checksum | None = None


@dataclass(frozen=True)
class Listing:
    """What a repository holds; ``commit`` if the source has commits."""

    repository: str
    files: tuple[RemoteFile, ...]
    commit: str | None = None

    @property
    def total_bytes(self) -> int:
        """The sum of all sizes."""
        return sum(file.size for file in self.files)


class Stream(Protocol):
    """A file being read from a source."""

    start: int  #: where it really begins: a server may ignore that only the rest was asked for

    def read(self) -> bytes:
        """The next piece; empty at the end."""
        ...


class WeightsSource(Protocol):
    """A hub, or a folder in its place. Both methods raise `VideoGenerationError`, or `Interrupted` where a second
    attempt may help."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    def listing(self, repository: str) -> Listing:
        """What the repository holds."""
        ...

    def open(self, listing: Listing, file: RemoteFile, start: int) -> AbstractContextManager[Stream]:
        """Read a file from a certain byte on."""
        ...


class Interrupted(Exception):
    """The source stopped in the middle, or cannot be reached; the text says how."""
