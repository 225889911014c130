"""The house: what may import what, how large a file may be, and that docs/architecture.md lists what is there."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from tools import tree

from tests.conftest import REPOSITORY

SOURCE = REPOSITORY / "src" / "reelwright"
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = [str(path.relative_to(SOURCE)) for path in FILES]
STANDARD_ONLY = [name for name in NAMES if name.startswith("launchers/")] + ["core/events.py", "core/errors.py"]
PURE = [name for name in NAMES if name.startswith(("backends/", "policy/", "core/", "config/"))]
BANNED = {"subprocess", "socket", "torch", "cv2", "av", "numpy", "time", "multiprocessing", "threading", "asyncio"}
#: Longer than 400 lines, each with its reason.
LONG = {
    "config/settings.py": "one table of every setting",
}


def imports_of(path: Path) -> Iterator[str]:
    """Top-level names of the modules that a file imports, anywhere in it; relative ones as ``.``."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.level else str(node.module).partition(".")[0]


def test_what_other_interpreters_run_needs_the_standard_library_alone() -> None:
    foreign = {name: set(imports_of(SOURCE / name)) - set(sys.stdlib_module_names) for name in STANDARD_ONLY}
    assert {name: names for name, names in foreign.items() if names} == {}


def test_what_frameworks_run_is_python_3_8() -> None:
    elsewhere = [name for name in NAMES if name.startswith("launchers/")] + ["sites/local/probes/interview.py"]
    assert [name for name in elsewhere if not _is_python_3_8((SOURCE / name).read_text("utf-8"))] == []


def _is_python_3_8(text: str) -> bool:
    try:
        ast.parse(text, feature_version=(3, 8))
    except SyntaxError:
        return False
    return True


def test_the_pure_layers_start_nothing_and_tell_no_time() -> None:
    found = {name: BANNED & set(imports_of(SOURCE / name)) for name in PURE}
    assert {name: names for name, names in found.items() if names} == {}


def test_no_file_is_too_long_to_read() -> None:
    lengths = {name: len((SOURCE / name).read_text("utf-8").splitlines()) for name in NAMES}
    assert {name: lines for name, lines in lengths.items() if lines > (600 if name in LONG else 400)} == {}


def test_no_function_is_too_long_to_read() -> None:
    lengths = {
        f"{name}: {node.name}": node.end_lineno - node.lineno + 1
        for name in NAMES
        for node in ast.walk(ast.parse((SOURCE / name).read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None
    }
    assert {name: lines for name, lines in lengths.items() if lines > 60} == {}


def test_no_file_is_a_drawer_for_everything() -> None:
    drawers = {"util.py", "utils.py", "common.py", "helpers.py", "helper.py", "misc.py", "manager.py", "base.py"}
    assert not drawers & {Path(name).name for name in NAMES}


def test_the_list_of_files_is_current() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text("utf-8")
    assert tree.updated(page) == page, "a file or the first sentence of a docstring changed: run `make tree`"


def test_every_file_says_what_it_does_in_one_sentence() -> None:
    sentences = {name: tree.first_sentence(SOURCE / name) for name in NAMES}
    assert {name: text for name, text in sentences.items() if not text.endswith((".", "?")) or len(text) > 160} == {}


def test_nothing_of_a_workplace_or_a_registry_is_in_the_tree() -> None:
    words = ("/" + "work/", "." + "library/", "pypi" + ".org", "/" + "root/")
    found = []
    for folder in ("src", "tests", "docs", "bench", "constraints", "examples"):
        for path in (REPOSITORY / folder).rglob("*"):
            if (
                path.suffix in (".py", ".md", ".txt", ".in", ".yaml", ".toml", ".json")
                and "__pycache__" not in path.parts
            ):
                text = path.read_text("utf-8", "replace")
                found += [f"{path.relative_to(REPOSITORY)}: {word}" for word in words if word in text]
    assert found == []
