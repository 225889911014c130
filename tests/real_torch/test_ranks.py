"""The process rows under the real torchrun: what two ranks do is seen, named and cleaned up as with the stand-in."""

from __future__ import annotations

import signal

import pytest

from reelwright.core.events import Progress
from tests.conftest import eventually
from tests.stand_ins.checkout import launches, notes, reached
from tests.stand_ins.interpreter import Knobs, make_interpreter
from tests.wan21.conftest import WanMachine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]


def test_two_ranks_make_one_film_and_their_bars_are_one(two_ranks: WanMachine) -> None:
    outcome = two_ranks.run({})
    assert outcome.code == "ok", outcome.error
    steps = [event.step for event in outcome.events if isinstance(event, Progress) and event.phase == "denoising"]
    assert steps == [1, 2, 3]
    assert len(launches(two_ranks.checkout)) == 2
    assert {entry["environ"]["WORLD_SIZE"] for entry in launches(two_ranks.checkout)} == {"2"}
    two_ranks.check()


@pytest.mark.parametrize(
    ("how", "code"),
    [({"rank": 1, "sig": 9}, "CRASH"), ({"rank": 1, "exit": 1}, "FRAMEWORK"), ({"rank": 0, "sig": 11}, "CRASH")],
)
def test_p25_a_dead_rank_is_named_while_the_other_waits_for_it(
    two_ranks: WanMachine, how: dict[str, int], code: str
) -> None:
    outcome = two_ranks.run({"rank_die": how}, retry_policy="none")
    assert outcome.code == code
    assert outcome.manifest.attempts[0].phase == "denoising"
    two_ranks.check()


def test_p07_one_rank_that_never_comes_is_a_hang_and_all_are_ended(two_ranks: WanMachine) -> None:
    outcome = two_ranks.run({"ranks_hang": [1]}, retry_policy="none", progress_timeout=3.0)
    assert outcome.code == "HANG"
    two_ranks.check()


def test_p01_out_of_memory_on_the_ranks_then_success_on_a_memory_rung(two_ranks: WanMachine) -> None:
    outcome = two_ranks.run({"oom_phase": "dit"}, {})
    assert outcome.code == "ok", outcome.error
    first, second = outcome.manifest.attempts
    assert (first.failure, first.cause) == ("OOM_GPU", "dit")
    assert second.changed
    assert "memory" in second.helps
    two_ranks.check()


def test_p26_a_real_watchdog_text_and_abort_is_nccl(two_ranks: WanMachine) -> None:
    outcome = two_ranks.run({"nccl": "watchdog"}, retry_policy="none")
    assert outcome.code == "NCCL"
    two_ranks.check()


def test_p28_an_unknown_flag_is_the_frameworks_refusal_and_not_retried(two_ranks: WanMachine) -> None:
    outcome = two_ranks.run({"unknown_flag": True})
    assert outcome.code == "CONFIG"
    assert len(outcome.manifest.attempts) == 1
    two_ranks.check()


def test_p17_what_the_ranks_left_behind_is_ended(two_ranks: WanMachine) -> None:
    outcome = two_ranks.run({"spawn": {"n": 2, "setsid": True, "ignore_term": True}})
    assert outcome.code == "ok", outcome.error
    two_ranks.check()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_p22_a_signal_ends_torchrun_and_its_ranks(two_ranks: WanMachine, number: int, status: int) -> None:
    two_ranks.script({"hang_at": "step 2"})
    process = two_ranks.start()
    eventually(lambda: len(reached(two_ranks.checkout, "hang")) == 2, within_s=200, what="both ranks hanging")
    process.send_signal(number)
    assert two_ranks.finish(process).status == status
    two_ranks.check()


@pytest.mark.parametrize("point", ["load", "step 2", "vae"])
def test_p19_a_killed_runner_takes_torchrun_and_its_ranks_with_it(two_ranks: WanMachine, point: str) -> None:
    two_ranks.script({"hang_at": point}, {})
    process = two_ranks.start()
    expected = 1 if point == "vae" else 2
    eventually(lambda: len(reached(two_ranks.checkout, "hang")) >= expected, within_s=200, what="the hang")
    process.kill()
    process.communicate()
    two_ranks.check(killed=True)
    assert two_ranks.run({}).code == "ok"
    two_ranks.check()


def test_the_launcher_is_a_rank_like_any_other(two_ranks: WanMachine) -> None:
    outcome = two_ranks.run({}, size="1024x576")
    assert outcome.code == "ok", outcome.error
    assert outcome.result is not None
    assert (outcome.result.width, outcome.result.height) == (1024, 576)
    two_ranks.check()


def test_without_flash_attention_the_ranks_use_the_real_torchs(
    two_ranks: WanMachine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    knobs = Knobs(real_torch=True, flash_attn="absent")
    python = make_interpreter(tmp_path_factory.mktemp("no-flash") / "env", knobs)
    outcome = two_ranks.run({}, python=str(python))
    assert outcome.code == "ok", outcome.error
    served = [note for note in notes(two_ranks.checkout) if "between" in note]
    assert served == [{"between": "TORCH"}] * 2
    two_ranks.check()
