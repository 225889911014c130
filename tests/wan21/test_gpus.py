"""GPUs shared, chosen, silent, taken and broken, in whole runs: rows G01 to G06."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from reelwright.core.events import AttemptStarted, Event
from reelwright.core.manifest import Manifest, manifest_path
from reelwright.sites.local.leases import Leases, lease_directory
from reelwright.sites.local.probes import gpus
from tests.conftest import eventually
from tests.stand_ins.checkout import launches, reached
from tests.wan21.conftest import GIB, Driver, Outcome, WanMachine, a_card

_TRACE = 'Traceback (most recent call last):\n  File "generate.py", line 9, in <module>\n    main()\n'


def _says_that_it_waits(stream: IO[str]) -> bool:
    return "waiting for up to 300 s" in stream.readline()


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the films of other runs."""
    return tmp_path_factory.mktemp("elsewhere")


class Gate:
    """A point of the script at which runs wait until the test opens it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(exist_ok=True)
        os.mkfifo(path)
        self.fd = -1

    def open(self) -> None:
        if self.fd < 0:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)


@pytest.fixture
def gate(wan: WanMachine) -> Iterator[Gate]:
    """Before the first step; opened at the latest when the test is over."""
    gate = Gate(wan.checkout / "fake_state" / "at-step-1")
    yield gate
    gate.open()
    eventually(lambda: not wan.survivors(), what="the end of every process")
    os.close(gate.fd)


def seen_gpus(wan: WanMachine) -> list[str | None]:
    return [entry["environ"].get("CUDA_VISIBLE_DEVICES") for entry in launches(wan.checkout)]


def end_of(process: subprocess.Popen[str]) -> int:
    process.communicate(timeout=100)
    return process.returncode


def leases_of(wan: WanMachine) -> dict[str, Any]:
    return dict(Leases(lease_directory(wan.environ)).holders())


# ----------------------------------------------------------------------------------------------------- G01 and G02


def test_g01_a_second_run_on_the_same_gpu_is_busy_and_names_the_first(wan: WanMachine, gate: Gate) -> None:
    first = wan.start(gpu_count=None, gpus=[0])
    holder = eventually(lambda: leases_of(wan).get("GPU-simulated-0"), what="the lease of the first run")
    second = wan.run(gpus=[0], gpu_count=None, if_exists="rename")
    assert second.code == "BUSY"
    assert second.error is not None
    assert second.error.exit_status == 33
    assert holder["run"] in second.error.message
    gate.open()
    assert end_of(first) == 0
    assert len(launches(wan.checkout)) == 1
    wan.check()


def test_g01_a_waiting_run_starts_when_the_first_has_ended_and_never_before(
    wan: WanMachine, gate: Gate, elsewhere: Path
) -> None:
    one = wan.start("--simulate-gpus", "1x80GiB")
    eventually(lambda: leases_of(wan), what="the first run's lease")
    options = ("--simulate-gpus", "1x80GiB", "--set", "lease_timeout_s=300")
    others = []
    for name in ("second.mp4", "third.mp4"):
        other = wan.start("-o", elsewhere / name, *options)
        assert other.stderr is not None
        eventually(functools.partial(_says_that_it_waits, other.stderr), what="its word")
        others.append(other)
    assert len(launches(wan.checkout)) <= 1
    gate.open()
    assert [end_of(process) for process in (one, *others)] == [0, 0, 0]
    starts, ends = ([float(line[3]) for line in reached(wan.checkout, point)] for point in ("start", "end"))
    assert [max(pair) for pair in zip(starts[1:], ends[:-1], strict=True)] == starts[1:]
    made = [
        json.loads(manifest_path(elsewhere / name).read_text())["plan"]["command"]
        for name in ("second.mp4", "third.mp4")
    ]
    saved = [
        next(word for word in entry["argv"] if word.startswith("--save_file=")) for entry in launches(wan.checkout)
    ]
    assert saved[1:] == [next(word for word in plan["argv"] if word.startswith("--save_file=")) for plan in made]
    wan.check()


def test_g01_with_a_free_gpu_nobody_waits(wan: WanMachine, gate: Gate, elsewhere: Path) -> None:
    one = wan.start()
    eventually(lambda: leases_of(wan), what="the first run's lease")
    other = wan.start("-o", elsewhere / "other.mp4")
    eventually(lambda: len(leases_of(wan)) == 2, what="two leases")
    gate.open()
    assert (end_of(one), end_of(other)) == (0, 0)
    used = [
        Manifest.from_json(json.loads(manifest_path(path).read_text()))
        for path in (wan.output, elsewhere / "other.mp4")
    ]
    assert sorted(manifest.plan["gpus"][0] for manifest in used if manifest.plan) == [0, 1]
    wan.check()


def test_g01_runs_that_begin_at_the_same_moment_share_out_the_free_gpus(
    wan: WanMachine, gate: Gate, elsewhere: Path
) -> None:
    patient = ("--set", "lease_timeout_s=300")  # nobody waits as long as a card is free
    runs = [wan.start("-o", elsewhere / f"{number}.mp4", "--simulate-gpus", "3x80GiB", *patient) for number in range(3)]
    eventually(lambda: len(launches(wan.checkout)) == 3, within_s=90, what="three runs at once")
    gate.open()
    assert [end_of(process) for process in runs] == [0, 0, 0]
    manifests = [json.loads(manifest_path(elsewhere / f"{number}.mp4").read_text()) for number in range(3)]
    assert sorted(manifest["plan"]["gpus"] for manifest in manifests) == [[0], [1], [2]]
    wan.check()


def test_g01_a_gpu_that_is_taken_between_plan_and_start_is_replaced_by_a_free_one(
    wan: WanMachine, driver: Driver
) -> None:
    driver(a_card(0), a_card(1))
    taken = contextlib.ExitStack()

    def on(event: Event) -> None:
        if isinstance(event, AttemptStarted):  # the plan is made, the lease is not yet asked for
            rival = Leases(lease_directory(wan.environ))
            taken.enter_context(rival.claim(["GPU-aa0"], wait_s=0, owner={"run": "a rival"}))

    started = time.monotonic()
    with taken:
        outcome = wan.run({}, on=on, simulate_gpus=None, lease_timeout_s=60)
    assert outcome.code == "ok"
    assert time.monotonic() - started < 55  # it did not wait for the one that is taken
    assert seen_gpus(wan) == ["GPU-bb1"]
    assert outcome.manifest.plan is not None
    assert outcome.manifest.plan["gpus"] == [1]
    wan.check()


def test_g02_runs_that_name_the_same_gpus_in_opposite_orders_both_end(wan: WanMachine, elsewhere: Path) -> None:
    for number in range(3):
        pair = [
            wan.start("--gpus", order, "--set", "lease_timeout_s=300", "-o", elsewhere / f"{number}-{order}.mp4")
            for order in ("0,1", "1,0")
        ]
        assert [end_of(process) for process in pair] == [0, 0]
    assert len({entry["launch"] for entry in launches(wan.checkout)}) == 6
    wan.check()


# -------------------------------------------------------------------------------------------------------------- G03


def on_a_driver(wan: WanMachine, **settings: Any) -> Outcome:
    return wan.run(simulate_gpus=None, **settings)


@pytest.mark.parametrize(
    ("value", "uuid"),
    [
        (None, "GPU-aa0"),
        ("1", "GPU-bb1"),
        ("1,0", "GPU-aa0"),
        ("GPU-bb1", "GPU-bb1"),
        ("GPU-b", "GPU-bb1"),
        ("2", "MIG-cc2-1"),
        ("MIG-cc2-2", "MIG-cc2-2"),
    ],
)
def test_g03_only_the_visible_gpus_are_used(wan: WanMachine, driver: Driver, value: str | None, uuid: str) -> None:
    instances = [{"uuid": f"MIG-cc2-{place}", "total": 80 * GIB, "used": 2 * GIB} for place in (1, 2)]
    driver(a_card(0), a_card(1), a_card(2, mig=instances))
    if value is not None:
        wan.environ["CUDA_VISIBLE_DEVICES"] = value
    outcome = on_a_driver(wan)
    assert outcome.code == "ok"
    assert seen_gpus(wan) == [uuid]
    wan.check()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "hides every GPU"),
        ("-1", "hides every GPU"),
        ("7", "names GPU 7, but there are only 2"),
        ("GPU-zz", "not a GPU of this machine"),
        ("0,0", "names a GPU twice"),
        ("all", "to NVIDIA_VISIBLE_DEVICES only"),
        ("0,", "empty entry, which is neither a number nor"),
    ],
)
def test_g03_what_cuda_would_silently_skip_is_refused(wan: WanMachine, driver: Driver, value: str, words: str) -> None:
    driver(a_card(0), a_card(1))
    wan.environ["CUDA_VISIBLE_DEVICES"] = value
    outcome = on_a_driver(wan)
    assert outcome.code == "ENV"
    assert outcome.error is not None
    assert "CUDA_VISIBLE_DEVICES" in outcome.error.message
    assert words in outcome.error.message
    assert "driver" not in outcome.error.advice
    assert launches(wan.checkout) == []
    wan.check()


def test_g03_a_run_on_an_instance_leases_it_alone_and_leaves_the_others_free(wan: WanMachine, driver: Driver) -> None:
    instances = [{"uuid": f"MIG-aa0-{place}", "total": 80 * GIB, "used": 2 * GIB} for place in (1, 2)]
    driver(a_card(0, mig=instances))
    leased: list[set[str]] = []

    def on(event: Event) -> None:
        leased.append(set(leases_of(wan)))

    outcome = wan.run({}, on=on, simulate_gpus=None, gpus=[2], gpu_count=None)
    assert (outcome.code, seen_gpus(wan)) == ("ok", ["MIG-aa0-2"])
    assert set().union(*leased) == {"MIG-aa0-2"}
    wan.check()


def test_g03_a_gpu_hidden_by_the_environment_cannot_be_listed(wan: WanMachine, driver: Driver) -> None:
    driver(a_card(0), a_card(1))
    wan.environ["CUDA_VISIBLE_DEVICES"] = "0"
    outcome = on_a_driver(wan, gpus=[1], gpu_count=None)
    assert (outcome.code, launches(wan.checkout)) == ("ENV", [])
    assert outcome.error is not None
    assert "GPU 1 does not exist; visible: 0" in outcome.error.message
    wan.check()


# -------------------------------------------------------------------------------------------------------------- G04


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        ({"fail": "NVMLError_LibraryNotFound"}, "no NVIDIA driver is installed"),
        ({"fail": "NVMLError_LibRmVersionMismatch"}, "reboot the machine"),
        ({"fail": "NVMLError_Unknown"}, "does not answer"),
        ({}, "finds no GPU"),
    ],
)
def test_g04_a_driver_that_gives_no_gpu_is_reported_before_any_work(
    wan: WanMachine, driver: Driver, scenario: dict[str, Any], words: str
) -> None:
    driver(**scenario)
    outcome = on_a_driver(wan)
    assert outcome.code == "ENV"
    assert outcome.error is not None
    assert words in outcome.error.message
    assert launches(wan.checkout) == []
    wan.check()


def test_g04_a_driver_that_hangs_costs_its_time_limit_only(
    wan: WanMachine, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(a_card(0), hang=True)
    assert gpus.take_gpus.__kwdefaults__
    monkeypatch.setitem(gpus.take_gpus.__kwdefaults__, "deadline_s", 0.5)
    outcome = on_a_driver(wan)
    assert outcome.code == "ENV"
    assert outcome.error is not None
    assert "the driver hangs" in outcome.error.message
    wan.check()


def test_g04_a_card_that_reports_nothing_about_itself_is_used_anyway(wan: WanMachine, driver: Driver) -> None:
    silent = ["Name", "MemoryInfo", "CudaComputeCapability", "UtilizationRates", "ComputeRunningProcesses", "MigMode"]
    driver(a_card(0, unsupported=silent))
    outcome = on_a_driver(wan)
    assert outcome.code == "ok"
    assert outcome.manifest.metrics is not None
    assert outcome.manifest.metrics["gpu_peak_bytes"] == {}
    wan.check()


def test_g04_a_monitor_that_hangs_in_the_drivers_library_does_not_hold_up_a_run(
    wan: WanMachine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("lib")
    os.mkfifo(folder / "libnvidia-ml.so.1")  # opening it never ends, as with a driver that hangs
    wan.environ["LD_LIBRARY_PATH"] = str(folder)
    wan.script({"step_s": 0.7})  # long enough for one sample
    done = wan.finish(wan.start(), within_s=50)
    assert done.status == 0
    assert done.manifest.metrics is not None
    assert done.manifest.metrics["gpu_peak_bytes"] == {}
    assert done.manifest.metrics["host_peak_bytes"] > 0
    wan.check()


def test_g04_a_library_that_is_damaged_is_a_finding_of_the_doctor_and_no_crash(
    wan: WanMachine, reel: Callable[..., subprocess.CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("lib")
    (folder / "libnvidia-ml.so.1").write_text("not a library")
    config = wan.config_file(simulate_gpus=None)
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    done = reel("doctor", "--config", config, "--json", env=env)
    assert done.returncode == 13
    rows = [row for row in json.loads(done.stdout) if row["code"].startswith("gpu")]
    assert [(row["code"], row["severity"]) for row in rows] == [("gpu.none", "error")]  # once, where it matters


# -------------------------------------------------------------------------------------------------------------- G05


def test_g05_a_gpu_that_another_program_has_filled_is_busy_and_the_program_is_named(
    wan: WanMachine, driver: Driver
) -> None:
    driver(a_card(0, used=44 * GIB, processes=[[os.getpid(), 44 * GIB]]))
    outcome = on_a_driver(wan)
    assert outcome.code == "BUSY"
    assert outcome.error is not None
    assert f"pid {os.getpid()}" in outcome.error.message
    assert "44.0 GiB" in outcome.error.message
    assert launches(wan.checkout) == []
    wan.check()


def test_g05_of_two_gpus_the_free_one_is_taken(wan: WanMachine, driver: Driver) -> None:
    driver(a_card(0, used=44 * GIB, processes=[[os.getpid(), 44 * GIB]]), a_card(1))
    outcome = on_a_driver(wan)
    assert (outcome.code, seen_gpus(wan)) == ("ok", ["GPU-bb1"])
    wan.check()


# -------------------------------------------------------------------------------------------------------------- G06


@pytest.mark.parametrize(
    "fault",
    [
        {"xid": True},
        {"xid": "uncorrectable ECC error encountered"},
        {"xid": "an illegal memory access was encountered"},
        {"traceback": f"{_TRACE}RuntimeError: CUDA error: GPU has fallen off the bus"},
    ],
)
def test_g06_after_a_fault_of_a_gpu_the_same_is_tried_once_on_another(
    wan: WanMachine, driver: Driver, fault: dict[str, Any]
) -> None:
    driver(a_card(0), a_card(1))
    wan.script(fault, {})
    outcome = on_a_driver(wan)
    assert outcome.code == "ok"
    assert seen_gpus(wan) == ["GPU-aa0", "GPU-bb1"]
    first, second = outcome.manifest.attempts
    assert (first.failure, first.cause) == ("CRASH", "gpu-fault")
    assert {**second.parameters} == {**first.parameters}
    assert not outcome.manifest.degraded
    wan.check()


def test_g06_without_another_gpu_the_same_is_tried_once_on_the_same(wan: WanMachine, driver: Driver) -> None:
    driver(a_card(0))
    wan.script({"xid": True})
    outcome = on_a_driver(wan)
    assert outcome.code == "CRASH"
    assert outcome.error is not None
    assert outcome.error.exit_status == 24
    assert seen_gpus(wan) == ["GPU-aa0", "GPU-aa0"]
    wan.check()


def test_g06_the_next_run_keeps_away_from_the_gpu_that_failed(wan: WanMachine, driver: Driver) -> None:
    driver(a_card(0), a_card(1))
    wan.script({"xid": True}, {})
    assert on_a_driver(wan).code == "ok"
    again = on_a_driver(wan, if_exists="overwrite")
    assert again.code == "ok"
    assert seen_gpus(wan) == ["GPU-aa0", "GPU-bb1", "GPU-bb1"]
    wan.check()


def test_g06_the_other_gpu_is_not_one_that_another_run_has(wan: WanMachine, driver: Driver, tmp_path: Path) -> None:
    driver(a_card(0), a_card(1), a_card(2))
    wan.script({"xid": True}, {})
    with Leases(lease_directory(wan.environ)).claim([a_card(1)["uuid"]], wait_s=0, owner={"run": "another"}):
        outcome = on_a_driver(wan)
    assert outcome.code == "ok"
    assert seen_gpus(wan) == ["GPU-aa0", "GPU-cc2"]
    wan.check()


def test_g06_a_gpu_that_no_longer_answers_is_left_out_and_reported(wan: WanMachine, driver: Driver) -> None:
    driver(a_card(0, lost=True), a_card(1))
    outcome = on_a_driver(wan)
    assert (outcome.code, seen_gpus(wan)) == ("ok", ["GPU-bb1"])
    wan.check()
