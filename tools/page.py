"""Replaces the part of a page between two marks: the part that is made from the source."""

from __future__ import annotations

from pathlib import Path


def replaced(page: Path, text: str, marks: tuple[str, str], made: str) -> str:
    """The page's text with a new part; ends the program if the marks are not there."""
    begin, end = marks
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{page} has no line {begin!r}, or no {end!r} after it.")
    return before + begin + made + end + after
