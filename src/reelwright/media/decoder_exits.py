"""How a decoder's process ended: because of the file, or by a signal from outside.

A crash (SIGSEGV, SIGABRT) or a limit of its own (SIGXCPU) is the file's fault. The kernel's out-of-memory killer, an
administrator or a stopping container is not.

    >>> from_outside(-9), from_outside(-11)
    ('SIGKILL', None)
"""

from __future__ import annotations

import signal
from pathlib import Path

from ..core.errors import BackendUnavailableError, Failure, OutOfMemoryError, VideoGenerationError

#: How often a decoder is started when something from outside ends it.
TRIES = 2
_BY_ITSELF = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}
    | {signal.SIGXCPU, signal.SIGXFSZ}
)


def from_outside(status: int | None) -> str | None:
    """The name of the signal from outside that ended a process with this exit status; ``None``: it was none."""
    if status is None or status >= 0 or -status in _BY_ITSELF:
        return None
    return signal_name(-status)


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9; real-time signals have no name of their own."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def kills_for_memory() -> int:
    """How many processes the kernel of this machine has killed for lack of memory since it started."""
    try:
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0


def killed(subject: str, signal_sent: str, *, for_memory: bool) -> VideoGenerationError:
    """The error for a decoder that was ended from outside `TRIES` times.

    Args:
        subject: What could not be done, as "photo.jpg could not be looked at".
        signal_sent: From `from_outside`.
        for_memory: Whether the kernel killed some process for lack of memory meanwhile.
    """
    evidence = f"the decoder's process was ended by {signal_sent}, {TRIES} times"
    if for_memory:
        return OutOfMemoryError(
            f"{subject}: the kernel ended the decoder for lack of memory",
            failure=Failure.OOM_HOST,
            evidence=evidence,
            advice="Nothing is known to be wrong with the file. Free some memory, or raise the memory limit of the "
            "container, and run it again.",
        )
    return BackendUnavailableError(
        f"{subject}: something outside ended the decoder ({signal_sent})",
        failure=Failure.ENV,
        evidence=evidence,
        advice="Nothing is known to be wrong with the file. Look for what ends processes here (memory limits, a "
        "supervisor, a batch system), and run it again.",
    )
