"""Finds out why a decoder's process ended: because of the file, or by a signal from outside.

A crash (SIGSEGV, SIGABRT) or a limit of the process (SIGXCPU) is the file's fault. A signal from the kernel's
out-of-memory killer, an administrator or a stopping container is not.

    >>> from_outside(-9), from_outside(-11)
    ('SIGKILL', None)
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from ..core.errors import BackendUnavailableError, Failure, OutOfMemoryError, VideoGenerationError

#: What a decoder leaves: its exit status (``None`` if it was killed at a time limit), its output and its errors.
Ending = tuple[int | None, bytes, bytes]
#: How often a decoder is started if signals from outside end it.
TRIES = 2
_BY_ITSELF = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}
    | {signal.SIGXCPU, signal.SIGXFSZ}
)


def from_outside(status: int | None) -> str | None:
    """The name of the outside signal that ended a process with this exit status; ``None`` if no such signal did."""
    if status is None or status >= 0 or -status in _BY_ITSELF:
        return None
    return signal_name(-status)


def signal_name(number: int) -> str:
    """The name of a signal: ``SIGKILL`` for 9; real-time signals have only a number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def kills_for_memory() -> int:
    """The number of processes that this machine's kernel has killed for lack of memory since it started."""
    try:
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0


def run_again(subject: str, run: Callable[[], Ending]) -> Ending:
    """Run a decoder with ``run``, and once more if something outside ended it.

    Raises:
        BackendUnavailableError, OutOfMemoryError: it was ended from outside each time.
    """
    before, ended_by = kills_for_memory(), ""
    for _ in range(TRIES):
        ending = run()
        if not (name := from_outside(ending[0])):
            return ending
        ended_by = name
    raise killed(subject, ended_by, for_memory=kills_for_memory() > before)


def killed(subject: str, signal_sent: str, *, for_memory: bool) -> VideoGenerationError:
    """The error for a decoder that was ended from outside `TRIES` times.

    Args:
        subject: The failed action, such as "photo.jpg could not be decoded".
        signal_sent: The result of `from_outside`.
        for_memory: Whether the kernel killed some process for lack of memory meanwhile.
    """
    evidence = f"the decoder's process was ended by {signal_sent}, {TRIES} times"
    if for_memory:
        return OutOfMemoryError(
            f"{subject}: the kernel ended the decoder for lack of memory",
            failure=Failure.OOM_HOST,
            evidence=evidence,
            advice="The file may be intact. Free some memory, or raise the memory limit of the "
            "container, and run it again.",
        )
    return BackendUnavailableError(
        f"{subject}: something outside Reelwright ended the decoder ({signal_sent})",
        failure=Failure.ENV,
        evidence=evidence,
        advice="The file may be intact. Look for what ends processes here (memory limits, a "
        "supervisor, a batch system), and run it again.",
    )
