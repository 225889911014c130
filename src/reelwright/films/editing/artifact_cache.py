"""Small files kept under a key of everything that determines them, so that joining a film again costs little.

For: what was measured in a clip, and pieces of film that had to be encoded. Not for: anything that cannot be made
again. A file is there whole or not at all; whoever takes one checks that it is what it should be, for power may have
failed before it reached the disk.

    >>> shelf = ArtifactCache(folder)
    >>> shelf.put("ab12.json", lambda path: path.write_text("{}"))
    >>> shelf.find("ab12.json").read_text()
    '{}'
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..._version import __version__
from ...core.files import read_json
from ...media.writer import explained

_MAX_BYTES = 16 * 1024 * 1024
_UNFINISHED = re.compile(r"\.(\d+)-\d+-.*\.part")


def key_of(material: Mapping[str, Any]) -> str:
    """A name for everything that determines a file; another version of Reelwright may make another one."""
    text = json.dumps({"version": __version__, **material}, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class ArtifactCache:
    """A folder of such files, made when it is first written to; `used` names those that were taken or put."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.used: set[str] = set()
        self._remove_unfinished()

    def find(self, name: str) -> Path | None:
        """The file of that name, if there is one."""
        path = self.folder / name
        self.used.add(name)
        return path if path.is_file() else None

    def put(self, name: str, write: Callable[[Path], object]) -> Path:
        """Let ``write`` make the file under a name of its own, and give it its name when it is whole.

        Raises:
            BackendUnavailableError: the disk is full or cannot be written.
        """
        path = self.folder / name
        unfinished = self.folder / f".{os.getpid()}-{threading.get_ident()}-{name}.part"
        with explained(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                unfinished.unlink(missing_ok=True)  # whatever lies there is not written through
                write(unfinished)
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)
        self.used.add(name)
        return path

    def value(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """A JSON object that was kept, or is made now; a damaged one is made again."""
        path = self.find(name)
        if path:
            with contextlib.suppress(OSError, ValueError):
                kept = read_json(path, _MAX_BYTES)
                if isinstance(kept, dict) and kept.pop("sha256", None) == _digest(name, kept):
                    return kept
        made = dict(make())
        text = json.dumps({**made, "sha256": _digest(name, made)})
        self.put(name, lambda path: path.write_text(text, encoding="utf-8"))
        return made

    def _remove_unfinished(self) -> None:
        """What processes left that are gone."""
        for path in self.folder.glob(".*.part"):
            match = _UNFINISHED.fullmatch(path.name)
            if match and not Path(f"/proc/{match[1]}").exists():
                path.unlink(missing_ok=True)


def _digest(name: str, value: Mapping[str, Any]) -> str:
    """Of the content under its name: a file that was exchanged for another is as wrong as a damaged one."""
    return hashlib.sha256(json.dumps([name, value], sort_keys=True).encode()).hexdigest()
