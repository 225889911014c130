"""`reel replay` of a film makes the whole film again, from what its manifest says of its storyboard."""

from __future__ import annotations

import json
import struct
import wave
from pathlib import Path
from typing import Any

import pytest

from reelwright.cli import main
from tests.conftest import a_photo
from tests.films.small import BOARD, digest, make

ONE_SHOT = "size: 96x64\nshots:\n  - {id: one, prompt: hold, image: a.png, frames: 3}\n"


def a_tone(path: Path, hertz: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"".join(struct.pack("<h", hertz * (number % 40)) for number in range(4000)))


def replayed(capsys: pytest.CaptureFixture[str], *argv: Any) -> tuple[int, dict[str, Any]]:
    status = main(["replay", *map(str, argv), "--json"])
    return status, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_film_is_made_again_from_stored_clips_and_in_another_folder_from_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(folder)
    (folder / "film.yaml").write_text(BOARD.replace("push in", "pull out"))  # what is written now does not matter
    status, told = replayed(capsys, folder / "film.mp4")
    assert (status, told["replay"]["same_bytes"], len(told["stored"])) == (0, True, 5)
    assert (folder / "film.replay.mp4").exists()
    (folder / "film.yaml").unlink()
    status, told = replayed(capsys, folder / "film.reel.json", "-o", tmp_path / "again.mp4")
    assert (status, told["replay"]["same_frames"], len(told["rendered"])) == (0, True, 5)
    assert (tmp_path / "again.mp4").read_bytes() == (folder / "film.mp4").read_bytes()


def test_a_part_of_a_film_is_made_again_after_its_folder_was_moved(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(folder, start="four", draft=True)
    moved = folder.rename(folder.with_name("moved"))
    (moved / "film.yaml").unlink()
    status, told = replayed(capsys, moved / "film.mp4")
    assert (status, told["replay"]["same_bytes"], told["frames"]) == (0, True, 18)


def test_a_film_whose_pictures_were_exchanged_is_not_made_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = "size: 96x64\nshots:\n  - {prompt: hold, image: a.png, frames: 3}\n  - {prompt: hold, image: b.png, frames: 3}\n"
    (folder / "film.yaml").write_text(board)
    make(folder)
    (folder / "a.png").rename(folder / "c.png")
    (folder / "b.png").rename(folder / "a.png")
    (folder / "c.png").rename(folder / "b.png")
    status, told = replayed(capsys, folder / "film.mp4")
    assert (status, told["code"]) == (10, "INPUT")
    assert "a.png is missing or has changed" in told["message"]


def test_a_film_whose_picture_changed_is_not_made_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(folder)
    a_photo(folder / "b.png", (302, 200))
    status, told = replayed(capsys, folder / "film.mp4")
    assert (status, told["code"]) == (10, "INPUT")
    assert "shot three" in told["message"]
    assert "b.png is missing or has changed" in told["message"]


def test_a_film_whose_sound_changed_is_not_made_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_tone(folder / "music.wav", 440)
    make(folder, f"audio: {{file: music.wav}}\n{ONE_SHOT}")
    (folder / "film.mp4").rename(folder / "film.MP4")
    manifest = json.loads((folder / "film.reel.json").read_text())
    manifest["output"]["path"] = "film.MP4"
    (folder / "film.reel.json").write_text(json.dumps(manifest))  # as an older version named it
    status, told = replayed(capsys, folder / "film.MP4", "-o", folder / "again.mp4")
    assert (status, told["replay"]["same_bytes"]) == (0, True)
    a_tone(folder / "music.wav", 220)
    status, told = replayed(capsys, folder / "film.MP4", "-o", folder / "again.mp4")
    assert (status, "music.wav is missing or has changed" in told["message"]) == (10, True)


def test_a_film_is_not_made_again_over_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(folder)
    before = digest(folder)
    status, told = replayed(capsys, folder / "film.mp4", "-o", folder / "film.mp4", "--overwrite")
    assert (status, told["code"]) == (10, "INPUT")
    assert digest(folder) == before


def as_an_older_version(folder: Path) -> None:
    data = json.loads((folder / "film.reel.json").read_text())
    del data["facts"]["replay"]
    data["requested"]["storyboard"] = str(folder / "film.yaml")
    (folder / "film.reel.json").write_text(json.dumps(data))


def test_a_film_of_an_older_version_is_made_again_from_its_storyboard_or_says_how(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(folder)
    as_an_older_version(folder)
    status, told = replayed(capsys, folder / "film.mp4")
    assert (status, told["replay"]["same_bytes"]) == (0, True)
    (folder / "film.yaml").rename(folder / "elsewhere")
    status, told = replayed(capsys, folder / "film.mp4", "-o", folder / "again.mp4")
    assert status == 10
    assert told["advice"] == f"Restore it, then run: reel film {folder / 'film.yaml'} -o {folder / 'again.mp4'}"


@pytest.mark.parametrize(
    "board", [None, [], {"shots": "x"}, {"shots": [{"prompt": "a", "python": "/bin/sh"}]}, {"shots": [{"prompt": ""}]}]
)
def test_a_manifest_that_names_no_storyboard_is_damaged(
    folder: Path, capsys: pytest.CaptureFixture[str], board: Any
) -> None:
    (folder / "film.reel.json").write_text(
        json.dumps(
            {
                "schema": 1,
                "run_id": "r",
                "reelwright": "0",
                "generator": "draft",
                "task": "film",
                "generative": False,
                "state": "completed",
                "created_at": "2026-01-01",
                "requested": {"prompt": "Small", "storyboard": "film.yaml"},
                "output": {"path": "film.mp4"},
                "facts": {"replay": {"storyboard": board, "draft": True}},
            }
        )
    )
    status, told = replayed(capsys, folder / "film.reel.json")
    assert (status, told["code"]) == (34, "STATE")
    assert not list(folder.glob("*.mp4"))
