"""Clips that are missing, damaged, different from the plan, or from elsewhere (rows P09 to P14)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from reelwright.core.errors import AttemptError, BackendUnavailableError, OutputError
from reelwright.core.events import AttemptStarted, Event, Phase
from reelwright.media import verification
from tests.stand_ins.checkout import launches
from tests.stand_ins.interpreter import Knobs, make_interpreter
from tests.wan21.conftest import WanMachine


def test_p09_success_without_a_clip_is_tried_once_the_same(wan: WanMachine) -> None:
    outcome = wan.run({"swallow_save_error": True}, {})
    first, second = outcome.manifest.attempts
    assert (first.failure, first.exit_status, first.phase) == ("OUTPUT", 0, "saving")
    assert "exited with status 0 and wrote no video" in first.message
    assert any("cache_video failed" in line for line in first.evidence)
    assert (second.changed, second.outcome) == ((), "completed")
    wan.check()


def test_p09_success_without_a_clip_for_ever_ends_as_a_refused_output(wan: WanMachine) -> None:
    outcome = wan.run({"swallow_save_error": True})
    assert isinstance(outcome.error, OutputError)
    assert outcome.error.exit_status == 25
    assert len(outcome.manifest.attempts) == 2
    assert not wan.output.exists()
    wan.check()


def test_p09_a_missing_clip_is_blamed_on_a_broken_video_writer_and_never_repeated(wan: WanMachine) -> None:
    python = make_interpreter(wan.folder / "venv", Knobs())
    (writer,) = (wan.folder / "venv").glob("lib/*/site-packages/imageio_ffmpeg/__init__.py")
    writer.write_text("def get_ffmpeg_exe():\n    raise RuntimeError('No ffmpeg exe could be found.')\n")
    outcome = wan.run({"swallow_save_error": True}, python=str(python))
    assert isinstance(outcome.error, BackendUnavailableError)
    assert (outcome.code, outcome.error.exit_status) == ("ENV", 13)
    assert "No ffmpeg exe could be found" in outcome.error.message
    assert [attempt.cause for attempt in outcome.manifest.attempts] == ["writer"]
    wan.check()


#: (what is written, what the refusal says)
BROKEN = (
    pytest.param("trunc", "", id="p10_without_its_end"),
    pytest.param("faststart_trunc", "", id="p11_half_the_frames"),
    pytest.param("wrong_frames", "it has 1 frames instead of 5", id="p12_wrong_frames"),
    pytest.param("wrong_size", " instead of ", id="p12_wrong_size"),
    pytest.param("tiny", "it is 2x2", id="p12_tiny"),
    pytest.param("text", "", id="p12_text"),
    pytest.param("empty", "", id="p12_empty"),
)


@pytest.mark.parametrize(("way", "words"), BROKEN)
def test_a_damaged_clip_is_refused_although_its_program_reports_success(wan: WanMachine, way: str, words: str) -> None:
    outcome = wan.run({"write": way}, retry_policy="none")
    assert isinstance(outcome.error, OutputError)
    assert outcome.error.exit_status == 25
    (attempt,) = outcome.manifest.attempts
    assert (attempt.outcome, attempt.failure, attempt.exit_status) == ("failed", "OUTPUT", 0)
    assert attempt.message.startswith("the clip does not match its plan: ")
    assert words in attempt.message
    assert not list((wan.state_dir / "runs").rglob("*.mp4"))
    wan.check()


def test_p10_one_more_try_with_the_same_parameters_cures_a_damaged_clip(wan: WanMachine) -> None:
    outcome = wan.run({"write": "trunc"}, {})
    first, second = outcome.manifest.attempts
    assert (first.failure, second.outcome, second.changed) == ("OUTPUT", "completed", ())
    wan.check()


def test_p10_a_refused_clip_is_kept_with_the_record_on_request(wan: WanMachine) -> None:
    outcome = wan.run({"write": "trunc"}, retry_policy="none", keep_failed=True)
    (kept,) = (wan.state_dir / "runs").rglob("*.mp4")
    assert outcome.error is not None
    assert str(kept) in outcome.error.advice
    wan.check()


def test_p10_a_clip_that_cannot_be_examined_is_kept_with_its_log(
    wan: WanMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_CHILD", "import os; os.kill(os.getpid(), 9)")
    outcome = wan.run({})
    kept = wan.state_dir / "runs" / outcome.manifest.run_id
    assert sorted(path.name for path in kept.iterdir()) == ["attempt-1.log", "manifest.json", "unexamined.mp4"]
    assert outcome.error is not None
    assert outcome.error.log == str(kept / "attempt-1.log")
    wan.check()


def test_p11_a_clip_whose_header_promises_more_than_it_holds_is_found_out(wan: WanMachine) -> None:
    outcome = wan.run({"write": "faststart_trunc"}, ask={"num_frames": 33}, retry_policy="none")
    assert (outcome.code, outcome.manifest.attempts[0].exit_status) == ("OUTPUT", 0)
    wan.check()


def test_p12_a_damaged_clip_twice_is_not_tried_a_third_time_by_the_classified_policy(wan: WanMachine) -> None:
    outcome = wan.run({"write": "text"}, retry_policy="classified")
    assert [attempt.failure for attempt in outcome.manifest.attempts] == ["OUTPUT", "OUTPUT"]
    wan.check()


def test_p12_an_all_black_clip_is_published_with_a_warning(wan: WanMachine) -> None:
    outcome = wan.run({"write": "black"})
    assert outcome.result is not None
    assert any("black" in warning for warning in outcome.result.warnings)
    assert any("black" in warning for warning in outcome.manifest.warnings)
    wan.check()


def test_p13_a_complete_clip_of_a_failed_program_is_kept_unverified_and_not_published(wan: WanMachine) -> None:
    outcome = wan.run({"write": "ok", "exit": 1}, retry_policy="none")
    assert isinstance(outcome.error, AttemptError)
    assert (outcome.code, outcome.error.exit_status) == ("FRAMEWORK", 28)
    (kept,) = (wan.state_dir / "runs").rglob("*.partial.mp4")
    assert kept.stat().st_size > 0
    assert str(kept) in outcome.error.advice
    wan.check()


def test_p13_a_complete_clip_of_a_failed_program_is_accepted_only_where_the_user_said_so(wan: WanMachine) -> None:
    outcome = wan.run({"write": "ok", "exit": 1}, accept_valid_on_nonzero=True)
    assert outcome.code == "ok"
    assert outcome.manifest.attempts[0].exit_status == 1
    assert any("status 1" in warning for warning in outcome.manifest.warnings)
    wan.check()


def test_p13_a_broken_clip_of_a_failed_program_is_never_accepted(wan: WanMachine) -> None:
    outcome = wan.run({"write": "trunc", "exit": 1}, accept_valid_on_nonzero=True, retry_policy="none")
    assert (outcome.code, outcome.manifest.attempts[0].exit_status) == ("FRAMEWORK", 1)
    wan.check()


def test_p14_a_complete_clip_of_the_attempt_before_does_not_pass_for_this_one(wan: WanMachine) -> None:
    outcome = wan.run({"write": "ok", "exit": 1}, {"write": "none"}, chaining_max_retries=1)
    assert isinstance(outcome.error, OutputError)
    assert [attempt.failure for attempt in outcome.manifest.attempts] == ["FRAMEWORK", "OUTPUT"]
    saved = [word for entry in launches(wan.checkout) for word in entry["argv"] if word.startswith("--save_file=")]
    assert len(set(saved)) == 2
    wan.check()


def test_p14_a_clip_that_lies_in_the_attempts_folder_before_its_start_does_not_pass(wan: WanMachine) -> None:
    made = wan.run({})
    assert made.result is not None
    film = shutil.copy(wan.output, wan.folder / "old.mp4")

    def place(event: Event) -> None:
        if event == Phase("starting"):
            (folder,) = wan.output.parent.glob(".reelwright-*/attempt-1")
            shutil.copy(film, folder / "film.mp4")

    outcome = wan.run({"write": "none"}, on=place, if_exists="overwrite", retry_policy="none")
    assert outcome.code == "OUTPUT"
    wan.check()


def test_p14_an_overwrite_that_makes_no_clip_leaves_the_old_one_as_it_was(wan: WanMachine) -> None:
    wan.run({})
    before = wan.output.read_bytes()
    outcome = wan.run({"write": "none"}, if_exists="overwrite", retry_policy="none")
    assert outcome.code == "OUTPUT"
    assert wan.output.read_bytes() == before
    wan.check()


def test_p14_the_folder_of_a_killed_run_is_never_taken_for_this_one(wan: WanMachine) -> None:
    wan.run({})
    dead = wan.output.parent / ".reelwright-20260101-000000-dead"
    (dead / "attempt-1").mkdir(parents=True)
    dead.chmod(0o700)
    (dead / "lock").write_text(json.dumps({"run": "20260101-000000-dead", "output": "clip.mp4"}))
    shutil.copy(wan.output, dead / "attempt-1" / "film.mp4")
    for path in (wan.output, Path(str(wan.output).replace(".mp4", ".reel.json"))):
        path.unlink()
    outcome = wan.run({"write": "none"}, retry_policy="none")
    assert outcome.code == "OUTPUT"
    assert [event for event in outcome.events if isinstance(event, AttemptStarted)] == [AttemptStarted(1, 4)]
    wan.check()
