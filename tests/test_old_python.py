"""An interpreter that is too old is named before anything is made with it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

#: Answers as Python 3.10 would, and makes no virtual environment.
OLD = f"""#!/bin/sh
[ "$1" = --version ] && {{ echo "Python 3.10.12"; exit 0; }}
[ "$1" = -c ] && exec {sys.executable} -c "import sys; sys.version_info = (3, 10, 12, 'final', 0); exec(sys.argv[1])" "$2"
touch used
"""


@pytest.mark.parametrize("recipe", ["demo", "test", "test-engine", "lint"])
def test_make_says_first_that_python_is_too_old(recipe: str, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    shutil.copytree(REPOSITORY / "constraints", tmp_path / "constraints")
    (tmp_path / "old").write_text(OLD)
    (tmp_path / "old").chmod(0o755)
    done = subprocess.run(
        ["make", recipe, "PYTHON=./old"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "needs Python 3.11 or newer; ./old is Python 3.10.12" in done.stdout
    assert not (tmp_path / "used").exists()
    assert not (tmp_path / ".venv").exists()


def test_an_old_python_is_told_when_it_imports_the_package() -> None:
    code = "import sys; sys.version_info = (3, 10, 12, 'final', 0); sys.version = '3.10.12 (old)'; import reelwright"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "ImportError: Reelwright needs Python 3.11 or newer; this is Python 3.10.12" in done.stderr
