"""Verifying videos in a separate process: the same facts, a confined decoder, and what ends it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reelwright.core.errors import BackendUnavailableError, OutputError, VideoGenerationError
from reelwright.media import verification
from reelwright.media.verification import Tagging, VerificationProcess, examine, save_last_frame
from tests.media.clips import PROMISE, a_clip, a_foreign_clip, cut, number_in

KINDS: dict[str, dict[str, Any]] = {
    "a.mp4": {},
    "sound.mp4": {"sound": True},
    "a.mov": {},
    "a.mkv": {"codec": "libvpx-vp9"},
    "a.webm": {"codec": "libvpx-vp9"},
    "a.avi": {"codec": "mpeg4"},
    "a.ts": {},
    "av1.mp4": {"codec": "libsvtav1"},
}
# What stands in for the child's program: it kills itself as something outside would, the first time or always.
_KILLED = "import os, sys; sys.stdin.read(); os.kill(os.getpid(), {signal})"


@pytest.mark.parametrize("name", KINDS)
def test_a_confined_decoder_finds_what_one_in_this_process_finds(tmp_path: Path, name: str) -> None:
    film = a_foreign_clip(tmp_path / name, **KINDS[name])
    apart = examine(film, PROMISE, apart=True)
    assert apart["frames"] == 9
    assert apart == examine(film, PROMISE, apart=False)


def test_a_confined_decoder_makes_the_tagged_copy_and_no_other_file(tmp_path: Path) -> None:
    film = a_foreign_clip(tmp_path / "a.mp4", sound=True)
    tagging = Tagging(tmp_path / "tagged.mp4", {"title": "x"})
    facts = examine(film, PROMISE, apart=True, tagging=tagging)
    assert (facts["problems"], facts["metadata"]["title"]) == ([], "x")
    assert "tagged" not in facts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "tagged.mp4"]


def test_of_a_damaged_video_no_copy_is_left(tmp_path: Path) -> None:
    film = cut(a_foreign_clip(tmp_path / "a.mp4"), 0.7)
    facts = examine(film, PROMISE, apart=True, tagging=Tagging(tmp_path / "tagged.mp4", {}))
    assert facts["problems"]
    assert not (tmp_path / "tagged.mp4").exists()


def test_a_copy_that_cannot_be_made_is_no_fault_of_the_video(tmp_path: Path) -> None:
    film = a_foreign_clip(tmp_path / "a.mp4")
    with pytest.raises(VideoGenerationError) as caught:
        examine(film, PROMISE, apart=True, tagging=Tagging(tmp_path / "none" / "tagged.mp4", {}))
    assert not isinstance(caught.value, OutputError)


@pytest.mark.parametrize("attempt", ["open('/etc/hostname')", "socket.socket()", "os.fork()", "open(target, 'w')"])
def test_the_video_decoder_itself_is_confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempt: str) -> None:
    program = (
        "import os, socket, sys\nfrom reelwright.media import verification, video\n"
        f"target = {str(tmp_path / 'other')!r}\n"
        f"def facts(path, promise):\n    try:\n        {attempt}\n    except OSError as error:\n"
        "        return {'errno': error.errno}\n"
        "verification._facts = facts\nverification.main()"
    )
    monkeypatch.setattr(verification, "_CHILD", program)
    assert examine(a_clip(tmp_path / "a.mp4"), apart=True)["errno"] in (1, 13)


def test_secrets_of_the_environment_do_not_reach_the_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    program = "import json, os, sys; sys.stdin.read(); json.dump(dict(os.environ), sys.stdout)"
    monkeypatch.setattr(verification, "_CHILD", program)
    assert "HF_TOKEN" not in examine(tmp_path / "a.mp4", apart=True)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_decoder_that_something_outside_ends_is_not_the_videos_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals
) -> None:
    film, target = a_clip(tmp_path / "a.mp4"), tmp_path / "tagged.mp4"
    monkeypatch.setattr(verification, "_CHILD", _KILLED.format(signal=int(sent)))
    with pytest.raises(VideoGenerationError) as caught:
        examine(film, PROMISE, apart=True, tagging=Tagging(target, {}))
    assert caught.value.code in ("ENV", "OOM_HOST")
    assert sent.name in caught.value.evidence[0]
    assert film.exists()
    assert not target.exists()


def test_a_video_decoder_that_was_ended_once_is_started_again(tmp_path: Path) -> None:
    examiner = VerificationProcess()
    examiner.start()
    assert examiner._child is not None
    os.kill(examiner._child.pid, signal.SIGKILL)
    facts = examine(a_clip(tmp_path / "a.mp4"), PROMISE, apart=examiner)
    assert (facts["frames"], facts["problems"]) == (9, [])


@pytest.mark.parametrize("sent", [signal.SIGSEGV, signal.SIGXCPU])
def test_a_crash_of_the_decoder_is_a_problem_of_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals
) -> None:
    monkeypatch.setattr(verification, "_CHILD", _KILLED.format(signal=int(sent)))
    facts = examine(a_clip(tmp_path / "a.mp4"), apart=True)
    assert facts["problems"][0].startswith(f"the decoder ended by {sent.name}")


def test_the_last_frame_is_saved_by_a_confined_decoder(tmp_path: Path) -> None:
    save_last_frame(a_foreign_clip(tmp_path / "a.mp4"), tmp_path / "last.png")
    with Image.open(tmp_path / "last.png") as picture:
        assert number_in(np.asarray(picture)) == 8


def test_a_video_without_a_last_frame_leaves_none(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        save_last_frame(cut(a_foreign_clip(tmp_path / "a.mp4"), 0.7), tmp_path / "last.png")
    assert caught.value.evidence
    assert not (tmp_path / "last.png").exists()


_WRITES_AND_INTERRUPTS = """
import os, signal, sys
os.write(1, b"half a picture")
os.kill(os.getppid(), signal.SIGINT)
signal.pause()
"""


@pytest.mark.parametrize("before", [b"an earlier picture", None])
def test_ctrl_c_leaves_no_half_written_last_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes | None
) -> None:
    target = tmp_path / "out" / "last.png"
    target.parent.mkdir()
    if before:
        target.write_bytes(before)
    monkeypatch.setattr(verification, "_LAST_FRAME_CHILD", _WRITES_AND_INTERRUPTS)
    with pytest.raises(KeyboardInterrupt):
        save_last_frame(a_clip(tmp_path / "a.mp4"), target)
    assert {file.name: file.read_bytes() for file in target.parent.iterdir()} == (
        {"last.png": before} if before else {}
    )


def test_a_decoder_that_cannot_be_started_leaves_no_last_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(BackendUnavailableError):
        save_last_frame(a_clip(tmp_path / "a.mp4"), tmp_path / "last.png")
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_a_last_frame_that_something_outside_prevented_is_not_the_videos_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_LAST_FRAME_CHILD", "import os; os.kill(os.getpid(), 15)")
    with pytest.raises(VideoGenerationError) as caught:
        save_last_frame(a_clip(tmp_path / "a.mp4"), tmp_path / "last.png")
    assert not isinstance(caught.value, OutputError)
    assert not (tmp_path / "last.png").exists()
