"""Writes a log that never grows beyond its limit and never blocks or ends a run.

The first half of the limit holds the beginning of the output; two alternating segments hold the newest output.
`close` joins them and writes how many bytes were dropped in between. A full disk loses log lines, not the run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path


class Masker:
    """Replaces secrets in a stream of bytes, also where a read cuts one in two."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = sorted((secret.encode() for secret in secrets), key=len, reverse=True)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """The next bytes without secrets; an end that may begin a secret is held back."""
        if not self._secrets:
            return data
        data = self._held + data
        for secret in self._secrets:
            data = data.replace(secret, b"***")
        kept = len(data) - max((_overlap(data, secret) for secret in self._secrets), default=0)
        self._held = data[kept:]
        return data[:kept]

    def close(self) -> bytes:
        """The bytes that were held back."""
        held, self._held = self._held, b""
        return held


def _overlap(data: bytes, secret: bytes) -> int:
    """Length of the longest end of the data with which the secret begins."""
    longest = min(len(data), len(secret) - 1)
    return next((size for size in range(longest, 0, -1) if secret.startswith(data[-size:])), 0)


class BoundedLog:
    """A file that takes any amount of bytes, and keeps the first and the last of them."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._path = path
        self._head_left = limit_bytes // 2
        self._segment_bytes = max(1, limit_bytes // 4)
        self._segments = [path.with_suffix(".new"), path.with_suffix(".old")]
        self._tail_bytes = 0
        self._in_segment = 0
        self.lost = False
        self._file = self._open(path)
        self._tail: int | None = None

    def _open(self, path: Path) -> int | None:
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError:
            self.lost = True
            return None

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        if self._head_left:
            head, data = data[: self._head_left], data[self._head_left :]
            self._head_left -= len(head)
            self._put(self._file, head)
        while data:
            if self._tail is None or self._in_segment >= self._segment_bytes:
                self._turn()
            part = data[: self._segment_bytes - self._in_segment]
            self._put(self._tail, part)
            self._in_segment += len(part)
            self._tail_bytes += len(part)
            data = data[len(part) :]

    def _put(self, fd: int | None, data: bytes) -> None:
        while fd is not None and data:
            try:
                data = data[os.write(fd, data) :]
            except OSError:  # disk full: the child must not wait or end for it
                self.lost = True
                return

    def _turn(self) -> None:
        """Begin a new segment: the full one becomes the old one, and the old one is dropped."""
        if self._tail is not None:
            os.close(self._tail)
            with contextlib.suppress(OSError):
                self._segments[0].replace(self._segments[1])
        self._tail = self._open(self._segments[0])
        self._in_segment = 0

    def close(self) -> None:
        """Join the beginning and the segments in one file; a second call does nothing."""
        for fd in (self._tail, self._file):
            if fd is not None:
                os.close(fd)
        self._tail = self._file = None
        if not self._tail_bytes:
            return
        with contextlib.suppress(OSError), self._path.open("ab") as target:
            kept = [segment for segment in reversed(self._segments) if segment.exists()]
            dropped = self._tail_bytes - sum(segment.stat().st_size for segment in kept)
            target.write(f"\n... {dropped} bytes dropped ...\n".encode())
            for segment in kept:
                with segment.open("rb") as source:
                    shutil.copyfileobj(source, target)
                segment.unlink()
