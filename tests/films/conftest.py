"""A folder with a small storyboard; the machine with a stand-in Wan2.1 serves here as well."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import a_home
from tests.films.small import digest, make, set_up
from tests.wan21.conftest import wan, wan_parts

__all__ = ["folder", "made", "undisturbed", "wan", "wan_parts"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A storyboard of five small shots with their pictures."""
    return set_up(tmp_path / "film")


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a film that nobody interrupts."""
    here = set_up(tmp_path_factory.mktemp("undisturbed"))
    with a_home(tmp_path_factory.mktemp("undisturbed-home")):
        make(here)
    return here


@pytest.fixture
def made(_finished: Path, tmp_path: Path) -> Path:
    """A folder as `folder` with its film, for tests of what happens to a film after it is made."""
    return shutil.copytree(_finished, tmp_path / "film")


@pytest.fixture(scope="session")
def undisturbed(_finished: Path) -> str:
    """The digest of the film that nobody interrupts."""
    return digest(_finished)
