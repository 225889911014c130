"""Ends processes of runs whose runner and shim were both killed.

Every process of a run carries a mark in its environment. The shim ends all of them when only the runner dies. A pid
alone never identifies a process here.

    >>> sweep_dead_runs()
    ()
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from ...launchers import shim
from .leases import lease_directory


def run_mark(run_id: str) -> str:
    """The mark of a run's processes: its id, its runner by pid and start time, and its folder of GPU locks."""
    return f"{run_id}:{os.getpid()}:{shim.start_time(os.getpid())}:{_locks(os.environ)}"


def _locks(environ: Mapping[str, str]) -> str:
    """A few letters that stand for the folder of GPU locks."""
    return hashlib.sha256(os.fsencode(lease_directory(environ))).hexdigest()[:12]


def end_marked(mark: str) -> list[int]:
    """End every process with this mark, and collect those that have become our children."""
    tree = shim.Tree(-1, mark)
    seen = list(tree.alive())
    unkillable = tree.end(2.0)
    for pid in seen:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return unkillable


def sweep_dead_runs(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """End what runs left behind whose runner and shim were both killed; returns their run ids.

    It ends only processes of this user with the mark of a run that used our folder of GPU locks, whose runner (pid
    and start time) is gone, and that no living shim supervises.
    """
    dead: dict[str, None] = {}
    ours = f":{_locks(environ)}"
    for entry in Path("/proc").iterdir():
        mark = _mark_of(entry) if entry.name.isdigit() else None
        if mark and mark.endswith(ours) and not (_owner_lives(mark) or _supervised(int(entry.name))):
            dead.setdefault(mark)
    for mark in dead:
        end_marked(mark)
    return tuple(mark.split(":")[0] for mark in dead)


def _mark_of(entry: Path) -> str | None:
    try:
        variables = (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    prefix = f"{shim.MARK}=".encode()
    found = next((item for item in variables if item.startswith(prefix)), None)
    return found.removeprefix(prefix).decode("utf-8", "replace") if found else None


def _owner_lives(mark: str) -> bool:
    _, pid, started, *_ = (*mark.split(":"), "", "")
    return not pid.isdigit() or str(shim.start_time(int(pid))) == started


def _supervised(pid: int) -> bool:
    """Whether a living shim is among the ancestors."""
    while pid > 1:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            parent = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return False
        if any(word.endswith(b"launchers/shim.py") for word in words[:4]):
            return True
        pid = parent
    return False
