"""A project that was moved: its pictures are found by their content, beside the manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reelwright.cli import main
from tests.conftest import a_photo

SMALL = ("--frames", "5", "--size", "160x96", "--seed", "7")


@pytest.fixture
def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that was moved after its clip was made, and whose picture has another name since."""
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    a_photo(before / "photo.png", (160, 96))
    monkeypatch.chdir(before)
    assert main(["generate", "photo.png", "push in", "-o", "clip.mp4", *SMALL]) == 0
    before.rename(after)
    (after / "photo.png").rename(after / "cat.png")
    monkeypatch.chdir(tmp_path)
    return after


def test_a_clip_is_made_again_with_the_picture_that_lies_beside_it_now(
    moved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["replay", str(moved / "clip.mp4"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["replay"] == {"same_bytes": True, "same_frames": True}


def test_show_says_where_the_picture_is_now(moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["show", str(moved / "clip.mp4")]) == 0
    assert f"(now {moved / 'cat.png'})" in capsys.readouterr().out


def test_another_picture_of_the_same_name_is_not_taken(moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (moved / "cat.png").unlink()
    a_photo(moved / "photo.png", (162, 96))
    assert main(["replay", str(moved / "clip.mp4")]) == 10
    assert "photo.png is missing or has changed" in capsys.readouterr().err
