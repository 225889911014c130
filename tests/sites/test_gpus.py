from __future__ import annotations

import select
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.errors import BackendUnavailableError
from reelwright.core.host import Gpu
from reelwright.sites.local.probes import GpuReading
from reelwright.sites.local.probes.gpus import GpuWatch, process_name, take_gpus, visible_gpus
from tests.sites.conftest import MakeDriver

A, B, C = {"uuid": "GPU-aa1"}, {"uuid": "GPU-bb2"}, {"uuid": "GPU-cc3"}


def uuids(found: Iterable[Gpu] | None) -> list[str] | None:
    return None if found is None else [gpu.uuid for gpu in found]


def cards(*names: str) -> tuple[Gpu, ...]:
    return tuple(Gpu(place, f"GPU-{place}x", name, None, None) for place, name in enumerate(names))


def newest(watch: GpuWatch, deadline_s: float = 60.0) -> Mapping[str, GpuReading]:
    """Wait for the next reading until the deadline; it arrives when the program writes."""
    process = watch._process
    assert process is not None
    assert process.stdout is not None
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        select.select([process.stdout], [], [], end - time.monotonic())
        if (reading := watch.read()) is not None:
            return reading
    raise AssertionError("no reading in time")


def test_every_gpu_is_described(a_driver: MakeDriver) -> None:
    card = {
        "uuid": "GPU-a",
        "name": "H200",
        "total": 100,
        "used": 30,
        "capability": [9, 0],
        "processes": [[7, 30]],
    }
    found, problem, *_ = take_gpus({}, program=a_driver(card))
    (gpu,) = found or ()
    assert (gpu.index, gpu.uuid, gpu.name, gpu.total_bytes, gpu.free_bytes) == (0, "GPU-a", "H200", 100, 70)
    assert gpu.capability == (9, 0)
    assert [(item.pid, item.used_bytes) for item in gpu.processes] == [(7, 30)]
    assert problem is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ["GPU-aa1", "GPU-bb2", "GPU-cc3"]),
        ("2,0", ["GPU-cc3", "GPU-aa1"]),
        (" 1 ", ["GPU-bb2"]),
        ("GPU-bb2", ["GPU-bb2"]),
        ("GPU-b", ["GPU-bb2"]),
        ("0, 2", ["GPU-aa1", "GPU-cc3"]),
        ("GPU-cc3,GPU-aa1", ["GPU-cc3", "GPU-aa1"]),
    ],
)
def test_g03_cuda_visible_devices_is_respected(a_driver: MakeDriver, value: str | None, expected: list[str]) -> None:
    environ = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    found, problem, *_ = take_gpus(environ, program=a_driver(A, B, C))
    assert uuids(found) == expected
    assert problem is None


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("3", "only 3"),
        ("0,0", "twice"),
        ("0,-1", "neither"),
        ("0,,1", "neither"),
        ("GPU-zz", "not a GPU of this machine"),
        ("GPU-", "not unique"),
        ("MIG-1", "not a GPU of this machine"),
        ("²", "neither"),
        ("gpu0", "neither"),
    ],
)
def test_g03_a_senseless_cuda_visible_devices_is_refused_with_a_message(
    a_driver: MakeDriver, value: str, word: str
) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": value}
    found, problem, *_ = take_gpus(environ, program=a_driver(A, B, C))
    assert found is None
    assert problem is not None
    assert word in problem
    assert repr(value) in problem
    with pytest.raises(BackendUnavailableError) as caught:
        visible_gpus((*cards("H100"), Gpu(1, "GPU-1y", "H100", None, None)), "7", in_bus_order=False)
    assert caught.value.code == "ENV"


@pytest.mark.parametrize(
    ("value", "problem", "advice"),
    [
        ("", "is empty and hides every GPU", "Unset CUDA_VISIBLE_DEVICES"),
        ("  ", "is empty and hides every GPU", "Unset CUDA_VISIBLE_DEVICES"),
        ("-1", "hides every GPU", "Unset CUDA_VISIBLE_DEVICES"),
        ("NoDevFiles", "Slurm, which gave this job no GPU", "--gres=gpu:1"),
        ("all", "NVIDIA_VISIBLE_DEVICES only", "Unset CUDA_VISIBLE_DEVICES"),
        ("none", "hides every GPU", "Unset CUDA_VISIBLE_DEVICES"),
        ("void", "hides every GPU", "Unset CUDA_VISIBLE_DEVICES"),
        ("3", "names GPU 3, but there are only 3", "The numbers are 0, 1, 2"),
        ("8", "names GPU 8", "The numbers are 0, 1, 2"),
        ("0,0", "names a GPU twice", "Set CUDA_VISIBLE_DEVICES=0."),
        ("0,1,0", "names a GPU twice", "Set CUDA_VISIBLE_DEVICES=0,1."),
        ("GPU-aa1,GPU-aa", "names a GPU twice", "Set CUDA_VISIBLE_DEVICES=GPU-aa1."),
        ("GPU-zz", "not a GPU of this machine", "This machine has GPU-aa1, GPU-bb2, GPU-cc3"),
        ("GPU-", "not unique", "Write more of the name: GPU-aa1, GPU-bb2, GPU-cc3"),
        ("GPU-aa1, GPU-bb2", "holds spaces", "CUDA_VISIBLE_DEVICES=GPU-aa1,GPU-bb2, without"),
        (" GPU-aa1", "holds spaces", "CUDA_VISIBLE_DEVICES=GPU-aa1, without"),
        ("MIG-1", "no card here is in MIG mode", "Name a card, such as GPU-aa1"),
        ("0,GPU-bb2", "mixes numbers and UUIDs", "Set CUDA_VISIBLE_DEVICES=GPU-aa1,GPU-bb2."),
        ("0-2", "the range '0-2'", "Write each number: 0,1,2."),
        ("0 1", "without commas", "Set CUDA_VISIBLE_DEVICES=0,1."),
        ("0,-1", "neither a number", "Set CUDA_VISIBLE_DEVICES=0."),
        ("-1,0", "neither a number", "Unset CUDA_VISIBLE_DEVICES"),
        ("[0,1]", "neither a number nor", "Set CUDA_VISIBLE_DEVICES=0,1."),
        ("0;1", "neither a number nor", "Set CUDA_VISIBLE_DEVICES=0,1."),
        ("0,,1", "empty entry", "Set CUDA_VISIBLE_DEVICES=0,1."),
        ("0,", "empty entry", "Set CUDA_VISIBLE_DEVICES=0."),
        (",", "empty entry", "Unset CUDA_VISIBLE_DEVICES."),
        ("aa1", "neither a number nor", "Set CUDA_VISIBLE_DEVICES=GPU-aa1."),
        ("gpu-aa1", "neither a number nor", "Set CUDA_VISIBLE_DEVICES=GPU-aa1."),
        ("0:1", "not the name of a MIG instance", "MIG-..."),
        ("cuda:0", "neither a number nor", "Set CUDA_VISIBLE_DEVICES=0."),
        ("no", "neither a number nor", "Write numbers, such as 0,1"),
    ],
)
def test_g03_every_mistake_in_cuda_visible_devices_has_its_own_advice(
    a_driver: MakeDriver, value: str, problem: str, advice: str
) -> None:
    taken = take_gpus({"CUDA_VISIBLE_DEVICES": value}, program=a_driver(A, B, C))
    assert taken.gpus is None
    assert problem in (taken.problem or "")
    assert advice in (taken.advice or "")
    assert "driver" not in (taken.advice or "")


@pytest.mark.parametrize(
    ("value", "problem", "advice"),
    [
        ("MIG-1,MIG-2", "a process can use only one instance", "CUDA_VISIBLE_DEVICES=MIG-1."),
        ("GPU-aa1,MIG-2", "a process can use only one instance", "CUDA_VISIBLE_DEVICES=MIG-2."),
        ("0,1", "a process can use only one instance", "CUDA_VISIBLE_DEVICES=MIG-1."),
        ("MIG-9", "not a GPU of this machine", "This machine has MIG-1, MIG-2"),
        ("GPU-m", "not a GPU of this machine", "This machine has GPU-aa1"),
    ],
)
def test_g03_what_mig_does_not_allow_has_its_own_advice(
    a_driver: MakeDriver, value: str, problem: str, advice: str
) -> None:
    split = {"uuid": "GPU-m", "mig": [{"uuid": "MIG-1", "total": 10}, {"uuid": "MIG-2", "total": 20}]}
    taken = take_gpus({"CUDA_VISIBLE_DEVICES": value}, program=a_driver(A, split))
    assert taken.gpus is None
    assert problem in (taken.problem or "")
    assert advice in (taken.advice or "")


@pytest.mark.parametrize(
    ("scenario", "advice"),
    [
        ({"fail": "NVMLError_LibraryNotFound"}, "--gpus all"),
        ({"fail": "NVMLError_DriverNotLoaded"}, "modprobe nvidia"),
        ({"fail": "NVMLError_NoPermission"}, "`video` or `render`"),
        ({"fail": "NVMLError_Unknown"}, "nvidia-smi"),
        ({}, "nvidia-smi -L"),
    ],
)
def test_g04_every_refusal_of_the_driver_has_its_own_advice(
    a_driver: MakeDriver, scenario: dict[str, Any], advice: str
) -> None:
    assert advice in (take_gpus({}, program=a_driver(**scenario)).advice or "")


@pytest.mark.parametrize(
    ("kind", "problem"), [("LibraryNotFound", "AMD GPU (/dev/kfd)"), ("DriverNotLoaded", "not loaded")]
)
def test_g04_an_amd_gpu_gets_no_advice_to_install_the_nvidia_driver(
    a_driver: MakeDriver, tmp_path: Path, kind: str, problem: str
) -> None:
    (tmp_path / "kfd").touch()
    taken = take_gpus({}, program=a_driver(fail=f"NVMLError_{kind}"), devices=tmp_path)
    assert taken.problem is not None
    assert taken.advice is not None
    assert (taken.gpus, problem in taken.problem, "Install" in taken.advice) == (None, True, False)


def test_the_driver_reports_its_version_and_the_newest_cuda_that_it_runs(a_driver: MakeDriver) -> None:
    taken = take_gpus({}, program=a_driver(A, driver=["550.54.14", 12040]))
    assert (taken.driver_version, taken.driver_cuda) == ("550.54.14", (12, 4))
    assert take_gpus({}, program=a_driver(A, driver=[None, None])).driver_cuda is None


def test_g03_the_instances_of_a_gpu_in_mig_mode_replace_it(a_driver: MakeDriver) -> None:
    split = {"uuid": "GPU-m", "mig": [{"uuid": "MIG-1", "total": 10}, {"uuid": "MIG-2", "total": 20}]}
    assert uuids(take_gpus({}, program=a_driver(A, split))[0]) == ["GPU-aa1", "MIG-1", "MIG-2"]
    chosen = take_gpus({"CUDA_VISIBLE_DEVICES": "MIG-2"}, program=a_driver(A, split))[0]
    assert [(gpu.uuid, gpu.total_bytes) for gpu in chosen or ()] == [("MIG-2", 20)]
    assert uuids(take_gpus({"CUDA_VISIBLE_DEVICES": "1"}, program=a_driver(A, split))[0]) == ["MIG-1"]


def test_g03_every_instance_has_a_number_of_its_own_and_cards_keep_theirs(a_driver: MakeDriver) -> None:
    split = {"uuid": "GPU-m", "mig": [{"uuid": "MIG-1", "total": 10, "used": 4}, {"uuid": "MIG-2", "total": 20}]}
    found = take_gpus({}, program=a_driver(split, A, {**split, "uuid": "GPU-n", "mig": [{"uuid": "MIG-3"}]})).gpus
    assert found is not None
    assert [(gpu.index, gpu.uuid, gpu.parent) for gpu in found] == [
        (3, "MIG-1", 0),
        (4, "MIG-2", 0),
        (1, "GPU-aa1", None),
        (5, "MIG-3", 2),
    ]
    assert found[0].free_bytes == 6


def test_g03_mig_mode_without_instances_is_reported(a_driver: MakeDriver) -> None:
    found, problem, *_ = take_gpus({}, program=a_driver({"uuid": "GPU-m", "mig": []}))
    assert (found, problem) == ((), "GPU 0 is in MIG mode but has no instance")


def test_g03_numbers_on_a_machine_with_different_gpus_need_the_bus_order() -> None:
    mixed = cards("H100", "A10")
    with pytest.raises(BackendUnavailableError, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        visible_gpus(mixed, "1", in_bus_order=False)
    assert uuids(visible_gpus(mixed, "1", in_bus_order=True)) == ["GPU-1x"]
    assert uuids(visible_gpus(mixed, "0,1", in_bus_order=False)) == ["GPU-0x", "GPU-1x"]
    assert uuids(visible_gpus(mixed, "GPU-1x", in_bus_order=False)) == ["GPU-1x"]


def test_g04_a_machine_without_a_driver_says_so_in_words() -> None:
    found, problem, *_ = take_gpus({})
    if found is not None:
        pytest.skip("this machine has an NVIDIA driver")
    assert problem is not None
    assert "no NVIDIA driver is installed here" in problem


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("NVMLError_DriverNotLoaded", "not loaded"),
        ("NVMLError_LibRmVersionMismatch", "reboot"),
        ("NVMLError_Unknown", "does not answer: NVMLError_Unknown: no luck"),
    ],
)
def test_g04_a_driver_that_refuses_is_a_problem_and_no_exception(a_driver: MakeDriver, name: str, words: str) -> None:
    found, problem, *_ = take_gpus({}, program=a_driver(fail=name))
    assert found is None
    assert problem is not None
    assert words in problem


def test_g04_a_hanging_driver_costs_its_deadline_only(a_driver: MakeDriver) -> None:
    started = time.monotonic()
    found, problem, *_ = take_gpus({}, program=a_driver(hang=True), deadline_s=0.3)
    assert found is None
    assert problem is not None
    assert "no answer within 0.3 s" in problem
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    "program", [("/nowhere/python",), (sys.executable, "-c", "print('[Unknown Error]')"), ("/bin/false",)]
)
def test_g04_a_query_that_gives_no_sense_is_a_problem_and_no_exception(program: tuple[str, ...]) -> None:
    found, problem, *_ = take_gpus({}, program=program)
    assert found is None
    assert problem


def test_g04_what_a_gpu_does_not_support_is_unknown(a_driver: MakeDriver) -> None:
    mute = [
        "MemoryInfo",
        "Name",
        "CudaComputeCapability",
        "ComputeRunningProcesses",
        "MigMode",
        "UtilizationRates",
    ]
    (gpu,) = take_gpus({}, program=a_driver({"uuid": "GPU-a", "unsupported": mute})).gpus or ()
    assert gpu == Gpu(0, "GPU-a", "unknown GPU", None, None)


def test_g04_the_monitor_reads_unknown_as_unknown(a_driver: MakeDriver) -> None:
    silent = {"uuid": "GPU-b", "unsupported": ["MemoryInfo", "UtilizationRates"]}
    watch = GpuWatch({}, interval_s=0.01, program=a_driver({"uuid": "GPU-a", "used": 5, "busy": 97}, silent))
    try:
        assert newest(watch) == {"GPU-a": GpuReading(5, 97), "GPU-b": GpuReading(None, None)}
    finally:
        watch.close()


@pytest.mark.parametrize("scenario", [{"hang": True}, {"fail": "NVMLError_GpuIsLost"}])
def test_g04_the_monitor_of_a_dead_driver_reads_nothing_and_closes(
    a_driver: MakeDriver, scenario: dict[str, Any]
) -> None:
    watch = GpuWatch({}, interval_s=0.01, program=a_driver(**scenario))
    process = watch._process
    assert process is not None
    if "fail" in scenario:
        process.wait(timeout=60)
    assert watch.read() is None
    watch.close()
    watch.close()
    assert watch.read() is None
    assert process.returncode is not None


def test_g04_a_monitor_that_cannot_start_reads_nothing() -> None:
    watch = GpuWatch({}, program=("/nowhere/python",))
    assert watch.read() is None
    watch.close()


def test_the_monitor_ends_when_its_owner_is_gone(a_driver: MakeDriver) -> None:
    watch = GpuWatch({}, interval_s=3600, program=a_driver(A))
    process = watch._process
    newest(watch)
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()  # as the kernel does for a killed owner
    assert process.wait(timeout=60) == 0
    watch.close()


def test_g05_a_foreign_process_is_named(a_driver: MakeDriver) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        card = {"uuid": "GPU-a", "processes": [[other.pid, 44 << 30], [999999999, None]]}
        (gpu,) = take_gpus({}, program=a_driver(card)).gpus or ()
    assert [(item.pid, item.used_bytes, item.name) for item in gpu.processes] == [
        (other.pid, 44 << 30, None),  # it maps no CUDA, so the number belongs to another process
        (999999999, None, None),
    ]


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        ("7f00 /usr/lib/libcuda.so.1", "python train.py"),
        ("7f00 /dev/nvidia0", "python train.py"),
        ("7f00 libc", None),
    ],
)
def test_g05_a_process_that_uses_no_gpu_is_only_a_namesake(tmp_path: Path, maps: str, expected: str | None) -> None:
    (tmp_path / "12").mkdir()
    (tmp_path / "12/maps").write_text(maps)
    (tmp_path / "12/cmdline").write_bytes(b"/usr/bin/python\0/home/me/train.py\0--lr\0")
    assert process_name(12, tmp_path) == expected
    assert process_name(13, tmp_path) is None


def test_g06_a_gpu_that_fell_off_is_left_out_and_reported(a_driver: MakeDriver) -> None:
    found, problem, *_ = take_gpus({}, program=a_driver({"uuid": "GPU-x", "lost": True}, B))
    assert uuids(found) == ["GPU-bb2"]
    assert problem == "GPU 0 does not answer: GPU is lost"
    assert found is not None
    assert found[0].index == 1
    chosen, problem, *_ = take_gpus({"CUDA_VISIBLE_DEVICES": "0"}, program=a_driver({"uuid": "GPU-x", "lost": True}, B))
    assert chosen is None
    assert problem is not None
    assert "GPU is lost" in problem


def test_g06_the_monitor_goes_on_with_the_other_gpus(a_driver: MakeDriver) -> None:
    watch = GpuWatch(
        {}, interval_s=0.01, program=a_driver({"uuid": "GPU-x", "lost": True}, {"uuid": "GPU-b", "used": 3})
    )
    try:
        assert newest(watch) == {"GPU-b": GpuReading(3, 0)}
    finally:
        watch.close()


@pytest.mark.gpu
def test_the_real_driver_answers() -> None:
    found, problem, *_ = take_gpus({})
    if found is None:
        pytest.skip(str(problem))
    assert all(gpu.total_bytes for gpu in found)
