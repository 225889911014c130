"""Campaign P19: the runner is killed at random moments; nothing survives it, and the next run succeeds."""

from __future__ import annotations

import random
import select

import pytest

from tests.wan21.conftest import WanMachine

#: Lines that `reel generate --json` prints in a run like these, and those up to the end of the framework's own.
_LINES, _FRAMEWORK_LINES = 16, 13
#: Between two lines: phases of the stand-in last this long.
_STEP_S = 0.05


@pytest.mark.parametrize("seed", range(12))
def test_p19_a_runner_killed_at_a_random_moment_leaves_nothing_and_the_next_run_succeeds(
    wan: WanMachine, seed: int
) -> None:
    dice = random.Random(seed)
    plan = {"load_s": 4 * _STEP_S, "step_s": _STEP_S, "ignore_term": dice.random() < 0.5}
    for_ever = dice.random() < 0.6  # such a framework never ends by itself; the others may be killed later
    wan.script({**plan, "spawn": {"n": 1, "setsid": True}, "hang_at": "end" if for_ever else None}, {})
    process = wan.start("--json", gpu_count=1 + seed % 2, stop_grace_s=0.3)
    assert process.stdout is not None
    for _ in range(dice.randrange(_FRAMEWORK_LINES if for_ever else _LINES)):
        assert process.stdout.readline(), "it ended by itself: the campaign kills nothing"
    select.select([], [], [], dice.uniform(0, _STEP_S))  # any moment is as good as another: nothing is waited for
    process.kill()
    process.communicate()
    wan.check(killed=True)
    outcome = wan.run({}, ask={"num_frames": 1}, if_exists="skip")
    assert outcome.code == "ok"
    wan.check()
