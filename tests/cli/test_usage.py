"""What ``reel`` answers to a person who mistypes, asks for help, or completes words in a shell."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from reelwright.cli import COMMANDS, build_parser
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


TYPOS = [
    (("genrate", "a.png", "x"), "generate"),
    (("generat",), "generate"),
    (("generate", "a.png", "x", "--ouput", "a.mp4"), "--output"),
    (("film", "a.yaml", "--dry-rn"), "--dry-run"),
    (("storyboard", "chek", "a.yaml"), "check"),
    (("storyboard", "check", "a.yaml", "--drft"), "--draft"),
    (("generate", "a.png", "x", "--fit", "contian"), "contain"),
    (("help", "shwo"), "show"),
]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("words", "meant"), TYPOS, ids=[" ".join(row[0]) for row in TYPOS])
def test_what_was_meant_is_offered(reel: Reel, words: tuple[str, ...], meant: str, as_json: bool) -> None:
    done = reel(*words, *(["--json"] if as_json else []))
    assert done.returncode == 2
    if as_json:
        error = json.loads(done.stdout)
        assert error["code"] == "USAGE"
        assert f"Did you mean {meant}?" in error["advice"]
        assert done.stderr == ""
    else:
        assert f"Did you mean {meant}?" in done.stderr


@pytest.mark.parametrize(
    "words",
    [("gc", "films", "--yes"), ("gc", "--yes", "films"), ("--yes", "gc", "films"), ("--yes", "--", "gc", "films")],
)
def test_files_and_options_come_in_any_order(words: tuple[str, ...]) -> None:
    found = build_parser().parse_args(["film", *words])
    assert (found.storyboard, found.target, found.yes) == ("gc", Path("films"), True)


def test_an_unknown_command_lists_all(reel: Reel) -> None:
    assert "contact-sheet" in reel("frobnicate").stderr


def _every_parser() -> dict[str, object]:
    found = {}
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
]


@pytest.mark.parametrize(("words", "expected"), COMPLETED, ids=[" ".join(row[0]) for row in COMPLETED])
def test_bash_completes(reel: Reel, words: list[str], expected: list[str]) -> None:
    script = reel("completion", "bash").stdout
    quoted = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _reel; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", script + ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_accept_their_script(reel: Reel, shell: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(reel("completion", shell).stdout)
    assert "storyboard" in script.read_text()
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([program, "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
