"""What this machine remembers of earlier runs, and what it does not do because of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.errors import Failure
from reelwright.core.files import temporary_folder
from reelwright.core.host import GIB, Gpu, Host
from reelwright.core.plan import Mitigation, Plan
from reelwright.policy import Diagnosis, Evidence
from reelwright.runs import history

HOST = Host(gpus=(Gpu(0, "GPU-a", "A card", 24 * GIB, 24 * GIB), Gpu(1, "GPU-b", "A card", 24 * GIB, 24 * GIB)))
LEVERS = (
    Mitigation("offload", {"offload_model": True}, "time", "offload"),
    Mitigation("segments", {"expandable_segments": True}, "nothing", "fragmentation"),
    Mitigation("frames_49", {"num_frames": 49}, "frames", "fewer frames"),
    Mitigation("size_480p", {"size": "832x480"}, "size", "smaller"),
    Mitigation("fp8", {"use_fp8": True}, "precision", "smaller weights"),
    Mitigation("cfg", {"cfg_scale": 1.0}, "guidance", "one pass"),
)
PULLED = {name: value for mitigation in LEVERS for name, value in mitigation.overrides.items()}


def a_plan(**parameters: Any) -> Plan:
    values = {"steps": 50, "num_frames": 81, "size": "1280x720", "offload_model": False, "cfg_scale": 6.0}
    return Plan("wan2.1", "i2v", True, None, None, parameters={**values, **parameters}, mitigations=LEVERS, gpus=(0,))


def test_what_costs_quality_is_not_pulled_because_it_once_helped(tmp_path: Path) -> None:
    asked = a_plan()
    history.remember_success(tmp_path, asked, a_plan(**PULLED), HOST, Evidence(wall_s=10.0))
    assert history.Learned(tmp_path).starting_overrides(asked, HOST) == {
        "offload_model": True,
        "expandable_segments": True,
    }


@pytest.mark.parametrize("other", [{"num_frames": 49}, {"size": "832x480"}])
def test_another_size_or_number_of_frames_starts_without_what_was_learnt(tmp_path: Path, other: Any) -> None:
    history.remember_success(tmp_path, a_plan(), a_plan(**PULLED), HOST, Evidence(wall_s=10.0))
    assert history.Learned(tmp_path).starting_overrides(a_plan(**other), HOST) == {}


def test_the_predicted_time_scales_with_the_steps_and_not_with_the_loading(tmp_path: Path) -> None:
    evidence = Evidence(wall_s=110.0, phase_seconds={"denoising": 100.0})
    history.remember_success(tmp_path, a_plan(), a_plan(), HOST, evidence)
    assert history.Learned(tmp_path).predicted_seconds(a_plan(steps=25), HOST) == 60.0
    assert history.Learned(tmp_path).predicted_seconds(a_plan(num_frames=49), HOST) is None


def test_only_a_gpu_fault_makes_the_plans_own_gpus_suspect_and_a_video_clears_them(tmp_path: Path) -> None:
    history.remember_failure(tmp_path, a_plan(), HOST, Diagnosis(Failure.CRASH, "segfault", cause="SIGSEGV"))
    assert history.Learned(tmp_path).suspect_gpus() == {}
    history.remember_failure(tmp_path, a_plan(), HOST, Diagnosis(Failure.CRASH, "fell off the bus", cause="gpu-fault"))
    assert history.Learned(tmp_path).suspect_gpus() == {"GPU-a": "fell off the bus"}
    history.remember_success(tmp_path, a_plan(), a_plan(), HOST, Evidence())
    assert history.Learned(tmp_path).suspect_gpus() == {}


def test_kept_logs_of_runs_that_succeeded_in_the_end_do_not_pile_up(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("words")
    for number in range(history.KEPT_RUNS + 3):
        kept = history.keep_file(tmp_path, f"20260101-0000{number:02}-a", log, "attempt-1.log", print)
    assert len(list((tmp_path / "runs").iterdir())) == history.KEPT_RUNS
    assert kept is not None
    assert kept.read_text() == "words"


@pytest.mark.parametrize(("mode", "kept"), [(0o700, True), (0o777, False)], ids=["own", "anybody's"])
def test_a_state_folder_that_cannot_be_written_costs_no_log_and_is_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, kept: bool
) -> None:
    log, state_dir, messages = tmp_path / "x.log", tmp_path / "state", list[str]()
    log.write_text("words")
    state_dir.write_text("no folder")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    temporary_folder(os.environ).mkdir()
    temporary_folder(os.environ).chmod(mode)
    found = history.keep_file(state_dir, "r1", log, "attempt-1.log", messages.append)
    assert (found is not None and found.read_text() == "words") is kept
    (text,) = messages
    assert str(state_dir) in text
    assert (f"are kept in {temporary_folder(os.environ) / 'runs' / 'r1'}" if kept else "are lost") in text
