"""Defines every way in which a generation can fail, as a tree of classes and a table of codes.

    VideoGenerationError                 anything below; the documented base
    ├── InvalidInputError                INPUT, EXISTS: the prompt, a picture or the output path
    ├── ConfigurationError               CONFIG: a setting, a flag, an illegal combination
    ├── BackendUnavailableError          ENV, DISK, PERM: framework, interpreter, GPUs, space, rights
    │   └── ModelNotFoundError           MODEL: weights missing, partial, corrupt or for another task
    ├── BusyError                        BUSY: GPUs or the output are in use by another run
    ├── AttemptError                     CRASH, HANG, NCCL, PORT, FRAMEWORK: the generator started and failed
    │   ├── OutOfMemoryError             OOM_GPU, OOM_HOST
    │   └── GenerationTimeoutError       TIMEOUT: the wall-clock limit
    ├── OutputError                      OUTPUT: no video, or not the promised one
    ├── StateError                       STATE, INTERNAL: Reelwright's own records or code
    └── Cancelled                        CANCELLED: a signal or a caller requested a stop

    KeyboardInterrupt
    └── Interrupted                      Ctrl-C in a Python program while it makes a clip or a film

Each class is a case that a caller would treat differently. The finer cause is ``failure`` (the code) and ``evidence``
(lines that prove it). This module does not find failures: `policy.diagnosis` does.

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
    """The retry that can help after a failure; `policy.retry` turns it into the next attempt."""

    NEVER = "never"
    SAME = "same"  # once more with the same parameters
    LADDER = "ladder"  # a smaller job: less memory, fewer steps, lower guidance


class Failure(Enum):
    """One class of failure: its exit status, its HTTP status and the retry that can help.

    The exit statuses are those of ``reel``. Status 2 is for command-line usage errors. A run that a signal ended exits
    with 128 + the signal's number (see `Cancelled`).
    """

    INPUT = (10, 400, Retry.NEVER)
    CONFIG = (11, 400, Retry.NEVER)
    MODEL = (12, 503, Retry.NEVER)
    ENV = (13, 503, Retry.NEVER)
    OOM_GPU = (20, 500, Retry.LADDER)
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
    BUSY = (33, 409, Retry.NEVER)
    STATE = (34, 500, Retry.NEVER)
    INTERNAL = (70, 500, Retry.NEVER)
    CANCELLED = (130, 499, Retry.NEVER)

    def __init__(self, exit_status: int, http_status: int, retry: Retry) -> None:
        self.exit_status = exit_status
        self.http_status = http_status
        self.retry = retry


class VideoGenerationError(Exception):
    """The video could not be made."""

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
        #: Other mistakes that were found at the same time, each as a separate error; see `all_of`.
        self.also: tuple[VideoGenerationError, ...] = ()
        #: Path of the log of the failed attempt, if it was kept.
        self.log: str | None = None
        if self.failure not in self.failures:
            raise TypeError(f"{type(self).__name__} cannot carry {self.failure.name}")

    def __str__(self) -> str:
        """The message, the evidence, the fix, the log, and the other mistakes, as lines of text."""
        return "\n".join([self.message, *self.details, *(f"{error.code}: {error}" for error in self.also)])

    @property
    def details(self) -> list[str]:
        """The lines below this mistake's message: each piece of evidence, the fix and the log."""
        lines = [f"  | {line}" for line in self.own_evidence]
        lines += [f"  fix: {self.advice}"] if self.advice else []
        lines += [f"  log: {self.log}"] if self.log else []
        return lines

    @property
    def own_evidence(self) -> tuple[str, ...]:
        """The evidence, without the lines that repeat errors in ``also``."""
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
        """The error object that ``--json`` prints; ``log`` and ``also`` are left out when empty."""
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
    """The generator produced no video, or not the promised one."""

    failures: ClassVar[tuple[Failure, ...]] = (Failure.OUTPUT,)


class StateError(VideoGenerationError):
    """Reelwright's own records or code are at fault."""

    failures: ClassVar[tuple[Failure, ...]] = (Failure.STATE, Failure.INTERNAL)


class Cancelled(VideoGenerationError):
    """Stopped on request; no incomplete file remains."""

    failures: ClassVar[tuple[Failure, ...]] = (Failure.CANCELLED,)

    def __init__(self, message: str | None = None, *, signal_number: int = signal.SIGINT) -> None:
        super().__init__(message or f"Stopped by {signal.Signals(signal_number).name}; no incomplete file remains.")
        self.signal_number = signal_number

    @property
    def exit_status(self) -> int:
        """128 + the signal's number, as shells expect: 129 for hang-up, 130 for interrupt, 143 for terminate."""
        return 128 + self.signal_number


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a clip or a film: the run has stopped, and no unfinished file is left.

    It is a `KeyboardInterrupt` and not an `Exception`: a program that catches errors still ends, and so does a loop
    over many clips that catches `VideoGenerationError`.

    Attributes:
        cancelled: The same stop as a `Cancelled`, with code and exit status.
    """

    def __init__(self, cancelled: Cancelled | None = None) -> None:
        self.cancelled = cancelled or Cancelled()
        super().__init__(self.cancelled.message)


#: The narrowest class of each failure: a later class wins over an earlier one.
_CLASS_OF: dict[Failure, type[VideoGenerationError]] = {
    failure: kind
    for kind in (
        *(InvalidInputError, ConfigurationError, BackendUnavailableError, ModelNotFoundError, BusyError),
        *(AttemptError, OutOfMemoryError, GenerationTimeoutError, OutputError, StateError),
    )
    for failure in kind.failures
}


def error_for(
    failure: Failure, message: str, *, evidence: tuple[str, ...] = (), advice: str = ""
) -> VideoGenerationError:
    """An exception of the narrowest class for a failure."""
    if failure is Failure.CANCELLED:
        return Cancelled(message)
    return _CLASS_OF[failure](message, failure=failure, evidence=evidence, advice=advice)


def all_of(errors: Sequence[VideoGenerationError]) -> VideoGenerationError:
    """One error for several mistakes: the first one, with the others in ``also`` and as lines of evidence.

    It has the class and the exit status of the first. A message that occurs twice is kept once.

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
    """Advice for an unknown word: the known word that was probably meant and, with a title ``listed``, all of them.

    >>> guess("wan21", ["wan2.1", "draft"], "Known generators")
    'Did you mean wan2.1? Known generators: wan2.1, draft.'
    """
    names = list(known)
    near = nearest(word.lower(), names)
    meant = f"Did you mean {near}?" if near else ""
    every = f"{listed}: {', '.join(names)}." if listed else ""
    return f"{meant} {every}".strip()


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant; ``None`` if no word is similar."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def _line(error: VideoGenerationError) -> str:
    return f"{error.message} ({error.advice})" if error.advice else error.message
