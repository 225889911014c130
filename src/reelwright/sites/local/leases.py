"""Reserves each GPU for one run with a lock file, which the kernel holds while a process of the run has it open.

The lease's descriptors go to the shim (``pass_fds``), so a killed runner does not free GPUs that its ranks still use.
The end of the processes frees the GPUs at once; no stored record is trusted. A run takes all of its GPUs together or
none, so two runs cannot wait for each other, and waiting runs are served in the order of arrival. Leases exclude only
other runs of the same user on the same machine; `sites.local.probes.gpus` reads the use of GPUs by others.

    >>> with Leases(lease_directory(os.environ)).claim(["GPU-1"], wait_s=0, owner={"run": "r1"}) as lease:
    ...     subprocess.run(command, pass_fds=lease.fds)  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import stat
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ...core.errors import BackendUnavailableError, BusyError, Failure
from ...core.files import open_lock, read_object, temporary_folder
from ...media.child_starts import wait_for_starts
from .. import Closing
from ..cancellation import Cancellation

_TICKET = "ticket-"
_MUTEX = "queue.lock"
_MUTEX_WAIT_S = 5.0
_TICKET_NAME = re.compile(r"ticket-(\d{1,18})")


def lease_directory(environ: Mapping[str, str]) -> Path:
    """The folder of this user's locks.

    It is not in /run/user/UID: logging out removes that folder while a run goes on, and the next login makes a new
    one, with new locks for the same GPUs.
    """
    return temporary_folder(environ)


_leases: weakref.WeakSet[Lease] = weakref.WeakSet()


def _leave_all() -> None:
    """In a forked process, close the copies of the locks: else a fork without exec would hold the GPUs too."""
    for lease in _leases:
        lease.leave()


os.register_at_fork(after_in_child=_leave_all)


class Lease(Closing):
    """GPUs that belong to this run until `close` is called and every process that got ``fds`` has ended."""

    def __init__(self, uuids: tuple[str, ...], fds: tuple[int, ...]) -> None:
        self.uuids = uuids
        self.fds = fds
        _leases.add(self)

    def close(self) -> None:
        """Close this process's descriptors; a second call does nothing. A rank that still runs keeps its GPU locked."""
        self.leave()
        wait_for_starts()  # a child has copies until its program begins

    def leave(self) -> None:
        """Close this process's descriptors without waiting."""
        fds, self.fds = self.fds, ()
        for fd in fds:
            os.close(fd)


class Leases:
    """The locks in one folder.

    Args:
        directory: The folder; it is made if needed, and refused if others can write to it.
        on_wait: Called once with the holder that a claim waits for.
        poll_s: Pause between two checks of a waiting claim, because the kernel does not announce a free lock. A check
            costs about ten system calls.
    """

    def __init__(self, directory: Path, *, on_wait: Callable[[str], None] | None = None, poll_s: float = 0.1) -> None:
        self.directory = directory
        self._on_wait = on_wait
        self._poll_s = poll_s

    def claim(
        self,
        uuids: Sequence[str],
        *,
        wait_s: float,
        owner: Mapping[str, Any],
        cancellation: Cancellation | None = None,
    ) -> Lease:
        """Take all of these GPUs, waiting up to ``wait_s`` seconds for them.

        ``owner`` is written into the locks for people to read. A request to stop ends the wait at once.

        Raises:
            BusyError: another run holds one of the GPUs, or came first and waits for one.
            BackendUnavailableError: the folder cannot be used.
            Cancelled: a stop was requested.
        """
        wanted = tuple(sorted(set(uuids)))
        deadline = time.monotonic() + wait_s
        with self._opened() as folder, contextlib.ExitStack() as queue:
            place: int | None = None
            while True:
                with _mutex(folder, max(deadline, time.monotonic() + _MUTEX_WAIT_S)):
                    if place is None and wait_s > 0:
                        place = queue.enter_context(_ticket(folder, wanted, owner))
                    holder = _ahead(folder, wanted, place)
                    fds, holder = (None, holder) if holder else _locked(folder, wanted, owner)
                if fds is not None:
                    return Lease(wanted, fds)
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise BusyError(holder, advice="Wait for it with lease_timeout_s, or choose other GPUs with gpus.")
                self._pause(str(holder), min(self._poll_s, left_s), cancellation)

    def holders(self) -> Mapping[str, Mapping[str, Any]]:
        """The owners of the GPUs that are locked now, by UUID."""
        found: dict[str, Mapping[str, Any]] = {}
        with self._opened() as folder, _mutex(folder, time.monotonic() + _MUTEX_WAIT_S):
            for name in sorted(os.listdir(folder)):  # noqa: PTH208 - of a descriptor
                if name.endswith(".gpu") and (fd := _lock(folder, name)) is not None:
                    _unlock(fd)
                elif name.endswith(".gpu"):
                    found[unquote(name.removesuffix(".gpu"))] = _note(folder, name)
        return found

    def _pause(self, holder: str, seconds: float, cancellation: Cancellation | None) -> None:
        if self._on_wait is not None:
            on_wait, self._on_wait = self._on_wait, None
            on_wait(holder)
        select.select([cancellation] if cancellation else [], [], [], seconds)
        if cancellation is not None:
            cancellation.check()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """The folder's descriptor, after the check that no other user can write to it."""
        try:
            with contextlib.suppress(FileExistsError):
                self.directory.mkdir(mode=0o700, parents=True)
            folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _unusable(self.directory, error.strerror or str(error)) from error
        try:
            found = os.fstat(folder)
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
                raise _unusable(self.directory, "it belongs to another user or others may write to it")
            yield folder
        except OSError as error:
            raise _unusable(self.directory, error.strerror or str(error)) from error
        finally:
            os.close(folder)


def _unusable(directory: Path, why: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"the folder of GPU locks {directory} cannot be used: {why}",
        failure=Failure.PERM,
        advice="Remove it, or set TMPDIR to a folder that you can write to.",
    )


def _lock(folder: int, name: str) -> int | None:
    """The descriptor of the locked file; ``None`` if another process holds the lock."""
    while True:
        fd = open_lock(Path(name), dir_fd=folder)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Cleaners of temporary folders delete old files, and a lock on a deleted file excludes nobody.
            if os.fstat(fd).st_ino == os.stat(name, dir_fd=folder).st_ino:
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _unlock(fd: int) -> None:
    """Free a lock whose descriptor no process was given, also for a child that is about to start and has a copy."""
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


@contextlib.contextmanager
def _mutex(folder: int, deadline: float) -> Iterator[None]:
    """Exclude other processes from the folder, for about ten system calls."""
    while (fd := _lock(folder, _MUTEX)) is None:
        if time.monotonic() > deadline:
            raise BusyError(
                "another process has held the queue for GPUs for a long time; it may be suspended",
                advice="Continue or end it.",
            )
        select.select([], [], [], 0.005)
    try:
        yield
    finally:
        _unlock(fd)


def _locked(
    folder: int, wanted: tuple[str, ...], owner: Mapping[str, Any]
) -> tuple[tuple[int, ...] | None, str | None]:
    """The descriptors of all locks and ``None``; or ``None`` and the holder of the first lock that is taken."""
    with contextlib.ExitStack() as taken:
        fds: list[int] = []
        for uuid in wanted:
            name = f"{quote(uuid, safe='')}.gpu"
            fd = _lock(folder, name)
            if fd is None:
                return None, f"{uuid} is in use by {_described(_note(folder, name))}"
            taken.callback(_unlock, fd)
            fds.append(fd)
        for fd in fds:
            _write(fd, {**owner, "pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")})
        taken.pop_all()
    return tuple(fds), None


# The queue: a file for each waiting run, locked while it waits, numbered in the order of arrival.


@contextlib.contextmanager
def _ticket(folder: int, wanted: tuple[str, ...], owner: Mapping[str, Any]) -> Iterator[int]:
    number = 1 + max((number for number, _ in _tickets(folder)), default=0)
    name = f"{_TICKET}{number}"
    fd = _lock(folder, name)
    assert fd is not None
    try:
        _write(fd, {**owner, "pid": os.getpid(), "uuids": list(wanted)})
        yield number
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        _unlock(fd)


def _tickets(folder: int) -> list[tuple[int, str]]:
    found = (_TICKET_NAME.fullmatch(name) for name in os.listdir(folder))
    return sorted((int(match[1]), match[0]) for match in found if match)


def _ahead(folder: int, wanted: tuple[str, ...], place: int | None) -> str | None:
    """The run that came first and waits for one of these GPUs. Tickets of dead runs are removed."""
    for number, name in _tickets(folder):
        if place is not None and number >= place:
            return None
        fd = _lock(folder, name)
        if fd is not None:
            os.unlink(name, dir_fd=folder)
            _unlock(fd)
            continue
        note = _note(folder, name)
        uuids = note.get("uuids")
        shared = [uuid for uuid in wanted if isinstance(uuids, list) and uuid in uuids]
        if shared:
            return f"{shared[0]} is already reserved for {_described(note)}, which waits in the queue"
    return None


def _write(fd: int, note: Mapping[str, Any]) -> None:
    # The note is for people, so a full disk must not stop a claim. A ticket without a note loses its place.
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(note, default=str).encode("utf-8"), 0)


def _note(folder: int, name: str) -> Mapping[str, Any]:
    """The note in a lock file; empty if it is damaged, since only people read it."""
    return read_object(Path(name), 65536, owned=True, dir_fd=folder)


def _described(note: Mapping[str, Any]) -> str:
    since = f", since {note['since']}" if "since" in note else ""
    return f"run {note.get('run', 'unknown')} (process {note.get('pid', 'unknown')}{since})"
