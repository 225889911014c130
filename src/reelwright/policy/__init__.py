"""Pure decisions: whether a plan fits (`preflight`), why an attempt failed (`diagnosis`), what follows (`retry`).

This package knows no process, clock or file, so tables can test all of it. This module has the values that the
decisions share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..core.errors import Failure, VideoGenerationError

KillReason = Literal["timeout", "hang", "cancelled"]
#: The cause of a `Diagnosis` if the GPU itself is at fault.
GPU_FAULT = "gpu-fault"


@dataclass(frozen=True)
class RankError:
    """The failure of one rank, from its torchelastic error file or torchrun's summary.

    ``exit_status`` is negative for a signal; ``at_s`` orders the failures (the first one is the cause).
    """

    rank: int
    message: str = ""
    exit_status: int | None = None
    at_s: float | None = None


@dataclass(frozen=True)
class ExceptionSeen:
    """An exception of a traceback in the log.

    Attributes:
        text: Its type and its complete message, which may have several lines.
        where: The last lines of its traceback: file names and quoted source.
        rank: Its rank, if the log names one.
        chained: Whether it was raised while the exception before it was handled.
    """

    text: str
    where: str = ""
    rank: int | None = None
    chained: bool = False

    @property
    def line(self) -> str:
        """The quoted source line that raised it; empty if the traceback has none."""
        lines = [line.strip() for line in self.where.splitlines()]
        source = [line for line in lines if line and not line.startswith('File "') and line.strip("^~ ")]
        return source[-1] if source else ""

    @property
    def place(self) -> str:
        """File, line and function of the innermost frame; empty without a traceback."""
        frames = [line.strip() for line in self.where.splitlines() if line.strip().startswith('File "')]
        return frames[-1] if frames else ""


@dataclass(frozen=True)
class Evidence:
    """The observations of how an attempt ended; `diagnosis` judges them.

    Attributes:
        exit_status: The command's exit status; ``None`` if a signal ended it or it never started.
        signal_number: The signal that ended it.
        kill_reason: The reason why Reelwright ended it.
        phase: The last phase seen.
        step: The last sampling step seen (0: none).
        total_steps: The number of sampling steps, as planned or as the log counts them.
        tail: The last lines of the log, oldest first, without progress bars.
        exceptions: Exceptions of the tracebacks in the log, in order of appearance.
        rank_errors: Errors of the ranks, the first failing one first, if several ranks ran.
        oom_kills: The number of processes that the kernel's OOM killer ended during the attempt; ``None`` if unknown.
        start_errno: errno, if the program could not be started.
        disk_free_bytes: Free space at the end, in the folder of the video.
        planned_used_bytes: The most memory that others held on one of the GPUs when the attempt was planned.
        shm_free_bytes: Free space in /dev/shm at the end; ``None`` if it does not exist or is unknown.
        shm_total_bytes: Size of /dev/shm.
        writer_problem: The reason why no video could be written (no ffmpeg, folder not writable), if probed.
        output_problem: The reason why the video was refused; ``None`` if it was accepted or not checked.
        output_exists: Whether the attempt wrote a file.
        leftovers: Processes that had to be ended after the command.
        unkillable: Processes that could not be ended.
        error: The exception of an inline engine.
        wall_s: Duration in seconds.
        phase_seconds: Duration of each phase in seconds.
        metrics: The monitor's measurements (`sites.local.metrics.Metrics` as JSON).
        facts: An inline engine's report of its work.
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
    planned_used_bytes: int | None = None
    shm_free_bytes: int | None = None
    shm_total_bytes: int | None = None
    writer_problem: str | None = None
    output_problem: str | None = None
    output_exists: bool = False
    leftovers: int = 0
    unkillable: tuple[int, ...] = ()
    error: VideoGenerationError | None = None
    wall_s: float = 0.0
    phase_seconds: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ran_to_end(self) -> bool:
        """Whether the generator itself reported success (its video is verified afterwards)."""
        return self.exit_status == 0 and self.kill_reason is None and self.error is None


@dataclass(frozen=True)
class Diagnosis:
    """The class of a failure, with the lines that prove it.

    Attributes:
        failure: Its class.
        message: The failure in one sentence.
        evidence: The framework's own words that prove it.
        advice: Advice for the user.
        phase: The phase of the failure.
        cause: A finer stable name such as ``flash-attn`` or ``vae``.
        sampling: Whether it happened while the steps were computed.
        signature: The exception and the place that raised it, without numbers that differ from run to run; empty
            without an exception or last words. Two failures with the same signature are the same failure.
        crowded: Whether a GPU had less free memory than planned.
    """

    failure: Failure
    message: str
    evidence: tuple[str, ...] = ()
    advice: str = ""
    phase: str = ""
    cause: str = ""
    sampling: bool = False
    signature: str = ""
    crowded: bool = False


@dataclass(frozen=True)
class Next:
    """Try again with these overrides over the ORIGINAL parameters.

    ``counts`` is false for a try that is not an attempt (a new port). ``skipped`` names steps that would have changed
    nothing. ``degrades``: the try lowers quality. ``ladder_step`` is the number of the ladder's step, ``pause_s`` the
    time to wait before the try.
    """

    overrides: Mapping[str, Any]
    changed: tuple[str, ...]
    why: str
    helps: tuple[str, ...] = ()
    counts: bool = True
    degrades: bool = False
    skipped: tuple[str, ...] = ()
    ladder_step: int = 0
    other_gpus: bool = False
    pause_s: float = 0.0
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stop:
    """Do not try again; the user sees ``why`` with the diagnosis."""

    why: str
