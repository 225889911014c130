"""Puts the example package into a folder, as pip would: its modules, and a dist-info with its entry points."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

PACKAGE = Path(__file__).parent / "package"


def install(folder: Path) -> Path:
    """Install the package into ``folder``, which is then to be on the path."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    shutil.copytree(PACKAGE / "src", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    add_distribution(folder, project["name"], project["version"], project["entry-points"]["reelwright.backends"])
    return folder


def add_distribution(folder: Path, name: str, version: str, points: dict[str, str]) -> None:
    """Add a dist-info with entry points of the group ``reelwright.backends``."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{point} = {value}\n" for point, value in points.items()]
    (info / "entry_points.txt").write_text("".join(["[reelwright.backends]\n", *lines]))
