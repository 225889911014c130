"""Storyboards: what can be written, and that every mistake names its line and its shot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from reelwright.core.errors import ConfigurationError, VideoGenerationError
from reelwright.films.storyboard import EXAMPLE, Storyboard, json_schema, load_storyboard
from tests.conftest import a_photo

GOOD = """\
title: Morning
size: 832*480
defaults:
  seconds: 3
  steps: 20
shots:
  - id: sea
    prompt: waves
    image: a.png
  - prompt: a gull
    frames: 33
  - prompt: sunrise
    image: a.png
    last_image: b.png
    transition: dissolve 6
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "photo.jpg", "other.jpg"):
        a_photo(tmp_path / name, (64, 64))
    return tmp_path


def loaded(folder: Path, text: str) -> Storyboard:
    (folder / "film.yaml").write_text(text)
    return load_storyboard(folder / "film.yaml")


def test_defaults_go_under_each_shot_and_every_shot_has_a_name(folder: Path) -> None:
    board = loaded(folder, GOOD)
    assert [shot.id for shot in board.shots] == ["sea", "shot-2", "shot-3"]
    assert [(shot.seconds, shot.frames, shot.steps) for shot in board.shots] == [
        (3, None, 20),
        (None, 33, 20),
        (3, None, 20),
    ]
    assert [shot.dissolve for shot in board.shots] == [0, 0, 6]


def test_paths_are_relative_to_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert loaded(folder, GOOD).shots[0].image == folder / "a.png"


MISTAKES = {
    "unknown key": (GOOD.replace("frames: 33", "frmes: 33"), "line 11: shot 2: frmes", "did you mean frames"),
    "unknown top key": (GOOD.replace("title:", "titel:"), "line 1: titel", "did you mean title"),
    "unknown default": (GOOD.replace("  steps: 20", "  stps: 20"), "line 5: defaults: stps", "did you mean steps"),
    "wrong type": (GOOD.replace("frames: 33", 'frames: "33"'), "line 11: shot 2: frames", "whole number"),
    "not above 0": (GOOD.replace("seconds: 3", "seconds: 0"), "line 4: defaults: seconds", "above 0"),
    "no prompt": (GOOD.replace("    prompt: waves\n", ""), "line 7: shot sea: prompt", "required"),
    "empty prompt": (GOOD.replace("a gull", '" "'), "line 10: shot 2", "prompt is empty"),
    "missing picture": (GOOD.replace("last_image: b.png", "last_image: c.png"), "line 14: shot 3: last_image", "not a file"),
    "two lengths": (GOOD.replace("    frames: 33", "    frames: 33\n    seconds: 2"), "line 10: shot 2", "both"),
    "same id": (GOOD.replace("- prompt: a gull", "- id: sea\n    prompt: a gull"), "line 10: shot 2", "'sea'"),
    "bad id": (GOOD.replace("id: sea", "id: the sea"), "line 7: shot the sea: id", "letters, digits"),
    "transition": (GOOD.replace("dissolve 6", "wipe"), "line 15: shot 3: transition", "write cut"),
    "no shots": ("title: x\nshots: []\n", "line 2: shots", "no shot"),
    "shots missing": ("title: x\n", "shots", "required"),
    "shot is text": (GOOD + "  - a cat\n", "line 16: shot 4", "keys and values"),
    "first dissolves": (GOOD.replace("    image: a.png\n  - p", "    image: a.png\n    transition: dissolve\n  - p"), "line 7: shot sea", "nothing to dissolve from"),
    "first continues": (GOOD.replace("    image: a.png\n  - p", "    continues: true\n  - p"), "line 7: shot sea", "nothing to continue"),
    "bad size": (GOOD.replace("832*480", "big"), "line 2: size", "not a size"),
    "audio": (GOOD + "audio: {file: none.mp3}\n", "line 16: audio", "not a file"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_names_its_line_its_shot_and_what_is_meant(folder: Path, case: str) -> None:
    text, where, why = MISTAKES[case]
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, text)
    told = "\n".join([caught.value.message, *caught.value.evidence])
    assert where in told
    assert why in told


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file(folder: Path) -> None:
    text = GOOD.replace("frames: 33", "frmes: 33").replace("title: Morning", "title: 3").replace("dissolve 6", "wipe")
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, text)
    lines = [caught.value.message, *caught.value.evidence]
    assert [line.split("line ")[1].split(":")[0] for line in lines] == ["1", "11", "15"]


def test_a_key_with_another_spelling_is_reported_once(folder: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, GOOD.replace("prompt: waves", "promt: waves"))
    assert caught.value.message.endswith("line 8: shot sea: promt: there is no such key; did you mean prompt?")
    assert caught.value.evidence == ()


def test_missing_files_are_reported_beside_other_mistakes_with_similar_names(folder: Path) -> None:
    text = GOOD.replace("title:", "titel:").replace(
        "image: a.png\n  - prompt: a gull", "image: fotos.jpg\n  - prompt: a gull"
    )
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, text + "audio: {file: othr.jpg}\n")
    assert caught.value.evidence == (
        "line 9: shot sea: image: fotos.jpg is not a file; did you mean photo.jpg?",
        "line 16: audio: othr.jpg is not a file; did you mean other.jpg?",
    )


def test_the_example_is_a_storyboard(folder: Path) -> None:
    assert len(loaded(folder, EXAMPLE).shots) == 3


def test_the_published_schema_accepts_what_we_accept_and_refuses_a_wrong_key() -> None:
    schema = json.loads(json.dumps(json_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(EXAMPLE), schema)
    jsonschema.validate(yaml.safe_load(GOOD), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(GOOD.replace("frames: 33", "frmes: 33")), schema)


#: What a person writes for a shot of GOOD, and what YAML would make of it.
MISREAD = {
    "hash in a prompt": ("prompt: a gull", "prompt: shot #3 of a gull", "line 10: shot 2: prompt: '#3 of a gull' is a comment"),
    "hash before a file": ("image: a.png", "image: #2.png", "line 9: shot sea: image: '#2.png' is a comment"),
    "blank picture": ("image: a.png", "image:", "line 9: shot sea: image: it has no value"),
    "null picture": ("image: a.png", "image: ~", "line 9: shot sea: image: it has no value"),
    "octal": ("frames: 33", "frames: 010", "line 11: shot 2: frames: 010 is 8 in YAML, an octal number"),
    "base 60": ("frames: 33", "frames: 1:30", "1:30 is 90 in YAML, a number in base 60"),
    "underscore": ("frames: 33", "frames: 1_000", "1_000 is 1000 in YAML"),
    "hexadecimal": ("frames: 33", "frames: 0x21", "0x21 is 33 in YAML, a hexadecimal number"),
    "number as a prompt": ("prompt: a gull", "prompt: 42", "line 10: shot 2: prompt: write text, not 42; quote it"),
    "yes as a prompt": ("prompt: a gull", "prompt: yes", "yes is true in YAML"),
    "its limits are not reported as well": ("seconds: 3", "seconds: 24:00:00", "'24:00:00' for the text\nEND"),
    "octal name": ("id: sea", "id: 010", "line 7: shot 1: id: 010 is 8 in YAML, an octal number; write 10 or 8, or '010' for the text"),
    "name of a shot that is none": ("prompt: a gull", "prompt: a gull\n    id: yes", "line 11: shot 2: id: yes is true"),
    "anchor": ("prompt: a gull", "prompt: &b gull", "line 10: & begins a name in YAML"),
    "anchor twice": ("prompt: waves\n", "prompt: &b waves\n    negative_prompt: &b x\n", "line 9: & begins a name in YAML"),
    "alias": ("prompt: a gull", "prompt: *gull", "line 10: * begins a name in YAML"),
    "tag": ("prompt: a gull", "prompt: !important a gull", "line 10: ! begins a name in YAML"),
    "python tag": ("prompt: a gull", "prompt: !!python/object:os.system [ls]", "line 10: ! begins a name in YAML"),
    "merge key": ("  - prompt: a gull", "  - <<: {frames: 9}\n    prompt: a gull", "line 10: << is not supported"),
    "key that is no word": ("frames: 33", "[a]: 33", "line 11: a key must be a word"),
    "key behind a strange space": ("    frames: 33", "    \u00a0frames: 33", "line 11: a character that only looks like a space"),
    "braces": ("prompt: a gull", "prompt: {a gull}", "line 10: shot 2: prompt: write text, not keys and values; a text that begins with { must be in quotes\nEND"),
    "off as a transition": ("transition: dissolve 6", "transition: off", "off is false in YAML"),
    "unknown camera": ("frames: 33", "camera: pan_lft", "line 11: shot 2: camera: unknown camera word 'pan_lft'"),
    "choice": ("frames: 33", "fit: contian", "line 11: shot 2: fit: write cover, contain or stretch"),
}  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "told"), MISREAD.values(), ids=MISREAD)
def test_what_yaml_reads_otherwise_is_a_mistake_with_its_line(folder: Path, right: str, wrong: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, GOOD.replace(right, wrong, 1))
    assert told in "\n".join([caught.value.message, *caught.value.evidence, "END"])
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    ("right", "written"),
    [
        ("title: Morning", "title: Morning  # a comment"),
        ("prompt: a gull", 'prompt: "gull #3"'),
        ("prompt: a gull", "prompt: gull#3"),
        ("frames: 33", "frames: 33 # frames"),
        ("title: Morning", "title: Morning\ncolor: off"),
        ("title: Morning", "title: 'yes'"),
        ("title: Morning", "title: 2024-13-45"),
        ("prompt: a gull", "prompt: ="),
        ("prompt: a gull", "prompt: !!str 12"),
        ("title: Morning", "---\ntitle: Morning"),
        ("title", "\ufefftitle"),
        ("seconds: 3", "seconds: 3.50"),
        ("shots:", "shots:   #-- the shots"),
    ],
)
def test_a_value_that_yaml_reads_as_meant_is_no_mistake(folder: Path, right: str, written: str) -> None:
    assert len(loaded(folder, GOOD.replace(right, written, 1)).shots) == 3


#: A line that YAML cannot read, in place of line 10 of GOOD, and what is said of it.
UNREADABLE = {
    "tab": ("\tprompt: a gull", 10, "this line holds a tab"),
    "tab after a colon": ("  - prompt:\ta gull", 10, "this line holds a tab"),
    "colon": ("  - prompt: a gull: landing", 10, "a colon and a space in a text"),
    "colon at the end": ("  - prompt: gulls:", 10, ""),
    "hash in braces": ("  - {prompt: shot #3}", 10, "# begins a comment"),
    "open double quote": ('  - prompt: "a gull', 10, 'the quote " in this line is not closed'),
    "open single quote": ("  - prompt: 'a gull", 10, "the quote ' in this line is not closed"),
    "apostrophe in single quotes": ("  - prompt: 'it's a gull'", 10, "the text continues after its closing quote"),
    "words behind quotes": ('  - prompt: "gull" she said', 10, "the text continues after its closing quote"),
    "backslash": ('  - prompt: "C:\\Users"', 10, "a \\ in double quotes begins an escape"),
    "quotes above a wrong indent": ('  - prompt: "a gull"\n      seed: 3', 11, "this line does not fit the lines around it"),
    "open brace": ("  - {prompt: a gull", 10, "the { in this line is not closed"),
    "open bracket": ("  - prompt: [a gull", 10, "the [ in this line is not closed"),
    "bracket and text": ("  - prompt: [wide] a gull", 10, "a text that begins with [ must be in quotes"),
    "two braces": ("  - prompt: {{gull}} lands", 10, "a text that begins with { must be in quotes"),
    "at": ("  - prompt: @home", 10, "a text that begins with @ must be in quotes"),
    "backtick": ("  - prompt: `gull`", 10, "a text that begins with ` must be in quotes"),
    "percent": ("  - prompt: %gull", 10, "a text that begins with % must be in quotes"),
    "greater": ("  - prompt: > gull", 10, "a text that begins with > must be in quotes"),
    "dash": ("  - prompt: - gull", 10, "a text that begins with - must be in quotes"),
    "star": ("  - prompt: *.jpg", 10, "a text that begins with * must be in quotes"),
    "no space after the colon": ("  - prompt:gull", 10, "a space is missing after the colon"),
    "indented too little": (" - prompt: a gull", 10, "this line does not fit the lines around it"),
    "indented too much": ("  - prompt: a gull\n       seed: 3", 11, "this line does not fit the lines around it"),
    "second document": ("---\n  - prompt: a gull", 10, "a second document begins here"),
    "nul": ("  - prompt: a\0gull", 10, "U+0000"),
    "escape": ("  - prompt: \x1b[31mgull", 10, "U+001B"),
    "line separator": ("  - prompt: a\u2028gull", 10, "U+2028"),
}  # fmt: skip


@pytest.mark.parametrize(("line", "number", "told"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_line_that_yaml_cannot_read_is_named_with_what_is_commonly_meant(
    folder: Path, line: str, number: int, told: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, GOOD.replace("  - prompt: a gull", line))
    assert caught.value.message.startswith(f"{folder / 'film.yaml'}:{number}: ")
    assert told in caught.value.message
    assert "gull" not in caught.value.message  # it may be a secret in a settings file


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (GOOD.encode("utf-16"), "film.yaml:1: not UTF-8"),
        (GOOD.replace("gull", "gu\u00ebll").encode("latin-1"), "film.yaml:10: not UTF-8"),
        (b"#" * (1024 * 1024 + 1), "larger than 1 MiB"),
        (b"a: " + b"[" * 5000, "too many levels"),
        (b"a: &a [x, x, x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c, c, c - 1, c - 1) for c in range(98, 115)), "too many"),
        (b"shots: &a [*a]", "too many"),
        (b"fps: 1" + b"0" * 5000, "film.yaml: Exceeds the limit"),
        (b"- a\n- b\n", "must hold keys and values"),
        (b"# nothing\n", "shots: it is required"),
    ],
    ids=["UTF-16", "Latin-1", "large", "deep", "laughs", "itself", "long", "list", "comments"],
)  # fmt: skip
def test_a_file_that_is_no_storyboard_is_refused_in_a_sentence(folder: Path, data: bytes, told: str) -> None:
    (folder / "film.yaml").write_bytes(data)
    with pytest.raises(VideoGenerationError, match=told):
        load_storyboard(folder / "film.yaml")


def test_keys_that_occur_twice_are_all_reported_beside_the_other_mistakes(folder: Path) -> None:
    text = GOOD.replace("frames: 33", "frames: 33\n    frames: 9\n    promt: x") + "title: Evening\n"
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, text)
    assert [caught.value.message.partition(": ")[2], *caught.value.evidence] == [
        "line 12: the key 'frames' is twice here, first in line 11",
        "line 13: shot 2: promt: there is no such key; did you mean prompt?",
        "line 18: the key 'title' is twice here, first in line 1",
    ]


def test_one_check_reports_every_mistake_of_every_kind(folder: Path) -> None:
    text = """\
title: 5
defaults: {fit: contian}
shots:
  - {id: one, prompt: a, image: nope.png}
  - {id: one, prompt: b, camera: pan_lft, steps: "8"}
  - {prompt: " ", frames: 9, seconds: 2}
  - prompt: shot #3
    frames: 010
"""
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, text)
    said = [caught.value.message, *caught.value.evidence]
    wanted = (
        "line 1: title",
        "line 2: defaults: fit",
        "nope.png",
        "the id 'one'",
        "pan_lft",
        "steps",
        "both given",
        "#3",
        "010",
    )
    assert [word for word in wanted if not any(word in line for line in said)] == []


def test_check_shows_each_shot_as_it_was_understood(folder: Path, reel: Callable[..., Any]) -> None:
    (folder / "film.yaml").write_text(GOOD)
    done = reel("storyboard", "check", "film.yaml", "--draft", cwd=folder)
    assert done.stdout.splitlines() == [
        'sea: "waves", from a.png, 48 frames (3 s), 832x480, draft',
        'shot-2: "a gull", continues sea, 33 frames (2.062 s), 832x480, draft',
        'shot-3: "sunrise", from a.png to b.png, 48 frames (3 s), 832x480, dissolve of 6 frames, draft',
        "ok",
    ]
    rows = json.loads(reel("storyboard", "check", "film.yaml", "--draft", "--json", cwd=folder).stdout)
    assert [(row["shot"], row["goes_on_from"], row["size"]) for row in rows] == [
        ("sea", None, "832x480"),
        ("shot-2", "sea", "832x480"),
        ("shot-3", None, "832x480"),
    ]
