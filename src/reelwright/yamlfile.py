"""Reading YAML that a person wrote and nobody vouched for: safe, bounded, and with the line of every key.

Only plain scalars, lists and mappings; no tags, no duplicate keys, few aliases, a size limit. Errors name the file
and the line.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigurationError
from .files import read_bytes, reason, shown

MAX_BYTES = 1024 * 1024
MAX_ALIASES = 32
MAX_DEPTH = 20


@dataclass(frozen=True)
class Document:
    """A file's top-level mapping, and where things stand in it.

    Attributes:
        path: The file.
        values: What it holds.
        lines: Line (from 1) of each top-level key.
        places: Line of every key and list item, by its path: ``("shots", 0, "prompt")``.
        written: What stands in the file for an unquoted value that is not read as text, by its path: ``010``.
        swallowed: The rest of a line after ``#`` that YAML takes for a comment and that does not look like one, by the
            path of the value before it: ``#3 of a cat``.
    """

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)
    places: Mapping[tuple[str | int, ...], int] = field(default_factory=dict)
    written: Mapping[tuple[str | int, ...], str] = field(default_factory=dict)
    swallowed: Mapping[tuple[str | int, ...], str] = field(default_factory=dict)

    def line_of(self, *path: str | int) -> int | None:
        """The line of the innermost part of ``path`` that stands in the file."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path)

    def value_at(self, path: tuple[str | int, ...]) -> Any:
        """The value that stands there."""
        found: Any = self.values
        for part in path:
            found = found[part]
        return found

    def misread_numbers(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Unquoted numbers that YAML reads otherwise than they are written: where each stands, and `surprise` of it."""
        for path, written in self.written.items():
            value = self.value_at(path)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and (odd := surprise(written, value)):
                yield path, odd


class _Loader(yaml.SafeLoader):
    """SafeLoader with limits."""

    aliases = 0
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            self.aliases += 1
        self.depth += 1
        if self.aliases > MAX_ALIASES or self.depth > MAX_DEPTH:
            what = "aliases" if self.aliases > MAX_ALIASES else "levels"
            raise yaml.MarkedYAMLError(problem=f"too many {what}", problem_mark=self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="this kind of key is not allowed", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is twice here", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Document:
    """The mapping in a file.

    Raises:
        ConfigurationError: it cannot be read, is too big, not UTF-8, not one YAML mapping, or holds what is refused.
    """
    text = _text(path)
    with _loading(text, str(path)) as loader:
        node = loader.get_single_node()
        if node is None:
            return Document(path, {})
        if not isinstance(node, yaml.MappingNode):
            raise ConfigurationError(f"{path}: the file must hold keys and values (key: value)")
        values = loader.construct_document(node)
        lines = {str(key.value): key.start_mark.line + 1 for key, _ in node.value}
        places = dict(_places(node, ()))
        scalars = dict(_scalars(node, ()))
    written = {
        where: scalar.value
        for where, scalar in scalars.items()
        if scalar.style is None and scalar.tag != "tag:yaml.org,2002:str"
    }
    rows = text.splitlines()
    swallowed = {
        where: found
        for where, scalar in scalars.items()
        if scalar.style is None and (found := _swallowed(scalar, rows))
    }
    return Document(path, {str(key): value for key, value in values.items()}, lines, places, written, swallowed)


def _places(node: yaml.Node, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            yield inner, key.start_mark.line + 1
            yield from _places(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, index), item.start_mark.line + 1
            yield from _places(item, (*path, index))


def _scalars(node: yaml.Node, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], yaml.ScalarNode]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _scalars(value, (*path, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _scalars(item, (*path, index))
    elif isinstance(node, yaml.ScalarNode):
        yield path, node


def _swallowed(scalar: yaml.ScalarNode, rows: list[str]) -> str:
    """A ``#`` behind an unquoted value with no space after it, as in ``shot #3 of a cat`` or ``image: #2.jpg``."""
    line = scalar.end_mark.line
    rest = rows[line][scalar.end_mark.column :] if line < len(rows) else ""
    found = re.match(r"\s*(#[^\s#!-].*)", rest)
    return found[1].rstrip() if found else ""


def surprise(written: str, value: object) -> str:
    """What YAML makes of an unquoted text that a person means otherwise, or an empty text.

    YAML 1.1 reads 010 as octal, 1:30 as sixty-base, 1_000 as a thousand, yes and off as true and false, and 2026-01-01 as
    a date.

        >>> surprise("010", 8)
        '010 is 8 in YAML, an octal number; write 10, or 8'
    """
    if isinstance(value, bool):
        plain = written.lower() in ("true", "false")
        return (
            ""
            if plain
            else f"{written} is {str(value).lower()} in YAML; write {str(value).lower()}, or '{written}' for the word"
        )
    if isinstance(value, (int, float)) and not _PLAIN_NUMBER.fullmatch(written):
        kind = _kind_of_number(written)
        decimal = written.lstrip("+-0") or "0"
        fix = f"write {decimal}, or {value}" if kind == "an octal number" else f"write {value}, or quote it"
        return f"{written} is {value} in YAML{f', {kind}' if kind else ''}; {fix}"
    if isinstance(value, (dt.date, dt.datetime)):
        return f"{written} is a date in YAML; quote it: '{written}'"
    return ""


_PLAIN_NUMBER = re.compile(r"[-+]?(?:0|[1-9]\d*)?(?:\.\d*)?(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|nan)", re.IGNORECASE)


def _kind_of_number(written: str) -> str:
    text = written.lstrip("+-").lower()
    kinds = {"0x": "a hexadecimal number", "0b": "a binary number"}
    if text[:2] in kinds:
        return kinds[text[:2]]
    if ":" in text:
        return "a number in base 60"
    return "an octal number" if text.startswith("0") and len(text) > 1 and "." not in text else ""


def read_yaml_text(text: str, origin: str) -> Any:
    """The value that a short text stands for: ``30``, ``true``, ``[0, 1]``, or the text itself.

    Raises:
        ConfigurationError: it is not valid YAML.
    """
    with _loading(text, origin) as loader:
        return loader.get_single_data()


@contextlib.contextmanager
def _loading(text: str, origin: str) -> Iterator[_Loader]:
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        yield loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigurationError(_explained(origin, error)) from None
    finally:
        if loader is not None:
            loader.dispose()


def _text(path: Path) -> str:
    try:
        data = read_bytes(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{shown(path)} cannot be read: {reason(error)}", advice="Check the path.") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{path}:{line}: not UTF-8 text", advice="Save the file as UTF-8 (it may be Latin-1)."
        ) from None


def _explained(origin: str, error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        rows = (mark.buffer or "").rstrip("\0").splitlines()
        near = " ".join(rows[max(0, mark.line - 1) : mark.line + 1])
        hint = "; an unquoted # begins a comment: quote the text" if re.search(r"\s#[^\s#]", near) else ""
        return f"{origin}:{mark.line + 1}: {error.problem or error.context}{hint}"
    return f"{origin}: {' '.join(str(error).split())[:300]}"
