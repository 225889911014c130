"""Records the clips and cached files that a film uses, in ``.reel/films/NAME.json``.

A record is written before a clip is made, and `garbage` reads it. Paths of storyboards are relative to the film's
folder, so that a project can be moved. Several storyboards may have made a film of the same name; each keeps its clips.

    >>> read_record(Path(".reel/films/film.json")).keys  # doctest: +SKIP
    {'5f1c...', '90ab...'}
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.files import read_json

SCHEMA = 2
#: The name of a storyboard that is a value of a Python program and has no file.
NO_FILE = ""


@dataclass(frozen=True)
class Use:
    """The clips that one storyboard uses for a film; ``finished`` means that the film was published with them."""

    keys: tuple[str, ...]
    finished: bool = False


@dataclass(frozen=True)
class Record:
    """The record of a film.

    Attributes:
        output: The film's file name; empty in a record of an older version.
        uses: The clips of each storyboard, by its path relative to the film's folder (absolute in an older record).
        cached: Names of the files in ``.reel/pieces`` that belong to the present film.
        sheets: SHA-256 of the sheets that were made for the film.
    """

    output: str = ""
    uses: Mapping[str, Use] = field(default_factory=dict)
    cached: tuple[str, ...] = ()
    sheets: tuple[str, ...] = ()

    @property
    def keys(self) -> set[str]:
        """The clips of all its storyboards."""
        return {key for use in self.uses.values() for key in use.keys}

    def to_text(self) -> str:
        """The content of the file."""
        uses = {name: {"keys": list(use.keys), "finished": use.finished} for name, use in self.uses.items()}
        data = {"schema": SCHEMA, "output": self.output, "uses": uses}
        return json.dumps({**data, "pieces": list(self.cached), "sheets": list(self.sheets)})


def read_record(path: Path) -> Record:
    """The record in a file, which may be of an older version.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a record, or is one of a newer version.
    """
    data = read_json(path)
    if not isinstance(data, dict):
        raise ValueError("it is not a record of a film")
    if "schema" not in data:
        board = data.get("storyboard")
        if board is not None and not isinstance(board, str):
            raise ValueError("it is not a record of a film")
        uses = {board or NO_FILE: Use(_texts(data, "keys"))}
        return Record("", uses, _texts(data, "pieces"))
    if data["schema"] != SCHEMA or not isinstance(data.get("output"), str) or not isinstance(data.get("uses"), dict):
        raise ValueError("it is a record of a newer version, or damaged")
    uses = {str(name): _use(value) for name, value in data["uses"].items()}
    return Record(data["output"], uses, _texts(data, "pieces"), _texts(data, "sheets"))


def _use(value: Any) -> Use:
    if not isinstance(value, dict):
        raise ValueError("it is damaged")
    return Use(_texts(value, "keys"), value.get("finished") is True)


def _texts(data: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = data.get(name, [])
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise ValueError(f"its {name} are damaged")
    return tuple(found)


def board_name(storyboard: Path | None, folder: Path) -> str:
    """The name of a storyboard in the record of a film in ``folder``."""
    return os.path.relpath(storyboard, folder) if storyboard else NO_FILE


def board_path(name: str, folder: Path) -> Path:
    """The file of a recorded storyboard; an older record's absolute name is also found after the folder was moved."""
    path = folder / name
    if Path(name).is_absolute() and not path.exists() and (folder / path.name).exists():
        return folder / path.name
    return path


def noted(before: Record, board: str, folder: Path, use: Use, sheets: Sequence[str] = ()) -> Record:
    """The record with the clips that a storyboard uses now; other storyboards keep theirs."""
    here = folder / board if board else None
    others = {
        name: old
        for name, old in before.uses.items()
        if name != board and not (name and here and os.path.abspath(board_path(name, folder)) == os.path.abspath(here))  # noqa: PTH100 -- links are not resolved
    }
    return Record(before.output, {**others, board: use}, before.cached, tuple(dict.fromkeys((*before.sheets, *sheets))))
