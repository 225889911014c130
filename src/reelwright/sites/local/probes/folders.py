"""Reads files in a folder of weights, and turns every error of the disk into a sentence instead of an exception.

It notes when the disk last answered, because a call into a dying mount may never return. It does not know what the
files should hold: `sites.local.probes.checkpoints` does.

    >>> folder = Folder(Path("/models/nowhere"), Files())
    >>> folder.size("config.json"), folder.problems
    (None, ['/models/nowhere/config.json is missing'])
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ....core.files import open_regular

_MAX_JSON_BYTES = 64 << 20
_SHOWN = 8
_SERIES = re.compile(r"-\d{1,5}-of-(\d{1,5})\.\w+$")
_PLURAL = {"is": "are", "has": "have", "lacks": "lack", "marks": "mark", "matches": "match", "was": "were",
           "a dangling link": "dangling links", "a web page": "web pages", "a server's refusal": "refusals of a server",
           "a Git LFS pointer": "Git LFS pointers", "an unfinished download": "unfinished downloads"}  # fmt: skip
Content = TypeVar("Content")


class Files:
    """The calls to the disk; a test replaces them to make the n-th one fail. All may raise `OSError`."""

    def stat(self, path: Path) -> os.stat_result:
        """The status of a file, or of a link's target."""
        return path.stat()

    def names(self, folder: Path) -> list[str]:
        """The sorted names in a folder."""
        return sorted(os.listdir(folder))  # noqa: PTH208 - one read of the folder, no Path per name

    def open(self, path: Path) -> BinaryIO:
        """Open a regular file for reading."""
        return open_regular(path)


class Folder:
    """One folder under ``root``; names are relative to it and ``""`` is the folder itself.

    Attributes:
        said: Name and fault of every problem.
        at: The name of the file that is being read.
        answered_s: When the disk last answered, on the monotonic clock.
    """

    def __init__(self, root: Path, files: Files) -> None:
        self.root = root
        self.said: list[tuple[str, str]] = []
        self.at = ""
        self.answered_s = time.monotonic()
        self.files = files
        self._listed: dict[str, list[str] | None] = {}

    def say(self, name: str, problem: str) -> None:
        """Note a problem of a file."""
        if (name, problem) not in self.said:
            self.said.append((name, problem))

    @property
    def problems(self) -> list[str]:
        """One sentence for each fault; files with the same fault share it."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, problem in self.said:
            groups.setdefault(problem.partition(":")[0], []).append((name, problem))
        return [self._sentence(fault, found) for fault, found in groups.items()]

    def _sentence(self, fault: str, found: list[tuple[str, str]]) -> str:
        if len(found) == 1:
            return f"{self.root / found[0][0]} {found[0][1]}"
        names = [name for name, _ in found]
        shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        series = {match[1] for name in names if (match := _SERIES.search(name))}
        of = (
            f" of {int(next(iter(series)))} shards"
            if len(series) == 1 and all(map(_SERIES.search, names))
            else " files"
        )
        verb, _, rest = fault.partition(" ")
        rest = _PLURAL.get(rest, rest)
        fix = found[0][1].partition(":")[2] if len({problem for _, problem in found}) == 1 else ""
        return f"{self.root}: {len(names)}{of} {_PLURAL.get(verb, verb)} {rest}: {shown}{f' ({fix.strip()})' if fix else ''}"

    def alive(self, name: str | None = None) -> None:
        """Note that the disk answered, or that the next call reads ``name``."""
        self.answered_s = time.monotonic()
        self.at = self.at if name is None else name

    def stat(self, name: str) -> os.stat_result | None:
        """The status of a file, or of a link's target; ``None`` if it cannot be read."""
        self.alive(name)
        try:
            return self.files.stat(self.root / name)
        except FileNotFoundError:
            dangling = (self.root / name).is_symlink()
            self.say(name, "is a dangling link: its target is gone" if dangling else "is missing")
        except OSError as error:
            self.say(name, f"cannot be read: {reason(error)}")
        return None

    def size(self, name: str, *, folder: bool = False) -> int | None:
        """Bytes of a regular file, or of a folder with ``folder``; ``None`` for anything else."""
        found = self.stat(name)
        if found is None or (stat.S_ISDIR if folder else stat.S_ISREG)(found.st_mode):
            return found and found.st_size
        self.say(name, f"is not a {'folder' if folder else 'file'}")
        return None

    def names(self, folder: str) -> list[str] | None:
        """The names in a folder, read once; ``None`` if it cannot be read."""
        if folder not in self._listed:
            self.alive(folder)
            try:
                self._listed[folder] = self.files.names(self.root / folder)
            except OSError as error:
                self._listed[folder] = None
                missing = isinstance(error, FileNotFoundError)
                self.say(folder, "is missing" if missing else f"cannot be read: {reason(error)}")
        return self._listed[folder]

    def contents(self, folder: str) -> list[str] | None:
        """The names in a folder that must not be empty; ``None`` if it is not a folder."""
        if self.size(folder, folder=True) is None:
            return None
        names = self.names(folder)
        if names == []:
            self.say(folder, "is empty")
        return names or []

    def read(self, name: str, reader: Callable[[BinaryIO], Content]) -> Content | None:
        """The result of ``reader`` for the open file; ``None`` if the file cannot be read."""
        self.alive(name)
        try:
            with self.files.open(self.root / name) as file:
                return reader(file)
        except OSError as error:
            self.say(name, f"cannot be read: {reason(error)}")
            return None

    def text(self, path: Path) -> str:
        """The text of a small file; empty if the file is missing or cannot be read."""
        self.alive(str(path))
        try:
            with self.files.open(path) as file:
                return file.read(_MAX_JSON_BYTES).decode("utf-8", "replace")
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:
            self.say(str(path), f"cannot be read: {reason(error)}")
            return ""

    def json(self, name: str) -> dict[str, Any]:
        """The JSON object in a file; empty if it cannot be read."""
        raw = self.read(name, lambda file: file.read(_MAX_JSON_BYTES))
        if raw is None:
            return {}
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            if all(other != name for other, _ in self.said):
                self.say(name, "is not valid JSON")
            return {}
        return found


def reason(error: OSError) -> str:
    """The system's words for an error."""
    return error.strerror or str(error)
