"""Reports all mistakes in a storyboard in one error, each with its line, its shot and a suggestion.

>>> storyboard_error([(11, "shot rocket: promt: there is no such key; did you mean prompt?")]).code
'CONFIG'
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..config.yaml_slips import surprise
from ..config.yamlfile import Document
from ..core.errors import ConfigurationError, nearest
from ..core.files import expanded, open_regular, reason, shown

Problem = tuple[int | None, str]
Where = tuple[str | int, ...]
KeysAt = Callable[[Where], Sequence[str]]


def storyboard_error(problems: Sequence[Problem]) -> ConfigurationError:
    """One error with every problem, in the order of the file."""
    lines = [f"line {line}: {text}" if line else text for line, text in sorted(problems, key=lambda item: item[0] or 0)]
    first, *others = dict.fromkeys(lines)
    advice = "`reel storyboard init` writes an example; docs/films.md explains every key."
    return ConfigurationError(f"the storyboard has a mistake: {first}", evidence=others, advice=advice)


def model_problems(error: ValidationError, document: Document, prefix: Where, keys_at: KeysAt) -> list[Problem]:
    """The errors of pydantic in plain words; ``keys_at`` gives the keys that are allowed at a place."""
    found: list[Problem] = []
    items = [item for item in error.errors(include_url=False) if not _is_said_elsewhere(item, document, prefix)]
    strange = [_place(item, prefix) for item in items if _is_strange(item)]
    meant = {(*place[:-1], nearest(str(place[-1]), keys_at(place))) for place in strange}
    for item in items:
        place = _place(item, prefix)
        if item["type"] == "missing" and place in meant:
            continue  # it is present, with another spelling
        found.append((document.line_of(*place), _wording(place, item, document, keys_at)))
    return [(line, text) for line, text in found if line is not None or len(found) == 1] or found


def _place(item: Any, prefix: Where) -> Where:
    return (*prefix, *(part for part in item["loc"] if isinstance(part, (str, int))))


def _is_strange(item: Any) -> bool:
    return bool(item["type"] == "extra_forbidden")


def _hint(word: str, known: Iterable[str]) -> str:
    near = nearest(word, known)
    return f"; did you mean {shown(near)}?" if near else ""


def _wording(place: Where, item: Any, document: Document, keys_at: KeysAt) -> str:
    if _is_strange(item):
        text = f"there is no such key{_hint(str(place[-1]), keys_at(place))}"
    else:
        text = _wrong(item, place, document.written.get(place))
    return _said(document, place, text)


_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "path_type": "the path of a file",
    "model_type": "keys and values (key: value)",
    "model_attributes_type": "keys and values (key: value)",
    "tuple_type": "a list, each item after a dash",
    "list_type": "a list, each item after a dash",
}
_LIMITS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}


def _wrong(item: Any, place: Where, written: str | None) -> str:
    """The mistake in a value, in plain words."""
    kind, value, context = item["type"], item.get("input"), item.get("ctx", {})
    odd = surprise(written, value) if written else ""
    if kind == "missing":
        return "it is required and missing"
    if kind in _LIMITS:
        word, name = _LIMITS[kind]
        return f"it must be {word} {context[name]:g}, not {value}"
    if kind == "literal_error":
        return odd or _choice(str(value), str(context["expected"]))
    if kind == "string_pattern_mismatch":
        wanted = {"transition": "cut, or dissolve 8 (frames)", "id": "letters, digits, - and _, at most 64 of them"}
        return f"write {wanted.get(str(place[-1]), 'another text')}, not {value!r:.80}"
    if kind in _WANTED:
        quoted = f"; quote it: '{written}'" if kind == "string_type" and written and not odd else ""
        if kind == "string_type" and isinstance(value, (dict, list)):
            quoted = f"; a text that begins with {'{' if isinstance(value, dict) else '['} must be in quotes"
        return odd or f"write {_WANTED[kind]}, not {_shown(value)}{quoted}"
    return str(item["msg"]).removeprefix("Value error, ")


def _shown(value: object) -> str:
    """A wrong value, in a few words."""
    if isinstance(value, (dict, list)):
        return "keys and values" if isinstance(value, dict) else "a list"
    return f"{value!r:.80}"


def _choice(value: str, expected: str) -> str:
    known = [word.strip(" '") for word in expected.replace(" or ", ", ").split(",")]
    return f"write {expected.replace(chr(39), '')}, not {value!r:.80}{_hint(value, known)}"


def _is_said_elsewhere(item: Any, document: Document, prefix: Where) -> bool:
    """Whether `raw_problems` reports it: a blank value, or a number that YAML reads differently."""
    place = _place(item, prefix)
    if item["type"] in _LIMITS:
        return any(place == misread for misread, _ in document.misread_numbers())
    return item.get("input") is None and item["type"] != "missing" and document.written.get(place) in ("", "~", "null")


def raw_problems(document: Document, camera_problem: Callable[[str], str]) -> list[Problem]:
    """Mistakes that are visible in the text itself, in addition to those of the model.

    They are values that YAML drops or reads differently from how they are meant, keys without a value, duplicate ids,
    two lengths for one shot, and unknown camera moves.
    """
    return [*document.mistakes, *_misread(document), *_twice(document), *_of_shots(document, camera_problem)]


def _misread(document: Document) -> Iterator[Problem]:
    for place, rest in document.swallowed.items():
        text = f"{rest!r:.80} is a comment in YAML and would be lost: put quotes around the value, or a space after #"
        yield document.line_of(*place), _said(document, place, text)
    for place in document.written:
        known = len(place) == 1 or place[0] in ("shots", "defaults", "audio", "finish")
        if known and len(place) <= 3 and document.value_at(place) is None and place not in document.swallowed:
            text = "it has no value; write one, or leave the key out"
            yield document.line_of(*place), _said(document, place, text)
    for place, odd in document.misread_numbers():
        yield document.line_of(*place), _said(document, place, odd)


def _said(document: Document, place: Where, text: str) -> str:
    words = [str(part) for part in place if not isinstance(part, int)]
    if place[:1] == ("shots",) and len(place) > 1:
        words = [f"shot {_name(document, place[1])}", *words[1:]]
    return ": ".join([*words, text])


def _twice(document: Document) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, shot in enumerate(_shots(document)):
        name = str(shot.get("id", f"shot-{index + 1}"))
        if name in seen:
            text = f"shot {index + 1}: the id {name!r} is that of shot {seen[name] + 1}"
            yield document.line_of("shots", index, "id"), text
        seen.setdefault(name, index)


def _of_shots(document: Document, camera_problem: Callable[[str], str]) -> Iterator[Problem]:
    defaults = document.values.get("defaults")
    places: list[tuple[Where, Mapping[str, Any]]] = [(("shots", n), shot) for n, shot in enumerate(_shots(document))]
    if isinstance(defaults, dict):
        places.append((("defaults",), defaults))
    for where, values in places:
        if values.get("seconds") is not None and values.get("frames") is not None:
            text = "seconds and frames are both given; give one of them"
            yield document.line_of(*where), _said(document, where, text)
        camera = values.get("camera")
        problem = camera_problem(camera) if isinstance(camera, str) else ""
        if problem:
            yield document.line_of(*where, "camera"), _said(document, (*where, "camera"), problem)


def _name(document: Document, index: str | int) -> str:
    shots = document.values.get("shots", [])
    shot = shots[index] if isinstance(shots, list) and isinstance(index, int) and index < len(shots) else {}
    name = shot.get("id") if isinstance(shot, dict) else None
    return name if isinstance(name, str) else str(int(index) + 1)


def missing_files(document: Document, roles: Sequence[str]) -> list[Problem]:
    """A mistake for every missing picture and sound, even if the storyboard has other mistakes."""
    found: list[Problem] = []
    for index, shot in enumerate(_shots(document)):
        for role in roles:
            problem = _missing(document, shot.get(role))
            if problem:
                place = ("shots", index, role)
                found.append((document.line_of(*place), _said(document, place, problem)))
    audio = document.values.get("audio")
    problem = _missing(document, audio.get("file")) if isinstance(audio, dict) else None
    return [*found, (document.line_of("audio", "file"), f"audio: {problem}")] if problem else found


def _shots(document: Document) -> Iterator[Mapping[str, Any]]:
    shots = document.values.get("shots")
    for shot in shots if isinstance(shots, list) else ():
        yield shot if isinstance(shot, dict) else {}


def _missing(document: Document, name: object) -> str | None:
    """The mistake in a file's name, with a suggestion if another file has a similar name; else ``None``."""
    if not isinstance(name, str) or not name:
        return None
    path = document.path.parent / expanded(name)
    try:
        open_regular(path).close()
    except FileNotFoundError:
        return f"{shown(name)} is not a file{'' if path.is_symlink() else _hint(path.name, _names_in(path.parent))}"
    except (OSError, ValueError) as error:
        return f"{shown(name)} cannot be read: {reason(error)}"
    return None


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 -- names are compared
    except OSError:
        return []
