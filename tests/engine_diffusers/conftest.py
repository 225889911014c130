"""Folders of tiny models, each written once for a session, and a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import a_photo
from tests.engine_diffusers import tiny


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model of `tiny.FAMILIES`; tests must not change it."""
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = tiny.save(name, tmp_path_factory.mktemp(name) / "model")
        return folders[name]

    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A square picture: no model has to choose what it crops."""
    return a_photo(tmp_path / "photo.png", (80, 80))
