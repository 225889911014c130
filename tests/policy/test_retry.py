"""What next: the policies as tables."""

from __future__ import annotations

from typing import Any

import pytest

from reelwright.core.errors import Failure, Retry
from reelwright.core.plan import Mitigation, Plan
from reelwright.policy import Diagnosis, Next, Stop
from reelwright.policy.retry import Past, RetryRules, decide, quality_step

LEVERS = (
    Mitigation("offload", {"offload_model": True}, "time", "offload"),
    Mitigation("expandable_segments", {"expandable_segments": True}, "nothing", "fragmentation"),
    Mitigation("more_gpus", {"gpu_count": 4}, "nothing", "more GPUs"),
    Mitigation("frames_49", {"num_frames": 49}, "frames", "fewer frames"),
    Mitigation("frames_33", {"num_frames": 33}, "frames", "fewer frames still"),
    Mitigation("size_480p", {"size": "832x480", "flow_shift": 3.0}, "size", "smaller"),
)


def a_plan(mitigations: tuple[Mitigation, ...] = LEVERS, **parameters: Any) -> Plan:
    values = {
        "steps": 50,
        "guidance_scale": 7.5,
        "num_frames": 81,
        "size": "1280x720",
        "flow_shift": 5.0,
        "offload_model": False,
        "expandable_segments": False,
        "gpu_count": 1,
        "seed": 7,
    }
    return Plan("wan2.1", "i2v", True, None, None, parameters={**values, **parameters}, mitigations=mitigations)


def play(
    rules: RetryRules, *failures: Failure, plan: Plan | None = None, phase: str = "denoising", **found: Any
) -> list[Next | Stop]:
    """The decisions after each failure in turn; each failed at a step unless ``sampling=False``."""
    past: list[Past] = []
    decisions: list[Next | Stop] = []
    step = None
    for failure in failures:
        values = {"sampling": phase == "denoising", **found}
        past.append(Past(Diagnosis(failure, "x", phase=phase, **values), 10.0, step))
        decision = decide(rules, plan or a_plan(), past)
        decisions.append(decision)
        if isinstance(decision, Stop):
            break
        step = decision
    return decisions


def overrides(decisions: list[Next | Stop]) -> list[Any]:
    return [dict(item.overrides) if isinstance(item, Next) else "stop" for item in decisions]


DEFAULT = RetryRules()
DOCUMENTED = RetryRules(policy="documented")
POLICIES = ["ladder", "classified", "documented"]
FREE = {"offload_model": True, "expandable_segments": True}


def test_the_documented_ladder_is_three_rungs_from_the_original_values() -> None:
    assert overrides(play(DOCUMENTED, *[Failure.FRAMEWORK] * 4)) == [
        {"steps": 37},
        {"guidance_scale": 5.0},
        {"steps": 25, "guidance_scale": 3.0},
        "stop",
    ]


def test_guidance_is_never_raised_and_a_rung_without_effect_is_skipped_and_said() -> None:
    decisions = play(DOCUMENTED, *[Failure.FRAMEWORK] * 3, plan=a_plan(guidance_scale=4.0))
    assert overrides(decisions) == [{"steps": 37}, {"steps": 25, "guidance_scale": 3.0}, "stop"]
    assert isinstance(decisions[1], Next)
    assert decisions[1].skipped == ("step 2 would change nothing",)


@pytest.mark.parametrize(("steps", "expected"), [(50, 37), (40, 30), (3, 2), (1, None), (2, 1)])
def test_three_quarters_of_the_steps_are_rounded_down_and_at_least_one(steps: int, expected: int | None) -> None:
    assert quality_step(1, {"steps": steps, "guidance_scale": 5.0}).get("steps") == expected


def test_by_default_an_unknown_failure_is_tried_as_it_was_before_anything_is_lowered() -> None:
    assert overrides(play(DEFAULT, *[Failure.FRAMEWORK] * 4)) == [{}, {"steps": 37}, {"guidance_scale": 5.0}, "stop"]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("phase", ["starting", "encoding", "loading transformer", "decoding", "saving"])
def test_outside_the_steps_an_unknown_failure_is_tried_once_more_as_it_was(phase: str, policy: str) -> None:
    assert overrides(play(RetryRules(policy=policy), *[Failure.FRAMEWORK] * 3, phase=phase)) == [{}, "stop"]


@pytest.mark.parametrize(("policy", "tried"), [("ladder", {}), ("classified", {}), ("documented", {"steps": 37})])
def test_the_same_exception_at_the_same_place_twice_ends_it(policy: str, tried: Any) -> None:
    decisions = play(RetryRules(policy=policy), *[Failure.FRAMEWORK] * 4, signature="KeyError @ a.py, line 3")
    assert overrides(decisions) == [tried, "stop"]


@pytest.mark.parametrize("policy", POLICIES)
def test_an_assertion_of_the_framework_is_not_tried_again(policy: str) -> None:
    assert overrides(play(RetryRules(policy=policy), Failure.FRAMEWORK, cause="assertion")) == ["stop"]


def test_documented_out_of_memory_lowers_the_steps_with_the_free_levers_and_then_stops_unless_allowed() -> None:
    assert overrides(play(DOCUMENTED, Failure.OOM_GPU, Failure.OOM_GPU)) == [{"steps": 37, **FREE}, "stop"]


@pytest.mark.parametrize("phase", ["loading transformer", "encoding", "decoding"])
def test_documented_lowers_no_steps_where_memory_ran_out_before_or_after_them(phase: str) -> None:
    assert overrides(play(DOCUMENTED, Failure.OOM_GPU, phase=phase)) == [FREE]


def test_documented_out_of_memory_goes_on_to_frames_and_size_where_allowed() -> None:
    rules = RetryRules(policy="documented", allow_degrade=frozenset({"frames", "size"}))
    assert overrides(play(rules, *[Failure.OOM_GPU] * 4)) == [
        {"steps": 37, **FREE},
        {"guidance_scale": 5.0, **FREE, "num_frames": 49},
        {"steps": 25, "guidance_scale": 3.0, **FREE, "num_frames": 49, "size": "832x480", "flow_shift": 3.0},
        "stop",
    ]


def test_a_number_of_gpus_that_was_asked_for_is_not_exceeded_by_default() -> None:
    assert overrides(play(RetryRules(fixed_gpus=True), *[Failure.OOM_GPU] * 2)) == [FREE, "stop"]


def test_guidance_is_lowered_for_memory_only_by_documented_and_precision_unless_strict() -> None:
    mitigations = (
        Mitigation("cfg", {"cfg_scale": 1.0}, "guidance", "one pass"),
        Mitigation("fp8", {"use_fp8": True}, "precision", "smaller weights"),
    )
    plan = a_plan(mitigations, cfg_scale=6.0, use_fp8=False)
    assert overrides(play(DEFAULT, Failure.OOM_GPU, plan=plan)) == [{"use_fp8": True}]
    documented = overrides(play(DOCUMENTED, Failure.OOM_GPU, plan=plan))[0]
    assert (documented["cfg_scale"], documented["use_fp8"]) == (1.0, True)
    for policy in POLICIES:
        rules = RetryRules(policy=policy, strict_quality=True, allow_degrade=frozenset({"frames", "size"}))
        assert overrides(play(rules, Failure.OOM_GPU, plan=plan)) == ["stop"]


@pytest.mark.parametrize("policy", POLICIES)
def test_without_a_lever_a_crowded_card_is_tried_once_more(policy: str) -> None:
    rules, plan = RetryRules(policy=policy), a_plan(mitigations=())
    assert overrides(play(rules, *[Failure.OOM_GPU] * 2, plan=plan, crowded=True)) == [{}, "stop"]
    assert overrides(play(rules, Failure.OOM_GPU, plan=plan)) == ["stop"]


def test_without_a_lever_out_of_memory_stops_at_once_and_says_what_would_help() -> None:
    decision = play(DOCUMENTED, Failure.OOM_GPU, plan=a_plan(mitigations=LEVERS[3:]))[0]
    assert isinstance(decision, Stop)
    assert "--allow-degrade frames,size" in decision.why


@pytest.mark.parametrize("policy", ["ladder", "classified"])
def test_against_a_lack_of_memory_neither_steps_nor_guidance_are_touched(policy: str) -> None:
    rules = RetryRules(policy=policy, allow_degrade=frozenset({"frames", "size"}), max_retries=9)
    assert overrides(play(rules, *[Failure.OOM_GPU] * 5)) == [
        FREE,
        {**FREE, "gpu_count": 4},
        {**FREE, "gpu_count": 4, "num_frames": 49},
        {**FREE, "gpu_count": 4, "num_frames": 49, "size": "832x480", "flow_shift": 3.0},
        "stop",
    ]


def test_strict_quality_keeps_the_memory_levers_that_cost_none() -> None:
    rules = RetryRules(strict_quality=True, allow_degrade=frozenset({"frames", "size"}))
    assert overrides(play(rules, *[Failure.OOM_GPU] * 3)) == [FREE, {**FREE, "gpu_count": 4}, "stop"]


def test_strict_quality_forbids_the_ladder() -> None:
    assert overrides(play(RetryRules(strict_quality=True), Failure.TIMEOUT)) == ["stop"]


NEVER = [failure for failure in Failure if failure.retry is Retry.NEVER]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("failure", NEVER, ids=lambda failure: failure.name)
def test_what_no_smaller_job_can_cure_is_not_retried(failure: Failure, policy: str) -> None:
    assert overrides(play(RetryRules(policy=policy), failure)) == ["stop"]


@pytest.mark.parametrize("failure", list(Failure), ids=lambda failure: failure.name)
def test_the_policy_none_never_retries(failure: Failure) -> None:
    assert overrides(play(RetryRules(policy="none"), failure)) == ["stop"]


SAME_ONCE = [(Failure.CRASH, "denoising"), (Failure.NCCL, "denoising"), (Failure.HANG, "loading transformer")]


@pytest.mark.parametrize(("failure", "phase"), SAME_ONCE)
def test_a_passing_fault_is_tried_once_more_as_it_was(failure: Failure, phase: str) -> None:
    assert overrides(play(DOCUMENTED, failure, failure, phase=phase)) == [{}, "stop"]


def test_a_crash_goes_to_other_gpus() -> None:
    decision = play(DOCUMENTED, Failure.CRASH)[0]
    assert isinstance(decision, Next)
    assert decision.other_gpus


def test_a_hang_after_sampling_began_is_not_repeated() -> None:
    assert overrides(play(DOCUMENTED, Failure.HANG, phase="denoising")) == ["stop"]


def test_nccl_is_tried_without_peer_to_peer_only_where_allowed() -> None:
    decision = play(RetryRules(nccl_p2p=True), Failure.NCCL, Failure.NCCL)[1]
    assert isinstance(decision, Next)
    assert decision.env == {"NCCL_P2P_DISABLE": "1"}


def test_cards_that_cannot_reach_each_other_are_tried_without_peer_to_peer_or_not_again() -> None:
    (stop,) = play(RetryRules(), Failure.NCCL, cause="peer-access")
    first = play(RetryRules(nccl_p2p=True), Failure.NCCL, cause="peer-access")[0]
    assert isinstance(stop, Stop)
    assert isinstance(first, Next)
    assert first.env == {"NCCL_P2P_DISABLE": "1"}


def test_a_taken_port_is_not_counted_and_not_for_ever() -> None:
    decisions = play(RetryRules(max_retries=0), *[Failure.PORT] * 5)
    assert [isinstance(item, Next) for item in decisions] == [True, True, True, False]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_missing_video_is_tried_once_more_as_it_was(policy: str) -> None:
    assert overrides(play(RetryRules(policy=policy), *[Failure.OUTPUT] * 2, phase="saving")) == [{}, "stop"]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_time_limit_during_the_steps_lowers_them(policy: str) -> None:
    assert overrides(play(RetryRules(policy=policy), Failure.TIMEOUT))[0] == {"steps": 37}


@pytest.mark.parametrize("phase", ["starting", "loading transformer", "encoding", "decoding", "saving"])
def test_a_time_limit_before_or_after_the_steps_lowers_nothing(phase: str) -> None:
    (decision,) = play(DEFAULT, Failure.TIMEOUT, phase=phase)
    assert isinstance(decision, Stop)
    assert "Raise `timeout`" in decision.why
    assert ("before the first step" in decision.why) == (phase not in ("decoding", "saving"))


def test_memory_levers_stay_pulled_when_a_time_limit_follows() -> None:
    first = decide(DEFAULT, a_plan(), [Past(Diagnosis(Failure.OOM_GPU, "x", phase="denoising", sampling=True))])
    assert isinstance(first, Next)
    past = [
        Past(Diagnosis(Failure.OOM_GPU, "x", phase="denoising", sampling=True)),
        Past(Diagnosis(Failure.TIMEOUT, "x", phase="denoising"), 1.0, first),
    ]
    second = decide(DEFAULT, a_plan(), past)
    assert isinstance(second, Next)
    assert FREE.items() <= dict(second.overrides).items()


def test_every_retry_names_every_change() -> None:
    decision = play(DOCUMENTED, Failure.FRAMEWORK)[0]
    assert isinstance(decision, Next)
    assert decision.changed == ("steps 50 -> 37",)
    assert "steps 50 -> 37" in decision.why
    repeated = decide(
        DOCUMENTED,
        a_plan(),
        [
            Past(Diagnosis(Failure.FRAMEWORK, "x", phase="denoising", sampling=True)),
            Past(Diagnosis(Failure.CRASH, "y"), 1.0, decision),
        ],
    )
    assert isinstance(repeated, Next)
    assert "steps 50 -> 37" in repeated.why


def test_tries_that_do_not_count_leave_all_retries() -> None:
    rules = RetryRules(max_retries=1)
    failures = [Failure.PORT, Failure.PORT, Failure.CRASH, Failure.CRASH]
    assert [isinstance(item, Next) for item in play(rules, *failures)] == [True, True, True, False]


@pytest.mark.parametrize("limit", [0, 1, 2, 3])
def test_there_are_never_more_retries_than_allowed(limit: int) -> None:
    decisions = play(RetryRules(policy="documented", max_retries=limit), *[Failure.FRAMEWORK] * 5)
    assert sum(isinstance(item, Next) for item in decisions) == limit


def test_the_budget_ends_the_ladder() -> None:
    assert overrides(play(RetryRules(budget_s=15.0), *[Failure.TIMEOUT] * 3)) == [{"steps": 37}, "stop"]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_seed_is_never_touched(policy: str) -> None:
    rules = RetryRules(policy=policy, allow_degrade=frozenset({"frames", "size"}), max_retries=9)
    for failure in (Failure.OOM_GPU, Failure.TIMEOUT, Failure.FRAMEWORK, Failure.OUTPUT):
        assert all("seed" not in item for item in overrides(play(rules, *[failure] * 6)))


def test_a_decision_tells_what_each_change_helps() -> None:
    decision = play(DOCUMENTED, Failure.OOM_GPU)[0]
    assert isinstance(decision, Next)
    assert dict(zip((text.split()[0] for text in decision.changed), decision.helps, strict=True)) == {
        "steps": "time",
        "offload_model": "memory",
        "expandable_segments": "memory",
    }
    assert decision.degrades


def test_memory_levers_alone_do_not_degrade() -> None:
    decision = play(RetryRules(policy="classified"), Failure.OOM_GPU)[0]
    assert isinstance(decision, Next)
    assert not decision.degrades
