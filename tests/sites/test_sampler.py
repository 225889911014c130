from __future__ import annotations

import json
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from reelwright.sites.local.metrics import MAX_POINTS, Metrics, Recording, Sample, Usage
from reelwright.sites.local.probes import GpuReading
from reelwright.sites.local.sampler import ProcessTree, Sampler

CHILD = """
import os, sys
if os.fork() == 0:
    os.setsid()
    held = bytearray(50_000_000)
    with open(sys.argv[1], "wb") as file:
        file.write(bytes(3_000_000)); os.fsync(file.fileno())
    print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def a_tree(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose child, in a separate session, holds 50 MB and has written 3 MB."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, tmp_path / "written"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 60)[0]
    yield process
    process.stdin.close()
    process.wait()
    process.stdout.read()
    process.stdout.close()


def sampled(
    count: int, read_gpus: Callable[[], Mapping[str, GpuReading] | None] = lambda: None, **options: Any
) -> Metrics:
    """Run a sampler until it has recorded ``count`` samples."""
    enough = threading.Event()
    calls: list[int] = []

    def read() -> Mapping[str, GpuReading] | None:
        calls.append(1)
        if len(calls) > count:  # the previous sample is recorded
            enough.set()
        return read_gpus()

    with Sampler(read_gpus=read, interval_s=0.001, **options) as sampler:
        assert enough.wait(60)
    return sampler.metrics()


def recorded(*samples: Sample, **options: Any) -> Metrics:
    recording = Recording(**options)
    for sample in samples:
        recording.add(sample)
    return recording.metrics()


def test_the_whole_tree_of_processes_is_measured(a_tree: subprocess.Popen[bytes]) -> None:
    usage = ProcessTree().usage(a_tree.pid)
    assert usage.processes == 2
    assert usage.host_bytes is not None
    assert 50_000_000 < usage.host_bytes < 200_000_000
    assert usage.written_bytes is None or usage.written_bytes >= 3_000_000


def test_a_process_that_is_gone_uses_nothing_and_is_no_error(a_tree: subprocess.Popen[bytes]) -> None:
    tree = ProcessTree()
    assert tree.usage(a_tree.pid).processes == 2
    assert a_tree.stdin is not None
    a_tree.stdin.close()
    a_tree.wait()
    assert ProcessTree().usage(a_tree.pid) == Usage(0, None, None, None)


def test_a_number_that_another_process_has_now_is_not_counted(
    a_tree: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = ProcessTree()
    assert tree.usage(a_tree.pid).processes == 2
    before = psutil.Process(a_tree.pid).children()[0].pid
    proc = tmp_path / "proc"
    proc.mkdir()
    for entry in Path("/proc").iterdir():
        (proc / entry.name).symlink_to(entry)
    fields = Path(f"/proc/{before}/stat").read_text().rpartition(")")
    later = fields[2].split()
    later[19] = str(int(later[19]) + 500)
    (proc / str(before)).unlink()
    (proc / str(before)).mkdir()
    for name in ("statm", "io", "status"):
        (proc / str(before) / name).symlink_to(f"/proc/{before}/{name}")
    (proc / str(before) / "stat").write_text(f"{fields[0]}) {' '.join(later)}")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(proc))
    assert tree.usage(a_tree.pid).processes == 1


def test_peaks_means_and_rates_are_kept() -> None:
    found = recorded(
        Sample(0.0, Usage(1, 100, 0, 0), {"GPU-a": GpuReading(10, 0)}),
        Sample(2.0, Usage(2, 900, 1000, None), {"GPU-a": GpuReading(70, 100), "GPU-b": GpuReading(None, None)}),
        Sample(3.0, Usage(1, 200, 4000, 50), {"GPU-a": GpuReading(30, 50)}),
        Sample(4.0, Usage(0, None, None, None), {}),
    )
    assert found.gpu_peak_bytes == {"GPU-a": 70}
    assert found.gpu_busy_percent == {"GPU-a": 50.0}
    assert (found.host_peak_bytes, found.read_bytes, found.written_bytes) == (900, 4000, 50)
    assert (found.read_peak_bytes_per_s, found.written_peak_bytes_per_s) == (3000.0, None)
    assert (found.duration_s, found.samples, len(found.curve)) == (4.0, 4, 4)


def test_nothing_seen_is_unknown_and_not_zero() -> None:
    assert recorded() == Metrics()
    assert recorded(Sample(0.0)).host_peak_bytes is None


@pytest.mark.parametrize("count", [1, 599, 600, 601, 5000, 36001])
def test_the_curve_is_bounded_and_keeps_its_peaks(count: int) -> None:
    peak_at = count * 2 // 3
    samples = (
        Sample(float(at), Usage(1, 5), {"GPU-a": GpuReading(99 if at == peak_at else 1, 3)}) for at in range(count)
    )
    found = recorded(*samples)
    assert min(count, MAX_POINTS // 2) <= len(found.curve) <= MAX_POINTS
    assert found.samples == count
    assert max(point.gpus["GPU-a"].used_bytes or 0 for point in found.curve) == 99
    assert [point.at_s for point in found.curve] == sorted({point.at_s for point in found.curve})
    assert found.curve[-1].at_s == count - 1
    times = [point.at_s for point in found.curve[:-1]]
    assert len({late - early for early, late in pairwise(times)}) <= 1


def test_metrics_as_json_hold_the_curve_in_columns() -> None:
    found = recorded(
        Sample(0.0, Usage(1, 100, 0, None), {"GPU-a": GpuReading(10, None)}),
        Sample(1.5, Usage(2, None, 5, 7), {"GPU-a": GpuReading(12, 98)}),
    )
    data = json.loads(json.dumps(found.to_json()))
    assert (data["schema"], data["samples"], data["gpu_peak_bytes"]) == (1, 2, {"GPU-a": 12})
    assert data["curve"] == {
        "at_s": [0.0, 1.5],
        "usage": [[1, 100, 0, None], [2, None, 5, 7]],
        "gpus": {"GPU-a": [[10, None], [12, 98]]},
    }


def test_a_run_is_sampled_with_its_gpus(a_tree: subprocess.Popen[bytes]) -> None:
    found = sampled(8, root_pid=lambda: a_tree.pid, read_gpus=lambda: {"GPU-a": GpuReading(7, 50)})
    assert found.samples >= 8
    assert found.host_peak_bytes is not None
    assert found.host_peak_bytes > 50_000_000
    assert found.gpu_peak_bytes == {"GPU-a": 7}
    assert found.curve[0].usage.processes == 2


def test_before_the_process_starts_only_the_gpus_are_read() -> None:
    found = sampled(2, root_pid=lambda: None, read_gpus=lambda: {"GPU-a": GpuReading(7, None)})
    assert found.host_peak_bytes is None
    assert found.gpu_peak_bytes == {"GPU-a": 7}


@pytest.mark.parametrize("broken", ["root_pid", "read_gpus"])
def test_g04_a_broken_reader_ends_neither_the_run_nor_the_sampling(broken: str) -> None:
    calls: list[int] = []
    enough = threading.Event()

    def fail() -> NoReturn:
        calls.append(1)
        if len(calls) >= 3:
            enough.set()
        raise RuntimeError("broken")

    options: dict[str, Any] = {"root_pid": lambda: None, broken: fail}
    with Sampler(interval_s=0.001, **options) as sampler:
        assert enough.wait(60)
    assert sampler.stop().samples == 0


def test_g04_a_reader_that_hangs_does_not_hold_up_the_end_of_the_run() -> None:
    hanging, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        go_on.wait(100)

    sampler = Sampler(root_pid=lambda: None, read_gpus=hang).start()
    assert hanging.wait(60)
    started = time.monotonic()
    assert sampler.stop(wait_s=0.1).samples == 0
    assert time.monotonic() - started < 50
    go_on.set()


def test_stopping_takes_a_last_sample_and_twice_is_harmless() -> None:
    sampler = Sampler(root_pid=lambda: None, interval_s=3600).start()
    first = sampler.stop(wait_s=60)
    assert first.samples >= 1
    assert sampler.stop() == first
    assert Sampler(root_pid=lambda: None).stop() == Metrics()


def test_sampling_costs_less_than_a_hundredth_of_a_core(a_tree: subprocess.Popen[bytes]) -> None:
    count = 40
    found = sampled(count, root_pid=lambda: a_tree.pid)
    assert found.cost_cpu_s / found.samples < 0.01  # one sample a second
