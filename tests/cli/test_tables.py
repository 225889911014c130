"""Tables in a pipe, the table of a film's shots, and text from outside that would drive a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reelwright.cli import main
from reelwright.cli.output import printable
from tests.conftest import a_photo

BOARD = """\
title: Two \x9b31m shots
size: 160x96
shots:
- {id: sea, prompt: "slow push in\u202e", image: photo.png, frames: 9, seed: 11}
- {id: sky, prompt: "tilt up", frames: 9, seed: 12}
""".replace("\x9b", "\\x9b").replace("title: Two \\x9b31m shots", 'title: "Two \\x9b31m shots"')


@pytest.fixture
def film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # readline, which pytest loads, sets it
    a_photo(tmp_path / "photo.png", (160, 96))
    (tmp_path / "film.yaml").write_text(BOARD, encoding="utf-8")
    assert main(["film", "film.yaml", "--draft", "-o", "film.mp4"]) == 0
    capsys.readouterr()
    return tmp_path / "film.mp4"


def test_a_film_is_shown_with_a_row_per_shot_and_nothing_that_a_terminal_obeys(
    film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(film)]) == 0
    shown = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line.strip()}
    assert rows["sea"][2:5] == ["160x96", "draft", "11"]
    assert rows["sky"][2:6] == ["160x96", "draft", "12", "chained"]
    assert "{" not in shown
    assert "[" not in shown
    assert not {"\x9b", "\u202e", "\x1b"} & set(shown)
    assert "\\u202e" in shown


def test_the_manifest_as_json_is_the_same_text_without_a_character_that_a_terminal_obeys(
    film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(film), "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed)["requested"]["prompt"] == "Two \x9b31m shots"


@pytest.mark.parametrize("words", [["show", "film.mp4"], ["config"], ["generators"], ["generators", "draft"]])
def test_a_row_in_a_pipe_ends_where_its_text_ends_and_has_no_frame(
    words: list[str], film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert [line for line in lines if line != line.rstrip()] == []
    assert not {"━", "│", "┃"} & set("".join(lines))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\x9bb", "a\\x9bb"),
        ("a\rb\nc", "a\\x0db\\nc"),
        ("invoice\u202egpj.exe", "invoice\\u202egpj.exe"),
        ("\u2066a\u2069", "\\u2066a\\u2069"),
        ("a\u200fb", "a\\u200fb"),
        ("\u2028", "\\u2028"),
        ("\udcff", "\\udcff"),
        ("eine Katze, 猫, 🐈\u200d⬛", "eine Katze, 猫, 🐈\u200d⬛"),
    ],
)
def test_what_would_drive_a_terminal_or_turn_its_text_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
