"""Folders of tiny models, each written once for a session, and a picture."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
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


@pytest.fixture(autouse=True)
def _attention_of_this_test() -> Iterator[None]:
    """Give each test the process's default attention backend again.

    diffusers keeps the last backend that a model chose for models that choose none, and the tests run in random order.
    """
    yield
    if dispatch := sys.modules.get("diffusers.models.attention_dispatch"):
        dispatch._AttentionBackendRegistry.set_active_backend(dispatch.AttentionBackendName.NATIVE)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A square picture: no model has to choose what it crops."""
    return a_photo(tmp_path / "photo.png", (80, 80))
