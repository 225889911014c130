"""Disks that are full, small, read-only or failing, and outputs in the way, in whole runs: rows D01 to D10.

The small disks are real ones (tests/small_disks.py). D08 (kill at every point of publishing) is
in tests/runs/test_publish.py.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.errors import BackendUnavailableError, Failure
from reelwright.core.events import Event, Phase
from reelwright.core.manifest import manifest_path
from reelwright.media.verification import examine
from reelwright.runs import workspace
from reelwright.runs.order import Order
from reelwright.runs.recovery import recover
from reelwright.runs.runner import generate
from tests.conftest import a_photo, eventually
from tests.runs.test_publish import FailsAt
from tests.small_disks import IN_NAMESPACE, Ended
from tests.stand_ins.checkout import launches
from tests.wan21.conftest import WanMachine

MIB = 1024 * 1024
OnDisk = Callable[..., Ended]


@pytest.fixture
def on_disk(wan: WanMachine, namespace: Sequence[str]) -> OnDisk:
    """Runs `reel generate` with a disk of so many bytes on a folder; it may be ``full`` or ``read-only``."""

    def call(folder: Path, size: int, *arguments: object, kind: str = "empty", **settings: Any) -> Ended:
        words = [*namespace, sys.executable, "-c", IN_NAMESPACE, str(folder), str(size), kind]
        argv = [*words, *wan.command(*arguments, **settings)]
        env = {**os.environ, **wan.environ}
        done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, env=env, timeout=100)
        return Ended(*json.loads(done.stdout))

    return call


# -------------------------------------------------------------------------------------------------- D01: full at the end


@pytest.mark.parametrize("write", ["ok", "none"])
def test_d01_a_disk_that_is_full_at_the_save_is_disk_and_not_tried_again(
    wan: WanMachine, on_disk: OnDisk, write: str
) -> None:
    wan.script({"fill_disk": True, "fill_disk_mb": 200, "write": write})
    ended = on_disk(wan.output.parent, 100 * MIB)
    assert (ended.status, ended.names) == (30, [])
    assert "disk is full" in ended.err
    record = wan.record()
    assert [attempt.failure for attempt in record.attempts] == ["DISK"]
    assert record.error is not None
    assert "Free some space, then run the same command again" in record.error["advice"]
    assert len(launches(wan.checkout)) == 1
    wan.check()


def test_d01_on_a_disk_with_almost_enough_room_there_is_a_complete_clip_with_its_manifest_or_nothing(
    wan: WanMachine, on_disk: OnDisk
) -> None:
    wan.script({"fill_disk": True, "fill_disk_mb": 80})
    statuses = []
    for kilobytes in range(24, 129, 16):  # the picture, the log, the film, its copy with our tags, the manifest
        ended = on_disk(wan.output.parent, 80 * MIB + kilobytes * 1024)
        assert ended.names == ([] if ended.status else ["clip.mp4", "clip.reel.json"]), (kilobytes, ended)
        statuses.append(ended.status)
        wan.check()
    assert sorted(set(statuses)) == [0, 30]
    assert statuses == sorted(statuses, reverse=True)


def test_d01_with_space_again_the_same_command_makes_the_clip(wan: WanMachine, on_disk: OnDisk) -> None:
    wan.script({"fill_disk": True, "fill_disk_mb": 200}, {})
    assert on_disk(wan.output.parent, 100 * MIB).status == 30
    assert wan.finish(wan.start()).status == 0
    wan.check()


# ------------------------------------------------------------------------------------------- D02: full state folder


def test_d02_a_full_state_folder_does_not_cost_the_clip(wan: WanMachine, on_disk: OnDisk) -> None:
    ended = on_disk(wan.state_dir, 64 * 1024, kind="full")
    assert ended.status == 0, ended.err
    assert wan.published().state == "completed"
    wan.check()


def test_d02_a_full_state_folder_does_not_change_what_a_failure_is_called(wan: WanMachine, on_disk: OnDisk) -> None:
    wan.script({"exit": 3})
    ended = on_disk(wan.state_dir, 64 * 1024, kind="full", retry_policy="none")
    assert ended.status == 28
    assert "reel: FRAMEWORK:" in ended.err
    kept = re.search(r"log: (\S+attempt-1.log)", ended.err)  # where the state folder could not take it
    assert kept
    assert Path(kept[1]).is_relative_to(wan.environ["TMPDIR"])
    assert Path(kept[1]).read_text()
    wan.check()


def test_d02_a_log_that_cannot_be_written_kills_no_child(wan: WanMachine, on_disk: OnDisk) -> None:
    wan.script({"fill_disk": True, "fill_disk_mb": 200, "at": "step 1", "write": "ok", "step_s": 0.05})
    ended = on_disk(wan.output.parent, 100 * MIB)
    assert ended.status == 30
    assert wan.record().attempts[0].exit_status == 0
    wan.check()


# ---------------------------------------------------------------------------------------------- D03, D05: preflight


def test_d03_too_little_space_is_reported_before_the_gpu_is_touched(wan: WanMachine, on_disk: OnDisk) -> None:
    ended = on_disk(wan.output.parent, 30 * MIB)
    assert (ended.status, ended.names) == (30, [])
    assert "0.03 GiB are free" in ended.err
    assert launches(wan.checkout) == []
    wan.check()


def test_d05_a_read_only_disk_is_reported_before_the_gpu_is_touched(wan: WanMachine, on_disk: OnDisk) -> None:
    ended = on_disk(wan.output.parent, 100 * MIB, kind="read-only")
    assert (ended.status, ended.names) == (31, [])
    assert launches(wan.checkout) == []
    wan.check()


def test_d05_a_missing_folder_is_reported_before_the_gpu_is_touched(wan: WanMachine) -> None:
    status, err = refused(wan.start("-o", wan.output.parent / "no" / "clip.mp4"))
    assert (status, launches(wan.checkout)) == (10, [])
    assert "mkdir -p" in err
    wan.check()


def refused(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and message."""
    _, err = process.communicate(timeout=100)
    return process.returncode, err


# ------------------------------------------------------------------------------------------------ D04: failing calls


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_d04_whichever_call_of_publishing_fails_the_run_ends_with_all_or_nothing(
    wan: WanMachine, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    wan.script({})
    for number in itertools.count(1):
        files = FailsAt(number, error)
        monkeypatch.setattr(workspace, "FileSystem", lambda files=files: files)
        order = Order(wan.request(), wan.settings(), wan.output)
        try:
            generate(order, site=wan.site)
        except BackendUnavailableError as caught:
            assert caught.failure is Failure.DISK  # noqa: PT017 -- the call may also succeed
            assert not wan.output.exists()
        else:
            monkeypatch.undo()
            recover(wan.output.parent)  # as the next run here does
            assert wan.published().state == "completed"
        wan.check()
        if files.left > 0:
            break
        wan.output.unlink(missing_ok=True)
        manifest_path(wan.output).unlink(missing_ok=True)
    assert number > 6


# ------------------------------------------------------------------------------------------- D06, D07: one name, twice


def test_d06_an_existing_clip_is_refused_before_the_gpu_is_touched(wan: WanMachine) -> None:
    wan.output.write_bytes(b"mine")
    assert (refused(wan.start())[0], launches(wan.checkout)) == (32, [])
    assert wan.output.read_bytes() == b"mine"
    wan.output.unlink()
    wan.check()


def test_d06_a_clip_that_appears_during_the_run_is_kept_and_ours_refused(wan: WanMachine) -> None:
    def on(event: Event) -> None:
        if event == Phase("verifying"):
            wan.output.write_bytes(b"somebody else's")

    outcome = wan.run({}, on=on)
    assert outcome.code == "EXISTS"
    assert outcome.error is not None
    assert outcome.error.exit_status == 32
    kept = wan.state_dir / "runs" / outcome.manifest.run_id / "unpublished.mp4"
    assert str(kept) in outcome.error.advice
    assert examine(kept, apart=False)["frames"] == 5
    assert wan.output.read_bytes() == b"somebody else's"
    wan.output.unlink()
    wan.check()


def test_d06_a_foreign_manifest_that_appears_during_the_run_is_kept_too(wan: WanMachine) -> None:
    theirs = manifest_path(wan.output)

    def on(event: Event) -> None:
        if event == Phase("verifying"):
            theirs.write_text("mine")

    outcome = wan.run({}, on=on)
    assert (outcome.code, theirs.read_text(), wan.output.exists()) == ("EXISTS", "mine", False)
    theirs.unlink()
    wan.check()


def test_d06_rename_skip_and_overwrite_do_as_they_say(wan: WanMachine) -> None:
    assert wan.run({}).code == "ok"
    first = wan.output.read_bytes()
    skipped = wan.run(if_exists="skip")
    assert skipped.result is not None
    assert skipped.result.skipped
    assert len(launches(wan.checkout)) == 1
    renamed = wan.run(if_exists="rename")
    assert renamed.result is not None
    assert renamed.result.output.name == "clip-2.mp4"
    for path in (renamed.result.output, renamed.result.manifest):
        path.unlink()
    assert wan.run(if_exists="overwrite", ask={"seed": 8}).code == "ok"
    assert wan.output.read_bytes() != first
    wan.check()


@pytest.fixture
def gate(wan: WanMachine) -> Iterator[Callable[[], None]]:
    """Runs wait before they save until this is called."""
    path = wan.checkout / "fake_state" / "at-save"
    path.parent.mkdir()
    os.mkfifo(path)
    opened: list[int] = []

    def open_it() -> None:
        opened.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK))

    yield open_it
    open_it()
    eventually(lambda: not wan.survivors(), what="the end of every process")
    for fd in opened:
        os.close(fd)


def test_d07_of_two_runs_with_one_output_one_wins_and_nothing_is_mixed(
    wan: WanMachine, gate: Callable[[], None]
) -> None:
    pair = [wan.start("--seed", seed) for seed in (1, 2)]
    eventually(lambda: len(launches(wan.checkout)) == 2, within_s=90, what="two runs")
    gate()
    for process in pair:
        process.communicate(timeout=100)
    assert sorted(process.returncode for process in pair) == [0, 32]
    winner = next(seed for seed, process in zip((1, 2), pair, strict=True) if process.returncode == 0)
    assert wan.published().seed == winner
    wan.check()


# ----------------------------------------------------------------------------------------------- D09, D10: names


def test_d09_relative_names_in_file_and_arguments_reach_the_framework_as_absolute_ones(
    wan: WanMachine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = json.loads(wan.config_file().read_text())
    for key in ("wan2_dir", "i2v_model_dir", "python", "state_dir"):
        config[key] = os.path.relpath(config[key], wan.folder)
    (wan.folder / "config.yaml").write_text(json.dumps(config))
    here = tmp_path_factory.mktemp("here")
    a_photo(here / "photo.png")
    words = [
        "generate",
        "photo.png",
        "a cat",
        "-o",
        "clip.mp4",
        "--config",
        os.path.relpath(wan.folder / "config.yaml", here),
    ]
    argv = [sys.executable, "-m", "reelwright", *words, "--frames", "5", "--steps", "3"]
    done = subprocess.run(
        argv, cwd=here, env={**os.environ, **wan.environ}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(here / "clip.mp4")
    (launch,) = launches(wan.checkout)
    options = dict(word.removeprefix("--").split("=", 1) for word in launch["argv"] if "=" in word)
    for name in ("ckpt_dir", "image", "save_file"):
        assert Path(options[name]).is_absolute(), options
    assert launch["cwd"] == str(wan.checkout)
    assert sorted(path.name for path in here.iterdir()) == ["clip.mp4", "clip.reel.json", "photo.png"]
    wan.check()


def test_d09_a_current_folder_that_was_deleted_is_an_input_error(wan: WanMachine, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    argv = wan.command("-o", "clip.mp4")
    code = "import os, sys; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]); os.execv(sys.argv[2], sys.argv[2:])"
    words = [sys.executable, "-c", code, str(gone), *argv]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **wan.environ})
    assert done.returncode == 10
    assert "current folder no longer exists" in done.stderr
    assert launches(wan.checkout) == []


def test_d09_with_absolute_names_a_deleted_current_folder_is_no_obstacle(wan: WanMachine, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = "import os, sys; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]); os.execv(sys.argv[2], sys.argv[2:])"
    words = [sys.executable, "-c", code, str(gone), *wan.command()]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **wan.environ})
    assert done.returncode == 0, done.stderr
    wan.check()


@pytest.mark.parametrize(
    "name", ["-x.mp4", "--prompt.mp4", "a\nb.mp4", "🎬 'quo\"te.mp4", "$HOME;ls.mp4", "x" * 245 + ".mp4"]
)
def test_d10_odd_names_of_output_and_folder_pass_through_the_framework(
    wan: WanMachine, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = tmp_path_factory.mktemp("odd") / "a b'\"\n;echo 🎬 -x"
    folder.mkdir()
    done = subprocess.run(
        wan.command("-o", folder / name), capture_output=True, text=True, check=False, env={**os.environ, **wan.environ}
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.iterdir()} == {name, manifest_path(folder / name).name}
    wan.check()


@pytest.mark.parametrize("name", ["x" * 252 + ".mp4", "clip.avi", "clip.mp4."])
def test_d10_names_that_cannot_work_are_refused_before_the_gpu_is_touched(wan: WanMachine, name: str) -> None:
    assert (refused(wan.start("-o", wan.output.parent / name))[0], launches(wan.checkout)) == (10, [])
    wan.check()
