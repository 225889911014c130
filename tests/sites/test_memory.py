from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from reelwright.sites.local.probes.memory import HostMemory, cpu_count, oom_kills, shared_memory, take_memory

GB = 1 << 30
Machine = Callable[[Mapping[str, object]], Path]


@pytest.fixture
def a_machine(tmp_path: Path) -> Machine:
    """Write files below a root: ``a_machine({"proc/meminfo": ...})``."""

    def make(files: Mapping[str, object]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text))
        return tmp_path

    return make


MEMINFO = {"proc/meminfo": f"MemTotal: {64 * GB >> 10} kB\nMemFree: 1 kB\nMemAvailable: {60 * GB >> 10} kB\n"}
V2 = {"sys/fs/cgroup/cgroup.controllers": "cpu memory", "proc/self/cgroup": "0::/user.slice/job\n"}
OWN = "sys/fs/cgroup/user.slice/job"


def test_without_limits_the_memory_is_that_of_the_machine(a_machine: Machine) -> None:
    assert take_memory(a_machine(MEMINFO)) == HostMemory(64 * GB, 60 * GB)


def test_nothing_to_read_is_unknown_and_not_zero(tmp_path: Path) -> None:
    assert take_memory(tmp_path) == HostMemory(None, None)
    assert oom_kills(tmp_path) is None
    assert cpu_count(tmp_path) == len(os.sched_getaffinity(0))


def test_a_limit_of_cgroup_v2_counts_and_cache_is_not_use(a_machine: Machine) -> None:
    files = {
        f"{OWN}/memory.max": 32 * GB,
        f"{OWN}/memory.current": 20 * GB,
        f"{OWN}/memory.stat": f"anon 5\ninactive_file {15 * GB}\n",
    }
    assert take_memory(a_machine({**MEMINFO, **V2, **files})) == HostMemory(32 * GB, 27 * GB)


def test_a_container_with_less_than_the_machine_is_known_as_one_with_its_high_mark_and_its_swap(
    a_machine: Machine,
) -> None:
    files = {
        "proc/meminfo": f"{MEMINFO['proc/meminfo']}SwapTotal: {16 * GB >> 10} kB\n",
        f"{OWN}/memory.max": 32 * GB,
        f"{OWN}/memory.high": 22 * GB,
        f"{OWN}/memory.current": 2 * GB,
        f"{OWN}/memory.swap.max": 4 * GB,
    }
    found = take_memory(a_machine({**V2, **files}))
    assert (found, found.limited) == (HostMemory(22 * GB, 20 * GB, 4 * GB), True)
    none = dict.fromkeys(("memory/memory.limit_in_bytes", "memory/memory.memsw.limit_in_bytes"), (1 << 63) - 4096)
    version_1 = {**{f"sys/fs/cgroup/{name}": text for name, text in none.items()}, "proc/self/cgroup": "4:memory:/x\n"}
    found = take_memory(a_machine(version_1))
    assert (found.swap_bytes, found.limited) == (16 * GB, False)


def test_a_limit_above_what_the_machine_has_is_no_limit(a_machine: Machine) -> None:
    files = {**MEMINFO, **V2}
    assert not take_memory(a_machine({**files, f"{OWN}/memory.high": "max", f"{OWN}/memory.max": 90 * GB})).limited


def test_the_lowest_limit_up_the_tree_counts(a_machine: Machine) -> None:
    files = {
        f"{OWN}/memory.max": "max",
        f"{OWN}/memory.current": 1,
        "sys/fs/cgroup/user.slice/memory.max": 16 * GB,
        "sys/fs/cgroup/user.slice/memory.current": 17 * GB,
    }
    assert take_memory(a_machine({**MEMINFO, **V2, **files})) == HostMemory(16 * GB, 0)


def test_a_limit_of_cgroup_v1_counts_also_where_the_path_is_the_hosts(a_machine: Machine) -> None:
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 8 * GB,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": 3 * GB,
        "sys/fs/cgroup/memory/memory.stat": f"inactive_file 7\ntotal_inactive_file {GB}\n",
        "sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": 100000,
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000,
    }
    root = a_machine({**MEMINFO, **files})
    assert take_memory(root) == HostMemory(8 * GB, 6 * GB)
    assert oom_kills(root) == 2
    assert cpu_count(root) == 1


def test_the_number_that_means_no_limit_in_cgroup_v1_is_none(a_machine: Machine) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": 3 * GB,
    }
    assert take_memory(a_machine({**MEMINFO, **files})) == HostMemory(64 * GB, 60 * GB)


@pytest.mark.parametrize(("quota", "expected"), [("50000 100000", 1), ("max 100000", None), ("", None)])
def test_processors_are_cut_by_the_quota(a_machine: Machine, quota: str, expected: int | None) -> None:
    root = a_machine({**V2, f"{OWN}/cpu.max": quota})
    assert cpu_count(root) == (expected or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(("quota", "expected"), [(100000, 1), (-1, None)])
def test_in_cgroup_v1_the_quota_of_the_cpu_controller_counts_and_no_other(
    a_machine: Machine, quota: int, expected: int | None
) -> None:
    files = {
        "proc/self/cgroup": "6:cpuset:/\n5:cpu,cpuacct:/docker/abc\n0::/\n",
        "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": quota,
        "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": 100000,
    }
    assert cpu_count(a_machine(files)) == (expected or len(os.sched_getaffinity(0)))


def test_the_size_and_the_free_room_of_shared_memory_are_those_of_its_file_system(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    assert shared_memory(tmp_path).total_bytes == found.f_blocks * found.f_frsize
    available = shared_memory(tmp_path).available_bytes
    assert available is not None
    assert available < found.f_blocks * found.f_frsize
    assert shared_memory(tmp_path / "nothing") == HostMemory()


def test_p04_kills_for_memory_are_counted_in_our_group_or_else_on_the_machine(a_machine: Machine) -> None:
    root = a_machine({"proc/vmstat": "oom_kill 7\n"})
    assert oom_kills(root) == 7
    a_machine({**V2, f"{OWN}/memory.events": "low 0\noom 3\noom_kill 1\noom_group_kill 0\n"})
    assert oom_kills(root) == 1


def test_this_machine_answers() -> None:
    found = take_memory()
    assert found.available_bytes is not None
    assert found.total_bytes is not None
    assert 0 < found.available_bytes <= found.total_bytes
    assert oom_kills() is not None
