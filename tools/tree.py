"""Writes the list of files in docs/architecture.md: each file with the first sentence of its docstring.

The rooms are in the order of the import rule in pyproject.toml, from the edges down. The script imports none of them.

    python -m tools.tree            # rewrites the list; tests/test_architecture.py fails while it is stale
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

from tools.page import replaced

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCE = REPOSITORY / "src" / "reelwright"
PAGE = REPOSITORY / "docs" / "architecture.md"
MARKS = "<!-- tree: made by `make tree` -->\n", "<!-- end of tree -->\n"


def main() -> None:
    PAGE.write_text(updated(PAGE.read_text("utf-8")), "utf-8")


def updated(page: str) -> str:
    """The page with a new list."""
    return replaced(PAGE, page, MARKS, listing())


def listing() -> str:
    """The list of every file, with a paragraph and a list for each room."""
    files = sorted(SOURCE.glob("*.py"))
    parts = ["".join(f"- `{path.name}`: {first_sentence(path)}\n" for path in files)]
    for room in rooms():
        inside = sorted((SOURCE / room).rglob("*.py"), key=lambda path: (str(path.parent), path.name))
        lines = [f"- `{_shown(path, room)}`: {first_sentence(path)}\n" for path in inside[1:]]
        parts.append(f"**`{room}/`** {first_sentence(inside[0])}\n\n" + "".join(lines))
    return "\n" + "\n".join(parts) + "\n"


def rooms() -> list[str]:
    """The folders of the package: those of the import rule in its order, then any others."""
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    named = [name for layer in layers for name in re.split(r"\s*[|:]\s*", layer)]
    folders = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))
    return [name for name in named if name in folders] + [name for name in folders if name not in named]


def first_sentence(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return re.split(r"(?<=[.!?])\s", " ".join(text.partition("\n\n")[0].split()), maxsplit=1)[0].replace("``", "`")


def _shown(path: Path, room: str) -> str:
    name = path.relative_to(SOURCE / room)
    return f"{name.parent}/" if name.name == "__init__.py" else str(name)


if __name__ == "__main__":
    main()
