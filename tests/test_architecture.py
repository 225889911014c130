"""The house: what may import what, how large a file may be, and that the tour shows what is there."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SOURCE = REPOSITORY / "src" / "reelwright"
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = [str(path.relative_to(SOURCE)) for path in FILES]
STANDARD_ONLY = [name for name in NAMES if name.startswith("launchers/")] + ["protocol.py", "errors.py"]
PURE = [
    name
    for name in NAMES
    if name.startswith(("backends/", "policy/"))
    or name in ("errors.py", "protocol.py", "request.py", "host.py", "pipeline_keys.py", "yamlfile.py", "settings.py", "settings_layers.py")
    or name in ("plan.py", "result.py", "scripts.py", "asked.py")
]  # fmt: skip
BANNED = {"subprocess", "socket", "torch", "cv2", "av", "numpy", "time", "multiprocessing", "threading", "asyncio"}
#: Longer than 400 lines, each with its reason.
LONG = {
    "settings.py": "one table of every setting",
}


def imports_of(path: Path) -> Iterator[str]:
    """Top-level names of the modules that a file imports, anywhere in it; relative ones as ``.``."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.level else str(node.module).partition(".")[0]


@pytest.mark.parametrize("name", STANDARD_ONLY)
def test_what_other_interpreters_run_needs_the_standard_library_alone(name: str) -> None:
    foreign = set(imports_of(SOURCE / name)) - set(sys.stdlib_module_names)
    assert foreign == set()


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("launchers/")])
def test_what_frameworks_run_is_python_3_8(name: str) -> None:
    ast.parse((SOURCE / name).read_text("utf-8"), feature_version=(3, 8))


@pytest.mark.parametrize("name", PURE)
def test_the_pure_layers_start_nothing_and_tell_no_time(name: str) -> None:
    assert not BANNED & set(imports_of(SOURCE / name))


@pytest.mark.parametrize("name", NAMES)
def test_no_file_is_too_long_to_read(name: str) -> None:
    lines = len((SOURCE / name).read_text("utf-8").splitlines())
    assert lines <= (500 if name in LONG else 400)


@pytest.mark.parametrize("name", NAMES)
def test_no_function_is_too_long_to_read(name: str) -> None:
    tree = ast.parse((SOURCE / name).read_text("utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions if node.end_lineno is not None}
    assert {name: count for name, count in long.items() if count > 60} == {}


def test_no_file_is_a_drawer_for_everything() -> None:
    drawers = {"util.py", "utils.py", "common.py", "helpers.py", "helper.py", "misc.py", "manager.py", "base.py"}
    assert not drawers & {Path(name).name for name in NAMES}


def test_the_tour_shows_every_file_and_no_other() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text("utf-8").partition("## The tree")[2]
    shown = re.findall(r"^    (\S+\.py)\s{2,}\S", text, re.MULTILINE)
    assert sorted(shown) == sorted(NAMES)


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
