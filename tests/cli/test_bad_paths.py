"""Every path that a command takes, and every way in which the operating system refuses one (F21)."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.errors import Failure
from tests.cli.bad_paths import outcome
from tests.conftest import REPOSITORY, a_photo

_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2
LONG = "n" * 300
DEEP = "d/" * 2500 + "x"

#: What a user may give as a file to read, and the code where nothing narrower is known of it.
INPUTS = {
    "missing": "INPUT", "dangling": "INPUT", "loop": "INPUT", "folder": "INPUT", "photo.png/x": "INPUT",
    "closed/x": "PERM", "secret": "PERM", LONG: "INPUT", DEEP: "INPUT", "/dev/full": "INPUT",
    "fifo": "INPUT", "sock": "INPUT", "a\0b": "INPUT", "": "INPUT", "~nobody-here/x": "INPUT", "\udcff": "INPUT",
    "x\x1b[31m\u202e.png": "INPUT",
}  # fmt: skip
#: What a user may give as a name to write, without its suffix.
OUTPUTS = (
    "missing/x", "dangling", "dangling/x", "loop/x", "folder", "photo.png/x", "closed/x", "readonly/x", LONG,
    f"{LONG}/x", DEEP, "/dev/full/x", "/proc/x", "/sys/x", "a\0b", "~nobody-here/x",
)  # fmt: skip
FOLDERS = ("dangling", "loop", "photo.png", "photo.png/x", "closed/x", LONG, DEEP, "/dev/full", "a\0b", "/proc/x")

#: Commands that open the path themselves: the code is that of the path.
READS = (
    ["probe"], ["show"], ["replay"], ["contact-sheet"], ["film"], ["film", "status"], ["storyboard", "check"],
    ["config", "--config"],
)  # fmt: skip
#: Pictures and settings, where another mistake may be found first or beside it.
TAKES = (
    ["generate", "{}", "p", "-o", "o.mp4"],
    ["setup", "wan2.1", "--dry-run", "--weights-source", "{}"],
)
#: The intake of pictures is the same for each of them, and decodes the first one before: fewer paths will do.
MORE_PICTURES = (
    ["generate", "photo.png", "p", "-o", "o.mp4", "--last-image", "{}"],
    ["generate", "photo.png", "p", "-o", "o.mp4", "--depth", "{}"],
)
WRITES = (
    (["generate", "photo.png", "p", "-o", "{}"], ".mp4"),
    (["replay", "clip.mp4", "-o", "{}"], ".mp4"),
    (["film", "good.yaml", "--draft", "-o", "{}"], ".mp4"),
    (["storyboard", "init", "{}"], ".yaml"),
    (["contact-sheet", "clip.mp4", "-o", "{}"], ".png"),
)
USES = (
    ["film", "gc", "{}"],
    ["setup", "wan2.1", "--dry-run", "--dir", "{}"],
    ["generate", "photo.png", "p", "--set", "output_dir={}"],
)
VARIABLES = ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TMPDIR", "REELWRIGHT_CONFIG")
UNUSABLE = ("loop", "closed", LONG)

Outcomes = Callable[[list[tuple[list[str], dict[str, str]]]], list[tuple[Any, str, str]]]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with everything that is not a plain file of one's own, and with a clip and a storyboard that are."""
    folder = tmp_path_factory.mktemp("ground")
    a_photo(folder / "photo.png", (160, 96))
    (folder / "dangling").symlink_to("nowhere")
    (folder / "dangling.mp4").symlink_to("nowhere.mp4")
    (folder / "dangling.yaml").symlink_to("nowhere/x")
    (folder / "dangling.png").symlink_to("nowhere.png")
    (folder / "loop").symlink_to("loop")
    for name in ("folder", "folder.mp4", "folder.yaml", "folder.png", "closed", "readonly"):
        (folder / name).mkdir()
    shutil.copy(folder / "photo.png", folder / "secret")
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(folder)  # the name of a socket has 107 bytes at most
        try:
            listening.bind("sock")
            words = ["generate", "photo.png", "push in", "-o", "clip.mp4", "--frames", "5", "--size", "160x96"]
            assert outcome(words, {"XDG_STATE_HOME": str(folder / "state")})[0] == 0
        finally:
            os.chdir(here)
        (folder / "good.yaml").write_text("size: 160x96\nshots:\n- {prompt: p, image: photo.png, frames: 5}\n")
        for name, mode in (("secret", 0), ("closed", 0), ("readonly", 0o555)):
            (folder / name).chmod(mode)
        yield folder
    for name in ("closed", "readonly"):
        (folder / name).chmod(0o755)


@pytest.fixture(scope="module")
def outcomes(ground: Path) -> Outcomes:
    """Run command lines in the folder as a user for whom rights hold, root's too."""

    def drop() -> None:
        libc = ctypes.CDLL(None)
        for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)

    def run(cases: list[tuple[list[str], dict[str, str]]]) -> list[tuple[Any, str, str]]:
        (ground / "cases.json").write_text(json.dumps(cases))
        done = subprocess.run(
            [sys.executable, "-m", "tests.cli.bad_paths", "cases.json"],
            cwd=ground, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=True, timeout=100, preexec_fn=drop,
        )  # fmt: skip
        found: list[tuple[Any, str, str]] = json.loads(done.stdout)
        return found

    return run


def problem(words: list[str], got: tuple[Any, str, str], codes: set[str]) -> str | None:
    """What is wrong with an outcome; ``None`` if it is one sentence with one of the codes and its exit status."""
    status, _, said = got
    first, *rest = said.splitlines() or [""]
    code = first.removeprefix("reel: ").partition(":")[0]
    fine = first.startswith("reel: ") and code in codes and status == Failure[code].exit_status
    one_sentence = all(line.startswith(("  fix: ", "  | ")) for line in rest) and len(first) < 500
    clean = not any(ord(character) < 32 or character == "\u202e" for line in (first, *rest) for character in line)
    return None if fine and one_sentence and clean else f"{[word[:40] for word in words]}: {status}: {said[:300]!r}"


def made(folder: Path) -> set[Path]:
    """Everything in a folder but the store of clips and the list of cases."""
    return {path for path in folder.rglob("*") if path.name != "cases.json" and ".reel" not in path.parts}


def filled(words: list[str], path: str) -> list[str]:
    return [word.replace("{}", path) for word in words]


def test_a_path_that_cannot_be_read_has_the_code_of_its_reason(outcomes: Outcomes) -> None:
    cases = [([*words, path], code) for words in READS for path, code in INPUTS.items()]
    found = outcomes([(words, {}) for words, _ in cases])
    wrong = [problem(words, got, {code}) for (words, code), got in zip(cases, found, strict=True)]
    assert "\n".join(filter(None, wrong)) == ""


def test_a_picture_a_storyboard_or_a_source_that_cannot_be_read_is_reported_in_one_sentence(outcomes: Outcomes) -> None:
    cases = [filled(words, path) for words in TAKES for path in INPUTS]
    cases += [filled(words, path) for words in MORE_PICTURES for path in ("closed/x", "loop", LONG, "a\0b")]
    found = outcomes([(words, {}) for words in cases])
    codes = {"INPUT", "PERM", "CONFIG", "MODEL", "ENV"}
    wrong = [problem(words, got, codes) for words, got in zip(cases, found, strict=True) if got[0] != 0]
    assert "\n".join(filter(None, wrong)) == ""


def test_a_picture_or_sound_that_a_storyboard_names_is_reported_in_one_sentence(
    outcomes: Outcomes, ground: Path
) -> None:
    cases = []
    for number, path in enumerate(INPUTS):
        name = json.dumps(path)
        for role, text in (
            ("image", f"size: 160x96\nshots:\n- {{prompt: p, frames: 5, image: {name}}}\n"),
            ("audio", f"size: 160x96\naudio: {{file: {name}}}\nshots:\n- {{prompt: p, frames: 5, image: photo.png}}\n"),
        ):
            (ground / f"{role}-{number}.yaml").write_text(text)
            cases.append(["storyboard", "check", f"{role}-{number}.yaml", "--draft"])
    found = outcomes([(words, {}) for words in cases])
    wrong = [problem(words, got, {"INPUT", "PERM", "CONFIG"}) for words, got in zip(cases, found, strict=True)]
    assert "\n".join(filter(None, wrong)) == ""


def test_a_path_that_cannot_be_written_is_reported_in_one_sentence_and_nothing_is_made(
    outcomes: Outcomes, ground: Path
) -> None:
    before = made(ground)
    cases = [filled(words, path + suffix) for words, suffix in WRITES for path in OUTPUTS]
    found = outcomes([(words, {}) for words in cases])
    codes = {"INPUT", "PERM", "EXISTS"}
    wrong = [problem(words, got, codes) for words, got in zip(cases, found, strict=True)]
    assert "\n".join(filter(None, wrong)) == ""
    assert made(ground) == before


def test_a_folder_that_cannot_be_used_is_reported_in_one_sentence(outcomes: Outcomes) -> None:
    cases = [filled(words, path) for words in USES for path in FOLDERS]
    found = outcomes([(words, {}) for words in cases])
    codes = {"INPUT", "PERM", "CONFIG", "DISK"}
    shown = [got[0] in (0, 30) or "NOT WRITABLE" in got[1] for got in found]  # a dry run shows it in its table
    wrong = [problem(words, got, codes) for words, got, seen in zip(cases, found, shown, strict=True) if not seen]
    assert "\n".join(filter(None, wrong)) == ""


def test_a_home_or_a_folder_of_state_that_cannot_be_used_is_never_called_a_bug(
    outcomes: Outcomes, ground: Path
) -> None:
    words = ["plan", "photo.png", "p"]
    cases = [(words, {name: str(ground / path)}) for name in VARIABLES for path in UNUSABLE]
    cases += [(["config"], {name: str(ground / path)}) for name in ("HOME", "TMPDIR") for path in UNUSABLE]
    found = outcomes(cases)
    codes = {"CONFIG", "PERM", "STATE", "ENV", "INPUT"}
    wrong = [problem(case[0], got, codes) for case, got in zip(cases, found, strict=True) if got[0] != 0]
    assert "\n".join(filter(None, wrong)) == ""


def test_a_store_of_clips_that_belongs_to_another_user_is_reported_before_a_film_is_made(
    outcomes: Outcomes, ground: Path
) -> None:
    store = ground / "shared" / ".reel"
    store.mkdir(parents=True)
    store.chmod(0)
    [(status, plan, _)] = outcomes([(["film", "good.yaml", "--draft", "--dry-run", "-o", "shared/x.mp4"], {})])
    store.chmod(0o700)
    assert status == Failure.PERM.exit_status
    assert "shared/.reel cannot be written: permission was denied" in plan


def test_a_clip_is_made_although_the_folder_of_state_and_the_home_cannot_be_used(
    outcomes: Outcomes, ground: Path
) -> None:
    words = ["generate", "photo.png", "p", "--frames", "5", "--size", "160x96", "-o", "stateless.mp4"]
    closed = {name: str(ground / "closed") for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")}
    [(status, _, said)] = outcomes([(words, closed)])
    assert status == 0, said
    assert (ground / "stateless.mp4").is_file()
