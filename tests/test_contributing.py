"""CONTRIBUTING.md is true: the files that it names exist, and a framework needs no file beyond those it counts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")
REGISTRY = Path("backends/__init__.py")
LAST_LINE = '    "draft": "reelwright.backends.draft.backend",\n'


def test_the_files_that_the_page_names_exist() -> None:
    named = set(re.findall(r"`((?:src|tests|docs|tools|examples)/[\w./-]+|Makefile|CHANGELOG\.md)`", PAGE))
    assert len(named) > 12
    assert [name for name in sorted(named) if "toy" not in name and not (REPOSITORY / name).exists()] == []


def test_a_framework_is_one_folder_and_one_line_of_the_registry(tmp_path: Path) -> None:
    original, package = REPOSITORY / "src" / "reelwright", tmp_path / "src" / "reelwright"
    shutil.copytree(original, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "backends" / "toy").mkdir()
    shutil.copy(REPOSITORY / "examples" / "toy_backend.py", package / "backends" / "toy" / "__init__.py")
    registry = (package / REGISTRY).read_text("utf-8")
    assert LAST_LINE in registry
    added = LAST_LINE + '    "toy": "reelwright.backends.toy",\n'
    (package / REGISTRY).write_text(registry.replace(LAST_LINE, added), "utf-8")
    made = _reel(tmp_path, "generate", "-", "blue", "-o", "toy.mp4", "--generator", "toy", "--seed", "3", "--json")
    assert json.loads(made.splitlines()[-1])["generator"] == "toy"
    listed = _reel(tmp_path, "generators", "--json")
    assert "Plain colours" in listed
    assert _changed(original, package) == ["backends/__init__.py", "backends/toy/__init__.py"]


def _reel(folder: Path, *words: str) -> str:
    environ = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [sys.executable, "-m", "reelwright", *words]
    done = subprocess.run(argv, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _changed(before: Path, after: Path) -> list[str]:
    names = {path.relative_to(root) for root in (before, after) for path in root.rglob("*.py")}
    texts = {name: [(root / name).read_bytes() for root in (before, after) if (root / name).exists()] for name in names}
    return sorted(str(name) for name, found in texts.items() if len(set(found)) != 1 or len(found) != 2)


def test_every_file_passes_the_check_before_a_commit() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    names = [name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).is_file()]
    argv = [sys.executable, "tools/check_files.py", *names]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_decision_has_a_date_a_status_and_a_consequence() -> None:
    pages = {path.name: path.read_text("utf-8") for path in (REPOSITORY / "docs" / "decisions").glob("*.md")}
    assert len(pages) > 5
    parts = (r"\b20\d\d-\d\d-\d\d\b", r"\bstatus\b", r"\bconsequences?\b")
    assert [name for name, text in pages.items() if not all(re.search(part, text.lower()) for part in parts)] == []
