"""Ends processes of runs whose runner and shim were both killed.

Every process of a run carries a mark in its environment. If only the runner dies, the shim ends the processes. A pid
alone never identifies a process here.

    >>> sweep_dead_runs()
    ()
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping

import psutil

from ...launchers import shim
from .leases import lease_directory


def run_mark(run_id: str, environ: Mapping[str, str] = os.environ) -> str:
    """The mark of a run's processes: its id, its runner by pid and start time, and its folder of GPU locks."""
    return f"{run_id}:{os.getpid()}:{shim.start_time(os.getpid())}:{_locks(environ)}"


def _locks(environ: Mapping[str, str]) -> str:
    """A short hash of the path of the folder of GPU locks."""
    return hashlib.sha256(os.fsencode(lease_directory(environ))).hexdigest()[:12]


def end_marked(mark: str) -> list[int]:
    """End every process with this mark, and collect those that have become this process's children."""
    tree = shim.Tree(-1, mark)
    seen = list(tree.alive())
    unkillable = tree.end(2.0)
    for pid in seen:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return unkillable


def sweep_dead_runs(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """End the processes of runs whose runner and shim were both killed; returns the run ids.

    It ends a process only if all of these hold: it belongs to this user, its mark names this folder of GPU locks, the
    runner of the mark (pid and start time) is gone, and no living shim supervises it.
    """
    dead: dict[str, None] = {}
    ours = f":{_locks(environ)}"
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # it has ended, or is another user's
            mark = process.environ().get(shim.MARK, "")
            if mark.endswith(ours) and not _runner_lives(mark) and not _supervised(process):
                dead.setdefault(mark)
    for mark in dead:
        end_marked(mark)
    return tuple(mark.split(":")[0] for mark in dead)


def _runner_lives(mark: str) -> bool:
    _, pid, started, *_ = (*mark.split(":"), "", "")
    return not pid.isdigit() or str(shim.start_time(int(pid))) == started


def _supervised(process: psutil.Process) -> bool:
    """Whether the process or one of its ancestors is a living shim."""
    for one in (process, *process.parents()):
        with contextlib.suppress(psutil.Error):
            if any(word.endswith("launchers/shim.py") for word in one.cmdline()[:4]):
                return True
    return False
