"""Measures the source: sizes, imports between rooms, repeated names, annotations, tests.

A room is a package or a module directly in ``reelwright``. The script parses the files; it imports and runs none.

    python tools/house.py            # this tree
    python tools/house.py OLD .      # two trees side by side, as a table in Markdown
"""

from __future__ import annotations

import ast
import json
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
NO_ROOMS = {"__init__", "__main__", "_version"}


@dataclass(frozen=True)
class Module:
    """One file of a package: its dotted name below the package, and its parsed text."""

    name: tuple[str, ...]
    is_package: bool
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def room(self) -> str:
        return self.name[0] if self.name else "__init__"

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    def nodes(self) -> Iterator[ast.AST]:
        return ast.walk(self.tree)

    def functions(self) -> Iterator[Function]:
        return (node for node in self.nodes() if isinstance(node, Function))

    def docstring_lines(self) -> int:
        owners = (node for node in self.nodes() if isinstance(node, Function | ast.ClassDef | ast.Module))
        return sum(_docstring_lines(owner) for owner in owners)

    def blank_or_comment_lines(self) -> int:
        return sum(not line.strip() or line.lstrip().startswith("#") for line in self.text.splitlines())


def _docstring_lines(owner: Function | ast.ClassDef | ast.Module) -> int:
    first = owner.body[0] if owner.body else None
    if ast.get_docstring(owner, clean=False) is None or first is None or first.end_lineno is None:
        return 0
    return first.end_lineno - first.lineno + 1


def modules_of(package: Path) -> list[Module]:
    """Every module of a package, in the order of their paths."""
    found = []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).with_suffix("").parts
        is_package = name[-1] == "__init__"
        found.append(Module(name[:-1] if is_package else name, is_package, path.read_text("utf-8")))
    return found


def arrows(modules: list[Module], package: str) -> set[tuple[str, str]]:
    """Pairs of rooms in which a file of the first imports the second."""
    rooms = {module.room for module in modules} - NO_ROOMS
    found = {(module.room, room) for module in modules for room in _imported_rooms(module, package)}
    return {(start, end) for start, end in found if start != end and start in rooms and end in rooms}


def _imported_rooms(module: Module, package: str) -> Iterator[str]:
    inside = (package, *(module.name if module.is_package else module.name[:-1]))
    for node in module.nodes():
        if isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = inside[: len(inside) - node.level + 1] if node.level else ()
            start += tuple(node.module.split(".")) if node.module else ()
            targets = [(*start, alias.name) for alias in node.names]
        else:
            continue
        yield from (target[1] for target in targets if target[0] == package and len(target) > 1)


def floors(pairs: set[tuple[str, str]]) -> int:
    """The number of rooms on the longest chain of imports; a circle counts as one floor."""
    heights: dict[str, int] = {}

    def height(room: str, above: tuple[str, ...]) -> int:
        if room not in heights:
            below = [end for start, end in pairs if start == room and end not in above]
            heights[room] = 1 + max((height(end, (*above, room)) for end in below), default=0)
        return heights[room]

    return max((height(start, ()) for start, _ in pairs), default=1)


def circles(pairs: set[tuple[str, str]]) -> int:
    """The number of pairs of rooms that reach each other."""
    reached = set(pairs)
    while more := {(a, d) for a, b in reached for c, d in reached if b == c} - reached:
        reached |= more
    return sum((end, start) in reached for start, end in reached if start < end)


def repeated_names(modules: list[Module]) -> list[str]:
    """Classes and top-level functions that more than one module defines, private ones included."""
    definitions = [
        {node.name for node in module.tree.body if isinstance(node, Function | ast.ClassDef)} for module in modules
    ]
    counted = Counter(name for names in definitions for name in names)
    return sorted(name for name, times in counted.items() if times > 1)


def boundary(modules: list[Module]) -> list[Function]:
    """Public functions, and public methods of public classes, of modules without a leading underscore."""
    found: list[Function] = []
    for module in modules:
        if module.name and module.name[-1].startswith("_"):
            continue
        classes = [node for node in module.tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]
        bodies = [module.tree.body, *(node.body for node in classes)]
        for body in bodies:
            found += [node for node in body if isinstance(node, Function) and node.name[0] != "_"]
    return found


def is_precise(function: Function) -> bool:
    """Whether the result and each argument have an annotation without ``Any``."""
    arguments = function.args
    given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    given += [extra for extra in (arguments.vararg, arguments.kwarg) if extra]
    annotations = [item.annotation for item in given if item.arg not in ("self", "cls")] + [function.returns]
    return all(annotation and "Any" not in _names_in(annotation) for annotation in annotations)


def _names_in(annotation: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}


def test_measures(root: Path) -> dict[str, str]:
    """Sizes of the tests, and the record of the last ``make test`` in this tree."""
    modules = modules_of(root / "tests")
    functions = [f for module in modules for f in module.functions() if f.name.startswith("test_")]
    last = root / ".pytest_cache" / "v" / "reelwright" / "make-test"
    record = json.loads(last.read_text("utf-8")) if last.exists() else {}
    seconds, coverage = record.get("seconds"), (record.get("coverage") or {}).items()
    return {
        "lines of tests": f"{sum(module.lines for module in modules):,}",
        "test functions": f"{len(functions):,}",
        "cases of the last `make test`": f"{record['cases']:,}" if record else "not known",
        "time of the last `make test`": f"{seconds // 60}:{seconds % 60:02}" if seconds is not None else "not known",
        "coverage of lines and branches in the last `make test`": "; ".join(f"{k} {v}" for k, v in coverage)
        or "not known",
    }


def measures(root: Path) -> dict[str, str]:
    """Every measure of one tree, as text."""
    modules = modules_of(root / "src" / "reelwright")
    pairs = arrows(modules, "reelwright")
    total, docs = sum(module.lines for module in modules), sum(module.docstring_lines() for module in modules)
    other = sum(module.blank_or_comment_lines() for module in modules)
    lengths = sorted((node.end_lineno or 0) - node.lineno + 1 for module in modules for node in module.functions())
    public = boundary(modules)
    repeated = repeated_names(modules)
    precise = sum(map(is_precise, public)) / len(public)
    return {
        "lines of src": f"{total:,}",
        "of these code": f"{total - docs - other:,}",
        "of these docstrings": f"{docs:,}",
        "rooms": str(len({module.room for module in modules} - NO_ROOMS)),
        "floors": str(floors(pairs)),
        "arrows between rooms": str(len(pairs)),
        "circles of rooms": str(circles(pairs)),
        "modules": str(len(modules)),
        "lines of a module, median and most": _median_and_most([module.lines for module in modules]),
        "functions": f"{len(lengths):,}",
        "lines of a function, p50, p90, most": f"{_share(lengths, 0.5)}, {_share(lengths, 0.9)}, {lengths[-1]}",
        "names defined in more than one module": str(len(repeated)),
        "public ones among them": str(sum(name[0] != "_" for name in repeated)),
        "public functions annotated without `Any`": f"{precise:.1%} of {len(public):,}",
        **test_measures(root),
    }


def _median_and_most(lines: list[int]) -> str:
    return f"{statistics.median(lines):.0f}, {max(lines)}"


def _share(ordered: list[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def main(roots: list[str]) -> None:
    """Print the measures as a table, one column for each tree."""
    columns = [measures(Path(root)) for root in roots or ["."]]
    print("| measure |" + " |".join(f" {root}" for root in roots or ["this tree"]) + " |")
    print("|---|" + "---|" * len(columns))
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(column[name] for column in columns) + " |")


if __name__ == "__main__":
    main(sys.argv[1:])
