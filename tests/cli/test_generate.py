"""`reel generate` with the draft: what programs read, what people see, and what signals leave behind."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import a_photo
from tests.small_disks import IN_NAMESPACE, Ended

Reel = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ("--size", "320x180", "--frames", "9", "--seed", "7")


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def last_object(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return value


def test_the_last_line_of_json_is_the_result_object(reel: Reel, photo: Path, tmp_path: Path) -> None:
    done = reel("generate", photo, "slow push in", "-o", "clip.mp4", *SMALL, "--json")
    assert done.returncode == 0
    result = last_object(done)
    assert result["output"] == str(tmp_path / "clip.mp4")
    assert result["manifest"] == str(tmp_path / "clip.reel.json")
    assert (result["width"], result["height"], result["frames"], result["fps"]) == (320, 180, 9, 16.0)
    assert (result["seconds"], result["attempts"], result["degraded"]) == (9 / 16, 1, False)
    assert result["warnings"] == []


def test_every_line_of_json_is_an_object_and_progress_reaches_the_end(reel: Reel, photo: Path) -> None:
    lines = reel("generate", photo, "hold", "-o", "clip.mp4", *SMALL, "--json").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    steps = [event["step"] for event in events if event.get("event") == "Progress"]
    assert steps == list(range(1, 10))


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_what_a_draft_is_stands_on_stderr_exactly_once(reel: Reel, photo: Path, more: tuple[str, ...]) -> None:
    done = reel("generate", photo, "hold", "-o", "clip.mp4", *SMALL, *more)
    assert sum("draft" in line for line in done.stderr.splitlines()) == 1
    assert "no model has generated anything" in done.stderr


def test_without_json_stdout_is_the_films_path_alone(reel: Reel, photo: Path, tmp_path: Path) -> None:
    done = reel("generate", photo, "hold", "-o", "clip.mp4", *SMALL)
    assert done.stdout == f"{tmp_path / 'clip.mp4'}\n"


def test_no_control_character_reaches_a_pipe(reel: Reel, photo: Path) -> None:
    done = reel("generate", photo, "hold \x1b[31m red \x07", "-o", "clip.mp4", *SMALL)
    assert done.returncode == 0
    assert all(character == "\n" or character.isprintable() for character in done.stdout + done.stderr)


FAILURES = {
    "no such picture": (("generate", "nowhere.png", "x", "-o", "a.mp4"), "INPUT", 10),
    "empty prompt": (("generate", "photo.png", "", "-o", "a.mp4"), "INPUT", 10),
    "wrong size": (("generate", "photo.png", "x", "-o", "a.mp4", "--size", "big"), "INPUT", 10),
    "wrong suffix": (("generate", "photo.png", "x", "-o", "a.avi"), "INPUT", 10),
    "no folder": (("generate", "photo.png", "x", "-o", "gone/a.mp4"), "INPUT", 10),
    "unknown setting": (("generate", "photo.png", "x", "-o", "a.mp4", "--set", "colour=red"), "CONFIG", 11),
    "unknown generator": (("generate", "photo.png", "x", "-o", "a.mp4", "--generator", "sora"), "CONFIG", 11),
    "no picture for a draft": (("generate", "-", "x", "-o", "a.mp4", "--generator", "draft"), "INPUT", 10),
    "wan2.1 not set up": (("generate", "photo.png", "x", "-o", "a.mp4", "--generator", "wan2.1"), "CONFIG", 11),
    "exists": (("generate", "photo.png", "x", "-o", "taken.mp4"), "EXISTS", 32),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_an_error_object_with_its_exit_status(reel: Reel, photo: Path, tmp_path: Path, case: str) -> None:
    arguments, code, status = FAILURES[case]
    (tmp_path / "taken.mp4").write_bytes(b"mine")
    before = listing(tmp_path)
    done = reel(*arguments, "--json")
    error = last_object(done)
    assert (error["code"], done.returncode) == (code, status), error
    assert set(error) - {"also"} == {"code", "message", "evidence", "advice"}
    assert error["advice"]
    assert listing(tmp_path) == before
    assert (tmp_path / "taken.mp4").read_bytes() == b"mine"


def test_a_mistake_on_the_command_line_is_status_2(reel: Reel) -> None:
    assert reel("generate").returncode == 2
    assert reel("nothing").returncode == 2


def test_d06_overwrite_replaces_and_skip_leaves_and_rename_gives_another_name(
    reel: Reel, photo: Path, tmp_path: Path
) -> None:
    film = ("generate", photo, "hold", "-o", "clip.mp4", *SMALL)
    reel(*film)
    first = (tmp_path / "clip.mp4").read_bytes()
    skipped = last_object(reel(*film, "--if-exists", "skip", "--json"))
    assert skipped["skipped"]
    renamed = last_object(reel(*film, "--if-exists", "rename", "--json"))
    assert renamed["output"] != str(tmp_path / "clip.mp4")
    assert (tmp_path / "clip.mp4").read_bytes() == first
    assert reel(*film, "--camera", "pan_left", "--overwrite").returncode == 0
    assert (tmp_path / "clip.mp4").read_bytes() != first


def test_d09_relative_names_are_of_the_callers_folder(reel: Reel, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    a_photo(inner / "p.png")
    done = reel("generate", "p.png", "hold", "-o", "../out.mp4", *SMALL, cwd=inner)
    assert done.returncode == 0
    assert (tmp_path / "out.mp4").exists()


def test_d09_a_deleted_folder_is_reported_as_such(photo: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = "import os, sys; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]); os.execv(sys.executable, sys.argv[2:])"
    argv = [sys.executable, "-m", "reelwright", "generate", str(photo), "x", "-o", "a.mp4"]
    done = subprocess.run([sys.executable, "-c", code, str(gone), *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 10
    assert "current folder" in done.stderr


def test_d10_a_hostile_folder_and_name_are_no_obstacle(reel: Reel, photo: Path, hostile_path: Path) -> None:
    target = hostile_path / "-o 🎬'\n.mp4"
    assert reel("generate", photo, "hold", "-o", target, *SMALL).returncode == 0
    assert target.exists()


# ------------------------------------------------------------------------------------------------------- signals


@pytest.fixture
def rendering(photo: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run that has begun to render and has a thousand frames to go."""
    (tmp_path / "out").mkdir()
    argv = [
        sys.executable,
        "-m",
        "reelwright",
        "generate",
        str(photo),
        "push in",
        "-o",
        str(tmp_path / "out" / "a.mp4"),
    ]
    argv += ["--size", "640x360", "--frames", "3000", "--json"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if '"Progress"' in line:
            break
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.close()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_p22_a_signal_leaves_nothing_half_made(
    rendering: subprocess.Popen[str], tmp_path: Path, number: int, status: int
) -> None:
    rendering.send_signal(number)
    output, _ = rendering.communicate(timeout=100)
    assert rendering.returncode == status
    assert json.loads(output.splitlines()[-1])["code"] == "CANCELLED"
    assert listing(tmp_path / "out") == set()


def test_a_killed_run_leaves_only_what_the_next_one_removes(
    rendering: subprocess.Popen[str], tmp_path: Path, reel: Reel, photo: Path
) -> None:
    rendering.kill()
    rendering.wait()
    assert not (tmp_path / "out" / "a.mp4").exists()
    assert reel("generate", photo, "hold", "-o", tmp_path / "out" / "b.mp4", *SMALL).returncode == 0
    assert listing(tmp_path / "out") == {"b.mp4", "b.reel.json"}


def test_d03_a_disk_without_room_is_reported_before_the_work(namespace: list[str], photo: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    argv = [sys.executable, "-m", "reelwright", "generate", str(photo), "x", "-o", str(small / "a.mp4"), "--json"]
    done = subprocess.run(
        [*namespace, sys.executable, "-c", IN_NAMESPACE, str(small), str(4 * 1024 * 1024), "empty", *argv],
        stdout=subprocess.PIPE, text=True, check=True, timeout=60,
    )  # fmt: skip
    ended = Ended(*json.loads(done.stdout))
    assert (ended.status, ended.names) == (30, [])


def test_skipping_a_film_without_its_manifest_is_refused_with_the_reason(
    reel: Reel, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"mine")
    done = reel("generate", photo, "x", "-o", "a.mp4", *SMALL, "--if-exists", "skip")
    assert done.returncode == 32
    assert "without its manifest" in done.stderr
    assert "--overwrite" in done.stderr


def test_a_length_beyond_the_limit_is_reported_as_it_was_asked(reel: Reel, photo: Path) -> None:
    assert "1e+09 s is longer" in reel("generate", photo, "x", "-o", "a.mp4", "--seconds", "1e9").stderr


# ------------------------------------------------------------------------------------------------------ terminal


def test_on_a_terminal_there_is_a_bar_with_phase_and_steps(photo: Path, tmp_path: Path) -> None:
    screen, terminal = pty.openpty()
    argv = [sys.executable, "-m", "reelwright", "generate", str(photo), "push in", "-o", str(tmp_path / "a.mp4")]
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    argv += ["--size", "640x360", "--frames", "81"]
    with subprocess.Popen(argv, stdin=terminal, stdout=terminal, stderr=terminal, env=env) as process:
        os.close(terminal)
        seen = b""
        while select.select([screen], [], [], 60)[0]:
            try:
                data = os.read(screen, 65536)
            except OSError:  # the other side is closed
                break
            seen += data
        assert process.wait() == 0
    os.close(screen)
    text = seen.decode()
    assert "rendering" in text
    assert "/81" in text
    assert "━" in text
    assert "no model\r\n  has generated anything" in text  # at 80 columns no word is cut


@pytest.mark.parametrize("command", ["plan", "generate"])
def test_every_mistake_of_a_command_line_is_reported_at_once(
    reel: Reel, photo: Path, tmp_path: Path, command: str
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("sample_stepz: 3\nfps: fast\n")
    arguments = ("nope.jpg", "", "--last-image", "no2.jpg", "--size", "big", "--frames", "x", "--seconds", "-1", "-o", "gone/a.mp4",
                 "--config", config, "--set", "nothing", "--set", "codec=vp9", "--overwrite", "--if-exists", "skip")  # fmt: skip
    text, data = reel(command, *arguments), reel(command, *arguments, "--json")
    assert (text.returncode, data.returncode) == (10, 10)
    error = last_object(data)
    said = [error["message"], *(item["message"] for item in error["also"])]
    for words in ("prompt is empty", "'big' is not a size", "num_frames", "seconds must be above 0", "both frames",
                  "nope.jpg", "no2.jpg", "gone does not exist", "'sample_stepz'", "fps: must be a number",
                  "'nothing' is not KEY=VALUE", "codec: must be", "--overwrite and --if-exists skip"):  # fmt: skip
        assert any(words in item for item in said), (words, said)
        assert words in text.stderr
    assert listing(tmp_path) == {"config.yaml", "photo.png"}


def test_a_picture_and_what_the_plan_finds_are_reported_together(reel: Reel) -> None:
    done = reel("plan", "nope.jpg", "x", "--fps", "0.5", "--camera", "teleport", "--anchor", "moon")
    assert done.returncode == 10
    for words in ("nope.jpg", "0.5 frames per second", "'teleport'", "'moon'"):
        assert words in done.stderr


@pytest.mark.parametrize(
    ("option", "setting"), [(("--gpus", "2"), "gpu_count=4"), (("--if-exists", "skip"), "if_exists=rename")]
)
def test_an_option_and_a_setting_that_disagree_are_a_mistake(
    reel: Reel, photo: Path, option: tuple[str, str], setting: str
) -> None:
    done = reel("plan", photo, "x", *option, "--set", setting)
    assert (done.returncode, "contradicts an option" in done.stderr) == (10, True)


def test_the_generator_auto_is_chosen_although_the_settings_name_one(reel: Reel, photo: Path) -> None:
    done = reel(
        "plan",
        photo,
        "x",
        "--generator",
        "auto",
        "--set",
        "output_dir=.",
        "--json",
        env={**os.environ, "REELWRIGHT_GENERATOR": "wan2.1"},
    )
    assert json.loads(done.stdout)["generator"] == "draft"
