"""What a running generation reports: events as values, and their one-line JSON framing.

A run emits these values; a worker process writes them as JSON lines on its own pipe. Standard library only, because
other interpreters import it. Payloads (frames, latents) travel as paths.

    >>> decode(encode(Progress("denoising", 3, 50)))
    Progress(phase='denoising', step=3, total=50)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Union

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
    """A listener raises it when its output is lost: the run goes on in silence, and its manifest says why."""


@dataclass(frozen=True)
class Phase:
    """A phase of `PHASES` begins."""

    name: str


@dataclass(frozen=True)
class Progress:
    """``step`` of ``total`` units of a phase are done (sampling steps, or frames for our own engines)."""

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
    """The generator claims that it wrote a video here; it is verified later."""

    path: str


@dataclass(frozen=True)
class AttemptStarted:
    """Attempt ``number`` (from 1) of at most ``limit`` begins; ``reason`` says why it is not the first."""

    number: int
    limit: int
    reason: str = ""


#: Version of the protocol between a resident worker and its owner; both refuse another.
VERSION = 1


@dataclass(frozen=True)
class Hello:
    """A worker's first line: its protocol, its engine and the versions of its packages."""

    protocol: int
    engine: str
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Load:
    """Request: have this model ready (the engine's own options); the same model again does nothing."""

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
    """Denoising is done, and its result is stored here."""

    path: str


@dataclass(frozen=True)
class Saved:
    """Answer to `Generate`: the frames lie here, RGB, uint8, ``frames`` x ``height`` x ``width`` x 3, nothing else."""

    path: str
    frames: int
    width: int
    height: int
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Memory:
    """The GPU's memory in bytes: now in use, and the peak since the request began."""

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
    """Request: give the model's memory back and end."""


Event = Union[Phase, Progress, Log, Output, AttemptStarted, Memory, LatentsSaved]
Request = Union[Load, Generate, Cancel, Unload]
Answer = Union[Hello, Loaded, Saved, Failed]
Message = Union[Event, Request, Answer]
_REQUESTS = (Load, Generate, Cancel, Unload)  # nobody may do half of what is asked
_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        *(Phase, Progress, Log, Output, AttemptStarted, Memory, LatentsSaved),
        *_REQUESTS,
        *(Hello, Loaded, Saved, Failed),
    )
}


def encode(event: Message) -> str:
    """One line of JSON, without the line break; line breaks and control characters inside are escaped."""
    return json.dumps({"event": type(event).__name__, **asdict(event)}, ensure_ascii=True, separators=(",", ":"))


def decode(line: str) -> Message:
    """The message of one line. Fields that this release does not know are left out, except of a request.

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
    """Whether a value has the annotated type of its field: another process may send anything."""
    if written.startswith("tuple"):
        inner: type = Mapping if "Mapping" in written else str
        return isinstance(value, tuple) and all(isinstance(item, inner) for item in value)
    if written == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, Mapping if written.startswith("Mapping") else str)
