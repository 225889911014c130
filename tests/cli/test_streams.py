"""Standard streams that are closed, full, ASCII only or without a reader change nothing of a run."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from reelwright.cli import main
from tests.conftest import eventually

REEL = [sys.executable, "-m", "reelwright"]


def make(photo: Path, *more: str) -> list[str]:
    words = ["generate", str(photo), "push in é", "-o", str(photo.with_name("out.mp4")), "--generator", "draft"]
    return [*REEL, *words, "--seconds", "1", "--size", "320x180", *more]


@contextlib.contextmanager
def without_a_reader() -> Iterator[int]:
    """The end of a pipe whose reader is gone before the command starts, however slow this process is."""
    read, write = os.pipe()
    os.close(read)
    try:
        yield write
    finally:
        os.close(write)


def warnings_of(photo: Path) -> str:
    return " ".join(json.loads(photo.with_name("out.reel.json").read_text())["warnings"])


SHELL = {
    "stdout closed": ("{} >&-", ""),
    "stderr closed": ("{} 2>&-", ""),
    "all closed": ("{} <&- >&- 2>&-", ""),
    "stdout full": ("{} >/dev/full", ""),
    "stderr full": ("{} 2>/dev/full", "standard error could not be written: No space left"),
    "both full": ("{} >/dev/full 2>/dev/full", "could not be written"),
    "json full": ("{} --json >/dev/full", "standard output could not be written: No space left"),
}


@pytest.mark.parametrize(("line", "noted"), SHELL.values(), ids=SHELL)
def test_a_stream_that_cannot_be_written_does_not_change_the_run(photo: Path, line: str, noted: str) -> None:
    quoted = " ".join(f"'{word}'" for word in make(photo))
    done = subprocess.run(["sh", "-c", line.format(quoted)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert photo.with_name("out.mp4").stat().st_size > 1000
    assert noted in warnings_of(photo)
    probe = subprocess.run([*REEL, "probe", str(photo.with_name("out.mp4"))], capture_output=True, check=False)
    assert probe.returncode == 0


def test_a_json_reader_that_goes_away_does_not_end_the_run(photo: Path) -> None:
    words = make(photo, "--json")
    words[words.index("--seconds") + 1] = "8"  # its lines do not fit in the pipe
    process = subprocess.Popen(words, 0, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pipesize=4096)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
    assert photo.with_name("out.mp4").exists()
    assert "its reader is gone" in warnings_of(photo)


def test_a_film_without_a_reader_is_finished(photo: Path) -> None:
    board = photo.with_name("board.yaml")
    board.write_text(f"size: 320x180\ndefaults: {{seconds: 1}}\nshots:\n- {{image: {photo.name}, prompt: push in}}\n")
    words = [*REEL, "film", str(board), "-o", str(photo.with_name("out.mp4")), "--draft", "--json"]
    with without_a_reader() as stdout:
        assert subprocess.run(words, stdout=stdout, stderr=subprocess.DEVNULL, timeout=90, check=False).returncode == 0
    assert "its reader is gone" in warnings_of(photo)


def test_ctrl_c_still_stops_a_run_that_nobody_reads(photo: Path) -> None:
    words = [*make(photo, "--json")]
    words[words.index("--seconds") + 1] = "600"  # much is left to do, however late the signal comes
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    while b"rendering" not in process.stdout.readline():
        pass
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(100) == 130
    assert not photo.with_name("out.mp4").exists()


@contextlib.contextmanager
def on_a_terminal_that_stands_still(words: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """A command in a terminal that takes no more text once rendering has begun, as after Ctrl-S; with both ends."""
    screen, terminal = pty.openpty()
    with subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        seen = b""
        while b"rendering" not in seen:
            assert select.select([screen], [], [], 60)[0], seen
            seen += os.read(screen, 65536)
        termios.tcflow(terminal, termios.TCOOFF)
        yield process, screen, terminal
    os.close(screen)
    os.close(terminal)


def test_a_run_on_a_terminal_that_stands_still_ends_at_ctrl_c(photo: Path) -> None:
    words = make(photo)
    words[words.index("--seconds") + 1] = "600"
    with on_a_terminal_that_stands_still(words) as (process, _, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(100) == 130
    assert {path.name for path in photo.parent.iterdir()} == {photo.name}


def test_a_run_on_a_terminal_that_stands_still_goes_on_and_its_report_is_kept(photo: Path) -> None:
    words = make(photo)
    words[words.index("--seconds") + 1] = "30"
    with on_a_terminal_that_stands_still(words) as (process, screen, terminal):
        eventually(photo.with_name("out.mp4").exists)
        assert process.poll() is None
        termios.tcflow(terminal, termios.TCOON)
        seen = b""
        while b"out.mp4" not in seen:
            assert select.select([screen], [], [], 60)[0], seen
            seen += os.read(screen, 65536)
        assert process.wait(60) == 0


@pytest.mark.parametrize("as_json", [False, True])
def test_streams_that_can_only_write_ascii_lose_nothing(photo: Path, as_json: bool) -> None:
    picture = photo.rename(photo.with_name("Käse 🎬.png"))
    words = [*REEL, "plan", str(picture), "push in é", "--generator", "draft", *(["--json"] if as_json else [])]
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(words, capture_output=True, env=env, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    if as_json:
        assert json.loads(done.stdout)["generator"] == "draft"


def test_a_file_name_survives_an_ascii_stream_inside_json(photo: Path) -> None:
    words = [*REEL, "probe", str(photo.with_name("Käse 🎬.mp4")), "--json"]
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(words, capture_output=True, env=env, timeout=60, check=False)
    assert "Käse 🎬.mp4" in json.loads(done.stdout)["message"]


AMONG_THE_IMPORTS = """
import os, runpy, signal, sys
class Stroke:
    def find_spec(self, name, *_):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Stroke())
signal.signal(signal.SIGINT, signal.default_int_handler)
wanted, sys.argv[1:] = sys.argv[-1], ["plan", "photo.png", "push in"]
runpy.run_module("reelwright", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("module", "status", "said"),
    [
        ("reelwright.cli", -signal.SIGINT, ""),
        ("reelwright.cli.show", -signal.SIGINT, ""),
        ("reelwright.config.settings", 130, "reel: CANCELLED"),
    ],
)
def test_ctrl_c_among_the_imports_ends_it_without_a_traceback(module: str, status: int, said: str) -> None:
    words = [sys.executable, "-c", AMONG_THE_IMPORTS, module]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr[: len(said) or None]) == (status, said)


@pytest.mark.filterwarnings("default")
def test_a_warning_of_a_library_reaches_the_terminal_without_control_characters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    main(["completion", "bash"])
    warnings.warn("a name\x1b[31m\u202e", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: a name\\x1b[31m\\u202e (UserWarning)\n"


@pytest.mark.parametrize("words", [("storyboard", "init", "Käse.yaml", "--json")], ids=" ".join)
def test_json_is_plain_ascii(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 0
    assert capsys.readouterr().out.isascii()


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_an_answer_that_cannot_be_written_is_an_error(more: tuple[str, ...]) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([*REEL, "config", *more], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr.splitlines()[0][:11]) == (30, b"reel: DISK:")
    assert b"Traceback" not in done.stderr


def test_a_reader_that_is_gone_from_a_table_is_said_by_the_exit_status() -> None:
    with without_a_reader() as stdout:
        done = subprocess.run([*REEL, "config"], stdout=stdout, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (141, b"")
