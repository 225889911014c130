"""Writes lines, tables and JSON for every command. Text from outside cannot control the terminal (row C06).

Answers go to standard output, remarks and errors to standard error. `streams` handles streams that are closed, full or
ASCII only.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..core.errors import VideoGenerationError

# Control characters, and characters that change the direction of text or break its lines.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text without control characters, so that a prompt or a log line cannot control the terminal."""
    clean = _CONTROL.sub(_escaped, text.replace("\n", "\\n"))
    return clean.encode("utf-8", "backslashreplace").decode()


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def print_lines(*lines: str) -> None:
    """Write lines to standard output."""
    for line in lines:
        print(printable(line), flush=True)


def print_json(value: Any) -> None:
    """Write one line of JSON to standard output."""
    print(json.dumps(value), flush=True)


def note(text: str) -> None:
    """Write one line to standard error; a closed terminal does not end a run or change its exit status."""
    try:
        line = printable(text)
        print(fitted(line, _columns()) if sys.stderr.isatty() else line, file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # also for Python's own last flush


def fitted(text: str, columns: int) -> str:
    """The text in lines that fit a terminal, divided at spaces; a command in backquotes stays in one piece.

    >>> fitted("no model made it: `reel plan - cat`", 18)
    'no model made it:\\n  `reel plan - cat`'
    """
    if len(text) < columns:
        return text
    import textwrap

    whole = re.sub(r"`[^`]*`", lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(whole, columns - 1, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def _columns() -> int:
    """The width of the terminal of standard error; 80 if it does not say."""
    with contextlib.suppress(OSError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    return 80


def print_error(error: VideoGenerationError, prefix: str = "") -> None:
    """Write an error for people: each mistake with its code, its evidence and its fix."""
    for single in (error, *error.also):
        for line in (f"{prefix}{single.code}: {single.message}", *single.details):
            note(line)


def cell(value: object, style: str = "") -> Text:
    """The value as a table cell, which cannot control the terminal either."""
    from rich.text import Text

    return Text(printable(str(value)), style)


def console() -> Console:
    """Standard output for tables: as wide as the terminal; in a pipe each row is one line, for grep and for copying."""
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # `main` gives it its exit status

    if sys.stdout.isatty():
        return Console(highlight=False)
    return Piped(highlight=False, width=None if "COLUMNS" in os.environ else 10_000, file=_Unpadded(sys.stdout))


class _Unpadded(io.StringIO):
    """Passes complete lines on, without the spaces that pad a table's last column."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out
        self._begun = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the underlying stream, from which rich chooses its characters."""
        return self._out.encoding

    def write(self, text: str) -> int:
        """Write the complete lines; the rest waits for the end of its line."""
        *lines, self._begun = (self._begun + text).split("\n")
        self._out.write("".join(f"{line.rstrip()}\n" for line in lines))
        return len(text)

    def flush(self) -> None:
        """Flush the underlying stream."""
        self._out.flush()


def table(*columns: str, title: str = "", plain: bool = False) -> Table:
    """A table, with lines on a terminal; without lines if ``plain`` or in a pipe, where a row may be very wide."""
    from rich import box
    from rich.table import Table

    shape = Table(
        title=printable(title) or None,
        title_justify="left",
        box=box.HEAVY_HEAD if sys.stdout.isatty() and not plain else None,
    )
    for name in columns:
        shape.add_column(name, overflow="fold")  # a path that is cut off is useless
    return shape


def print_flowing(lines: Iterable[Text]) -> None:
    """Write lines that the terminal may wrap; no word is cut, so that the text can be copied."""
    out = console()
    for line in lines:
        out.print(line, soft_wrap=True)
