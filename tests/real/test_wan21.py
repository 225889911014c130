"""The unmodified generate.py through Reelwright: what works, and every fault that can be provoked without a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.events import Phase, Progress
from tests.conftest import a_photo, eventually
from tests.wan21.conftest import Outcome, WanMachine

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
TWO = {"gpu_count": 2}
ONCE: dict[str, Any] = {"retry_policy": "none"}


def phases(outcome: Outcome) -> list[str]:
    return list(dict.fromkeys(event.name for event in outcome.events if isinstance(event, Phase)))


def steps(outcome: Outcome) -> list[int]:
    return [event.step for event in outcome.events if isinstance(event, Progress) and event.phase == "denoising"]


def assert_film(outcome: Outcome, width: int, height: int, frames: int) -> None:
    assert outcome.code == "ok", outcome.error and outcome.error.to_json()
    assert outcome.result is not None
    assert (outcome.result.width, outcome.result.height, outcome.result.num_frames) == (width, height, frames)
    assert outcome.result.fps == 16.0


def untouched(real: WanMachine) -> dict[str, tuple[int, int]]:
    """Size and time of every file of the checkout, which may be a clone or an unpacked archive."""
    files = [path for path in real.checkout.rglob("*") if path.is_file() and ".git" not in path.parts]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_one_process_makes_the_promised_film_and_every_phase_is_seen(real: WanMachine) -> None:
    before = untouched(real)
    outcome = real.run()
    assert_film(outcome, 832, 464, 5)
    assert steps(outcome) == [1, 2, 3]
    expected = ["starting", "loading text encoder", "loading VAE", "loading CLIP", "loading transformer", "encoding"]
    assert [name for name in phases(outcome) if name in expected] == expected
    assert untouched(real) == before
    real.check()


def test_two_ranks_make_one_film_and_their_bars_are_one(real: WanMachine) -> None:
    outcome = real.run(**TWO)
    assert_film(outcome, 832, 464, 5)
    assert steps(outcome) == [1, 2, 3]
    real.check()


def test_a_first_and_a_last_picture(real: WanMachine, tmp_path: Path) -> None:
    last = a_photo(tmp_path / "last.png", (400, 200))
    outcome = real.run(ask={"last_image": last, "num_frames": 81, "steps": 1})
    assert_film(outcome, 832, 464, 81)
    real.check()


def test_a_documented_size_through_the_launcher(real: WanMachine, tmp_path: Path) -> None:
    a_photo(real.photo, (1024, 576))
    real.photo_bytes = real.photo.read_bytes()
    outcome = real.run(ask={"steps": 1}, size="1024x576")
    assert_film(outcome, 1024, 576, 5)
    real.check()


def test_pytorchs_attention_through_the_launcher(real: WanMachine) -> None:
    outcome = real.run(ask={"steps": 2}, attention="sdpa")
    assert_film(outcome, 832, 464, 5)
    assert outcome.manifest.effective["attention"] == "sdpa"
    real.check()


def test_p09_a_save_that_fails_with_exit_status_0_is_seen(real: WanMachine) -> None:
    outcome = real.run(ask={"steps": 1}, env={"WAN_SHIM_FAIL_SAVE": "1"}, **ONCE)
    assert outcome.code in ("OUTPUT", "DISK")
    assert outcome.manifest.attempts[0].exit_status == 0
    assert not real.output.exists()
    real.check()


@pytest.mark.parametrize(("where", "cause"), [("load", "load"), ("step2", "dit"), ("vae", "vae")])
def test_p01_p02_out_of_memory_once_and_then_success_on_a_memory_rung(
    real: WanMachine, state: Path, where: str, cause: str
) -> None:
    state.parent.mkdir()
    env = {"WAN_SHIM_OOM_AT": where, "WAN_SHIM_OOM_TIMES": "1", "WAN_SHIM_STATE": str(state)}
    outcome = real.run(ask={"steps": 4}, env=env)
    assert outcome.code == "ok", outcome.error and outcome.error.to_json()
    first, second = outcome.manifest.attempts
    assert (first.failure, first.cause) == ("OOM_GPU", cause)
    assert "memory" in second.helps
    real.check()


MEMORY = "import torch; raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 5.20 GiB.')"
ANOTHER_EACH_TIME = (
    "open(r'{state}', 'a').write('x'); import os; "
    "raise (KeyError, TypeError, ValueError, OSError)[os.path.getsize(r'{state}') - 1]('strange')"
)
CUT = (
    "import atexit, os, sys; "
    "film = next(word.split('=', 1)[1] for word in sys.argv if word.startswith('--save_file=')); "
    "atexit.register(os.truncate, film, 3000)"
)
#: Where, what, the class, what each further attempt changes, and a line of the framework's own that must be evidence.
FAULTS = {
    "a package is missing": ("import", "import easydict_", "ENV", [], "No module named 'easydict_'"),
    "an assertion while loading": ("load", "assert 1 > 2, 'too small'", "FRAMEWORK", [], "AssertionError: too small"),
    "an exception in a step": ("step2", "raise ValueError('strange 7')", "FRAMEWORK", [()], "ValueError: strange 7"),
    "an exception while decoding": ("vae", "raise ValueError('strange')", "FRAMEWORK", [()], "ValueError: strange"),
    "another exception each time": (
        "step2",
        ANOTHER_EACH_TIME,
        "FRAMEWORK",
        [(), ("steps",), ("guidance",)],
        "strange",
    ),
    "memory in a step": ("step2", MEMORY, "OOM_GPU", ["memory"], "CUDA out of memory"),
    "memory while decoding": ("vae", MEMORY, "OOM_GPU", ["memory"], "CUDA out of memory"),
    "the writer fails": ("save", "raise RuntimeError('no codec')", "OUTPUT", [()], "cache_video failed"),
    "SIGTERM": ("step2", "import os; os.kill(os.getpid(), 15)", "CRASH", [()], "Generating video"),
    "success without a film": ("vae", "import os; os._exit(0)", "OUTPUT", [()], ""),
    "a film that is cut off": ("save", CUT, "OUTPUT", [()], ""),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_real_script_is_named_and_retried_only_as_it_can_help(
    real: WanMachine, state: Path, name: str
) -> None:
    state.parent.mkdir()
    where, statements, code, retries, evidence = FAULTS[name]
    env = {"WAN_SHIM_DO_AT": where, "WAN_SHIM_DO": statements.format(state=state)}
    outcome = real.run(ask={"guidance_scale": 7.5}, env=env)
    attempts = outcome.manifest.attempts
    assert outcome.error is not None
    assert outcome.code == code
    assert evidence in "\n".join(outcome.error.evidence)
    assert not [line for line in outcome.error.evidence if line.strip().startswith(("File ", "Traceback"))]
    for attempt in attempts:
        assert attempt.log is not None
        assert Path(attempt.log).stat().st_size
    assert outcome.error.log == attempts[-1].log
    changed = [attempt.changed for attempt in attempts[1:]]
    if retries == ["memory"]:
        assert changed
        assert not [text for texts in changed for text in texts if text.startswith(("steps", "guidance"))]
    else:
        assert [tuple(text.split("_")[0].split(" ")[0] for text in texts) for texts in changed] == retries
    real.check()


@pytest.mark.parametrize(("where", "retries"), [("load", 0), ("step2", 1)])
def test_a_time_limit_lowers_the_steps_only_while_they_are_computed(real: WanMachine, where: str, retries: int) -> None:
    outcome = real.run(env={"WAN_SHIM_HANG_AT": where}, timeout=60.0, chaining_max_retries=1)
    assert outcome.code == "TIMEOUT"
    changed = [attempt.changed for attempt in outcome.manifest.attempts[1:]]
    assert changed == [("steps 3 -> 2",)] * retries
    real.check()


def test_p07_a_hang_is_ended(real: WanMachine) -> None:
    outcome = real.run(env={"WAN_SHIM_HANG_AT": "step2"}, progress_timeout=45.0, **ONCE)
    assert outcome.code == "HANG"
    assert outcome.manifest.attempts[0].step == 1
    real.check()


def test_p25_a_dead_rank_is_named_and_the_other_ended(real: WanMachine) -> None:
    outcome = real.run(env={"WAN_SHIM_RANK_DIE": "1"}, **TWO, **ONCE)
    assert outcome.code == "CRASH"
    assert "SIGKILL" in (outcome.error.message if outcome.error else "")
    real.check()


@pytest.mark.parametrize("ranks", [1, 2])
def test_p19_a_killed_runner_leaves_nothing_and_the_next_run_succeeds(real: WanMachine, ranks: int) -> None:
    process = real.start("--json", gpu_count=ranks, env={"WAN_SHIM_HANG_AT": "step2"})
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get("event") == "Progress":
            break
    process.kill()
    process.wait()
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.close()
    eventually(lambda: not real.survivors(), within_s=20, what="the end of every process")
    assert not real.output.exists()
    assert_film(real.run(ask={"steps": 1}, gpu_count=ranks), 832, 464, 5)
    real.check()


def test_what_the_script_would_refuse_is_refused_before_it_starts(real: WanMachine) -> None:
    for wrong in ({"size": "640x360"}, {"gpus": (0, 1, 2)}):
        assert real.run(**wrong).code in ("CONFIG", "ENV")
    assert real.run(ask={"num_frames": 6}).code == "CONFIG"
    assert not real.output.exists()
