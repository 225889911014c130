"""Keeps files that can be made again in a folder, each named by a key of everything that determines it.

They are measurements of clips and encoded parts of a film, so that joining a film again costs little. A file is
complete or absent; the reader still checks its content, because power may fail before the content reaches the disk.

    >>> cache = ArtifactCache(folder)
    >>> cache.put("ab12.json", lambda path: path.write_text("{}"))
    >>> cache.find("ab12.json").read_text()
    '{}'
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..._version import RENDERING_VERSION
from ...core.files import key_of, read_json, replacing
from ...media.writer import explained

_UNFINISHED = re.compile(r"\.(\d+)-[0-9a-f]+-.*\.part")


def cache_key(**material: Any) -> str:
    """The key of this material and of Reelwright's rendering version."""
    return key_of({"version": RENDERING_VERSION, **material})


class ArtifactCache:
    """The cache in a folder, which the first `put` creates. ``used`` holds the names that were looked up or put."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.used: set[str] = set()
        self._remove_unfinished()

    def find(self, name: str) -> Path | None:
        """The file of that name, or ``None``."""
        path = self.folder / name
        self.used.add(name)
        return path if path.is_file() else None

    def put(self, name: str, write: Callable[[Path], object]) -> Path:
        """Let ``write`` make a temporary file, then rename it to ``name``.

        Raises:
            BackendUnavailableError: the disk is full or cannot be written.
        """
        path = self.folder / name
        with explained(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as unfinished:
                write(unfinished)
        self.used.add(name)
        return path

    def value(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """A JSON object from the cache; if it is absent or damaged, ``make`` makes it now."""
        path = self.find(name)
        if path:
            with contextlib.suppress(OSError, ValueError):
                kept = read_json(path)
                if isinstance(kept, dict) and kept.pop("sha256", None) == _digest(name, kept):
                    return kept
        made = dict(make())
        text = json.dumps({**made, "sha256": _digest(name, made)})
        self.put(name, lambda path: path.write_text(text, encoding="utf-8"))
        return made

    def _remove_unfinished(self) -> None:
        """Remove the temporary files of processes that have ended."""
        for path in self.folder.glob(".*.part"):
            match = _UNFINISHED.fullmatch(path.name)
            if match and not Path(f"/proc/{match[1]}").exists():
                path.unlink(missing_ok=True)


def _digest(name: str, value: Mapping[str, Any]) -> str:
    """The digest of the content and the name, so that a file that was swapped with another counts as damaged."""
    return hashlib.sha256(json.dumps([name, value], sort_keys=True).encode()).hexdigest()
