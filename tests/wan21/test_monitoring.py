"""What a run measured, as numbers in the manifest, as a table and as a picture; and what `reel doctor` finds, of each kind."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reelwright.core.errors import Failure
from reelwright.core.events import Event, Phase, Progress
from reelwright.core.host import Host, simulated_gpus
from reelwright.core.plan import Plan
from reelwright.doctor import Row, check_all
from reelwright.policy import GPU_FAULT, Diagnosis
from reelwright.runs.history import remember_failure
from reelwright.sites.local import attempt_monitor
from reelwright.sites.local.metrics import Metrics
from reelwright.sites.local.sampler import Sampler
from reelwright.sites.local.site import LocalSite
from tests.conftest import eventually
from tests.stand_ins.checkout import make_wan_checkout
from tests.stand_ins.checkpoints import break_checkpoint, make_wan_checkpoint
from tests.stand_ins.interpreter import Knobs, make_interpreter
from tests.wan21.conftest import GIB, Driver, WanMachine, a_card

Reel = Callable[..., subprocess.CompletedProcess[str]]
SLOW = {"load_s": 0.4, "step_s": 0.5}


def is_measured(metrics: Metrics) -> bool:
    """Whether enough is known for a curve, a rate and the GPU."""
    known = (metrics.host_peak_bytes, metrics.written_peak_bytes_per_s, metrics.gpu_busy_percent.get("GPU-aa0"))
    return metrics.samples >= 3 and None not in known


@pytest.fixture
def measured(wan: WanMachine, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    """The metrics of a run of two seconds on a card that is half full and busy."""
    driver(a_card(0, used=8 * GIB, busy=90))
    samplers: list[Sampler] = []

    class Seen(Sampler):
        def start(self) -> Sampler:
            samplers.append(self)
            return super().start()

    monkeypatch.setattr(attempt_monitor, "Sampler", Seen)
    # What the framework waits for before it goes on: that the runner has heard of the phase or the step before.
    gates: dict[Event, str] = {Phase("loading text encoder"): "load", Phase("denoising"): "step-1"}
    gates |= {Progress("denoising", step, 3): f"step-{step + 1}" for step in (1, 2)}
    (wan.checkout / "fake_state").mkdir()
    for name in gates.values():
        os.mkfifo(wan.checkout / "fake_state" / f"at-{name}")

    def listen(event: Event) -> None:
        if event == Progress("denoising", 2, 3):
            eventually(lambda: is_measured(samplers[0].metrics()), what="three samples of the framework")
        if event in gates:
            assert (wan.checkout / "fake_state" / f"at-{gates[event]}").read_bytes()

    outcome = wan.run(SLOW, on=listen, simulate_gpus=None)
    assert outcome.manifest.metrics is not None
    return outcome.manifest.metrics


# ------------------------------------------------------------------------------------------------------- the numbers


def test_a_manifest_reports_memory_load_and_times_of_the_run(wan: WanMachine, measured: Mapping[str, Any]) -> None:
    assert measured["gpu_peak_bytes"] == {"GPU-aa0": 8 * GIB}
    assert measured["gpu_busy_percent"] == {"GPU-aa0": 90.0}
    assert measured["host_peak_bytes"] > 1_000_000
    assert measured["written_bytes"] >= 0
    seconds = wan.published().seconds
    assert 0.3 <= measured["load_seconds"] < seconds
    assert 0.5 <= measured["seconds_per_step"] < seconds
    assert 0.3 <= measured["seconds_per_frame"] < seconds
    curve = measured["curve"]
    assert len(curve["at_s"]) == len(curve["usage"]) == len(curve["gpus"]["GPU-aa0"]) >= 3
    assert measured["cost_cpu_s"] < 0.01 * measured["duration_s"] + 0.01
    assert {"loading transformer", "denoising", "saving"} <= set(wan.published().phase_seconds)
    wan.check()


def test_show_prints_it_in_peoples_units(wan: WanMachine, measured: Mapping[str, Any], reel: Reel) -> None:
    shown = reel("show", wan.output).stdout
    rows = dict(re.findall(r"^ ([a-z][a-z ]+?)  +(\S.*?) *$", shown, re.MULTILINE))
    assert rows["gpu peak"] == "GPU-aa0 8.00 GiB"
    assert rows["gpu busy"] == "GPU-aa0 90 %"
    assert re.fullmatch(r"[\d.]+ MiB", rows["host peak"])
    assert re.fullmatch(r"[\d.]+ MiB/s", rows["written peak"])
    for name in ("load seconds", "seconds per step", "seconds per frame"):
        assert re.fullmatch(r"[\d.]+ s", rows[name]), name
    assert "denoising" in rows
    assert "schema" not in rows


def test_show_plots_the_curve(wan: WanMachine, measured: Mapping[str, Any], reel: Reel, tmp_path: Path) -> None:
    target = tmp_path / "out" / "curve.png"
    assert reel("show", wan.output, "--plot", target).returncode == 0
    with Image.open(target) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 10
    again = reel("show", wan.output, "--plot", target)
    assert (again.returncode, "exists already" in again.stderr) == (32, True)


def test_a_run_too_short_to_measure_has_nothing_to_plot_and_says_so(wan: WanMachine, reel: Reel, photo: Path) -> None:
    draft = wan.folder / "out" / "draft.mp4"
    assert (
        reel(
            "generate", photo, "hold", "-o", draft, "--generator", "draft", "--size", "320x180", "--frames", "5"
        ).returncode
        == 0
    )
    done = reel("show", draft, "--plot", wan.folder / "curve.png")
    assert done.returncode == 10
    assert "Only GPU generators are monitored" in done.stderr


def test_show_reports_a_failed_run_from_its_record(wan: WanMachine, reel: Reel) -> None:
    outcome = wan.run({"oom_phase": "dit"}, {"exit": 3}, ask={"steps": 8}, chaining_max_retries=1)
    assert outcome.code == "FRAMEWORK"
    record = wan.state_dir / "runs" / outcome.manifest.run_id / "manifest.json"
    shown = reel("show", record, env={**os.environ, "COLUMNS": "200"}).stdout
    assert "OOM_GPU in denoising" in shown
    assert "t5_cpu False -> True" in shown
    assert "FRAMEWORK: the framework failed" in shown


# -------------------------------------------------------------------------------------------------------- the doctor


def rows_of(wan: WanMachine, part: str = "wan2.1", **settings: Any) -> list[Row]:
    environ = {**wan.environ}
    return [row for row in check_all(wan.settings(**settings), LocalSite(environ)) if row.part == part]


def the_row(rows: list[Row], code: str) -> Row:
    (row,) = [row for row in rows if row.finding.code == code]
    return row


def test_the_doctor_shows_what_a_ready_generator_is_made_of(wan: WanMachine) -> None:
    rows = rows_of(wan, generator="auto")
    assert {row.finding.severity for row in rows} == {"info"}
    assert str(wan.checkout) in the_row(rows, "checkout").finding.message
    python = the_row(rows, "interpreter").finding.message
    for words in ("Python 3.", "CUDA 12.8", "torch 2.9.1", "flash_attn", "xfuser"):
        assert words in python
    weights = [row.finding.message for row in rows if row.finding.code == "weights"]
    assert len(weights) == 3
    assert all("complete" in text for text in weights)
    assert "ready for i2v, flf2v, t2v" in the_row(rows, "ready").finding.message


@pytest.mark.parametrize(
    ("key", "value", "code", "failure"),
    [
        ("wan2_dir", "/nowhere", "wan2_dir.wrong", Failure.ENV),
        ("wan2_dir", None, "wan2_dir.unset", Failure.CONFIG),
        ("python", "/nowhere/python", "interpreter", Failure.ENV),
        ("gpu_count", 5, "gpu.count", Failure.ENV),
    ],
)
def test_the_doctor_finds_what_would_stop_every_run(
    wan: WanMachine, key: str, value: Any, code: str, failure: Failure
) -> None:
    errors = [row.finding for row in rows_of(wan, **{key: value}) if row.finding.severity == "error"]
    found = {finding.code: finding for finding in errors}
    assert code in found, found
    assert found[code].failure is failure
    assert found[code].fix


@pytest.mark.parametrize(
    ("knobs", "code"),
    [
        (Knobs(absent=("torch",)), "module.torch"),
        (Knobs(absent=("dashscope",)), "module.dashscope"),
        (Knobs(cuda=None), "torch.no_cuda"),
        (Knobs(devices=0), "torch.no_gpu"),
    ],
)
def test_the_doctor_finds_what_the_frameworks_python_lacks(
    wan: WanMachine, driver: Driver, tmp_path_factory: pytest.TempPathFactory, knobs: Knobs, code: str
) -> None:
    driver(a_card(0))
    python = make_interpreter(tmp_path_factory.mktemp("python") / "venv", knobs)
    rows = rows_of(wan, python=str(python), simulate_gpus=None)
    assert code in {row.finding.code for row in rows if row.finding.severity == "error"}


def test_the_doctor_reports_a_missing_flash_attn_as_a_warning(
    wan: WanMachine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    python = make_interpreter(tmp_path_factory.mktemp("python") / "venv", Knobs(flash_attn="broken"))
    rows = rows_of(wan, python=str(python))
    assert the_row(rows, "attention.sdpa").finding.severity == "warning"
    assert "undefined symbol" in the_row(rows, "attention.sdpa").finding.message


def test_the_doctor_names_broken_weights_of_one_task_and_still_calls_the_others_ready(
    wan: WanMachine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    weights = make_wan_checkpoint(tmp_path_factory.mktemp("weights") / "flf2v", "flf2v-14B")
    break_checkpoint(weights, "shard truncated")
    rows = rows_of(wan, flf2v_model_dir=str(weights))
    broken = the_row(rows, "model.incomplete")
    assert broken.finding.severity == "warning"
    assert broken.finding.message.startswith("flf2v: ")
    assert "00003-of-00007" in broken.finding.message
    assert "ready for i2v, t2v" in the_row(rows, "ready").finding.message


def test_the_doctor_is_silent_about_a_task_that_is_not_set_up(wan: WanMachine) -> None:
    rows = rows_of(wan, flf2v_model_dir=None, t2v_model_dir=None)
    assert "model.unset" not in {row.finding.code for row in rows}
    assert "ready for i2v" in the_row(rows, "ready").finding.message


def test_the_doctor_reports_that_a_checkout_is_old(wan: WanMachine, tmp_path: Path) -> None:
    old = make_wan_checkout(tmp_path / "old", old=True)
    assert "exactly 81 frames" in the_row(rows_of(wan, wan2_dir=str(old)), "checkout.old").finding.message


def test_the_doctor_names_who_uses_a_card(wan: WanMachine, driver: Driver) -> None:
    driver(a_card(0, used=60 * GIB, processes=[[os.getpid(), 60 * GIB]]))
    rows = rows_of(wan, "machine", simulate_gpus=None)
    assert f"used by pid {os.getpid()}" in the_row(rows, "gpu").finding.message
    busy = [row.finding for row in rows_of(wan, simulate_gpus=None) if row.finding.code == "gpu.busy"]
    assert {(finding.severity, finding.failure) for finding in busy} == {("error", Failure.BUSY)}


def test_the_doctor_does_not_say_ready_where_no_size_fits_on_the_card(wan: WanMachine) -> None:
    rows = rows_of(wan, simulate_gpus="1x24GiB")
    small = [row.finding for row in rows if row.finding.code == "gpu.too_small"]
    assert "error" in {finding.severity for finding in small}
    assert "GiB are needed" in small[0].message
    assert "ready" not in {row.finding.code for row in rows}


def test_the_doctor_says_at_which_smaller_size_a_task_is_ready(wan: WanMachine) -> None:
    rows = rows_of(wan, simulate_gpus="1x72GiB", size="1280x720", t2v_model_dir=None, flf2v_model_dir=None)
    assert "ready for i2v" in the_row(rows, "ready").finding.message
    small = rows_of(wan, simulate_gpus="1x68GiB", size="1280x720", t2v_model_dir=None, flf2v_model_dir=None)
    assert "ready for i2v (at 832x480)" in the_row(small, "ready").finding.message
    assert {row.finding.severity for row in small if row.finding.code == "gpu.too_small"} == {"warning"}


def test_a_generator_that_is_not_set_up_is_one_line_for_all_tasks(wan: WanMachine) -> None:
    rows = rows_of(wan, i2v_model_dir=None, flf2v_model_dir=None, t2v_model_dir=None)
    assert len([row for row in rows if row.finding.code == "model.unset"]) == 1


def test_a_python_without_the_packages_is_one_line(wan: WanMachine, tmp_path_factory: pytest.TempPathFactory) -> None:
    absent = ("torch", "diffusers", "transformers", "ftfy", "dashscope")
    python = make_interpreter(tmp_path_factory.mktemp("python") / "venv", Knobs(absent=absent))
    found = [row.finding for row in rows_of(wan, python=str(python)) if row.finding.code.startswith("module.")]
    assert len(found) == 1
    assert all(name in found[0].message for name in absent)


def test_the_doctor_remembers_a_card_that_failed(wan: WanMachine) -> None:
    host = Host(gpus=simulated_gpus("2x80GiB"))
    plan = Plan("wan2.1", "i2v", True, None, None, gpus=(1,))
    remember_failure(wan.state_dir, plan, host, Diagnosis(Failure.CRASH, "CUDA error", cause=GPU_FAULT))
    suspect = the_row(rows_of(wan, "machine"), "gpu.suspect").finding
    assert (suspect.severity, "GPU-simulated-1" in suspect.message) == ("warning", True)


def test_the_doctor_as_a_table_and_as_json_say_the_same(wan: WanMachine, reel: Reel) -> None:
    config = wan.config_file(i2v_model_dir="/nowhere", flf2v_model_dir=None, t2v_model_dir=None)
    env = {**os.environ, **wan.environ, "COLUMNS": "500"}
    table, found = reel("doctor", "--config", config, env=env), reel("doctor", "--config", config, "--json", env=env)
    assert table.returncode == found.returncode == 12

    def steady(text: str) -> str:
        """Without what changes from one moment to the next."""
        return re.sub(r"[\d.]+ GiB", "N GiB", " ".join(text.split()))

    for row in json.loads(found.stdout):
        assert steady(row["message"]) in steady(table.stdout)
    narrow = reel("doctor", "--config", config, env={**env, "COLUMNS": "60"}).stdout
    assert "…" not in narrow


def test_the_doctor_ends_with_0_when_a_configured_generator_is_ready(wan: WanMachine, reel: Reel) -> None:
    done = reel("doctor", "--config", wan.config_file(), "--json", env={**os.environ, **wan.environ})
    assert done.returncode == 0
    rows = json.loads(done.stdout)
    assert {"machine", "wan2.1", "draft"} <= {row["part"] for row in rows}
    assert set(rows[0]) >= {"part", "matters", "code", "severity", "message", "fix"}
