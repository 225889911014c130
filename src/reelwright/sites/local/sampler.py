"""What a running attempt uses: GPU memory and load, host memory, disk traffic, sampled once a second.

The sampler is a thread beside the run: whatever goes wrong in it, the run goes on and the numbers are
``None``. Its own cost is measured and reported. It judges nothing (out of memory is `policy.diagnosis`) and
does not know how GPUs are read: that is `gpus.GpuWatch.read`, given as a function.

    >>> with Sampler(root_pid=lambda: shim.pid, read_gpus=watch.read) as sampler:
    ...     executor.run(plan, files, emit, cancellation)  # doctest: +SKIP
    >>> sampler.metrics().gpu_peak_bytes  # doctest: +SKIP
    {'GPU-...': 68719476736}
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from .metrics import Metrics, Recording, Sample, Usage
from .probes import GpuReading

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# The tree of processes changes rarely and finding it reads all of /proc; in between only its members are
# read.
_FIND_EVERY = 5


class ProcessTree:
    """Reads what a process and all its descendants use, from ``/proc``."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = str(proc)
        self._members: dict[int, int] = {}
        self._looks = 0

    def usage(self, root_pid: int) -> Usage:
        """The tree's use now; zero processes if it is gone."""
        if self._looks % _FIND_EVERY == 0 or root_pid not in self._members:
            self._members = self._find(root_pid)
        self._looks += 1
        host: list[int] = []
        io: list[tuple[int, int]] = []
        for pid, started in list(self._members.items()):
            found = self._stat(pid)
            if found is None or found[1] != started:  # ended, or its number belongs to another process now
                del self._members[pid]
                continue
            host.append(found[2] * _PAGE_BYTES)
            counters = self._io(pid)
            if counters is not None:
                io.append(counters)
        return Usage(
            processes=len(host),
            host_bytes=sum(host) if host else None,
            read_bytes=sum(read for read, _ in io) if io else None,
            written_bytes=sum(written for _, written in io) if io else None,
        )

    def _find(self, root_pid: int) -> dict[int, int]:
        """Start time of the root and each descendant."""
        children: dict[int, list[int]] = {}
        started: dict[int, int] = {}
        for name in os.listdir(self._proc):  # noqa: PTH208 - thousands of names every few seconds
            if name.isdigit() and (found := self._stat(int(name))) is not None:
                children.setdefault(found[0], []).append(int(name))
                started[int(name)] = found[1]
        members: dict[int, int] = {}
        waiting = [root_pid] if root_pid in started else []
        while waiting:
            pid = waiting.pop()
            if pid not in members:
                members[pid] = started[pid]
                waiting += children.get(pid, [])
        return members

    def _stat(self, pid: int) -> tuple[int, int, int] | None:
        """(parent, start time, resident pages)."""
        try:
            # The name in parentheses may hold anything, parentheses too.
            fields = self._bytes(f"{pid}/stat").rpartition(b")")[2].split()
            return int(fields[1]), int(fields[19]), int(fields[21])
        except (OSError, ValueError, IndexError):
            return None

    def _io(self, pid: int) -> tuple[int, int] | None:
        try:
            fields = dict(line.split(b": ", 1) for line in self._bytes(f"{pid}/io").splitlines())
            return int(fields[b"read_bytes"]), int(fields[b"write_bytes"])
        except (OSError, ValueError, KeyError):
            return None

    def _bytes(self, name: str) -> bytes:
        fd = os.open(f"{self._proc}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, 4096)
        finally:
            os.close(fd)


class Sampler:
    """Samples in a thread from `start` to `stop` (or inside ``with``); nothing of it ever raises.

    Args:
        root_pid: The process whose tree is measured; ``None`` until there is one.
        read_gpus: The newest reading of the GPUs; ``None`` if there is none.
        emit: Told every sample; if it raises, it is not told any more.
        interval_s: Time between two samples.
    """

    def __init__(
        self,
        *,
        root_pid: Callable[[], int | None],
        read_gpus: Callable[[], Mapping[str, GpuReading] | None] = lambda: None,
        emit: Callable[[Sample], None] | None = None,
        interval_s: float = 1.0,
    ) -> None:
        self._root_pid, self._read_gpus = root_pid, read_gpus
        self._emit: Callable[[Sample], None] | None = emit
        self._interval_s = interval_s
        self._recording = Recording()
        self._tree = ProcessTree()
        self._stop = threading.Event()
        self._cost_s = 0.0
        self._started_s = 0.0
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> Sampler:
        """Begin; once only."""
        self._started_s = time.monotonic()
        self._thread.start()
        return self

    def stop(self, wait_s: float = 2.0) -> Metrics:
        """End and tell; waits at most ``wait_s`` for a reading that hangs. May be called twice."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(wait_s)
        return self.metrics()

    def metrics(self) -> Metrics:
        """What was seen so far."""
        return self._recording.metrics(round(self._cost_s, 4))

    def __enter__(self) -> Sampler:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        while True:
            stopping = self._stop.is_set()
            try:
                self._take()
            except Exception:  # noqa: BLE001 - measuring must never end a run
                self._emit = None
            self._cost_s = time.thread_time()
            if stopping:
                return
            self._stop.wait(self._interval_s)

    def _take(self) -> None:
        root = self._root_pid()
        usage = self._tree.usage(root) if root is not None else Usage()
        sample = Sample(time.monotonic() - self._started_s, usage, self._read_gpus() or {})
        self._recording.add(sample)
        if self._emit is not None:
            self._emit(sample)
