"""What the machine has to say to a plan, as tables of made machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from reelwright.core.errors import BusyError, Failure, OutOfMemoryError
from reelwright.core.host import GIB, Disk, Gpu, GpuProcess, Host, Interpreter
from reelwright.core.plan import Command, Finding, Plan
from reelwright.policy.preflight import findings, raise_for

PYTHON = Path("/venv/bin/python")


def a_card(index: int = 0, *, total: int | None = 80, free: int | None = 80, users: tuple[GpuProcess, ...] = ()) -> Gpu:
    return Gpu(index, f"GPU-{index}", "H100", total and total * GIB, free and free * GIB, (9, 0), users)


def a_plan(*gpus: int, need: int = 60, disk: int = GIB) -> Plan:
    run = Command((str(PYTHON), "generate.py"), Path("/wan"))
    return Plan("wan2.1", "i2v", True, run, None, {}, gpus or (0,), need * GIB, 40 * GIB, disk)


def a_host(*gpus: Gpu, **about: object) -> Host:
    torch = Interpreter(PYTHON, modules={"torch": "2.9"}, cuda_version="12.8", cuda_devices=1)
    values = {"gpus": gpus, "interpreters": {PYTHON: torch}, "memory_available_bytes": 99 * GIB, **about}
    return Host(**values)  # type: ignore[arg-type]


def found(plan: Plan, host: Host) -> dict[str, Finding]:
    return {finding.code: finding for finding in findings(plan, host)}


def test_a_fit_machine_has_nothing_to_say() -> None:
    assert found(a_plan(), a_host(a_card(), disks=(Disk(Path("/out"), 2 * GIB, True),))) == {}


@pytest.mark.parametrize(
    ("need", "total", "free", "code", "severity", "failure"),
    [
        (60, 80, 50, "gpu.busy", "error", Failure.BUSY),
        (85, 80, 80, "gpu.tight", "warning", None),
        (89, 80, 80, "gpu.too_small", "error", Failure.OOM_GPU),
        (89, 80, 10, "gpu.too_small", "error", Failure.OOM_GPU),
    ],
)
def test_predicted_memory_against_the_card(
    need: int, total: int, free: int, code: str, severity: str, failure: Failure | None
) -> None:
    (finding,) = found(a_plan(need=need), a_host(a_card(total=total, free=free))).values()
    assert (finding.code, finding.severity) == (code, severity)
    assert failure is None or finding.failure is failure


@pytest.mark.parametrize(("total", "free"), [(None, None), (80, None)])
def test_what_a_card_does_not_tell_forbids_nothing(total: int | None, free: int | None) -> None:
    assert found(a_plan(need=70), a_host(a_card(total=total, free=free))) == {}


def test_a_card_of_unknown_size_is_busy_and_its_size_is_not_called_zero() -> None:
    text = found(a_plan(need=70), a_host(a_card(total=None, free=50)))["gpu.busy"].message
    assert "GPU 0 (H100) has unknown memory, and only 50.0 GiB are free" in text


def test_who_uses_a_busy_card_is_named_with_what_is_known() -> None:
    users = (GpuProcess(7, 30 * GIB, "python train.py"), GpuProcess(8, None, None))
    text = found(a_plan(), a_host(a_card(free=50, users=users)))["gpu.busy"].message
    assert "pid 7 (python train.py, 30.0 GiB)" in text
    assert "pid 8 (unknown)" in text


def test_cards_of_a_kind_are_warned_about_once_and_busy_ones_each() -> None:
    small = [item.code for item in findings(a_plan(0, 1, need=99), a_host(a_card(0), a_card(1)))]
    busy = [item.code for item in findings(a_plan(0, 1), a_host(a_card(0, free=1), a_card(1, free=1)))]
    assert (small, busy) == (["gpu.too_small"], ["gpu.busy", "gpu.busy"])


def test_a_card_that_the_backend_has_called_too_small_is_not_told_twice() -> None:
    said = Finding("memory.gpu", "error", "needs 99 GiB of a card even in the placement disk_offload")
    assert found(a_plan(need=99).evolve(findings=(said,)), a_host(a_card())) == {}


def test_cards_that_the_plan_does_not_take_do_not_matter() -> None:
    assert found(a_plan(1), a_host(a_card(0, free=1), a_card(1))) == {}


@pytest.mark.parametrize(
    ("disk", "code", "failure"),
    [
        (Disk(Path("/out"), GIB, True), "disk.space", Failure.DISK),
        (Disk(Path("/out"), 9 * GIB, False), "disk.writable", Failure.PERM),
    ],
)
def test_a_disk_that_cannot_take_the_film(disk: Disk, code: str, failure: Failure) -> None:
    finding = found(a_plan(), a_host(a_card(), disks=(disk,)))[code]
    assert (finding.severity, finding.failure) == ("error", failure)


def test_a_disk_that_could_not_be_asked_forbids_nothing() -> None:
    assert found(a_plan(), a_host(a_card(), disks=(Disk(Path("/out"), None, None),))) == {}


def test_host_memory_is_a_warning_and_not_for_a_machine_whose_memory_is_not_known() -> None:
    assert found(a_plan(), a_host(a_card(), memory_available_bytes=GIB))["host.memory"].severity == "warning"
    simulated = found(a_plan(), a_host(a_card(), memory_available_bytes=None, simulated=True))
    assert list(simulated) == ["gpu.simulated"]


@pytest.mark.parametrize(
    ("total", "swap", "limited", "words"),
    [
        (22, 0, False, "this machine has 22 GiB: the kernel"),
        (22, 0, True, "this container or job may use 22 GiB: the kernel"),
        (20, 8, False, "this machine has 20 GiB and 8 GiB of swap"),
        (20, 16, False, None),
        (32, 0, False, None),
    ],
)
def test_a_script_that_memory_and_swap_cannot_hold_is_refused_with_whose_limit_it_is(
    total: int, swap: int, limited: bool, words: str | None
) -> None:
    host = a_host(a_card(), memory_total_bytes=total * GIB, swap_bytes=swap * GIB, memory_limited=limited)
    error = found(a_plan(), host).get("host.too_small")
    assert (error is None) is (words is None)
    assert words is None or (error is not None and words in error.message)


@pytest.mark.parametrize(
    ("cuda", "devices", "code"), [(None, 0, "torch.no_cuda"), ("12.8", 0, "torch.no_gpu"), ("12.8", None, None)]
)
def test_a_torch_that_cannot_use_the_cards(cuda: str | None, devices: int | None, code: str | None) -> None:
    python = Interpreter(PYTHON, modules={"torch": "2.9"}, cuda_version=cuda, cuda_devices=devices)
    assert list(found(a_plan(), a_host(a_card(), interpreters={PYTHON: python}))) == ([code] if code else [])


def test_the_first_error_is_raised_with_the_others_as_evidence() -> None:
    host = a_host(a_card(0, free=1), a_card(1, total=24, free=24))
    with pytest.raises(OutOfMemoryError) as caught:  # waiting for GPU 0 would not make GPU 1 larger
        raise_for(findings(a_plan(0, 1), host))
    assert caught.value.advice
    assert "only 1.0 GiB are free" in caught.value.evidence[0]
    with pytest.raises(BusyError):
        raise_for(findings(a_plan(0), host))
    raise_for([Finding("x", "warning", "only a warning")])


MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("free", "severity"), [(0, "error"), (31 * MIB, "error"), (64 * MIB, "warning"), (8 * GIB, None), (None, None)]
)
def test_shared_memory_that_is_too_small_for_several_gpus_is_said_before(
    free: int | None, severity: str | None
) -> None:
    host = a_host(a_card(0), a_card(1), shm_total_bytes=64 * MIB, shm_free_bytes=free)
    finding = found(a_plan(0, 1), host).get("host.shm")
    assert (finding and finding.severity) == severity
    assert finding is None or "--shm-size" in finding.fix


def test_one_gpu_needs_no_shared_memory() -> None:
    assert "host.shm" not in found(a_plan(0), a_host(a_card(), shm_total_bytes=MIB, shm_free_bytes=0))
