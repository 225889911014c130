"""What ``reel`` answers to a person who mistypes, asks for help, or completes words in a shell."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from reelwright.cli import COMMANDS, build_parser, main
from reelwright.cli.parser import subcommands

Reel = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("words", [(), ("help",), ("--help",)])
def test_every_command_is_listed(reel: Reel, words: tuple[str, ...]) -> None:
    done = reel(*words)
    assert done.returncode == 0
    assert all(name.replace("_", "-") in done.stdout for name in COMMANDS)


def test_help_of_a_command_is_that_of_its_option(reel: Reel) -> None:
    assert reel("help", "storyboard", "check").stdout == reel("storyboard", "check", "--help").stdout


@pytest.mark.parametrize("word", ["-v", "-V", "--version"])
def test_the_version_has_every_usual_name(reel: Reel, word: str) -> None:
    assert reel(word).stdout.startswith("reel ")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[tuple[str, str, str]]]:
    """The exit status, and every mistake as code, message and fix; the text for people says the same."""
    status = main([*words, "--json"])
    out = capsys.readouterr()
    assert out.err == ""
    (line,) = out.out.splitlines()
    error = json.loads(line)
    found = [(item["code"], item["message"], item["advice"]) for item in (error, *error.get("also", ()))]
    assert main(list(words)) == status
    text = capsys.readouterr().err
    for code, message, fix in found:
        assert f"reel: {code}: {message}\n" + (f"  fix: {fix}\n" if fix else "") in text
    return status, found


TYPOS = [
    ("genrate a.png x", "generate"),
    ("generat", "generate"),
    ("generate a.png x --ouput a.mp4", "--output"),
    ("generate --ouput a.mp4 a.png x", "--output"),
    ("generate a.png x --frame_num 81", "--frames"),
    ("plan a.png x --width 640", "--size"),
    ("film a.yaml --dry-rn", "--dry-run"),
    ("storyboard chek a.yaml", "check"),
    ("storyboard check a.yaml --drft", "--draft"),
    ("generate a.png x --fit contian", "contain"),
    ("help shwo", "show"),
]


@pytest.mark.parametrize(("words", "meant"), TYPOS)
def test_what_was_meant_is_offered(capsys: pytest.CaptureFixture[str], words: str, meant: str) -> None:
    status, found = said(capsys, *words.split())
    assert (status, found[0][0]) == (2, "USAGE")
    assert f"Did you mean {meant}?" in found[0][2]


@pytest.mark.parametrize(
    "words",
    [("gc", "films", "--yes"), ("gc", "--yes", "films"), ("--yes", "gc", "films"), ("--yes", "--", "gc", "films")],
)
def test_files_and_options_come_in_any_order(words: tuple[str, ...]) -> None:
    found = build_parser().parse_args(["film", *words])
    assert (found.storyboard, found.target, found.yes) == ("gc", Path("films"), True)


@pytest.mark.parametrize("words", ["generate a.png x --frobnicate", "frobnicate", "generate a.png x --fit bad"])
def test_what_is_like_nothing_gets_no_guess(capsys: pytest.CaptureFixture[str], words: str) -> None:
    assert "Did you mean" not in said(capsys, *words.split())[1][0][2]


USAGE_MISTAKES = [
    ("generate", ["IMAGE and PROMPT are missing"]),
    ("generate nope.jpg x --fit bad --steps", ["--steps needs a value", "--fit: there is no 'bad'", "/nope.jpg cannot be read"]),
    ("plan nope.jpg x --codec vp9 --oputut gone/a.mp4 --set nothing --steps 0 --frobnicate 7",
     ["no option --oputut", "no option --frobnicate", "--codec: there is no 'vp9'", "steps must be above 0",
      "--set 'nothing' is not KEY=VALUE", "gone does not exist", "/nope.jpg cannot be read"]),
    ("plan --frobnicate 7 --foo 8 nope.jpg x", ["no option --frobnicate", "no option --foo", "/nope.jpg cannot be read"]),
    ("plan nope.jpg slow push in", ["these words are not expected: push in", "/nope.jpg cannot be read"]),
    ("plan nope.jpg x --si 3 --overwrite=yes", ["--si is short for", "--overwrite takes no value", "/nope.jpg cannot be read"]),
    ("plan a.png --fit bad --size big", ["--fit: there is no 'bad'", "PROMPT is missing", "'big' is not a size"]),
    ("plan a.png x --negative-prompt -blurry", ["no option -blurry", "--negative-prompt needs a value", "a.png cannot be read"]),
    ("contact-sheet a.mp4 --count x --columns y", ["--count must be a whole number", "--columns must be a whole number"]),
    ("film --only one a.yaml", ["STORYBOARD is missing"]),
    ("film a.yaml --drft --yes --set fps=9 --gpus 0", ["no option --drft", "--yes has no effect", "--set fps=9 has no effect",
     "--gpus 0 asks for no GPU", "a.yaml cannot be read"]),
    ("film gc . --yse=1 --cnofig", ["no option --yse", "no option --cnofig"]),
    ("doctor extra --frobnicate --set nothing", ["no option --frobnicate", "not expected: extra", "'nothing' is not KEY=VALUE"]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "expected"), USAGE_MISTAKES, ids=[row[0] for row in USAGE_MISTAKES])
def test_mistakes_of_the_words_come_together_with_each_other_and_with_those_of_the_request(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, expected: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, found = said(capsys, *words.split())
    messages = [message for _, message, _ in found]
    assert status == 2
    assert [any(part in message for message in messages) for part in expected] == [True] * len(expected), messages
    assert len(messages) == len(expected), messages


def test_all_mistakes_of_a_cleaning_come_together(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = said(capsys, *["film", "gc", ".", "--yes", "--dry-run", "--grace", "-1", "--draft"])
    assert (status, len(found)) == (10, 3)


VALUES = [
    ("plan a.png x --generator wan21", "Did you mean wan2.1?"),
    ("generators hunyan", "Did you mean hunyuan?"),
    ("setup wan21", "Did you mean wan2.1?"),
    ("setup wan2.1 --models i2v720p --dry-run", "Did you mean i2v-720p?"),
    ("config --set retry_policy=documentd", "Did you mean documented?"),
    ("config --set speed=fsat", "Did you mean fast?"),
    ("plan a.png x --allow-degrade frame", "Did you mean frames?"),
    ("completion zhs", "Did you mean zsh?"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "fix"), VALUES)
def test_a_value_that_nearly_exists_gets_what_was_meant(
    capsys: pytest.CaptureFixture[str], words: str, fix: str
) -> None:
    assert fix in said(capsys, *words.split())[1][0][2]


def test_an_anchor_is_refused_once_and_a_picture_has_no_contact_sheet(
    capsys: pytest.CaptureFixture[str], photo: Path
) -> None:
    status, found = said(capsys, "plan", str(photo), "x", "--anchor", "topp")
    assert (status, [message for _, message, _ in found]) == (10, ["'topp' is not an anchor"])
    status, found = said(capsys, "contact-sheet", str(photo))
    assert (status, [message for _, message, _ in found]) == (10, [f"{photo} is not a video: it is a PNG picture"])


def test_the_parameters_of_a_plan_and_of_a_clip_are_no_python(
    capsys: pytest.CaptureFixture[str], photo: Path, tmp_path: Path
) -> None:
    words = [
        str(photo),
        "x",
        "--camera",
        "pan_left tilt_up",
        "--size",
        "96x64",
        "--frames",
        "2",
        "-o",
        str(tmp_path / "a.mp4"),
    ]
    assert main(["plan", *words]) == main(["generate", *words]) == main(["show", words[-1]]) == 0
    out = capsys.readouterr().out
    assert "camera=pan_left,tilt_up" in out
    assert not re.search(r"[\[{]['0-9]", out), out


LATE = [
    (("film", "gc", "--dry-run", "here"), {"target": Path("here")}),
    (("film", "status", "--draft", "film.yaml"), {"target": Path("film.yaml")}),
    (("help", "--json", "storyboard", "check"), {"topic": ["storyboard", "check"]}),
    (("help", "storyboard", "--json", "check"), {"topic": ["storyboard", "check"]}),
]


@pytest.mark.parametrize(("words", "expected"), LATE)
def test_an_argument_that_may_be_left_out_may_also_come_after_options(
    words: list[str], expected: dict[str, object]
) -> None:
    arguments, mistakes = build_parser().read(words)
    assert mistakes == []
    assert {name: getattr(arguments, name) for name in expected} == expected


def test_an_unknown_command_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert "contact-sheet" in said(capsys, "frobnicate")[1][0][2]


def _every_parser() -> dict[str, object]:
    found: dict[str, object] = {}
    for name, parser in subcommands(build_parser()).items():
        below = subcommands(parser)
        found.update({f"{name} {inner}": deeper for inner, deeper in below.items()} or {name: parser})
    return found


def test_every_command_takes_json() -> None:
    missing = [name for name, parser in _every_parser().items() if "--json" not in parser.format_help()]  # type: ignore[attr-defined]
    assert missing == []


def test_small_commands_answer_in_json(reel: Reel, tmp_path: Path) -> None:
    assert json.loads(reel("storyboard", "init", "a.yaml", "--json", cwd=tmp_path).stdout) == {"output": "a.yaml"}
    assert json.loads(reel("storyboard", "schema", "--json").stdout)["type"] == "object"
    assert json.loads(reel("help", "--json").stdout)["command"] == "reel"


COMPLETED = [
    (["reel", "gene"], ["generate", "generators"]),
    (["reel", "storyboard", "ch"], ["check"]),
    (["reel", "generate", "a.png", "x", "--over"], ["--overwrite"]),
    (["reel", "generate", "--fit", ""], ["cover", "contain", "stretch"]),
    (["reel", "generate", "--generator", "dr"], ["draft"]),
    (["reel", "film", "sta"], ["status"]),
    (["reel", "generators", "hun"], ["hunyuan"]),
    (["reel", "setup", "wan"], ["wan2.1"]),
    (["reel", "help", "contact"], ["contact-sheet"]),
]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_shells_complete_commands_options_and_values(
    capsys: pytest.CaptureFixture[str], shell: str, tmp_path: Path
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    main(["completion", shell])
    ask = "" if shell == "bash" else "emulate sh\n"  # as zsh calls the functions of bash
    for words, _ in COMPLETED:
        quoted = " ".join(f"'{word}'" for word in words)
        ask += f'COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _reel; echo "${{COMPREPLY[@]}}"\n'
    script = "compdef() { :; }\n" + capsys.readouterr().out + ask
    plain = {"bash": ["bash", "--norc"], "zsh": ["zsh", "-f"]}[shell]
    done = subprocess.run([*plain, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr == ""
    offered = [line.split() for line in done.stdout.splitlines()]  # zsh itself leaves out what does not begin so
    found = [
        [word for word in line if word.startswith(words[-1])]
        for line, (words, _) in zip(offered, COMPLETED, strict=True)
    ]
    assert found == [expected for _, expected in COMPLETED]


def test_fish_completes_commands_options_and_values(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["completion", "fish"])
    script = capsys.readouterr().out
    assert "storyboard" in script
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    ask = "".join(
        f"complete -C '{' '.join(words)}' | string replace -r '\\t.*' '' | string join ' '\n" for words, _ in COMPLETED
    )
    command = ["fish", "--no-config", "-c", script + ask]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stderr == ""
    found = [sorted(line.split()) for line in done.stdout.splitlines()]
    assert found == [sorted(expected) for _, expected in COMPLETED]
