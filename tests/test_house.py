"""`make house`: the measures, on a package of a few lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

FILES = {
    "src/reelwright/__init__.py": "from .cli import main\n",
    "src/reelwright/cli.py": '"""The edge."""\n\nfrom . import films\n\ndef main(argument):\n    return films.join\n',
    "src/reelwright/films/__init__.py": "from ..core.files import parse\n\ndef join() -> int:\n    return parse('')\n",
    "src/reelwright/films/sound.py": "import reelwright.core.files\n\ndef parse(text: str) -> None: ...\n",
    "src/reelwright/core/__init__.py": "",
    "src/reelwright/core/files.py": "from typing import Any\n\ndef parse(text: str) -> Any:\n    return text\n",
    "tests/test_it.py": "def test_it():\n    pass\n",
}


def measured(folder: Path, **changed: str) -> dict[str, str]:
    for name, text in {**FILES, **changed}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    argv = [sys.executable, str(REPOSITORY / "tools" / "house.py"), str(folder)]
    printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines()[2:]]
    return {name.strip(): value.strip() for name, value in rows}


def test_the_measures_of_a_small_package(tmp_path: Path) -> None:
    found = measured(tmp_path)
    assert (found["rooms"], found["floors"]) == ("3", "3")
    assert (found["arrows between rooms"], found["circles of rooms"]) == ("2", "0")
    assert (found["lines of src"], found["of these docstrings"], found["test functions"]) == ("18", "1", "1")
    assert (found["names defined in more than one module"], found["modules"]) == ("1", "6")
    assert found["public functions annotated without `Any`"] == "50.0% of 4"


def test_rooms_that_import_each_other_are_a_circle(tmp_path: Path) -> None:
    core = {"src/reelwright/core/__init__.py": "from reelwright import films\n"}
    assert measured(tmp_path, **core)["circles of rooms"] == "1"
