"""Samples the resource use of a running attempt once a second: GPU memory and load, host memory, disk traffic.

The sampler is a thread beside the run. If the sampler fails, the run goes on and the numbers are ``None``. It measures
and reports its own cost. It does not judge the numbers (`policy.diagnosis` recognises out of memory). It reads GPUs
with a function that the caller passes, such as `probes.gpus.GpuWatch.read`.

    >>> with Sampler(root_pid=lambda: shim.pid, read_gpus=watch.read) as sampler:
    ...     evidence = site.run(plan, reservation, work, emit, cancellation)  # doctest: +SKIP
    >>> sampler.metrics().gpu_peak_bytes  # doctest: +SKIP
    {'GPU-...': 68719476736}
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping

import psutil

from .metrics import Metrics, Recording, Sample, Usage
from .probes import GpuReading

#: Samples between two searches for the tree: it changes rarely, and a search reads all of /proc.
_FIND_EVERY = 5


class ProcessTree:
    """Reads the resource use of a process and all its descendants."""

    def __init__(self) -> None:
        self._members: list[psutil.Process] = []
        self._readings = 0

    def usage(self, root_pid: int) -> Usage:
        """The present use of the tree; zero processes if it is gone."""
        if self._readings % _FIND_EVERY == 0 or root_pid not in {member.pid for member in self._members}:
            self._members = _tree(root_pid)
        self._readings += 1
        self._members = [member for member in self._members if member.is_running()]  # a reused pid does not count
        host, read, written = [], [], []
        for member in self._members:
            with contextlib.suppress(psutil.Error):
                host.append(member.memory_info().rss)
                disk = member.io_counters()
                read.append(disk.read_bytes)
                written.append(disk.write_bytes)
        return Usage(
            processes=len(host),
            host_bytes=sum(host) if host else None,
            read_bytes=sum(read) if read else None,
            written_bytes=sum(written) if written else None,
        )


def _tree(root_pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(root_pid)
        return [root, *root.children(recursive=True)]
    return []


class Sampler:
    """Samples in a thread from `start` to `stop` (or inside ``with``), and never raises.

    Args:
        root_pid: Returns the process whose tree is measured; ``None`` until it has started.
        read_gpus: Returns the newest reading of the GPUs; ``None`` if there is none.
        interval_s: Seconds between two samples.
    """

    def __init__(
        self,
        *,
        root_pid: Callable[[], int | None],
        read_gpus: Callable[[], Mapping[str, GpuReading] | None] = lambda: None,
        interval_s: float = 1.0,
    ) -> None:
        self._root_pid, self._read_gpus = root_pid, read_gpus
        self._interval_s = interval_s
        self._recording = Recording()
        self._tree = ProcessTree()
        self._stop = threading.Event()
        self._cost_s = 0.0
        self._started_s = 0.0
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> Sampler:
        """Start sampling; call it once."""
        self._started_s = time.monotonic()
        self._thread.start()
        return self

    def stop(self, wait_s: float = 2.0) -> Metrics:
        """Stop sampling; waits at most ``wait_s`` seconds for a reading that hangs. A second call is allowed."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(wait_s)
        return self.metrics()

    def metrics(self) -> Metrics:
        """The metrics so far."""
        return self._recording.metrics(round(self._cost_s, 4))

    def __enter__(self) -> Sampler:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _run(self) -> None:
        while True:
            stopping = self._stop.is_set()
            with contextlib.suppress(Exception):  # measuring must never end a run
                self._take()
            self._cost_s = time.thread_time()
            if stopping:
                return
            self._stop.wait(self._interval_s)

    def _take(self) -> None:
        root = self._root_pid()
        usage = self._tree.usage(root) if root is not None else Usage()
        self._recording.add(Sample(time.monotonic() - self._started_s, usage, self._read_gpus() or {}))
