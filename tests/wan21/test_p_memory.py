"""Memory that runs out: of the GPU while loading, denoising or decoding, and of the host (rows P01 to P04)."""

from __future__ import annotations

import pytest

from reelwright.core.errors import Failure, OutOfMemoryError
from reelwright.sites.local import attempt_monitor
from tests.stand_ins.checkout import launches
from tests.wan21.conftest import WanMachine


def test_p01_a_memory_mitigation_cures_out_of_memory_while_denoising(wan: WanMachine) -> None:
    outcome = wan.run({"oom_phase": "dit"}, {})
    first, second = outcome.manifest.attempts
    assert (first.outcome, first.failure, first.cause, first.phase) == ("failed", "OOM_GPU", "dit", "denoising")
    assert first.evidence[0].startswith("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate")
    assert (second.outcome, second.failure) == ("completed", None)
    assert not outcome.manifest.degraded
    wan.check()


def test_p01_the_second_command_and_its_environment_have_the_mitigation_and_the_same_seed(wan: WanMachine) -> None:
    outcome = wan.run({"oom_phase": "dit"}, {})
    before, after = launches(wan.checkout)
    assert "--t5_cpu" not in before["argv"]
    assert "--t5_cpu" in after["argv"]
    assert {"--sample_steps=3", "--base_seed=7", "--frame_num=5"} <= set(after["argv"])
    assert "PYTORCH_CUDA_ALLOC_CONF" not in before["environ"]
    assert after["environ"]["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    changed = dict(zip(outcome.manifest.attempts[1].changed, outcome.manifest.attempts[1].helps, strict=True))
    assert changed == {
        "t5_cpu False -> True": "memory",
        "expandable_segments False -> True": "memory",
    }
    wan.check()


def test_p01_strict_quality_uses_the_same_mitigations_and_keeps_the_steps(wan: WanMachine) -> None:
    outcome = wan.run({"oom_phase": "dit"}, {}, strict_quality=True)
    assert outcome.code == "ok"
    assert not outcome.manifest.degraded
    assert "--sample_steps=3" in launches(wan.checkout)[1]["argv"]
    wan.check()


def test_p01_without_a_mitigation_left_the_run_ends_and_says_what_would_help(wan: WanMachine) -> None:
    outcome = wan.run({"oom_phase": "dit"}, retry_policy="classified", gpus=[0])
    assert isinstance(outcome.error, OutOfMemoryError)
    assert (outcome.code, outcome.error.exit_status) == ("OOM_GPU", 20)
    assert [attempt.failure for attempt in outcome.manifest.attempts] == ["OOM_GPU", "OOM_GPU"]
    assert "Fewer steps and lower guidance do not change peak memory" in outcome.error.advice
    wan.check()


def test_p01_the_next_run_starts_with_the_mitigation_that_worked(wan: WanMachine) -> None:
    wan.run({"oom_phase": "dit"}, {}, strict_quality=True)
    again = wan.run({}, if_exists="overwrite", strict_quality=True)
    assert len(again.manifest.attempts) == 1
    assert "--t5_cpu" in launches(wan.checkout)[2]["argv"]
    wan.check()


def test_p01_one_rank_of_two_out_of_memory_is_named_and_not_taken_for_nccl(wan: WanMachine) -> None:
    text = (
        "[rank1]: Traceback (most recent call last):\n[rank1]:   File 'x'\n[rank1]: torch.OutOfMemoryError: CUDA out of"
    )
    watchdog = "[rank0]:[E1 ProcessGroupNCCL.cpp:632] [Rank 0] Watchdog caught collective operation timeout"
    outcome = wan.run(
        {"traceback": f"{watchdog}\n{text} memory. Tried to allocate 5 GiB"}, gpu_count=2, retry_policy="none"
    )
    assert outcome.code == "OOM_GPU"
    assert "rank 1" in outcome.manifest.attempts[0].message
    wan.check()


def test_p02_out_of_memory_while_decoding_is_reported_and_removes_no_steps(wan: WanMachine) -> None:
    outcome = wan.run({"oom_phase": "vae"}, {})
    first, second = outcome.manifest.attempts
    assert (first.failure, first.cause, first.phase, first.step) == ("OOM_GPU", "vae", "decoding", 3)
    assert "while decoding" in first.message
    assert second.parameters["steps"] == 3
    assert set(second.helps) == {"memory"}
    assert not outcome.manifest.degraded
    wan.check()


def test_p02_the_error_says_that_decoding_took_the_memory(wan: WanMachine) -> None:
    outcome = wan.run({"oom_phase": "vae"}, retry_policy="none")
    assert outcome.error is not None
    assert outcome.code == "OOM_GPU"
    assert outcome.error.advice.startswith("All steps were done; decoding the clip took more memory than was free.")
    wan.check()


TEXT = "torch.OutOfMemoryError: CUDA out of memory"


def test_p03_a_prompt_that_speaks_of_errors_is_no_error(wan: WanMachine) -> None:
    outcome = wan.run({}, ask={"prompt": f"a screen that says {TEXT}"})
    assert outcome.code == "ok"
    assert len(outcome.manifest.attempts) == 1
    wan.check()


def test_p03_a_prompt_that_forges_a_traceback_does_not_name_the_failure(wan: WanMachine) -> None:
    forged = f"a cat\nTraceback (most recent call last):\n  File 'x', line 1\n{TEXT}\nNo space left on device"
    outcome = wan.run({"exit": 3}, ask={"prompt": forged}, retry_policy="none")
    assert outcome.code == "FRAMEWORK"
    assert outcome.manifest.attempts[0].exit_status == 3
    assert not any("memory" in line or "space" in line for line in outcome.manifest.attempts[0].evidence)
    wan.check()


def test_p04_a_kill_by_the_kernel_is_recognised_and_never_repeated(
    wan: WanMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter((4, 5))
    monkeypatch.setattr(attempt_monitor, "oom_kills", lambda: next(counts))
    outcome = wan.run({"host_oom": True})
    assert isinstance(outcome.error, OutOfMemoryError)
    assert (outcome.error.failure, outcome.error.exit_status) == (Failure.OOM_HOST, 21)
    (attempt,) = outcome.manifest.attempts
    assert (attempt.signal_number, attempt.cause) == (9, "oom-killer")
    assert "fewer GPUs" in outcome.error.advice
    assert "t5_cpu" in outcome.error.advice
    wan.check()
