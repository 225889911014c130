"""Reading in a folder of weights where every error of the disk becomes a sentence instead of an exception.

It keeps a sign of life for the one who waits: a call into a dying mount may never come back. What the files
ought to hold is not known here: see `machine.checkpoints`.

    >>> folder = Folder(Path("/models/nowhere"), Files())
    >>> folder.size("config.json"), folder.problems
    (None, ['/models/nowhere/config.json is missing'])
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ..files import open_regular

_MAX_JSON_BYTES = 64 << 20
Content = TypeVar("Content")


class Files:
    """The calls that are made, so that tests can let the n-th one fail; all may raise `OSError`."""

    def stat(self, path: Path) -> os.stat_result:
        """Of the link's target."""
        return path.stat()

    def names(self, folder: Path) -> list[str]:
        """Sorted names in a folder."""
        return sorted(os.listdir(folder))  # noqa: PTH208 - one read of the folder, no Path per name

    def open(self, path: Path) -> BinaryIO:
        """For reading."""
        return open_regular(path)


class Folder:
    """One folder under ``root``; names are relative to it and ``""`` is the folder itself.

    Attributes:
        problems: A sentence for everything that went wrong.
        at: The name that is being read.
        last_sign_s: When the disk last answered, on the monotonic clock.
    """

    def __init__(self, root: Path, files: Files) -> None:
        self.root = root
        self.problems: list[str] = []
        self.at = ""
        self.last_sign_s = time.monotonic()
        self._files = files
        self._listed: dict[str, list[str] | None] = {}

    def say(self, name: str, problem: str) -> None:
        """Note a problem of a file."""
        self.problems.append(f"{self.root / name} {problem}")

    def alive(self, name: str | None = None) -> None:
        """The disk answered, or is about to be asked for ``name``."""
        self.last_sign_s = time.monotonic()
        self.at = self.at if name is None else name

    def stat(self, name: str) -> os.stat_result | None:
        """Of a link's target."""
        self.alive(name)
        try:
            return self._files.stat(self.root / name)
        except FileNotFoundError:
            dangling = (self.root / name).is_symlink()
            self.say(name, "is a dangling link: its target is gone" if dangling else "is missing")
        except OSError as error:
            self.say(name, f"cannot be read: {reason(error)}")
        return None

    def size(self, name: str, *, folder: bool = False) -> int | None:
        """Bytes of a regular file (or of a folder, where one is wanted)."""
        found = self.stat(name)
        if found is None or (stat.S_ISDIR if folder else stat.S_ISREG)(found.st_mode):
            return found and found.st_size
        self.say(name, f"is not a {'folder' if folder else 'file'}")
        return None

    def names(self, folder: str) -> list[str] | None:
        """What is in a folder; read once."""
        if folder not in self._listed:
            self.alive(folder)
            try:
                self._listed[folder] = self._files.names(self.root / folder)
            except OSError as error:
                self._listed[folder] = None
                missing = isinstance(error, FileNotFoundError)
                self.say(folder, "is missing" if missing else f"cannot be read: {reason(error)}")
        return self._listed[folder]

    def read(self, name: str, reader: Callable[[BinaryIO], Content]) -> Content | None:
        """What ``reader`` makes of the open file."""
        self.alive(name)
        try:
            with self._files.open(self.root / name) as file:
                return reader(file)
        except OSError as error:
            self.say(name, f"cannot be read: {reason(error)}")
            return None

    def text(self, path: Path) -> str:
        """A small file's text, ``""`` if it is not there."""
        self.alive(str(path))
        try:
            with self._files.open(path) as file:
                return file.read(_MAX_JSON_BYTES).decode("utf-8", "replace")
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:
            self.problems.append(f"{path} cannot be read: {reason(error)}")
            return ""

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object, empty if it cannot be had."""
        raw = self.read(name, lambda file: file.read(_MAX_JSON_BYTES))
        if raw is None:
            return {}
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            self.say(name, "is not valid JSON")
            return {}
        return found


def reason(error: OSError) -> str:
    """The system's words for an error."""
    return error.strerror or str(error)
