"""The three retry policies in whole runs: the next attempt, the manifest, and what the next run knows."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.events import AttemptStarted, Log
from reelwright.core.request import Size
from tests.conftest import patiently
from tests.stand_ins.checkout import forget_launches, launches
from tests.wan21.conftest import Outcome, WanMachine

Reel = Callable[..., subprocess.CompletedProcess[str]]
FAILS: Mapping[str, Any] = {"exit": 3}
OOM: Mapping[str, Any] = {"oom_phase": "dit"}
SAVES_NOTHING: Mapping[str, Any] = {"write": "none"}
POLICIES = ["ladder", "classified", "documented"]


def options(wan: WanMachine, *names: str) -> list[tuple[str, ...]]:
    """The values of some options in each launch's command, ``-`` where it is not given."""
    found = []
    for launch in launches(wan.checkout):
        words = dict(word.removeprefix("--").partition("=")[::2] for word in launch["argv"])
        found.append(tuple(words.get(name, "-") for name in names))
    return found


def failures(outcome: Outcome) -> list[str | None]:
    return [attempt.failure for attempt in outcome.manifest.attempts]


# ----------------------------------------------------------------------------------------------------- documented


def test_documented_an_unknown_failure_takes_the_three_steps_of_the_ladder_from_the_original_values(
    wan: WanMachine,
) -> None:
    outcome = wan.run(FAILS, ask={"steps": 30}, retry_policy="documented")
    assert outcome.code == "FRAMEWORK"
    assert outcome.error is not None
    assert outcome.error.exit_status == 28
    assert "No step of the retry ladder is left." in outcome.error.advice
    assert options(wan, "sample_steps", "sample_guide_scale") == [
        ("30", "7.5"),
        ("22", "7.5"),
        ("30", "5.0"),
        ("25", "3.0"),
    ]
    assert len(set(options(wan, "base_seed", "sample_shift", "frame_num", "size", "image", "prompt"))) == 1
    assert [attempt.changed for attempt in outcome.manifest.attempts] == [
        (),
        ("steps 30 -> 22",),
        ("guidance_scale 7.5 -> 5.0",),
        ("steps 30 -> 25", "guidance_scale 7.5 -> 3.0"),
    ]
    assert [attempt.helps for attempt in outcome.manifest.attempts] == [(), ("time",), ("none",), ("time", "none")]
    wan.check()


def test_documented_a_step_that_would_change_nothing_is_skipped_and_reported(wan: WanMachine) -> None:
    outcome = wan.run(FAILS, FAILS, {}, ask={"steps": 20, "guidance_scale": 4.0}, retry_policy="documented")
    assert outcome.code == "ok"
    assert options(wan, "sample_steps", "sample_guide_scale") == [("20", "4.0"), ("15", "4.0"), ("20", "3.0")]
    assert outcome.manifest.attempts[2].skipped == ("step 2 would change nothing",)
    assert outcome.manifest.degraded
    assert outcome.manifest.requested["guidance_scale"] == 4.0
    assert outcome.manifest.effective["guidance_scale"] == 3.0
    wan.check()


def test_each_attempt_is_announced_with_its_reason_and_every_change(wan: WanMachine) -> None:
    outcome = wan.run(FAILS, {}, retry_policy="documented")
    said = [event for event in outcome.events if isinstance(event, AttemptStarted)]
    assert said == [AttemptStarted(1, 4), AttemptStarted(2, 4, "a smaller job may succeed, steps 3 -> 2")]
    (warning,) = [event.text for event in outcome.events if isinstance(event, Log) and "trying again" in event.text]
    assert "steps 3 -> 2" in warning
    assert outcome.manifest.attempts[0].log is not None
    assert outcome.manifest.attempts[0].log in warning
    wan.check()


@pytest.mark.parametrize(("retries", "expected"), [(0, 1), (1, 2), (2, 3)])
def test_documented_as_many_retries_as_are_set(wan: WanMachine, retries: int, expected: int) -> None:
    outcome = wan.run(FAILS, ask={"steps": 8}, chaining_max_retries=retries, retry_policy="documented")
    assert outcome.code == "FRAMEWORK"
    assert len(launches(wan.checkout)) == expected
    wan.check()


def test_documented_a_run_that_is_too_slow_gets_fewer_steps(wan: WanMachine) -> None:
    def within(limit_s: float) -> Outcome:
        forget_launches(wan.checkout)
        return wan.run({"step_s": 60}, {}, ask={"steps": 8}, timeout=limit_s, if_exists="overwrite")

    outcome = patiently(within, lambda outcome: outcome.code == "ok" and len(launches(wan.checkout)) == 2, (2.0, 30.0))
    assert failures(outcome) == ["TIMEOUT", None]
    assert options(wan, "sample_steps") == [("8",), ("6",)]
    wan.check()


@pytest.mark.parametrize("policy", POLICIES)
def test_a_missing_video_is_tried_once_more_as_it_was(wan: WanMachine, policy: str) -> None:
    outcome = wan.run(SAVES_NOTHING, ask={"steps": 8}, retry_policy=policy)
    assert failures(outcome) == ["OUTPUT", "OUTPUT"]
    assert options(wan, "sample_steps") == [("8",), ("8",)]
    wan.check()


# ---------------------------------------------------------------------------------------------------- the default

AT_STEP: Mapping[str, Any] = {
    "traceback": "Traceback (most recent call last):\n"
    '  File "/opt/wan/model.py", line 7, in forward\n    return x[y]\nKeyError: 7'
}


def test_by_default_an_unknown_failure_is_tried_as_it_was_before_the_ladder(wan: WanMachine) -> None:
    assert wan.run(FAILS, FAILS, {}, ask={"steps": 8}).code == "ok"
    assert options(wan, "sample_steps") == [("8",), ("8",), ("6",)]
    wan.check()


def test_the_same_exception_at_the_same_place_is_tried_twice_and_never_with_fewer_steps(wan: WanMachine) -> None:
    outcome = wan.run(AT_STEP, ask={"steps": 8})
    assert failures(outcome) == ["FRAMEWORK", "FRAMEWORK"]
    assert set(options(wan, "sample_steps", "sample_guide_scale")) == {("8", "7.5")}
    assert outcome.error is not None
    assert "at the same place" in outcome.error.advice
    wan.check()


def test_by_default_out_of_memory_lowers_neither_steps_nor_guidance(wan: WanMachine) -> None:
    outcome = wan.run(OOM, {}, ask={"steps": 8})
    assert outcome.code == "ok"
    assert options(wan, "sample_steps", "sample_guide_scale", "t5_cpu") == [("8", "7.5", "-"), ("8", "7.5", "")]
    assert not outcome.manifest.degraded
    wan.check()


def test_a_failure_names_its_log_and_keeps_the_log_of_every_attempt(wan: WanMachine) -> None:
    outcome = wan.run(AT_STEP, ask={"steps": 8})
    logs = [attempt.log for attempt in outcome.manifest.attempts]
    assert [log is not None and Path(log).is_file() for log in logs] == [True, True]
    assert outcome.error is not None
    assert outcome.error.to_json()["log"] == logs[-1]
    assert "KeyError: 7" in Path(str(logs[0])).read_text()
    wan.check()


def test_a_run_that_succeeds_in_the_end_keeps_the_log_of_its_failed_attempt(wan: WanMachine) -> None:
    first = wan.run(FAILS, {}).manifest.attempts[0]
    assert first.log is not None
    assert Path(first.log).is_file()
    wan.check()


@pytest.mark.parametrize("policy", POLICIES)
def test_a_failure_that_a_smaller_job_cannot_cure_is_not_tried_again(wan: WanMachine, policy: str) -> None:
    words = "Traceback (most recent call last):\n  File \"x.py\", line 1, in <module>\nModuleNotFoundError: No module named 'ftfy'"
    outcome = wan.run({"traceback": words}, retry_policy=policy)
    assert (outcome.code, failures(outcome)) == ("ENV", ["ENV"])
    wan.check()


def test_a_repetition_after_a_ladder_step_says_that_the_step_still_applies(wan: WanMachine) -> None:
    outcome = wan.run(FAILS, {"sig": 11}, {}, ask={"steps": 8}, retry_policy="documented")
    assert failures(outcome) == ["FRAMEWORK", "CRASH", None]
    assert options(wan, "sample_steps") == [("8",), ("6",), ("6",)]
    assert outcome.manifest.attempts[2].changed == ("steps 8 -> 6",)
    assert outcome.manifest.degraded
    wan.check()


# --------------------------------------------------------------------------------------------- documented, memory


def test_documented_out_of_memory_adds_a_memory_mitigation_and_says_its_cost_and_gain(wan: WanMachine) -> None:
    outcome = wan.run(OOM, {}, ask={"steps": 8}, retry_policy="documented")
    assert outcome.code == "ok"
    first, second = outcome.manifest.attempts
    assert (first.outcome, first.failure, first.cause, first.phase) == ("failed", "OOM_GPU", "dit", "denoising")
    assert first.evidence
    assert first.evidence[0].startswith("torch.OutOfMemoryError: CUDA out of memory")
    helps = dict(zip(second.changed, second.helps, strict=True))
    assert helps == {
        "steps 8 -> 6": "time",
        "t5_cpu False -> True": "memory",
        "expandable_segments False -> True": "memory",
    }
    assert "text encoder stays on the CPU" in second.why
    assert outcome.manifest.degraded
    assert outcome.result is not None
    assert (outcome.result.degraded, outcome.result.attempts) == (True, 2)
    wan.check()


def test_documented_the_next_run_starts_with_the_mitigation_that_worked_and_all_its_steps(wan: WanMachine) -> None:
    wan.run(OOM, {}, ask={"steps": 8})
    again = wan.run({}, ask={"steps": 8}, if_exists="overwrite")
    assert again.code == "ok"
    assert options(wan, "sample_steps", "t5_cpu")[2] == ("8", "")
    assert launches(wan.checkout)[2]["environ"]["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    assert len(again.manifest.attempts) == 1
    assert not again.manifest.degraded
    assert again.manifest.plan is not None
    learned = [finding for finding in again.manifest.plan["findings"] if finding["code"] == "learned"]
    assert "t5_cpu: True" in learned[0]["message"]
    other = wan.run({}, ask={"steps": 8, "num_frames": 9}, if_exists="overwrite")
    assert options(wan, "t5_cpu")[3] == ("-",)
    assert other.code == "ok"
    wan.check()


def test_documented_only_what_the_user_allows_is_taken_from_frames_and_size(wan: WanMachine) -> None:
    ask = {"num_frames": 53, "size": Size(1280, 720), "steps": 4}
    outcome = wan.run(OOM, OOM, OOM, {}, ask=ask, allow_degrade=["frames", "size"], retry_policy="documented")
    assert outcome.code == "ok"
    assert options(wan, "frame_num", "size") == [
        ("53", "1280*720"),
        ("53", "1280*720"),
        ("49", "1280*720"),
        ("49", "832*480"),
    ]
    assert outcome.manifest.output is not None
    assert (outcome.manifest.output["frames"], outcome.manifest.output["width"]) == (49, 832)
    assert outcome.manifest.requested["num_frames"] == 53
    assert "num_frames 53 -> 49" in outcome.manifest.attempts[3].changed
    assert "size 1280x720 -> 832x480" in outcome.manifest.attempts[3].changed
    assert outcome.manifest.degraded
    wan.check()


def test_documented_without_permission_out_of_memory_ends_with_what_would_help(wan: WanMachine) -> None:
    outcome = wan.run(OOM, ask={"num_frames": 53, "size": Size(1280, 720), "steps": 4})
    assert (outcome.code, len(launches(wan.checkout))) == ("OOM_GPU", 2)
    assert outcome.error is not None
    assert "--allow-degrade frames,size" in outcome.error.advice
    assert "more GPUs (--gpus)" in outcome.error.advice
    assert "Fewer steps and lower guidance do not change peak memory" in outcome.error.advice
    wan.check()


# ----------------------------------------------------------------------------------------------------- classified


def test_classified_leaves_steps_and_guidance_alone_and_takes_more_gpus(wan: WanMachine) -> None:
    outcome = wan.run(OOM, OOM, {}, ask={"steps": 8}, retry_policy="classified")
    assert outcome.code == "ok"
    assert len(set(options(wan, "sample_steps", "sample_guide_scale", "frame_num", "size"))) == 1
    assert [len([entry for entry in launches(wan.checkout) if entry["launch"] == number]) for number in (1, 2, 3)] == [
        1,
        1,
        2,
    ]
    assert outcome.manifest.plan is not None
    assert outcome.manifest.plan["gpus"] == [0, 1]
    assert not outcome.manifest.degraded
    wan.check()


def test_classified_an_unknown_failure_is_tried_once_more_as_it_was(wan: WanMachine) -> None:
    outcome = wan.run(FAILS, ask={"steps": 8}, retry_policy="classified")
    assert failures(outcome) == ["FRAMEWORK", "FRAMEWORK"]
    assert options(wan, "sample_steps", "sample_guide_scale") == [("8", "7.5")] * 2
    assert outcome.error is not None
    assert "failed the same way twice" in outcome.error.advice
    wan.check()


# ------------------------------------------------------------------------------------------ none, strict, budget


@pytest.mark.parametrize("plan", [FAILS, OOM, {"sig": 11}, SAVES_NOTHING])
def test_none_tries_once(wan: WanMachine, plan: Mapping[str, Any]) -> None:
    outcome = wan.run(plan, retry_policy="none")
    assert len(failures(outcome)) == len(launches(wan.checkout)) == 1
    assert outcome.error is not None
    assert "Retries are switched off" in outcome.error.advice
    wan.check()


@pytest.mark.parametrize(("plan", "tries"), [(FAILS, 2), ({"step_s": 30}, 1), (SAVES_NOTHING, 2), ({"sig": 11}, 2)])
def test_strict_quality_tries_again_only_with_the_same_parameters(
    wan: WanMachine, plan: Mapping[str, Any], tries: int
) -> None:
    def within(limit_s: float) -> Outcome:
        return wan.run(plan, ask={"steps": 8}, strict_quality=True, timeout=limit_s)

    limits_s = (2.0, 30.0) if "step_s" in plan else (60.0,)
    outcome = patiently(within, lambda _: launches(wan.checkout), limits_s)
    assert len(launches(wan.checkout)) == tries
    assert set(options(wan, "sample_steps", "sample_guide_scale")) == {("8", "7.5")}
    assert not outcome.manifest.degraded
    wan.check()


def test_strict_quality_outranks_the_permission_to_degrade(wan: WanMachine) -> None:
    ask = {"num_frames": 53, "steps": 4}
    outcome = wan.run(OOM, ask=ask, strict_quality=True, allow_degrade=["frames", "size"])
    assert outcome.code == "OOM_GPU"
    assert set(options(wan, "frame_num", "sample_steps", "size")) == {("53", "4", "832*480")}
    wan.check()


def test_the_budget_ends_the_ladder(wan: WanMachine) -> None:
    outcome = wan.run(FAILS, ask={"steps": 8}, retry_budget_s=0.01)
    assert len(launches(wan.checkout)) == 1
    assert outcome.error is not None
    assert "The retry budget of 0.01 s is spent" in outcome.error.advice
    wan.check()


def test_the_flags_of_the_command_line_do_the_same(wan: WanMachine, reel: Reel) -> None:
    wan.script(OOM, OOM, {})
    words = ("generate", wan.photo, "a cat", "-o", wan.output, "--frames", "53", "--steps", "4", "--json")
    config = wan.config_file()
    env = {**os.environ, **wan.environ}
    done = reel(*words, "--config", config, "--allow-degrade", "frames", env=env)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["degraded"], result["attempts"], result["frames"]) == (True, 3, 49)
    wan.check()
    wan.script(FAILS)
    done = reel(*words, "--config", config, "--strict-quality", "--overwrite", env=env)
    assert done.returncode == 28
    assert "--strict-quality forbids it" in json.loads(done.stdout.splitlines()[-1])["advice"]
    wan.check()
