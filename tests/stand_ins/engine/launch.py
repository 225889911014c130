"""Plays one launch of the stand-in: finds its entry in the script, records the process, and stops or dies as scripted.

The script is a JSON list in the file that FAKE_PLAN names, else in `fake_plan.json` beside generate.py;
entry n is for launch n and the last one repeats. All ranks of one torchrun are one launch. Each process
appends one line to `fake_record.jsonl`; at each point it appends a line to `fake_state/at-<point>` (if that is a
FIFO, the point waits for its reader). tests/stand_ins/README.md lists the keys.

    >>> begin(Path("Wan2.1")).plan  # doctest: +SKIP
    {'oom_phase': 'dit'}
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import failures

_CHILD = """
import os, signal, sys
if sys.argv[2] == "1": signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
while True: signal.pause()
"""


@dataclass(frozen=True)
class Launch:
    """One process of a launch."""

    home: Path
    number: int
    rank: int
    world: int
    plan: Mapping[str, Any]

    def at(self, point: str) -> None:
        """Record that the process has reached a point, then do what the script has for it."""
        self._mark(point.replace(" ", "-"))
        if self.plan.get("hang_at") == point or (point == "step 1" and self._stays_away()):
            self._mark("hang")
            while True:
                signal.pause()
        for key, default, act in self._faults():
            value = self.plan.get(key)
            place = value.get("at") if isinstance(value, dict) else None
            # 0 is a valid status; only an absent or false fault does nothing.
            if key in self.plan and value is not False and point == (place or self.plan.get("at", default)):
                act(value)
        phases = {"load": "load", "dit": "step 1", "vae": "vae"}
        if point == phases.get(str(self.plan.get("oom_phase"))):
            raise failures.out_of_memory(self.rank)

    def _faults(self) -> tuple[tuple[str, str, Callable[[Any], None]], ...]:
        """(key, the point at which it happens unless the script names another, the action)."""
        return (
            ("spawn", "start", self._spawn),
            ("bind_port", "start", failures.bind_port),
            ("bytes", "step 1", failures.print_bytes),
            ("log_mb", "step 1", failures.flood_lines),
            ("log_line_mb", "step 1", failures.flood_line),
            ("rank_die", "step 2", self._die_as_rank),
            ("nccl", "step 1", failures.nccl),
            ("xid", "step 1", failures.xid),
            ("traceback", "step 1", failures.print_traceback),
            ("host_oom", "vae", lambda _: _kill(signal.SIGKILL)),
            ("sig", "step 1", _kill),
            ("exit", "end" if "write" in self.plan else "step 1", _exit),
        )

    def barrier(self, name: str) -> None:
        """Wait for the other ranks, without limit, as a collective does."""
        if self.world == 1:
            return
        folder = self._state() / f"launch-{self.number}"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}-{self.rank}").touch()
        while not all((folder / f"{name}-{rank}").exists() for rank in range(self.world)):
            time.sleep(0.005)

    def alone(self) -> Launch:
        """The same process, as the only rank."""
        return replace(self, world=1)

    def note(self, **found: Any) -> None:
        """Append facts about this process to the record (the attention that it used, say)."""
        _append(self.home / "fake_record.jsonl", {"launch": self.number, "rank": self.rank, "note": found})

    def _state(self) -> Path:
        folder = self.home / "fake_state"
        folder.mkdir(exist_ok=True)
        return folder

    def _mark(self, point: str) -> None:
        line = f"{self.number} {self.rank} {os.getpid()} {time.monotonic()}\n"
        with (self._state() / f"at-{point}").open("ab", buffering=0) as file:
            file.write(line.encode())

    def _stays_away(self) -> bool:
        """Whether this rank never reaches the first collective, so that the others wait for ever."""
        wanted = self.plan.get("ranks_hang")
        return wanted is True or (isinstance(wanted, list) and self.rank in wanted)

    def _spawn(self, wanted: Mapping[str, Any]) -> None:
        """Start grandchildren, which outlive this process unless its supervisor ends them."""
        pids = self._state() / "spawned"
        before = len(pids.read_text().split()) if pids.exists() else 0
        quiet = None if wanted.get("inherit_fd") else subprocess.DEVNULL
        count = int(wanted.get("n", 1))
        for _ in range(count):
            subprocess.Popen(
                [sys.executable, "-S", "-c", _CHILD, str(pids), "1" if wanted.get("ignore_term") else "0"],
                start_new_session=bool(wanted.get("setsid")),
                stdin=subprocess.DEVNULL,
                stdout=quiet,
                stderr=quiet,
            )
        while not pids.exists() or len(pids.read_text().split()) < before + count:
            time.sleep(0.005)

    def _die_as_rank(self, wanted: Mapping[str, Any]) -> None:
        if self.rank != wanted["rank"]:
            return
        if "sig" in wanted:
            _kill(wanted["sig"])
        _exit(int(wanted.get("exit", 1)))


def begin(home: Path) -> Launch:
    """Count this launch, record this process, and find its script."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    state = home / "fake_state"
    state.mkdir(exist_ok=True)
    # The ranks of one torchrun share their parent, which identifies the launch; a single process identifies its own.
    owner = os.getppid() if world > 1 else os.getpid()
    number = _number(state / "launches", f"{owner}:{_started(owner)}")
    _record(home, number, rank)
    launch = Launch(home, number, rank, world, _entry(home, number))
    if launch.plan.get("ignore_term"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return launch


def refuse_dropped_flag(dropped: str | bool, default: str) -> None:
    """Exit with argparse's message if a flag is given that this version of the framework has dropped."""
    flag = default if dropped is True else dropped
    given = [argument for argument in sys.argv[1:] if flag and argument.partition("=")[0] == flag]
    if given:
        print(f"usage: {Path(sys.argv[0]).name}", file=sys.stderr)
        print(f"{Path(sys.argv[0]).name}: error: unrecognized arguments: {' '.join(given)}", file=sys.stderr)
        raise SystemExit(2)


def _number(path: Path, key: str) -> int:
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        known = file.read().split()
        if key not in known:
            known.append(key)
            file.write(key + "\n")
            file.flush()
    return known.index(key) + 1


def _entry(home: Path, number: int) -> Mapping[str, Any]:
    path = Path(os.environ.get("FAKE_PLAN") or home / "fake_plan.json")
    if not path.exists():
        return {}
    entries: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
    return entries[min(number, len(entries)) - 1] if entries else {}


def _started(pid: int) -> int:
    """Start time of a process in clock ticks since boot: with the pid, its identity."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def _record(home: Path, number: int, rank: int) -> None:
    found = {
        "launch": number,
        "rank": rank,
        "argv": sys.argv,
        "orig_argv": sys.orig_argv,
        "cwd": str(Path.cwd()),
        "environ": dict(sorted(os.environ.items())),
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "sid": os.getsid(0),
        "pgid": os.getpgid(0),
        "started": _started(os.getpid()),
        "core_limit": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "prefix": sys.prefix,
    }
    _append(home / "fake_record.jsonl", found)


def _append(path: Path, found: Mapping[str, Any]) -> None:
    # One write for one line, because ranks append at the same time.
    with path.open("ab", buffering=0) as file:
        file.write((json.dumps(found) + "\n").encode())


def _kill(number: int) -> None:
    sys.stdout.flush()
    os.kill(os.getpid(), number)
    # SIGTERM and similar signals arrive between two instructions; a signal that kills at once never gets here.
    signal.pause()


def _exit(status: int) -> None:
    raise SystemExit(status)
