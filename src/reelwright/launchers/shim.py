"""Supervises a framework's command for the runner, so that no process outlives its run.

It is started by path (``python -I -S shim.py CONTROL STATUS KEEP...``) and uses the standard library only. The runner
passes it:

* stdin: one JSON object ``{"argv", "cwd", "env", "mark", "grace_s"}`` (never on the command line: E2BIG, secrets),
  with ``"pass_fds"`` if the command gets more descriptors;
* CONTROL: the read end of a pipe; ``T`` means TERM, grace, KILL; ``K`` means KILL at once; the end of the pipe means
  that the runner is gone, and counts as ``T``;
* STATUS: the write end of a pipe for one JSON line per event: ``started`` (pid), ``failed`` (errno), ``exited``
  (status, signal, leftovers, unkillable);
* KEEP: descriptors of GPU leases, held until everything has ended; the command does not get them;
* fds 1 and 2: the log pipe, for the command; the shim does not write to it.

torchrun starts its ranks in separate sessions, so killing a process group does not reach them (pytorch#113231).
The shim is a child subreaper: an orphan becomes its child. So it can find every descendant by walking the tree and by
the mark in the environment (``REELWRIGHT_RUN``), end it and reap it. Start times guard against PID reuse. Every wait is
bounded: the shim reports a process that cannot be killed, and does not wait for it.

The runner uses the functions below too. It is also a subreaper, in case the shim is killed.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
import time

TYPE_CHECKING = False  # as in typing, whose import would cost start-up time
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MARK = "REELWRIGHT_RUN"
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
_LEFTOVER_GRACE_S = 2.0
_KILL_WAIT_S = 5.0
_REAP_WAIT_S = 1.0
_POLL_S = 0.02

# ------------------------------------------------------------------------------------------------ the process tree


def become_subreaper(on: bool = True) -> bool:
    """Make this process the parent of orphans among its descendants (Linux >= 3.4); returns the previous state."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = ctypes.c_int(0)
    libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1 if on else 0, 0, 0, 0)
    return bool(before.value)


def _stat(pid: int) -> tuple[str, int, int] | None:
    """(state, parent, start time in clock ticks since boot); ``None`` if the process does not exist."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[0].decode(), int(fields[1]), int(fields[19])


def start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; pid and start time together identify a process."""
    found = _stat(pid)
    return found[2] if found else None


def descendants(root: int) -> dict[int, int]:
    """pid -> start time of all descendants of ``root``, without zombies; reads /proc once."""
    children: dict[int, list[tuple[int, str, int]]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 -- pathlib would double the start-up time
        if name.isdigit():
            found = _stat(int(name))
            if found:
                state, parent, started = found
                children.setdefault(parent, []).append((int(name), state, started))
    result: dict[int, int] = {}
    waiting = [root]
    while waiting:
        for pid, state, started in children.get(waiting.pop(), ()):
            waiting.append(pid)
            if state not in "ZX":
                result[pid] = started
    return result


def marked(mark: str) -> dict[int, int]:
    """pid -> start time of this user's processes that have the mark in their environment."""
    wanted = b"\0" + f"{MARK}={mark}".encode() + b"\0"
    result: dict[int, int] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                found = wanted in b"\0" + file.read() + b"\0"
        except OSError:
            continue  # gone, or another user's
        stat = _stat(int(name)) if found else None
        if stat and stat[0] not in "ZX":
            result[int(name)] = stat[2]
    return result


def send(processes: dict[int, int], number: int) -> None:
    """Signal those of the processes whose pid and start time still match."""
    for pid, started in processes.items():
        if start_time(pid) != started:
            continue  # the process has ended, and another one may have its pid
        try:
            os.kill(pid, number)
            if number == signal.SIGTERM:
                os.kill(pid, signal.SIGCONT)  # a stopped process does not receive SIGTERM
        except (ProcessLookupError, PermissionError):
            continue


def reap() -> dict[int, int]:
    """Collect every child that has ended; returns pid -> wait status."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


class Tree:
    """The processes of one run: the descendants of ``root`` and all processes with the mark."""

    def __init__(self, root: int, mark: str) -> None:
        self.root = root
        self.mark = mark
        self.ended: dict[int, int] = {}
        self.reaps = root == os.getpid()

    def alive(self) -> dict[int, int]:
        """pid -> start time of the remaining processes, after reaping."""
        if self.reaps:
            self.ended.update(reap())
        found = {**descendants(self.root), **(marked(self.mark) if self.mark else {})}
        found.pop(os.getpid(), None)
        return found

    def end(self, grace_s: float, hurry: Callable[[], bool] | None = None) -> list[int]:
        """Send TERM, wait for the grace, send KILL, wait a bounded time; returns the pids that cannot be killed.

        ``hurry`` is called during the grace; true ends it.
        """
        deadline = time.monotonic() + grace_s
        asked: dict[int, int] = {}
        while time.monotonic() < deadline and not (hurry and hurry()):
            left = self.alive()
            if not left:
                return []
            send({pid: started for pid, started in left.items() if asked.get(pid) != started}, signal.SIGTERM)
            asked.update(left)
            time.sleep(_POLL_S)
        deadline = time.monotonic() + _KILL_WAIT_S
        while True:
            left = self.alive()
            if not left:
                return []
            send(left, signal.SIGKILL)
            if time.monotonic() > deadline:
                return sorted(left)
            time.sleep(_POLL_S)

    def status_of(self, pid: int) -> int | None:
        """The wait status of a child that has ended, even if it is not collected yet."""
        deadline = time.monotonic() + _REAP_WAIT_S
        while pid not in self.ended:
            self.ended.update(reap())  # also after the deadline: this process may have been stopped meanwhile
            if time.monotonic() >= deadline:
                break
            time.sleep(_POLL_S)
        return self.ended.get(pid)


# --------------------------------------------------------------------------------------------------------- the shim


def _report(status_fd: int, **event: object) -> None:
    try:
        os.write(status_fd, json.dumps(event).encode() + b"\n")
    except OSError:
        return  # the runner is gone


def _spawn(spec: dict[str, Any], closed: list[int]) -> int:
    """Start the command in a new session; raises OSError if it cannot be executed."""
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            for fd in closed:
                os.close(fd)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.chdir(spec["cwd"])
            os.execvpe(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606 -- a supervisor starts programs
        except BaseException as error:  # noqa: BLE001 -- the forked child must never return
            os.write(write, str(getattr(error, "errno", None) or errno.EIO).encode())
        os._exit(127)
    os.close(write)
    failed = os.read(read, 16)
    os.close(read)
    if failed:
        os.waitpid(pid, 0)
        raise OSError(int(failed), os.strerror(int(failed)))
    return pid


class _Control:
    """The runner's request: none, a clean stop, or an immediate stop."""

    def __init__(self, fd: int, wake: int) -> None:
        self._fd = fd
        self._wake = wake
        self.stop = False
        self.now = False
        self._open = True

    def wait(self, timeout_s: float) -> None:
        fds = [self._wake, *([self._fd] if self._open else [])]
        ready, _, _ = select.select(fds, [], [], timeout_s)
        if self._wake in ready:
            os.read(self._wake, 4096)
        if self._fd in ready:
            data = os.read(self._fd, 64)
            self._open = bool(data)
            self.stop = True
            self.now = self.now or b"K" in data

    def hurry(self) -> bool:
        self.wait(0)
        return self.now


def supervise(spec: dict[str, Any], control_fd: int, status_fd: int, keep: list[int]) -> int:
    """Run the command until it ends or the runner stops it; returns the shim's exit status."""
    become_subreaper()
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    control = _Control(control_fd, wake_read)

    def stop(_number: int, _frame: object) -> None:
        control.stop = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        pid = _spawn(spec, [control_fd, status_fd, *keep])
    except OSError as error:
        _report(status_fd, event="failed", errno=error.errno)
        return 0
    for fd in spec.get("pass_fds", ()):  # only the command may hold them, so that its pipes end with it
        os.close(fd)
    # Only the command may hold the log: the runner sees the end of the pipe when the last writer has ended.
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    _report(status_fd, event="started", pid=pid, start_time=start_time(pid))
    tree = Tree(os.getpid(), spec["mark"])
    while not control.stop and pid not in tree.ended:
        control.wait(1.0)
        tree.ended.update(reap())
    if pid in tree.ended:
        leftovers = tree.alive()
        unkillable = tree.end(_LEFTOVER_GRACE_S, control.hurry) if leftovers else []
    else:
        leftovers = {}
        unkillable = tree.end(spec["grace_s"], control.hurry)
    status = None if pid in unkillable else tree.status_of(pid)
    code = os.waitstatus_to_exitcode(status) if status is not None else None
    _report(
        status_fd,
        event="exited",
        status=code if code is not None and code >= 0 else None,
        signal=-code if code is not None and code < 0 else None,
        leftovers=len(leftovers),
        unkillable=unkillable,
    )
    # While an unkillable process exists, this process holds its leases.
    while not tree.alive().keys().isdisjoint(unkillable):
        time.sleep(0.5)
    return 0


def main(argv: list[str]) -> int:
    """Run the shim; the module's docstring describes the arguments."""
    os.setsid()
    signal.pthread_sigmask(
        signal.SIG_SETMASK, ()
    )  # a thread of the runner may block SIGTERM, and a child inherits that
    control_fd, status_fd, *keep = (int(word) for word in argv)
    spec = json.loads(sys.stdin.buffer.read())
    return supervise(spec, control_fd, status_fd, keep)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
