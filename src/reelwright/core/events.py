"""Defines the events that a running generation reports, and their encoding as one line of JSON.

A run emits these values; a worker process writes them as JSON lines to its pipe. The module uses the standard library
only, because other interpreters import it. Payloads (frames, latents) are passed as paths.

    >>> decode(encode(Progress("denoising", 3, 50)))
    Progress(phase='denoising', step=3, total=50)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Union, get_args

#: The phases of one generation in order; a generator may skip some, and never goes back to an earlier one.
PHASES = (
    "starting",
    "loading text encoder",
    "loading VAE",
    "loading CLIP",
    "loading transformer",
    "encoding",
    "rendering",
    "denoising",
    "decoding",
    "super resolution",
    "saving",
    "verifying",
    "publishing",
)


class ReportLost(Exception):
    """Raised by a listener whose output is lost: the run goes on without reports, and its manifest says why."""


@dataclass(frozen=True)
class Phase:
    """The start of a phase of `PHASES`."""

    name: str


@dataclass(frozen=True)
class Progress:
    """``step`` of ``total`` units of a phase are done: sampling steps, or frames for Reelwright's engines."""

    phase: str
    step: int
    total: int


@dataclass(frozen=True)
class Log:
    """A line for people: a decision of the runner, or a line from the generator."""

    text: str
    level: str = "info"


@dataclass(frozen=True)
class Output:
    """The path of the video that the generator claims to have written; it is verified later."""

    path: str


@dataclass(frozen=True)
class AttemptStarted:
    """The start of attempt ``number`` (from 1) of at most ``limit``; ``reason`` says why a retry was needed."""

    number: int
    limit: int
    reason: str = ""


#: Version of the protocol between a resident worker and its owner; both refuse any other version.
VERSION = 1


@dataclass(frozen=True)
class Hello:
    """A worker's first line: its protocol, its engine and the versions of its packages."""

    protocol: int
    engine: str
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Load:
    """Request: load this model (the engine's own options); a model that is loaded already stays."""

    model: Mapping[str, Any]


@dataclass(frozen=True)
class Loaded:
    """Answer to `Load`: the model is ready."""

    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Generate:
    """Request: make a clip; its frames go into ``folder``."""

    options: Mapping[str, Any]
    folder: str


@dataclass(frozen=True)
class LatentsSaved:
    """The path of the stored result of denoising, which is done."""

    path: str


@dataclass(frozen=True)
class Saved:
    """Answer to `Generate`: ``path`` is a file of RGB frames, uint8, ``frames`` x ``height`` x ``width`` x 3 bytes."""

    path: str
    frames: int
    width: int
    height: int
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Memory:
    """The GPU's memory in bytes: the present use, and the peak since the request began."""

    allocated: int
    peak: int


@dataclass(frozen=True)
class Failed:
    """Answer to any request that failed; the worker is ready for the next one.

    ``failure`` is a name of `core.errors.Failure`; ``evidence`` are the lines that prove it.
    """

    failure: str
    message: str
    phase: str = ""
    advice: str = ""
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cancel:
    """Request: stop at the next step. The answer is `Failed` with CANCELLED."""


@dataclass(frozen=True)
class Unload:
    """Request: free the model's memory and end."""


Event = Union[Phase, Progress, Log, Output, AttemptStarted, Memory, LatentsSaved]
Request = Union[Load, Generate, Cancel, Unload]
Answer = Union[Hello, Loaded, Saved, Failed]
Message = Union[Event, Request, Answer]
_REQUESTS = get_args(Request)  # no part of a request may be ignored
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Message)}


def encode(event: Message) -> str:
    """The message as one line of JSON, without a line break at its end; control characters inside are escaped."""
    return json.dumps({"event": type(event).__name__, **asdict(event)}, ensure_ascii=True, separators=(",", ":"))


def decode(line: str) -> Message:
    """The message in one line. Unknown fields are left out, except in a request, where they are an error.

    Raises:
        ValueError: the line is not a message of this version.
    """
    try:
        data = json.loads(line)
        kind = _KINDS[data.pop("event")]
        names = data.keys() if kind in _REQUESTS else {part.name for part in fields(kind)}
        known = {key: value for key, value in data.items() if key in names}
        event: Message = kind(**{key: tuple(it) if isinstance(it, list) else it for key, it in known.items()})
        wrong = [part.name for part in fields(event) if not _fits(getattr(event, part.name), str(part.type))]
    except (KeyError, TypeError, AttributeError, RecursionError, json.JSONDecodeError) as error:
        raise ValueError(f"not an event: {line[:200]!r}") from error
    if wrong:
        raise ValueError(f"not an event ({', '.join(wrong)}): {line[:200]!r}")
    return event


def _fits(value: object, written: str) -> bool:
    """Whether a value has the annotated type of its field, since another process may send any value."""
    if written.startswith("tuple"):
        inner: type = Mapping if "Mapping" in written else str
        return isinstance(value, tuple) and all(isinstance(item, inner) for item in value)
    if written == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, Mapping if written.startswith("Mapping") else str)
