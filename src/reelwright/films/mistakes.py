"""Mistakes in a storyboard, all at once, each with its line, its shot and what was probably meant.

>>> told([(11, "shot rocket: promt: there is no such key; did you mean prompt?")]).code
'CONFIG'
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import ConfigurationError
from ..files import expanded, open_regular, reason, shown
from ..yamlfile import Document

Problem = tuple[int | None, str]
Where = tuple[str | int, ...]
KeysAt = Callable[[Where], Sequence[str]]


def told(problems: Sequence[Problem]) -> ConfigurationError:
    """One error with every problem, in the order of the file."""
    lines = [f"line {line}: {text}" if line else text for line, text in sorted(problems, key=lambda item: item[0] or 0)]
    first, *others = dict.fromkeys(lines)
    advice = "`reel storyboard init` writes an example; docs/films.md explains every key."
    return ConfigurationError(f"the storyboard has a mistake: {first}", evidence=others, advice=advice)


def model_problems(error: ValidationError, document: Document, prefix: Where, keys_at: KeysAt) -> list[Problem]:
    """What pydantic found, in our words; ``keys_at`` says which keys may stand at a place."""
    found: list[Problem] = []
    items = error.errors(include_url=False, include_context=False)
    meant = {(*_place(item, prefix)[:-1], _meant(_place(item, prefix), keys_at)) for item in items if _is_strange(item)}
    for item in items:
        place = _place(item, prefix)
        if item["type"] == "missing" and place in meant:
            continue  # it is there, with another spelling
        found.append((document.line_of(*place), _wording(place, item, document, keys_at)))
    return [(line, text) for line, text in found if line is not None or len(found) == 1] or found


def _place(item: Any, prefix: Where) -> Where:
    return (*prefix, *(part for part in item["loc"] if isinstance(part, (str, int))))


def _is_strange(item: Any) -> bool:
    return bool(item["type"] == "extra_forbidden")


def _meant(place: Where, keys_at: KeysAt) -> str | None:
    near = difflib.get_close_matches(str(place[-1]), list(keys_at(place)), n=1)
    return near[0] if near else None


def _wording(place: Where, item: Any, document: Document, keys_at: KeysAt) -> str:
    words = [str(part) for part in place if not isinstance(part, int)]
    if place[:1] == ("shots",) and len(place) > 1:
        words = [f"shot {_name(document, place[1])}", *words[1:]]
    text = item["msg"].removeprefix("Value error, ")
    if _is_strange(item):
        meant = _meant(place, keys_at)
        text = "there is no such key" + (f"; did you mean {meant}?" if meant else "")
    elif item["type"] == "missing":
        text = "it is required and not there"
    elif item["type"] == "string_pattern_mismatch" and place[-1] == "transition":
        text = "write cut, or dissolve 8 (frames)"
    return ": ".join([*words, text])


def _name(document: Document, index: str | int) -> str:
    shots = document.values.get("shots", [])
    shot = shots[index] if isinstance(shots, list) and isinstance(index, int) and index < len(shots) else {}
    return str(shot.get("id", int(index) + 1) if isinstance(shot, dict) else int(index) + 1)


def missing_files(document: Document, roles: Sequence[str]) -> list[Problem]:
    """Every picture and sound that is not there, also beside other mistakes."""
    found: list[Problem] = []
    for index, shot in enumerate(_shots(document)):
        for role in roles:
            problem = _missing(document, shot.get(role))
            if problem:
                name = shot.get("id", f"shot-{index + 1}")
                found.append((document.line_of("shots", index, role), f"shot {name}: {role}: {problem}"))
    audio = document.values.get("audio")
    problem = _missing(document, audio.get("file")) if isinstance(audio, dict) else None
    return [*found, (document.line_of("audio", "file"), f"audio: {problem}")] if problem else found


def _shots(document: Document) -> Iterator[Mapping[str, Any]]:
    shots = document.values.get("shots")
    for shot in shots if isinstance(shots, list) else ():
        yield shot if isinstance(shot, dict) else {}


def _missing(document: Document, name: object) -> str | None:
    """What is wrong with a file's name; files that look like it are offered."""
    if not isinstance(name, str) or not name:
        return None
    path = document.path.parent / expanded(name)
    try:
        open_regular(path).close()
    except FileNotFoundError:
        near = [] if path.is_symlink() else difflib.get_close_matches(path.name, _names_in(path.parent), n=1)
        return f"{shown(name)} is no file" + (f"; did you mean {shown(near[0])}?" if near else "")
    except (OSError, ValueError) as error:
        return f"{shown(name)} cannot be read: {reason(error)}"
    return None


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 -- names are what is compared
    except OSError:
        return []
