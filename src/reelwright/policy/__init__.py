"""Pure decisions: whether a plan can run (`preflight`), what went wrong (`diagnosis`), what to do next (`retry`).

Nothing in this package knows a process, a clock or a file; tables test all of it. The values that the decisions share
are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..core.errors import Failure, VideoGenerationError

KillReason = Literal["timeout", "hang", "cancelled"]
#: The cause of a `Diagnosis` where the GPU itself is at fault.
GPU_FAULT = "gpu-fault"


@dataclass(frozen=True)
class RankError:
    """What one rank wrote into its torchelastic error file, or torchrun's summary says about it.

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
        text: Its type and its whole message, which may have several lines.
        where: The last lines of its traceback: file names and quoted source.
        rank: Its rank, where the log names one.
        chained: Whether it was raised while the exception before it was handled.
    """

    text: str
    where: str = ""
    rank: int | None = None
    chained: bool = False

    @property
    def line(self) -> str:
        """The quoted source line that raised it; empty where there is none."""
        lines = [line.strip() for line in self.where.splitlines()]
        source = [line for line in lines if line and not line.startswith('File "') and line.strip("^~ ")]
        return source[-1] if source else ""

    @property
    def place(self) -> str:
        """File, line and function of the innermost frame."""
        frames = [line.strip() for line in self.where.splitlines() if line.strip().startswith('File "')]
        return frames[-1] if frames else ""


@dataclass(frozen=True)
class Evidence:
    """Everything that was seen of how an attempt ended. `diagnosis` judges it.

    Attributes:
        exit_status: Of the command; ``None`` when it was ended by a signal or never started.
        signal_number: The signal that ended it.
        kill_reason: Why Reelwright ended it.
        phase: The last phase seen.
        step: The last sampling step seen (0: none).
        total_steps: Steps that were promised.
        tail: The last lines of the log, oldest first, without progress bars.
        exceptions: Exceptions of the tracebacks in the log, in order of appearance.
        rank_errors: Per-rank errors, the first failing one first, if several ranks ran.
        oom_kills: How many processes the kernel's OOM killer took meanwhile; ``None`` if it could not be asked.
        start_errno: errno when the program could not be started at all.
        disk_free_bytes: Free room at the end, where the video is written.
        planned_used_bytes: The most memory of one of the GPUs that others held when the attempt was planned.
        shm_free_bytes: Free room in /dev/shm at the end; ``None`` if there is none or it could not be asked.
        shm_total_bytes: Size of /dev/shm.
        writer_problem: Why no video could be written (no ffmpeg, folder not writable), if probed.
        output_problem: Why the video was refused; ``None`` if it was accepted or not checked.
        output_exists: Whether a file appeared at all.
        leftovers: Processes that had to be ended after the command.
        unkillable: Processes that could not be ended.
        error: The exception of an inline engine.
        wall_s: Duration in seconds.
        phase_seconds: Duration of each phase in seconds.
        metrics: What the monitor measured (`sites.local.metrics.Metrics` as JSON).
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
        message: What happened, in one sentence.
        evidence: The framework's own words that prove it.
        advice: What the user can do.
        phase: Where it happened.
        cause: A finer stable name such as ``flash-attn`` or ``vae``.
        sampling: Whether it happened while the steps were being computed.
        signature: The exception and the place that raised it, without numbers that differ from run to run; empty
            where there was no exception. Two failures with the same signature are the same failure.
        crowded: Whether a GPU had less free memory than was planned for.
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

    ``counts`` is false for tries that are not an attempt (a new port). ``skipped`` names steps that would have
    changed nothing. ``degrades``: quality is lowered. ``ladder_step`` is the number of this step of a ladder,
    ``pause_s`` the time to wait before.
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
