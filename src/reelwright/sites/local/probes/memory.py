"""Measures the memory and processors that this process may use: the machine's, within its control groups (v1 and v2).

A container with 32 GB on a machine with 512 GB sees 512 in ``/proc/meminfo``, and the kernel kills a process that
loads 70 GB of weights in it. Every level of the group tree counts. The memory of GPUs is in `sites.local.probes.gpus`.

    >>> take_memory().total_bytes is None or take_memory().total_bytes > 0
    True
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

_NO_LIMIT = 1 << 60  # version 1 writes a number near 2**63 for "no limit"


@dataclass(frozen=True)
class HostMemory:
    """Bytes of host memory; ``None`` is unknown.

    ``swap_bytes`` is not part of the total; ``limited`` says that the total is a control group's, not the machine's.
    """

    total_bytes: int | None = None
    available_bytes: int | None = None
    swap_bytes: int = 0
    limited: bool = field(default=False, compare=False)


def take_memory(root: Path = Path("/")) -> HostMemory:
    """The machine's memory and the free part of it, within the limits of this process's control groups."""
    said = _fields(root / "proc/meminfo")
    total = said["MemTotal"] * 1024 if "MemTotal" in said else None
    available = said["MemAvailable"] * 1024 if "MemAvailable" in said else None
    swap, limited = said.get("SwapTotal", 0) * 1024, False
    for limit, left, most in _memory_limits(root):
        limited = limited or total is None or limit < total
        total = limit if total is None else min(total, limit)
        swap = swap if most is None else min(swap, most)
        if left is not None:
            available = left if available is None else min(available, left)
    return HostMemory(total, available, swap, limited)


def shared_memory(folder: Path = Path("/dev/shm")) -> HostMemory:  # noqa: S108 -- a file system, not a file
    """Size and free space of the file system through which the processes of one run exchange data.

    A container gets 64 MiB of it unless it was started with more.
    """
    try:
        found = os.statvfs(folder)
    except OSError:
        return HostMemory()
    return HostMemory(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def cpu_count(root: Path = Path("/")) -> int:
    """The number of processors that this process may use: its affinity, within the groups' quota; at least 1."""
    count = len(os.sched_getaffinity(0))
    for folder in _levels(root, "cpu"):
        quota = _cpu_quota(folder)
        if quota is not None:
            count = min(count, max(1, round(quota)))
    return count


def oom_kills(root: Path = Path("/")) -> int | None:
    """The number of processes that the kernel has killed for memory, in this control group, else on the machine.

    Only the difference between two calls is meaningful.
    """
    own = _levels(root, "memory")[:1]
    sources = [folder / name for folder in own for name in ("memory.events", "memory.oom_control")]
    for source in [*sources, root / "proc/vmstat"]:
        count = _fields(source).get("oom_kill")
        if count is not None:
            return count
    return None


def _memory_limits(root: Path) -> list[tuple[int, int | None, int | None]]:
    """(limit, bytes left under it, swap allowed in addition) of every level that has a limit.

    ``memory.high`` counts as a limit: beyond it the kernel kills nothing, but every process nearly stops.
    """
    result = []
    for folder in _levels(root, "memory"):
        limits = [_number(folder / name) for name in ("memory.max", "memory.high")]
        limit = min((one for one in limits if one is not None), default=None)
        swap = _number(folder / "memory.swap.max")
        used = _number(folder / "memory.current")
        reclaimable = _fields(folder / "memory.stat").get("inactive_file", 0)
        if limit is None:
            limit = _number(folder / "memory.limit_in_bytes")
            used = _number(folder / "memory.usage_in_bytes")
            reclaimable = _fields(folder / "memory.stat").get("total_inactive_file", 0)
            both = _number(folder / "memory.memsw.limit_in_bytes")
            swap = max(0, both - limit) if both is not None and limit is not None and limit < _NO_LIMIT else None
        if limit is not None:
            # The page cache counts as used, but the kernel frees it on demand: MemAvailable counts it as free too.
            result.append((limit, None if used is None else max(0, limit - max(0, used - reclaimable)), swap))
    return result


def _cpu_quota(folder: Path) -> float | None:
    words = _text(folder / "cpu.max").split()
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
        return int(words[0]) / int(words[1])
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period else None


def _levels(root: Path, controller: str) -> list[Path]:
    """Folders of this process's control group and of the groups above it, its own first.

    In a container the path may not be visible; then only the mount is left.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        mount = root / "sys/fs/cgroup" / (controller if number != "0" else "")
        mine = controller in controllers.split(",") or (number == "0" and (mount / "cgroup.controllers").exists())
        if mine:
            inner = PurePosixPath(*(part for part in PurePosixPath(path).parts if part not in ("/", "..")))
            folders = [mount / inner, *(mount / above for above in inner.parents)]
            return [folder for folder in folders if folder.is_dir()]
    return []


def _fields(path: Path) -> dict[str, int]:
    return {match[1]: int(match[2]) for match in re.finditer(r"(?m)^(\w+):?\s+(\d+)\b", _text(path))}


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if re.fullmatch(r"\d+", text) else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
