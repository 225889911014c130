"""Reads YAML that a person wrote: safely, within limits, and with the line of every key.

It accepts plain scalars, lists and mappings, but no tags, no duplicate keys, only few aliases, and only files up to a
limit. Errors name the file and the line. `config.yaml_slips` explains common mistakes.

    >>> read_yaml_text("[0, 1]", "--set gpus")
    [0, 1]
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..core.errors import ConfigurationError
from ..core.files import path_error, read_bytes, shown
from .yaml_slips import explained, surprise, swallowed

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 20
#: Values that aliases may repeat; more would be an attack on the reader's memory.
MAX_REPEATED = 1000
Where = tuple[str | int, ...]
_TEXT = "tag:yaml.org,2002:str"
#: Characters that PyYAML refuses as unprintable, and line breaks that editors do not count.
_INVISIBLE = re.compile(
    "[^\\x09\\x0A\\x0D\\x20-\\x7E\\xA0-\\u2027\\u202A-\\uD7FF\\uE000-\\uFFFD\\U00010000-\\U0010FFFF]"
)


class Mistake(NamedTuple):
    """Something in a file that would be lost or misread: its line, and a message that repeats no value."""

    line: int
    text: str


def _begins(sign: str) -> str:
    return f"{sign} begins a name in YAML, and the name is lost from the text; put quotes around the text"


@dataclass(frozen=True)
class Document:
    """A file's top-level mapping, with the lines of its keys.

    Attributes:
        path: The file.
        values: The mapping.
        lines: Line (from 1) of each top-level key.
        places: Line of every key and list item, by its path: ``("shots", 0, "prompt")``.
        written: The text in the file of each unquoted value that is not read as text, by its path: ``010``.
        swallowed: Text after ``#`` that YAML drops as a comment although it does not look like one, by the path of
            the value before it: ``#3 of a cat``.
        mistakes: Everything else that YAML reads differently from how it is written, in the order of the file.
    """

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)
    places: Mapping[Where, int] = field(default_factory=dict)
    written: Mapping[Where, str] = field(default_factory=dict)
    swallowed: Mapping[Where, str] = field(default_factory=dict)
    mistakes: tuple[Mistake, ...] = ()

    def line_of(self, *path: str | int) -> int | None:
        """The line of the innermost part of ``path`` that is in the file; ``None`` if no part is."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path)

    def value_at(self, path: Where) -> Any:
        """The value at a path."""
        found: Any = self.values
        for part in path:
            found = found[part]
        return found

    def misread_numbers(self) -> Iterator[tuple[Where, str]]:
        """The path and the `surprise` of each unquoted number that YAML reads differently from how it is written."""
        for path, written in self.written.items():
            value = self.value_at(path)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and (odd := surprise(written, value)):
                yield path, odd


class _Loader(yaml.SafeLoader):
    """SafeLoader with limits. Text that would be lost silently becomes a mistake, and the reading continues."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.mistakes: list[Mistake] = []
        self._named: list[tuple[str, int]] = []
        self._used: set[str] = set()
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        start, end = event.start_mark, event.end_mark
        line, anchor = start.line + 1, str(getattr(event, "anchor", None) or "")
        if isinstance(event, yaml.AliasEvent):
            self._used.add(anchor)
            if anchor not in self.anchors:
                self.get_event()  # type: ignore[no-untyped-call]
                self.mistakes.append(Mistake(line, _begins("*")))
                return yaml.ScalarNode(_TEXT, "*", start, end, style="*")
        elif anchor:
            self._named.append((anchor, line))
            self.anchors.pop(anchor, None)
        if getattr(event, "tag", None) not in (None, _TEXT):
            self.mistakes.append(Mistake(line, _begins("!")))
            event.tag = None
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="too many levels", problem_mark=start)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        lost = [line for anchor, line in self._named if anchor not in self._used]
        self.mistakes += [Mistake(line, _begins("&")) for line in lost]
        return node


# A text that looks like a date, and the text =, stay text: no value here is a date.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith((":timestamp", ":value", ":merge"))]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Reading:
    """Turns nodes into values, and notes the line of each."""

    def __init__(self, loader: _Loader, text: str) -> None:
        self._loader, self._rows = loader, text.splitlines()
        self._seen: set[int] = set()
        self._repeated = 0
        self.mistakes = loader.mistakes
        self.places: dict[Where, int] = {}
        self.written: dict[Where, str] = {}
        self.swallowed: dict[Where, str] = {}

    def value(self, node: Any, path: Where) -> Any:
        self._repeated += id(node) in self._seen
        self._seen.add(id(node))
        if self._repeated > MAX_REPEATED or len(path) > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="too many aliases", problem_mark=node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._at(item, item, (*path, index)) for index, item in enumerate(node.value)]
        if node.style is None and node.tag != _TEXT:
            self.written[path] = node.value
        if node.style is None and (found := swallowed(node, self._rows)):
            self.swallowed[path] = found
        return self._loader.construct_object(node)

    def _at(self, mark: yaml.Node, node: yaml.Node, path: Where) -> Any:
        self.places[path] = mark.start_mark.line + 1
        return self.value(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Where) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, item in node.value:
            line = key.start_mark.line + 1
            name = key.value.strip() if isinstance(key, yaml.ScalarNode) else ""
            if not isinstance(key, yaml.ScalarNode):
                self.mistakes.append(
                    Mistake(line, "a key must be a word; a text that begins with { or [ must be in quotes")
                )
            elif name == "<<":
                self.mistakes.append(Mistake(line, "<< is not supported: write the keys themselves"))
            elif name in values:
                text = f"the key {name!r:.80} is twice here, first in line {self.places[(*path, name)]}"
                self.mistakes.append(Mistake(line, text))
            else:
                if name != key.value:
                    self.mistakes.append(Mistake(line, "a character that only looks like a space is next to this key"))
                values[name] = self._at(key, item, (*path, name))
        return values


def read_yaml(path: Path) -> Document:
    """The mapping in a file.

    Raises:
        ConfigurationError: as `read_yaml_with_mistakes`, and if the file has mistakes; the error lists all of them.
    """
    document = read_yaml_with_mistakes(path)
    _refuse(str(path), document.mistakes)
    return document


def read_yaml_with_mistakes(path: Path) -> Document:
    """The mapping in a file. Its mistakes are in `Document.mistakes`, for a caller that reports them with others.

    Raises:
        VideoGenerationError: INPUT or PERM, the file cannot be read, or is too big.
        ConfigurationError: it is not UTF-8, or not one YAML mapping.
    """
    text = _text(path)
    with _loading(text, shown(path)) as loader:
        node = loader.get_single_node()
        if node is None:
            return Document(path, {})
        if not isinstance(node, yaml.MappingNode):
            raise ConfigurationError(
                f"{shown(path)}: the file must hold keys and values (key: value)", advice="Begin each line with a key."
            )
        reading = _Reading(loader, text)
        values = reading.value(node, ())
    places, mistakes = reading.places, tuple(sorted(reading.mistakes))
    lines = {str(where[0]): line for where, line in places.items() if len(where) == 1}
    return Document(path, values, lines, places, reading.written, reading.swallowed, mistakes)


def _refuse(origin: str, mistakes: Iterable[Mistake]) -> None:
    lines = [f"{origin}:{mistake.line}: {mistake.text}" for mistake in mistakes]
    if lines:
        raise ConfigurationError(lines[0], evidence=tuple(lines[1:]), advice="Correct the line.")


def read_yaml_text(text: str, origin: str) -> Any:
    """The value of a short text: ``30``, ``true``, ``[0, 1]``, or the text itself.

    Raises:
        ConfigurationError: it is not valid YAML.
    """
    with _loading(text, origin) as loader:
        node = loader.get_single_node()
        reading = _Reading(loader, text)
        value = None if node is None else reading.value(node, ())
    _refuse(origin, reading.mistakes)
    return value


@contextlib.contextmanager
def _loading(text: str, origin: str) -> Iterator[_Loader]:
    loader: _Loader | None = None
    try:
        _refuse(origin, _invisible(text))
        loader = _Loader(text)
        yield loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise explained(text, origin, error) from None
    finally:
        if loader is not None:
            loader.dispose()


def _invisible(text: str) -> Iterator[Mistake]:
    """Mistakes about characters that YAML refuses, and about line breaks that no editor shows."""
    for found in _INVISIBLE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Mistake(line, f"an invisible character, U+{ord(found[0]):04X}, is in this line; remove it")


def _text(path: Path) -> str:
    try:
        data = read_bytes(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise path_error(error, path) from None
    try:
        if not data.startswith((b"\xff\xfe", b"\xfe\xff")) and b"\0" not in data[:4]:
            return data.decode("utf-8-sig")
        line, kind = 1, "UTF-16"
    except UnicodeDecodeError as error:
        line, kind = data.count(b"\n", 0, error.start) + 1, "Latin-1"
    text = f"{shown(path)}:{line}: not UTF-8 text"
    raise ConfigurationError(text, advice=f"Save the file as UTF-8 (it may be {kind}).") from None
