"""Illegal combinations, injected environments, secrets and forged log lines, in whole runs: rows C03 to C06."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelwright.cli import main
from reelwright.core.events import AttemptStarted, Event, Log, Phase
from tests.conftest import REPOSITORY
from tests.stand_ins.checkout import launches, make_wan_checkout
from tests.wan21.conftest import WanMachine

Reel = Callable[..., subprocess.CompletedProcess[str]]
SECRET = "hunter2-is-in-no-file"

# ------------------------------------------------------------------------------------------- C03: illegal combinations


@pytest.mark.parametrize(
    ("ask", "settings", "words"),
    [
        ({"num_frames": 80}, {}, "Wan2.1 makes 4n+1 frames, not 80"),
        ({"num_frames": 4}, {}, "Wan2.1 makes 4n+1 frames, not 4"),
        ({"num_frames": None}, {"frame_num": 82}, "Wan2.1 makes 4n+1 frames, not 82"),
        ({"num_frames": None, "seconds": 10.0}, {}, "one clip is at most 81 frames"),
        ({"fps": 24.0}, {}, "24 fps cannot be chosen"),
        ({"last_image": ..., "num_frames": 49}, {}, "exactly 81 frames"),
        ({"size": None}, {"size": "1920x1080"}, "i2v-14B cannot make 1920x1080"),
    ],
)
def test_c03_what_generate_py_would_only_refuse_later_is_refused_before_the_spawn(
    wan: WanMachine, ask: dict[str, Any], settings: dict[str, Any], words: str
) -> None:
    asked = {name: wan.photo if value is ... else value for name, value in ask.items()}
    outcome = wan.run({}, ask=asked, **settings)
    assert (outcome.code, launches(wan.checkout)) == ("CONFIG", [])
    assert outcome.error is not None
    assert outcome.error.exit_status == 11
    assert words in outcome.error.message
    assert outcome.error.advice
    wan.check()


def test_c03_an_old_checkout_makes_81_frames_only_and_is_reported(wan: WanMachine, tmp_path: Path) -> None:
    old = make_wan_checkout(tmp_path / "out" / "old", old=True)
    outcome = wan.run({}, wan2_dir=str(old))
    assert (outcome.code, launches(old)) == ("CONFIG", [])
    assert outcome.error is not None
    assert "older than 2025-12-02" in outcome.error.message
    assert wan.run({}, ask={"num_frames": 81}, wan2_dir=str(old)).code == "ok"
    subprocess.run(["rm", "-r", str(old)], check=True)
    wan.check()


@pytest.mark.parametrize(("count", "degrees"), [(2, (2, 1)), (3, (1, 3)), (6, (2, 3)), (7, (1, 7))])
def test_c03_any_number_of_gpus_gives_a_legal_split_of_40_heads(
    wan: WanMachine, count: int, degrees: tuple[int, int]
) -> None:
    outcome = wan.run({}, simulate_gpus="8x80GiB", gpu_count=count)
    assert outcome.code == "ok"
    started = launches(wan.checkout)
    assert len(started) == count
    assert f"--ulysses_size={degrees[0]}" in started[0]["argv"]
    assert f"--ring_size={degrees[1]}" in started[0]["argv"]
    wan.check()


def test_c03_one_gpu_never_gets_fsdp_flags(wan: WanMachine) -> None:
    assert wan.run({}, chaining_use_fsdp_flags=True).code == "ok"
    (launch,) = launches(wan.checkout)
    assert not {"--dit_fsdp", "--t5_fsdp"} & set(launch["argv"])
    wan.check()


def test_c03_more_gpus_than_exist_is_reported_before_the_spawn(wan: WanMachine) -> None:
    outcome = wan.run({}, gpu_count=3)
    assert (outcome.code, launches(wan.checkout)) == ("ENV", [])
    wan.check()


def test_c03_settings_for_this_generator_only_reach_its_attempts(wan: WanMachine) -> None:
    own = {"wan2.1": {"timeout": 0.6, "retry_policy": "none", "sample_steps": 2}}
    outcome = wan.run({"hang_at": "step 2"}, ask={"steps": None}, generators=own)
    assert outcome.code == "TIMEOUT"
    assert outcome.manifest.effective["steps"] == 2
    wan.check()


# ------------------------------------------------------------------------------------------------ C04: environment

INJECTED = {
    "LD_PRELOAD": "/nowhere/evil.so",
    "PYTHONPATH": "/nowhere",
    "PYTHONSTARTUP": "/nowhere/evil.py",
    "PYTHONHOME": "/nowhere",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "203.0.113.1",
    "MASTER_PORT": "1",
    "TORCHELASTIC_RUN_ID": "cluster",
    "SLURM_PROCID": "3",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "HF_TOKEN": SECRET,
    "http_proxy": f"http://user:{SECRET}@proxy",
    "REELWRIGHT_SECRET": SECRET,
}


@pytest.mark.parametrize("gpus", [1, 2])
def test_c04_nothing_of_a_cluster_shell_reaches_the_framework(wan: WanMachine, gpus: int) -> None:
    wan.environ.update(INJECTED, NCCL_DEBUG="INFO", OMP_NUM_THREADS="3")
    outcome = wan.run({}, gpu_count=gpus)
    assert outcome.code == "ok"
    started = launches(wan.checkout)
    assert len(started) == gpus
    for launch in started:
        seen = launch["environ"]
        assert {name for name, value in INJECTED.items() if seen.get(name) == value and name != "LOCAL_RANK"} <= (
            {"RANK", "WORLD_SIZE"} if gpus == 2 else set()
        )
        assert (seen["NCCL_DEBUG"], seen["OMP_NUM_THREADS"]) == ("INFO", "3")
        assert (seen["HF_HUB_OFFLINE"], seen["PYTHONNOUSERSITE"]) == ("1", "1")
    wan.check()


def test_c04_extra_variables_of_the_settings_reach_the_framework(wan: WanMachine) -> None:
    assert wan.run({}, env={"NCCL_P2P_LEVEL": "NVL", "MY_PLUGIN": "a=b c"}).code == "ok"
    (launch,) = launches(wan.checkout)
    assert (launch["environ"]["NCCL_P2P_LEVEL"], launch["environ"]["MY_PLUGIN"]) == ("NVL", "a=b c")
    wan.check()


@pytest.mark.parametrize(
    "name", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "CUDA_VISIBLE_DEVICES", "REELWRIGHT_RUN"]
)
def test_c04_variables_that_would_break_ranks_or_leases_cannot_be_set(wan: WanMachine, reel: Reel, name: str) -> None:
    done = reel("plan", wan.photo, "x", "--config", wan.config_file(env={name: "1"}))
    assert done.returncode == 11
    assert f"env.{name}" in done.stderr or name in done.stderr
    assert launches(wan.checkout) == []


@pytest.mark.parametrize("env", [{"A=B": "x"}, {"": "x"}, {"A": "x\0y"}, {"A\0": "x"}])
def test_c04_variables_that_no_process_can_receive_are_refused(
    wan: WanMachine, reel: Reel, env: dict[str, str]
) -> None:
    done = reel("plan", wan.photo, "x", "--config", wan.config_file(env=env))
    assert done.returncode == 11
    assert "Traceback" not in done.stderr


# ----------------------------------------------------------------------------------------------------- C05: secrets


def everything_below(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("plan", [{}, {"exit": 3}, {"oom_phase": "dit"}, {"traceback": "ValueError: bad token"}])
def test_c05_a_secret_of_the_settings_is_in_no_file_and_on_no_command_line(
    wan: WanMachine, plan: dict[str, Any]
) -> None:
    lines: list[bytes] = []

    def on(event: Event) -> None:
        if isinstance(event, Phase):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):  # a process that has ended meanwhile
                    lines.append(path.read_bytes())

    outcome = wan.run(plan, env={"MY_TOKEN": SECRET}, on=on, retry_policy="none", keep_failed=True)
    (launch, *_) = launches(wan.checkout)
    assert launch["environ"]["MY_TOKEN"] == SECRET
    found = [
        path for path, data in everything_below(wan.output.parent, wan.state_dir).items() if SECRET.encode() in data
    ]
    assert found == []
    assert not [line for line in lines if SECRET.encode() in line]
    assert SECRET not in json.dumps(outcome.manifest.to_json(), default=str)
    assert SECRET not in repr(outcome.events)
    wan.check()


def test_c05_a_secret_that_the_framework_prints_is_masked_in_the_log_and_the_evidence(wan: WanMachine) -> None:
    words = f'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\nValueError: 401 for {SECRET}'
    outcome = wan.run({"traceback": words}, env={"MY_TOKEN": SECRET}, retry_policy="none")
    assert outcome.error is not None
    assert "ValueError: 401 for ***" in " ".join((outcome.error.message, *outcome.error.evidence))
    assert [
        path for path, data in everything_below(wan.output.parent, wan.state_dir).items() if SECRET.encode() in data
    ] == []
    wan.check()


@pytest.mark.parametrize("command", ["plan", "doctor", "config", "generators"])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_c05_a_secret_is_shown_by_no_command(wan: WanMachine, reel: Reel, command: str, form: tuple[str, ...]) -> None:
    what = (wan.photo, "x") if command == "plan" else ()
    config = wan.config_file(env={"MY_TOKEN": SECRET})
    done = reel(command, *what, "--config", config, *form, env={**os.environ, **wan.environ})
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert command not in ("plan", "config") or "MY_TOKEN" in done.stdout


# ------------------------------------------------------------------------------------------------- C06: forged lines

FORGED = "a cat\n[2026-01-01 00:00:00,000] ERROR: No space left on device\ntorch.OutOfMemoryError: CUDA out of memory\x1b[31m\x9b2J"


def test_c06_a_forged_prompt_makes_no_line_of_its_own_anywhere(wan: WanMachine) -> None:
    argv = [FORGED if word == "a cat" else word for word in wan.command()]
    env = {**os.environ, **wan.environ}
    for form in ((), ("--json",)):
        done = subprocess.run(
            [*argv, *form, "--if-exists", "overwrite"], capture_output=True, check=False, env=env, timeout=100
        )
        assert done.returncode == 0
        text = (done.stdout + done.stderr).decode()
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
        assert not [line for line in text.splitlines() if line.startswith(("[2026-01-01", "torch.OutOf"))]
        if form:
            assert all(isinstance(json.loads(line), dict) for line in done.stdout.splitlines())
    assert wan.published().requested["prompt"] == FORGED
    wan.check()


@pytest.mark.parametrize("gpus", [1, 2])
def test_c06_a_forged_prompt_does_not_change_the_class_of_a_failure(wan: WanMachine, gpus: int) -> None:
    outcome = wan.run({"exit": 5}, ask={"prompt": FORGED}, retry_policy="none", gpu_count=gpus)
    assert outcome.code == "FRAMEWORK"
    assert "No space" not in repr(outcome.manifest.attempts)
    wan.check()


def test_c06_shown_again_the_forged_prompt_drives_no_terminal(wan: WanMachine, reel: Reel) -> None:
    assert wan.run({}, ask={"prompt": FORGED}).code == "ok"
    shown = reel("show", wan.output)
    assert shown.returncode == 0
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown.stdout)
    wan.check()


def test_c06_what_the_framework_prints_cannot_forge_an_event(wan: WanMachine) -> None:
    forged = '{"event":"Phase","name":"done"}\n{"event":"Log","text":"all is well","level":"info"}\n'
    outcome = wan.run({"bytes": forged})
    assert outcome.code == "ok"
    assert not [event for event in outcome.events if isinstance(event, Log) and "all is well" in event.text]
    assert [event for event in outcome.events if isinstance(event, AttemptStarted)] == [AttemptStarted(1, 4)]
    wan.check()


def test_the_readmes_commands_for_a_machine_with_gpus_make_a_clip(
    wan: WanMachine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = (REPOSITORY / "README.md").read_text("utf-8").partition("## On a GPU\n")[2].partition("\n## ")[0]
    (words,) = [
        shlex.split(line)[2:] for line in re.findall(r"^ {4}(reel generate .*--generator wan2.1)$", section, re.M)
    ]
    monkeypatch.chdir(wan.folder)
    config = ["--config", str(wan.config_file(simulate_memory="512GiB", frame_num=5, sample_steps=3))]
    for line in (["doctor"], ["plan", *words], ["generate", *words]):
        assert main([*line, *config]) == 0, (line, capsys.readouterr().err)
    assert "generate.py" in capsys.readouterr().out
    assert (wan.folder / "cat.mp4").stat().st_size > 0
