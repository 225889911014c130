"""The walks of docs/architecture.md are those that a real run takes: each numbered function is called, in this order."""

from __future__ import annotations

import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from reelwright.cli import main
from tests.conftest import REPOSITORY

SOURCE = str(REPOSITORY / "src" / "reelwright") + "/"
STORY = """
size: 320x180
shots:
  - {id: one, prompt: hold, image: photo.png, frames: 9}
  - {id: two, prompt: hold, image: photo.png, frames: 9, transition: dissolve 2}
"""


def steps(question: str) -> list[tuple[str, str]]:
    """The numbered lines under a heading that begin with a file and a function."""
    page = (REPOSITORY / "docs" / "architecture.md").read_text("utf-8")
    section = page.partition(f". {question}\n\n")[2].partition("\n## ")[0]
    return re.findall(r"^\d+\. `(\S+\.py)` `(\w+)`", section, re.MULTILINE)


@contextmanager
def calls() -> Iterator[list[tuple[str, str]]]:
    """Every function of the package that is called inside, at its first call."""
    seen: dict[tuple[str, str], None] = {}
    found: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(SOURCE):
            seen.setdefault((code.co_filename[len(SOURCE) :], code.co_name))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        found += seen


def test_a_request_walks_as_the_page_says(photo: Path, tmp_path: Path) -> None:
    walk = steps("What happens to one request?")
    assert len(walk) > 12
    with calls() as seen:
        assert main(["generate", str(photo), "hold", "-o", str(tmp_path / "a.mp4"), "--frames", "9"]) == 0
    assert [step for step in seen if step in walk] == walk


def test_a_film_walks_as_the_page_says(photo: Path, tmp_path: Path) -> None:
    walk = steps("What happens to a film?")
    assert len(walk) > 12
    if photo.parent != tmp_path:
        shutil.copy(photo, tmp_path / "photo.png")
    (tmp_path / "film.yaml").write_text(STORY, "utf-8")
    with calls() as seen:
        assert main(["film", str(tmp_path / "film.yaml"), "-o", str(tmp_path / "film.mp4"), "--draft"]) == 0
    assert [step for step in seen if step in walk] == walk
