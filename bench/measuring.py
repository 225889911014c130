"""Times complete processes: wall clock, processor time and the peak of the process's own resident memory."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """Time and memory of one process."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


class _Peak:
    """The peak of one process's resident memory; ``ru_maxrss`` would include its children."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            with contextlib.suppress(OSError, IndexError):
                text = Path(f"/proc/{self._pid}/status").read_text()
                self._bytes = int(text.partition("VmHWM:")[2].split()[0]) * 1024

    def stopped(self) -> int:
        self._stop.set()
        self._thread.join()
        return self._bytes


def timed(
    argv: Sequence[str], *, status: int = 0, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Run:
    """Run a program that must end with ``status``; the peak is that of its own process."""
    environ = dict(os.environ if env is None else env)
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else every run compiles the sources again
    started = time.perf_counter()
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(argv, stdout=null, stderr=pipe, text=True, cwd=cwd, env=environ) as process:
        assert process.stderr is not None
        peak = _Peak(process.pid)
        errors = process.stderr.read()
        _, ended, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(ended)
    if process.returncode != status:
        sys.exit(f"{list(argv)[:5]} ended with {process.returncode}:\n{errors}")
    return Run(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, peak.stopped())


def median(runs: Sequence[Run]) -> Run:
    """The medians of the times, and the highest peak."""
    return Run(
        statistics.median(run.seconds for run in runs),
        statistics.median(run.cpu_seconds for run in runs),
        max(run.peak_bytes for run in runs),
    )


def report(targets: Mapping[str, bool]) -> int:
    """Print which targets are met; returns 1 if one is not."""
    for target, met in targets.items():
        print(f"  {'met' if met else 'MISSED':6} {target}")
    return 0 if all(targets.values()) else 1


def machine() -> str:
    """The number of cores and the load: figures mean nothing without them."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
