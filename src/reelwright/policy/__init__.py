"""Pure decisions: is this plan fit to run (`preflight`), what went wrong (`diagnosis`), what next (`retry`).

Nothing in this package knows a process, a clock or a file; all of it is tested by tables. The values that the
decisions share are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import Failure, VideoGenerationError

KillReason = Literal["timeout", "hang", "cancelled", "log_lost"]
#: The cause of a `Diagnosis` by which the GPU itself is to blame.
GPU_FAULT = "gpu-fault"


@dataclass(frozen=True)
class RankError:
    """What one rank wrote into its torchelastic error file, or what torchrun's summary says of it.

    ``exit_status`` is negative for a signal; ``at_s`` orders the failures (the first one is the cause).
    """

    rank: int
    message: str = ""
    exit_status: int | None = None
    at_s: float | None = None


@dataclass(frozen=True)
class ExceptionSeen:
    """An exception of a traceback in the log: its rank (if torchrun told), its text and its last source lines."""

    text: str
    where: str = ""
    rank: int | None = None


@dataclass(frozen=True)
class Evidence:
    """Everything an executor saw of how an attempt ended. It judges nothing.

    Attributes:
        exit_status: Of the command; ``None`` when it was ended by a signal or never started.
        signal_number: The signal that ended it.
        kill_reason: Why we ended it, if we did.
        phase: The last phase seen.
        step: The last sampling step seen (0: none).
        total_steps: Steps that were promised.
        tail: The last lines of the log, oldest first, without progress bars.
        exceptions: Exceptions of the tracebacks in the log, in order of appearance.
        rank_errors: Per-rank errors, the first failing one first, if several ranks ran.
        oom_kills: How many processes the kernel's OOM killer took meanwhile; ``None`` if it could not be asked.
        start_errno: errno when the program could not be started at all.
        disk_free_bytes: Free room where the film was to be written, at the end.
        writer_problem: Why a film could not have been written (no ffmpeg, folder not writable), if probed.
        output_problem: Why the film that was found was refused; ``None`` if it was accepted or not looked at.
        output_exists: Whether a file appeared at all.
        leftovers: Processes that had to be ended after the command.
        unkillable: Processes that could not be ended.
        error: The exception of an inline engine.
        wall_s: Duration in seconds.
        phase_seconds: Duration of each phase in seconds.
        log_path: Where the whole (bounded) log lies.
        metrics: What the monitor measured (`machine.monitor.Metrics` as JSON).
        facts: What an inline engine reports of its work.
    """

    exit_status: int | None = None
    signal_number: int | None = None
    kill_reason: KillReason | None = None
    phase: str = "starting"
    step: int = 0
    total_steps: int = 0
    tail: tuple[str, ...] = ()
    exceptions: tuple[ExceptionSeen, ...] = ()
    rank_errors: tuple[RankError, ...] = ()
    oom_kills: int | None = None
    start_errno: int | None = None
    disk_free_bytes: int | None = None
    writer_problem: str | None = None
    output_problem: str | None = None
    output_exists: bool = False
    leftovers: int = 0
    unkillable: tuple[int, ...] = ()
    error: VideoGenerationError | None = None
    wall_s: float = 0.0
    phase_seconds: Mapping[str, float] = field(default_factory=dict)
    log_path: str | None = None
    metrics: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ran_to_end(self) -> bool:
        """Whether the generator itself reported success (its film is still to be verified)."""
        return self.exit_status == 0 and self.kill_reason is None and self.error is None


@dataclass(frozen=True)
class Diagnosis:
    """The class of a failure, with the lines that prove it.

    ``cause`` is a finer stable name such as ``flash-attn`` or ``vae``; ``phase`` is where it happened.
    """

    failure: Failure
    message: str
    evidence: tuple[str, ...] = ()
    advice: str = ""
    phase: str = ""
    cause: str = ""


@dataclass(frozen=True)
class Next:
    """Try again with these overrides over the ORIGINAL parameters.

    ``counts`` is false for tries that are not an attempt (a new port). ``skipped`` names rungs that would have
    changed nothing. ``degrades`` tells whether quality is lowered, ``rung`` which rung of a ladder this is,
    ``pause_s`` how long to wait before.
    """

    overrides: Mapping[str, Any]
    changed: tuple[str, ...]
    why: str
    helps: tuple[str, ...] = ()
    counts: bool = True
    degrades: bool = False
    skipped: tuple[str, ...] = ()
    rung: int = 0
    other_gpus: bool = False
    pause_s: float = 0.0
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stop:
    """Do not try again; ``why`` goes to the user with the diagnosis."""

    why: str
