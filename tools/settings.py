"""Writes the table of settings in docs/configuration.md, from the classes of the generators' settings.

.venv/bin/python -m tools.settings     # rewrites the table; tests/test_docs.py fails while it is stale
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from tools.page import replaced

from reelwright.backends import GENERATORS, load_backend
from reelwright.backends.settings import FlatSettings
from reelwright.policy.unused import COMMON, uses

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
MARKS = "<!-- settings -->\n", "<!-- end of settings -->\n"
HEAD = """
| setting | takes | default | for | meaning |
|---|---|---|---|---|
"""
_WORDS = {bool: "`true`, `false`", int: "whole number", float: "number", str: "text", Path: "path"}


def main() -> None:
    PAGE.write_text(updated(PAGE.read_text("utf-8")), "utf-8")


def updated(page: str) -> str:
    """The page with a new table."""
    fields = sorted(FlatSettings.model_fields.items(), key=lambda item: (_generators(item[0]) != "all", item[0]))
    return replaced(PAGE, page, MARKS, HEAD + "".join(_line(key, field) for key, field in fields) + "\n")


def _line(key: str, field: FieldInfo) -> str:
    default = "" if field.default_factory or field.default in (None, (), {}) else f"`{_yaml(field.default)}`"
    cells = (f"`{key}`", " or ".join(_takes(field.annotation)), default, _generators(key), field.description or "")
    return f"| {' | '.join(cell.replace('|', 'or') for cell in cells)} |\n"


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _takes(annotation: Any) -> list[str]:
    """The values that a key takes, in plain words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _takes(inner[0])
    if origin in (Union, types.UnionType):
        return [word for part in inner if part is not type(None) for word in _takes(part)]
    if origin is Literal:
        return [", ".join(f"`{word}`" for word in inner)]
    if origin is tuple:
        return [f"list of: {_takes(inner[0])[0]}"]
    return [_WORDS.get(annotation, "keys and values" if origin else "LoRA file")]


def _generators(key: str) -> str:
    names = [name for name in GENERATORS if key in COMMON | uses(load_backend(name))]
    return "all" if names == list(GENERATORS) else ", ".join(names)


if __name__ == "__main__":
    main()
