"""What joining would refuse is refused before the first clip, at every door, with the shot and its line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import reelwright
from reelwright.films.editing.timing import crowded
from tests.conftest import a_photo

Reel = Callable[..., subprocess.CompletedProcess[str]]


def board(folder: Path, *shots: str, head: str = "") -> Path:
    """A storyboard of shots, a line each, beside two pictures; the first shot is on line 4."""
    a_photo(folder / "a.png")
    a_photo(folder / "b.png")
    path = folder / "board.yaml"
    path.write_text("size: 128x72\n" + (head or "title: x") + "\nshots:\n" + "\n".join(shots) + "\n")
    return path


SHOT = "- {{id: {0}, prompt: push in, image: {1}.png, {2}}}"
TRANSITIONS = {
    "a dissolve longer than its shot": ([("one", "a", "frames: 9"), ("two", "b", "frames: 5, transition: dissolve 8")], 5),
    "a dissolve as long as its shot": ([("one", "a", "frames: 9"), ("two", "b", "frames: 8, transition: dissolve 8")], 5),
    "a dissolve as long as the shot before": ([("one", "a", "frames: 8"), ("two", "b", "frames: 20, transition: dissolve 8")], 4),
    "two dissolves in one short shot": (
        [("one", "a", "frames: 20"), ("two", "b", "frames: 9, transition: dissolve 5"),
         ("three", "a", "frames: 20, transition: dissolve 5")], 5),
}  # fmt: skip


@pytest.mark.parametrize(("shots", "line"), TRANSITIONS.values(), ids=TRANSITIONS)
def test_a_transition_that_does_not_fit_is_refused_with_its_shot_and_line(
    tmp_path: Path, shots: Sequence[tuple[str, str, str]], line: int
) -> None:
    path = board(tmp_path, *(SHOT.format(*shot) for shot in shots))
    with pytest.raises(reelwright.InvalidInputError) as caught:
        reelwright.film(path, tmp_path / "film.mp4", draft=True)
    assert "too few for its transitions" in caught.value.message
    assert f"line {line}" in caught.value.message
    assert f"shot {shots[line - 4][0]}" in caught.value.message
    assert not list(tmp_path.rglob("*.mp4"))


def test_a_shot_of_one_frame_before_a_chained_one_is_refused(tmp_path: Path) -> None:
    path = board(tmp_path, SHOT.format("one", "a", "frames: 1"), "- {id: two, prompt: push in, frames: 9}")
    with pytest.raises(reelwright.InvalidInputError, match="shot one, line 4: clip one has 1 frame, "):
        reelwright.film(path, tmp_path / "film.mp4", draft=True)


def test_an_overlap_that_a_short_chained_shot_cannot_hold_is_refused(tmp_path: Path) -> None:
    short = "- {id: two, prompt: push in, frames: 4}"
    path = board(tmp_path, SHOT.format("one", "a", "frames: 20"), short, head="overlap: 4")
    with pytest.raises(reelwright.InvalidInputError, match="shot two, line 5"):
        reelwright.film(path, tmp_path / "film.mp4", draft=True)


def test_clips_that_just_fit_are_made(tmp_path: Path) -> None:
    shots = (SHOT.format("one", "a", "frames: 9"), SHOT.format("two", "b", "frames: 9, transition: dissolve 8"))
    assert reelwright.film(board(tmp_path, *shots), tmp_path / "film.mp4", draft=True).num_frames == 10


@pytest.mark.parametrize(
    ("lengths", "over", "found"),
    [([9, 8], [0, 8], [1]), ([9, 9], [0, 8], []), ([1, 9], [0, 1], [0]), ([2, 9], [0, 1], []), ([5], [0], [])],
)
def test_a_clip_must_be_longer_than_what_lies_over_it(lengths: list[int], over: list[int], found: list[int]) -> None:
    assert crowded(lengths, over) == found


def test_an_enlargement_beyond_the_encoder_is_refused(tmp_path: Path) -> None:
    path = board(tmp_path, SHOT.format("one", "a", "frames: 5"), head="finish: {upscale: 4}")
    path.write_text(path.read_text().replace("128x72", "4352x64"))
    with pytest.raises(reelwright.ConfigurationError, match="line 2: a video of 17408x256 cannot be encoded"):
        reelwright.film(path, tmp_path / "film.mp4", draft=True)
    assert not list(tmp_path.rglob("*.mp4"))


SOUNDS = {"text": b"la la la", "empty": b"", "picture": None}


@pytest.mark.parametrize("content", SOUNDS.values(), ids=SOUNDS)
@pytest.mark.parametrize(
    "words", [("storyboard", "check"), ("film", "--dry-run", "--draft", "-o", "f.mp4"), ("film", "--draft", "-o", "f.mp4")],
    ids=["check", "dry-run", "film"],
)  # fmt: skip
def test_sound_that_is_none_is_refused_at_every_door(
    tmp_path: Path, reel: Reel, content: bytes | None, words: tuple[str, ...]
) -> None:
    path = board(tmp_path, SHOT.format("one", "a", "frames: 5"), head="audio: {file: s.wav}")
    if content is None:
        (tmp_path / "a.png").rename(tmp_path / "s.wav")
        a_photo(tmp_path / "a.png")
    else:
        (tmp_path / "s.wav").write_bytes(content)
    done = reel(*words, path, "--json", cwd=tmp_path)
    assert done.returncode == 10
    assert "s.wav" in done.stdout
    assert "line 2" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])
    assert not list(tmp_path.rglob("*.mp4"))


@pytest.mark.parametrize("words", [("storyboard", "check", "--draft"), ("film", "--dry-run", "--draft", "-o", "f.mp4")])
def test_the_checks_refuse_what_the_film_would(tmp_path: Path, reel: Reel, words: tuple[str, ...]) -> None:
    shots = (SHOT.format("one", "a", "frames: 9"), SHOT.format("two", "b", "frames: 8, transition: dissolve 8"))
    done = reel(*words, board(tmp_path, *shots), cwd=tmp_path)
    assert done.returncode == 10
    assert "shot two, line 5" in done.stdout + done.stderr
