"""Every way a generation can fail, as a tree of classes and a table of codes.

    VideoGenerationError                 anything below; the documented base
    ├── InvalidInputError                INPUT, EXISTS: the prompt, a picture or the output path
    ├── ConfigurationError               CONFIG: a setting, a flag, an illegal combination
    ├── BackendUnavailableError          ENV, DISK, PERM: framework, interpreter, GPUs, space, rights
    │   └── ModelNotFoundError           MODEL: weights missing, partial, corrupt or for another task
    ├── BusyError                        BUSY: GPUs or the output are in use by another run
    ├── AttemptError                     CRASH, HANG, NCCL, PORT, FRAMEWORK: the generator started and failed
    │   ├── OutOfMemoryError             OOM_GPU, OOM_HOST
    │   └── GenerationTimeoutError       TIMEOUT: the wall-clock limit
    ├── OutputError                      OUTPUT: no film, or not the promised one
    ├── StateError                       STATE, INTERNAL: our own records or code
    └── Cancelled                        CANCELLED: asked to stop by a signal or a caller

    KeyboardInterrupt
    └── Interrupted                      Ctrl-C in a Python program that makes something

There is one class per thing a caller would treat differently; the finer cause is ``failure`` (the code) and
``evidence`` (lines that prove it). This module knows nothing of how a failure is found: see `policy.diagnosis`.

    >>> error = InvalidInputError("photo.jpg is cut off", advice="Download the picture again.")
    >>> error.code, error.exit_status
    ('INPUT', 10)
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, ClassVar


class Retry(Enum):
    """What can help after a failure of a class (`policy.retry` turns it into the next attempt)."""

    NEVER = "never"
    WAIT = "wait"  # not an attempt: wait for the lease with a deadline
    SAME = "same"  # once more with the same parameters
    MEMORY = "memory"  # only with less memory
    LADDER = "ladder"  # the documented ladder: fewer steps, lower guidance


class Failure(Enum):
    """One class of failure: its exit status, its HTTP status and what a retry can do.

    The exit statuses are those of ``reel``; 2 is left to command-line usage errors, and a run that was ended by a
    signal exits with 128 + its number (see `Cancelled`).
    """

    INPUT = (10, 400, Retry.NEVER)
    CONFIG = (11, 400, Retry.NEVER)
    MODEL = (12, 503, Retry.NEVER)
    ENV = (13, 503, Retry.NEVER)
    OOM_GPU = (20, 500, Retry.MEMORY)
    OOM_HOST = (21, 500, Retry.NEVER)
    TIMEOUT = (22, 504, Retry.LADDER)
    HANG = (23, 504, Retry.SAME)
    CRASH = (24, 500, Retry.SAME)
    OUTPUT = (25, 500, Retry.LADDER)
    NCCL = (26, 500, Retry.SAME)
    PORT = (27, 500, Retry.SAME)
    FRAMEWORK = (28, 500, Retry.LADDER)
    DISK = (30, 507, Retry.NEVER)
    PERM = (31, 403, Retry.NEVER)
    EXISTS = (32, 409, Retry.NEVER)
    BUSY = (33, 409, Retry.WAIT)
    STATE = (34, 500, Retry.NEVER)
    INTERNAL = (70, 500, Retry.NEVER)
    CANCELLED = (130, 499, Retry.NEVER)

    def __init__(self, exit_status: int, http_status: int, retry: Retry) -> None:
        self.exit_status = exit_status
        self.http_status = http_status
        self.retry = retry


class VideoGenerationError(Exception):
    """The film could not be made."""

    failures: ClassVar[tuple[Failure, ...]] = tuple(Failure)

    def __init__(
        self,
        message: str | None = None,
        *,
        failure: Failure | None = None,
        evidence: tuple[str, ...] | list[str] | str = (),
        advice: str = "",
    ) -> None:
        self.message = message or (type(self).__doc__ or "").partition("\n")[0]
        super().__init__(self.message)
        self.failure = failure or self.failures[0]
        self.evidence: tuple[str, ...] = (evidence,) if isinstance(evidence, str) else tuple(evidence)
        self.advice = advice
        #: Further mistakes that were found at the same time, each an error of its own; see `all_of`.
        self.also: tuple[VideoGenerationError, ...] = ()
        #: Path of the log of the attempt that failed, where there is one.
        self.log: str | None = None
        if self.failure not in self.failures:
            raise TypeError(f"{type(self).__name__} cannot carry {self.failure.name}")

    def __str__(self) -> str:
        """The message, then what a person needs with it: evidence, the fix, the log, and further mistakes."""
        return "\n".join([self.message, *self.details, *(f"{error.code}: {error}" for error in self.also)])

    @property
    def details(self) -> list[str]:
        """What belongs under the message of this one mistake: a line for each piece of evidence, the fix and the log."""
        lines = [f"  | {line}" for line in self.own_evidence]
        lines += [f"  fix: {self.advice}"] if self.advice else []
        lines += [f"  log: {self.log}"] if self.log else []
        return lines

    @property
    def own_evidence(self) -> tuple[str, ...]:
        """The evidence without the lines that repeat ``also``."""
        others = {_line(error) for error in self.also}
        return tuple(line for line in self.evidence if line not in others)

    @property
    def code(self) -> str:
        """The stable code, such as ``OOM_GPU``."""
        return self.failure.name

    @property
    def exit_status(self) -> int:
        """The exit status of ``reel`` for this failure."""
        return self.failure.exit_status

    def to_json(self) -> dict[str, Any]:
        """The error object that ``--json`` prints; ``log`` and ``also`` are there when they say something."""
        data: dict[str, Any] = {
            "code": self.code,
            "message": self.message,
            "evidence": list(self.evidence),
            "advice": self.advice,
        }
        if self.log:
            data["log"] = self.log
        if self.also:
            data["also"] = [error.to_json() for error in self.also]
        return data


class InvalidInputError(VideoGenerationError):
    """The prompt, a picture or the output path cannot be used."""

    failures: ClassVar[tuple[Failure, ...]] = (Failure.INPUT, Failure.EXISTS)


class ConfigurationError(VideoGenerationError):
    """A setting is unknown, of the wrong type, or illegal together with another."""

    failures: ClassVar[tuple[Failure, ...]] = (Failure.CONFIG,)


class BackendUnavailableError(VideoGenerationError):
    """The generator cannot run on this machine as it is."""

    failures: ClassVar[tuple[Failure, ...]] = (Failure.ENV, Failure.MODEL, Failure.DISK, Failure.PERM)


class ModelNotFoundError(BackendUnavailableError):
    """The model's weights are missing, incomplete, corrupt or for another task."""

    failures: ClassVar[tuple[Failure, ...]] = (Failure.MODEL,)


class BusyError(VideoGenerationError):
    """The GPUs are in use by another run."""

    failures: ClassVar[tuple[Failure, ...]] = (Failure.BUSY,)


class AttemptError(VideoGenerationError):
    """The generator started and failed."""

    failures: ClassVar[tuple[Failure, ...]] = (
        Failure.FRAMEWORK,
        Failure.CRASH,
        Failure.HANG,
        Failure.NCCL,
        Failure.PORT,
        Failure.OOM_GPU,
        Failure.OOM_HOST,
        Failure.TIMEOUT,
    )


class OutOfMemoryError(AttemptError):
    """The generator ran out of memory."""

    failures: ClassVar[tuple[Failure, ...]] = (Failure.OOM_GPU, Failure.OOM_HOST)


class GenerationTimeoutError(AttemptError):
    """The generation took longer than the wall-clock limit."""

    failures: ClassVar[tuple[Failure, ...]] = (Failure.TIMEOUT,)


class OutputError(VideoGenerationError):
    """The generator produced no film, or not the promised one."""

    failures: ClassVar[tuple[Failure, ...]] = (Failure.OUTPUT,)


class StateError(VideoGenerationError):
    """Reelwright's own records or code are at fault."""

    failures: ClassVar[tuple[Failure, ...]] = (Failure.STATE, Failure.INTERNAL)


class Cancelled(VideoGenerationError):
    """Stopped on request; nothing half-made is left."""

    failures: ClassVar[tuple[Failure, ...]] = (Failure.CANCELLED,)

    def __init__(self, message: str | None = None, *, signal_number: int = signal.SIGINT) -> None:
        super().__init__(message or f"Stopped by {signal.Signals(signal_number).name}; nothing half-made is left.")
        self.signal_number = signal_number

    @property
    def exit_status(self) -> int:
        """128 + the signal's number, as shells expect (129 hang-up, 130 interrupt, 143 terminate)."""
        return 128 + self.signal_number


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while something was made: stopped, and nothing half-made is left.

    It is a `KeyboardInterrupt` and no `Exception`, so a program that catches its own errors still ends. A loop over many
    clips that catches `VideoGenerationError` ends too.

    Attributes:
        cancelled: The same as a `Cancelled`, with code and exit status.
    """

    def __init__(self, cancelled: Cancelled | None = None) -> None:
        self.cancelled = cancelled or Cancelled()
        super().__init__(self.cancelled.message)


_CLASS_OF: dict[Failure, type[VideoGenerationError]] = {
    Failure.INPUT: InvalidInputError,
    Failure.EXISTS: InvalidInputError,
    Failure.CONFIG: ConfigurationError,
    Failure.MODEL: ModelNotFoundError,
    Failure.ENV: BackendUnavailableError,
    Failure.DISK: BackendUnavailableError,
    Failure.PERM: BackendUnavailableError,
    Failure.BUSY: BusyError,
    Failure.OOM_GPU: OutOfMemoryError,
    Failure.OOM_HOST: OutOfMemoryError,
    Failure.TIMEOUT: GenerationTimeoutError,
    Failure.OUTPUT: OutputError,
    Failure.STATE: StateError,
    Failure.INTERNAL: StateError,
}


def error_for(
    failure: Failure, message: str, *, evidence: tuple[str, ...] = (), advice: str = ""
) -> VideoGenerationError:
    """The exception of the right class for a failure; `AttemptError` where no narrower one exists."""
    if failure is Failure.CANCELLED:
        return Cancelled(message)
    kind = _CLASS_OF.get(failure, AttemptError)
    return kind(message, failure=failure, evidence=evidence, advice=advice)


def all_of(errors: Sequence[VideoGenerationError]) -> VideoGenerationError:
    """One error that carries several mistakes: the first one, with the others in ``also`` and as lines of evidence.

    It has the class and the exit status of the first. What is found twice is said once.

        >>> error = all_of([InvalidInputError("the prompt is empty"), InvalidInputError("cat.jpg does not exist")])
        >>> error.message, error.evidence
        ('the prompt is empty', ('cat.jpg does not exist',))
    """
    found: dict[str, VideoGenerationError] = {}
    for error in errors:
        error.evidence, others, error.also = error.own_evidence, error.also, ()
        for single in (error, *others):
            found.setdefault(single.message, single)
    first, *more = found.values()
    first.also = tuple(more)
    first.evidence = (*first.evidence, *map(_line, more))
    return first


def guess(word: str, known: Iterable[str], listed: str = "") -> str:
    """Advice for a word that is none of the known ones: what was probably meant, if anything is near, and the list.

    >>> guess("wan21", ["wan2.1", "draft"], "Known generators")
    'Did you mean wan2.1? Known generators: wan2.1, draft.'
    """
    names = list(known)
    near = difflib.get_close_matches(word.lower(), names, n=1)
    return " ".join(
        [*(f"Did you mean {name}?" for name in near), *([f"{listed}: {', '.join(names)}."] if listed else [])]
    )


def _line(error: VideoGenerationError) -> str:
    return f"{error.message} ({error.advice})" if error.advice else error.message
