"""Every member of the family from plan to film, with the faults of the matrix that apply to it.

The machinery is the same as Wan2.1's, whose tests go deeper; here each row is run on each member once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from reelwright.backends.hunyuan import facts
from reelwright.core.errors import (
    AttemptError,
    BackendUnavailableError,
    InvalidInputError,
    OutOfMemoryError,
    OutputError,
)
from reelwright.core.events import Phase, Progress
from reelwright.launchers import hunyuan as launcher
from tests.hunyuan.conftest import FIRST_PHASE, OLDER, PARALLEL, HunyuanMachine
from tests.stand_ins.checkout import launches, reached
from tests.wan21.conftest import ShortLimit
from tests.wan21.test_p_signals import at_step

CJK = "一只橘猫在阳光下慢慢转过头来看着镜头" * 12
Patience = Callable[[str], ShortLimit]


@pytest.fixture
def patience(hunyuan: HunyuanMachine, monkeypatch: pytest.MonkeyPatch) -> Patience:
    """Shorten the no-progress limit of one phase, from when the framework hangs."""

    def shorten(phase: str) -> ShortLimit:
        limits = ShortLimit(phase, lambda: reached(hunyuan.checkout, "hang"))
        monkeypatch.setattr(facts, "QUIET_LIMITS_S", limits)
        return limits

    return shorten


def test_a_clip_is_made_verified_and_recorded(hunyuan: HunyuanMachine) -> None:
    outcome = hunyuan.run({})
    assert outcome.code == "ok", outcome.error and (outcome.error.message, outcome.error.evidence)
    assert outcome.result is not None
    assert outcome.manifest.plan is not None
    expected = outcome.manifest.plan["expected"]
    made = (outcome.result.width, outcome.result.height, outcome.result.num_frames, outcome.result.fps)
    assert made == (expected["width"], expected["height"], 5, 16.0 if hunyuan.member == "documented" else 24.0)
    assert (outcome.result.seed, outcome.manifest.effective["seed"]) == (7, 7)
    steps = [event.step for event in outcome.events if isinstance(event, Progress)]
    assert steps == [1, 2, 3]
    hunyuan.check()


def test_the_phases_of_a_run_are_reported_in_order(hunyuan: HunyuanMachine) -> None:
    outcome = hunyuan.run({})
    phases = [event.name for event in outcome.events if isinstance(event, Phase)]
    loading = {
        "t2v": ["loading transformer", "loading VAE", "loading text encoder", "loading CLIP", "encoding"],
        "1.5": ["encoding"],
        "documented": [],
    }
    loading["i2v"] = loading["t2v"]
    saving = ["saving"] if hunyuan.member in OLDER else []
    known = ["starting", *loading[hunyuan.member], "denoising", "decoding", *saving]
    assert phases == [*known, "verifying", "publishing", "done"]


def test_the_framework_sees_no_rank_variable_no_secret_and_no_network(hunyuan: HunyuanMachine) -> None:
    hunyuan.environ |= {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MODEL_BASE": "/elsewhere"}
    assert hunyuan.run({}).code == "ok"
    (entry,) = launches(hunyuan.checkout)
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "CANARY_TOKEN"} & set(entry["environ"])
    assert entry["environ"]["HF_HUB_OFFLINE"] == "1"
    if hunyuan.member in OLDER:
        assert entry["environ"]["MODEL_BASE"] == hunyuan.values["ckpt_path"]
    hunyuan.check()


def test_a_long_chinese_prompt_does_not_break_the_save_and_arrives_whole(hunyuan: HunyuanMachine) -> None:
    outcome = hunyuan.run({}, ask={"prompt": CJK})
    assert outcome.code == "ok", outcome.error and (outcome.error.message, outcome.error.evidence)
    (entry,) = launches(hunyuan.checkout)
    assert f"--prompt={CJK}" in entry["argv"]
    assert any("launchers/hunyuan.py" in word for word in entry["orig_argv"]) == (hunyuan.member in OLDER)
    hunyuan.check()


@pytest.mark.parametrize("member", OLDER, indirect=True)
def test_without_the_launcher_a_long_chinese_prompt_does_break_the_save(
    hunyuan: HunyuanMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reelwright.backends.hunyuan import commands

    monkeypatch.setattr(commands, "needs_short_name", lambda choice: False)
    outcome = hunyuan.run({}, ask={"prompt": CJK})
    assert (outcome.code, len(outcome.manifest.attempts)) == ("INPUT", 1)
    assert "File name too long" in outcome.manifest.attempts[0].message
    hunyuan.check()


def test_d10_a_launched_name_is_cut_between_two_characters_and_keeps_its_suffix() -> None:
    name = "2025-01-01-00:00:00_seed7_" + "猫" * 100 + ".mp4"
    short = Path(launcher.short_path(f"/out/{name}")).name
    assert len(short.encode()) <= 255 < len(name.encode())
    assert name.startswith(short.removesuffix(".mp4"))
    assert launcher.short_path("/out/short.mp4") == "/out/short.mp4"


@pytest.mark.parametrize("prompt", ["--seed=9", "a\nCUDA out of memory\n" + "Success, time: 1", "a/../../b \"'$(x) 🎬"])
def test_n01_a_hostile_prompt_arrives_byte_for_byte_and_is_never_diagnosed(
    hunyuan: HunyuanMachine, prompt: str
) -> None:
    assert hunyuan.run({"exit": 1}, {}, ask={"prompt": prompt}).code == "ok"
    entry = launches(hunyuan.checkout)[-1]
    assert f"--prompt={prompt}" in entry["argv"]
    hunyuan.check()
    assert hunyuan.published().attempts[0].failure == "FRAMEWORK"


# ------------------------------------------------------------------------------------------------------- failures


def test_p01_a_lack_of_memory_uses_mitigations_of_the_script_and_then_succeeds(hunyuan: HunyuanMachine) -> None:
    outcome = hunyuan.run({"oom_phase": "dit"}, {}, simulate_gpus="2x139GiB")
    if hunyuan.member == "documented":
        assert isinstance(outcome.error, OutOfMemoryError)
        assert "No permitted memory mitigation is left" in outcome.error.advice
        return
    first, second = outcome.manifest.attempts
    assert (first.failure, first.cause, first.phase) == ("OOM_GPU", "dit", "denoising")
    pulled = {"1.5": "group_offloading None -> True"}.get(hunyuan.member, "use_cpu_offload False -> True")
    assert pulled in second.changed
    assert second.outcome == "completed"
    flag = {"1.5": "--group_offloading=true"}.get(hunyuan.member, "--use-cpu-offload")
    assert [flag in entry["argv"] for entry in launches(hunyuan.checkout)] == [False, True]
    hunyuan.check()


@pytest.mark.parametrize("member", PARALLEL, indirect=True)
def test_p01_frames_are_lowered_only_where_the_user_allows_it(hunyuan: HunyuanMachine) -> None:
    outcome = hunyuan.run({"oom_phase": "dit"}, ask={"num_frames": 85, "steps": 2})
    assert isinstance(outcome.error, OutOfMemoryError)
    assert "--allow-degrade frames" in outcome.error.advice
    assert all(attempt.parameters["num_frames"] == 85 for attempt in outcome.manifest.attempts)


@pytest.mark.parametrize("member", PARALLEL, indirect=True)
def test_p01_fewer_frames_cure_a_lack_of_memory_where_the_user_allows_them(hunyuan: HunyuanMachine) -> None:
    always = {"oom_phase": "dit"}
    outcome = hunyuan.run(always, always, {}, ask={"num_frames": 85, "steps": 2}, allow_degrade=["frames"])
    assert outcome.result is not None
    assert "num_frames 85 -> 81" in outcome.manifest.attempts[-1].changed
    assert (outcome.result.num_frames, outcome.manifest.degraded) == (81, True)
    hunyuan.check()


def test_p02_a_lack_of_memory_while_decoding_is_reported_as_such(hunyuan: HunyuanMachine) -> None:
    outcome = hunyuan.run({"oom_phase": "vae"}, retry_policy="none")
    assert (outcome.code, outcome.manifest.attempts[0].cause) == ("OOM_GPU", "vae")
    hunyuan.check()


def test_p05_a_foreign_sigkill_is_a_crash_and_tried_again_once_the_same(hunyuan: HunyuanMachine) -> None:
    def kill() -> None:
        os.kill(launches(hunyuan.checkout)[-1]["pid"], signal.SIGKILL)

    outcome = hunyuan.run({"hang_at": "step 2"}, {}, on=at_step(1, kill))
    first, second = outcome.manifest.attempts
    assert (first.failure, first.signal_number, second.outcome, second.changed) == ("CRASH", 9, "completed", ())
    hunyuan.check()


def test_p07_a_hang_while_loading_is_ended_and_tried_once_more(hunyuan: HunyuanMachine, patience: Patience) -> None:
    phase = FIRST_PHASE[hunyuan.member]
    outcome = hunyuan.run({"hang_at": "load"}, {}, on=patience(phase).hear)
    first = outcome.manifest.attempts[0]
    assert (first.failure, first.phase) == ("HANG", phase)
    assert outcome.code == "ok", outcome.error and outcome.error.message
    hunyuan.check()


def test_p07_a_hang_after_sampling_has_begun_is_not_repeated(hunyuan: HunyuanMachine, patience: Patience) -> None:
    patience("denoising")
    outcome = hunyuan.run({"hang_at": "step 2"})
    assert isinstance(outcome.error, AttemptError)
    assert (outcome.code, outcome.error.exit_status, len(outcome.manifest.attempts)) == ("HANG", 23, 1)
    hunyuan.check()


def test_p09_success_without_a_clip_is_tried_once_the_same(hunyuan: HunyuanMachine) -> None:
    outcome = hunyuan.run({"write": "none"})
    assert [attempt.failure for attempt in outcome.manifest.attempts] == ["OUTPUT", "OUTPUT"]
    assert outcome.manifest.attempts[1].changed == ()
    hunyuan.check()


@pytest.mark.parametrize(
    ("row", "way"), [("p10", "trunc"), ("p11", "faststart_trunc"), ("p12", "wrong_frames"), ("p12", "wrong_size")]
)
def test_a_damaged_clip_is_refused_and_one_more_try_cures_it(hunyuan: HunyuanMachine, row: str, way: str) -> None:
    outcome = hunyuan.run({"write": way}, {})
    assert [attempt.failure for attempt in outcome.manifest.attempts] == ["OUTPUT", None]
    hunyuan.check()


def test_p13_a_complete_clip_of_a_failed_program_is_kept_unverified(hunyuan: HunyuanMachine) -> None:
    outcome = hunyuan.run({"write": "ok", "exit": 1}, retry_policy="none")
    assert outcome.code == "FRAMEWORK"
    (kept,) = (hunyuan.state_dir / "runs").rglob("*.partial.mp4")
    assert kept.stat().st_size > 0
    hunyuan.check()


def test_p13_a_complete_clip_of_a_failed_program_is_accepted_only_where_the_user_said_so(
    hunyuan: HunyuanMachine,
) -> None:
    assert hunyuan.run({"write": "ok", "exit": 1}, accept_valid_on_nonzero=True).code == "ok"
    hunyuan.check()


def test_p17_grandchildren_that_outlive_the_script_are_ended(hunyuan: HunyuanMachine) -> None:
    outcome = hunyuan.run({"spawn": {"n": 2, "setsid": True, "ignore_term": True}})
    assert outcome.code == "ok"
    hunyuan.check()


def test_p28_a_flag_that_the_checkout_has_dropped_is_not_retried(hunyuan: HunyuanMachine) -> None:
    outcome = hunyuan.run({"unknown_flag": True})
    assert (outcome.code, len(outcome.manifest.attempts)) == ("CONFIG", 1)
    assert "unrecognized arguments" in outcome.manifest.attempts[0].message
    hunyuan.check()


def test_d01_a_full_disk_is_reported_as_such_and_not_retried(hunyuan: HunyuanMachine) -> None:
    text = 'Traceback (most recent call last):\n  File "x.py", line 1\nOSError: [Errno 28] No space left on device\n'
    outcome = hunyuan.run({"traceback": text, "at": "save"})
    assert (outcome.code, len(outcome.manifest.attempts)) == ("DISK", 1)
    hunyuan.check()


# ---------------------------------------------------------------------------------------------------- several GPUs


@pytest.mark.parametrize("member", PARALLEL, indirect=True)
def test_two_gpus_make_one_clip_together(hunyuan: HunyuanMachine) -> None:
    outcome = hunyuan.run({}, gpu_count=2)
    assert outcome.code == "ok", outcome.error and (outcome.error.message, outcome.error.evidence)
    entries = launches(hunyuan.checkout)
    assert sorted(entry["rank"] for entry in entries) == [0, 1]
    if hunyuan.member in OLDER:
        assert all({"--ulysses-degree=2", "--ring-degree=1"} <= set(entry["argv"]) for entry in entries)
    hunyuan.check()


@pytest.mark.parametrize("member", PARALLEL, indirect=True)
def test_p25_one_dead_rank_ends_all_and_the_next_attempt_succeeds(hunyuan: HunyuanMachine) -> None:
    outcome = hunyuan.run({"rank_die": {"rank": 1, "sig": 9}}, {}, gpu_count=2)
    assert [attempt.failure for attempt in outcome.manifest.attempts] == ["CRASH", None]
    hunyuan.check()


@pytest.mark.parametrize("member", OLDER, indirect=True)
def test_out_of_memory_on_two_gpus_falls_back_to_one_that_offloads(hunyuan: HunyuanMachine) -> None:
    outcome = hunyuan.run({"oom_phase": "dit"}, {}, gpu_count=2)
    assert {"gpu_count 2 -> 1", "use_cpu_offload False -> True"} <= set(outcome.manifest.attempts[1].changed)
    assert outcome.code == "ok"
    hunyuan.check()


@pytest.mark.parametrize("member", PARALLEL, indirect=True)
def test_p26_nccl_is_tried_once_more_and_the_first_ranks_words_are_kept(hunyuan: HunyuanMachine) -> None:
    outcome = hunyuan.run({"nccl": True}, {}, gpu_count=2)
    assert [attempt.failure for attempt in outcome.manifest.attempts] == ["NCCL", None]
    hunyuan.check()


# --------------------------------------------------------------------------------------------- what is special to one


@pytest.mark.parametrize("member", ["1.5"], indirect=True)
def test_super_resolution_has_a_phase_and_a_bar_of_its_own_and_the_promised_size(hunyuan: HunyuanMachine) -> None:
    outcome = hunyuan.run({}, size="1280x720", super_resolution=True)
    assert outcome.result is not None, outcome.error and outcome.error.message
    assert (outcome.result.width, outcome.result.height) == (1280, 720)
    phases = [event.name for event in outcome.events if isinstance(event, Phase)]
    assert phases[2:5] == ["denoising", "super resolution", "decoding"]
    steps_seen = [event for event in outcome.events if isinstance(event, Progress) and event.step]
    steps = [(event.phase, event.step, event.total) for event in steps_seen]
    assert steps == [("denoising", n, 3) for n in (1, 2, 3)] + [("super resolution", n, 6) for n in range(1, 7)]
    hunyuan.check()


@pytest.mark.parametrize("member", ["1.5"], indirect=True)
def test_equal_step_counts_are_distinguished_by_the_banner_of_super_resolution(hunyuan: HunyuanMachine) -> None:
    outcome = hunyuan.run({}, ask={"steps": 6}, size="1280x720", super_resolution=True)
    steps = [event.phase for event in outcome.events if isinstance(event, Progress) and event.step]
    assert steps == ["denoising"] * 6 + ["super resolution"] * 6


@pytest.mark.parametrize("member", ["1.5"], indirect=True)
def test_a_lack_of_memory_in_super_resolution_is_reported_as_such(hunyuan: HunyuanMachine) -> None:
    text = (
        'Traceback (most recent call last):\n  File "x.py", line 1\ntorch.OutOfMemoryError: CUDA out of memory. Tried\n'
    )
    script = {"traceback": text, "at": "sr step 2"}
    outcome = hunyuan.run(script, size="1280x720", super_resolution=True, retry_policy="none")
    assert (outcome.code, outcome.manifest.attempts[0].cause) == ("OOM_GPU", "super resolution")
    hunyuan.check()


@pytest.mark.parametrize("member", ["documented"], indirect=True)
def test_a_clip_of_unknown_size_is_decoded_completely_and_published_as_it_is(hunyuan: HunyuanMachine) -> None:
    outcome = hunyuan.run({}, ask={"num_frames": None})
    assert outcome.result is not None
    assert outcome.manifest.plan is not None
    assert outcome.manifest.plan["expected"] is None
    assert outcome.result.num_frames == 5
    broken = hunyuan.run({"write": "trunc"}, ask={"num_frames": None}, if_exists="overwrite", retry_policy="none")
    assert isinstance(broken.error, OutputError)
    hunyuan.check()


@pytest.mark.parametrize("member", ["t2v"], indirect=True)
def test_a_text_to_video_checkout_refuses_a_picture_and_names_the_fix(hunyuan: HunyuanMachine) -> None:
    outcome = hunyuan.run(ask={"image": hunyuan.photo})
    assert isinstance(outcome.error, InvalidInputError)
    assert "HunyuanVideo cannot make image-to-video clips" in outcome.error.message
    assert "github.com/Tencent-Hunyuan/HunyuanVideo-I2V" in outcome.error.advice
    assert launches(hunyuan.checkout) == []


@pytest.mark.parametrize("member", OLDER, indirect=True)
def test_flash_attention_that_is_missing_is_reported_before_the_start(hunyuan: HunyuanMachine) -> None:
    from tests.stand_ins.interpreter import Knobs, make_interpreter

    python = make_interpreter(hunyuan.folder / "venv", Knobs(flash_attn="absent"))
    outcome = hunyuan.run(python=str(python))
    assert isinstance(outcome.error, BackendUnavailableError)
    assert "cannot import flash_attn" in outcome.error.message
    assert launches(hunyuan.checkout) == []
