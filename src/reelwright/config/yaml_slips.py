"""Explains common mistakes in handwritten YAML: lines that YAML cannot read, and values that it misreads.

It reads no files: `config.yamlfile` does. A message about an unreadable line does not repeat its value, because that
may be a secret.

    >>> surprise("010", 8)
    "010 is 8 in YAML, an octal number; write 10 or 8, or '010' for the text"
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import yaml

from ..core.errors import ConfigurationError


def swallowed(scalar: yaml.ScalarNode, rows: list[str]) -> str:
    """The text from a ``#`` after an unquoted value, as in ``shot #3 of a cat`` or ``image: #2.jpg``; else empty.

    A ``#`` with a space after it begins a real comment.
    """
    line = scalar.end_mark.line
    rest = rows[line][scalar.end_mark.column :] if line < len(rows) else ""
    found = re.match(r"\s*(#[^\s#!-].*)", rest)
    return found[1].rstrip() if found else ""


def surprise(written: str, value: object) -> str:
    """A sentence about an unquoted text that YAML reads differently from how a person means it; else an empty text.

    YAML 1.1 reads 010 as octal, 1:30 in base 60, 1_000 as a thousand, and yes and off as true and false.

        >>> surprise("010", 8)
        "010 is 8 in YAML, an octal number; write 10 or 8, or '010' for the text"
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
        number = f"{decimal} or {value}" if kind == "an octal number" else f"{value}"
        fix = f"write {number}, or '{written}' for the text"
        return f"{written} is {value} in YAML{f', {kind}' if kind else ''}; {fix}"
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


def explained(text: str, origin: str, error: Exception) -> ConfigurationError:
    """The error that a user reads instead of PyYAML's own."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        line, meant = _meant(text.splitlines(), error, error.problem_mark)
        advice = "The lines after it are checked once it is corrected."
        return ConfigurationError(f"{origin}:{line}: {meant}", advice=advice)
    return ConfigurationError(f"{origin}: {' '.join(str(error).split())[:300]}")


def _meant(rows: Sequence[str], error: yaml.MarkedYAMLError, mark: yaml.Mark) -> tuple[int, str]:
    """The line where the mistake probably is, and its likely cause. Values are not repeated."""
    problem, begun = str(error.problem), error.context_mark
    if problem.startswith("too many"):
        return mark.line + 1, problem
    if problem == "but found another document":
        return mark.line + 1, "a second document begins here (---); a file holds one"
    candidates = range(mark.line, begun.line - 1, -1) if begun else (mark.line, mark.line - 1)
    for line in candidates:
        slip = _slip(rows[line]) if 0 <= line < len(rows) else ""
        if slip:
            return line + 1, slip
    opened = re.search(r"flow (mapping|sequence)", str(error.context))
    if opened and begun:
        return (
            begun.line + 1,
            f"the {'{' if opened[1] == 'mapping' else '['} in this line is not closed, or a comma is missing",
        )
    if re.search("block mapping start|block end|not allowed here|block entry|find expected ':'", problem):
        line = begun.line if begun and "find expected" in problem else mark.line
        return (
            line + 1,
            "this line does not fit the lines around it: check its indentation and the colon after its key",
        )
    return mark.line + 1, problem


#: Patterns of lines that YAML cannot read, each with its usual cause.
_OF_A_LINE = {
    r"[ -]*\t|.*:\t": "this line holds a tab; write spaces",
    r" *(?:- +)?[A-Za-z_]\w*:[^\s:/\\]": "a space is missing after the colon",
}
_OF_A_VALUE = {
    r"[@`%&*!|>,]|[-?:] |\{[^}]*\} *[^\s,}#\]]|\[[^\]]*\] *[^\s,}#\]]|\{\{": "a text that begins with {} must be in quotes",
    r"[^{\[\"']*:(?: |$)": "a colon and a space in a text begin another value; put quotes around the text",
    r".*\s#\S": "# begins a comment, and the rest of the line is lost; put quotes around the text",
}


def _slip(row: str) -> str:
    """The cause of an unreadable line, if it is a common one; else an empty text."""
    value = re.sub(r"^ *(?:- +)?(?:[\w.-]+:(?: +|$))?", "", row)
    slip = next((said for pattern, said in _OF_A_LINE.items() if re.match(pattern, row)), "")
    if not slip and value[:1] in ("'", '"'):
        return _slip_in_quotes(value)
    return slip or next(
        (said.format(value[0]) for pattern, said in _OF_A_VALUE.items() if re.match(pattern, value)), ""
    )


def _slip_in_quotes(value: str) -> str:
    whole = re.match(r"'(?:[^']|'')*'" if value[0] == "'" else r'"(?:[^"\\]|\\.)*"', value)
    if not whole:
        return f"the quote {value[0]} in this line is not closed"
    if value[0] == '"' and re.search(r"\\(?![0abtnvfre \"/\\N_LPxuU])|\\(?:x|u|U)(?![0-9A-Fa-f]{2})", whole[0]):
        return "a \\ in double quotes begins an escape; use single quotes"
    if re.match(r" *[^\s,}\]:#]", value[whole.end() :]):
        return "the text continues after its closing quote; put other quotes around all of it"
    return ""
