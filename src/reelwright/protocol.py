"""What a running generation says: the events of every executor, and their one-line JSON framing.

Executors emit these to the runner as values; a worker process writes the same values as JSON lines on its own
pipe. Standard library only, because other interpreters import it. Payloads (frames, latents) never travel here,
only their paths.

    >>> decode(encode(Progress("denoising", 3, 50)))
    Progress(phase='denoising', step=3, total=50)
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Union

#: The phases of one generation in order; a generator may skip some, never go back to an earlier one of its own.
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
    """A line for people: what the runner decided, or a line of the generator worth showing."""

    text: str
    level: str = "info"


@dataclass(frozen=True)
class Output:
    """The generator says that it wrote a film here (verified later; this is no proof)."""

    path: str


@dataclass(frozen=True)
class AttemptStarted:
    """Attempt ``number`` (from 1) of at most ``limit`` begins; ``reason`` says why it is not the first."""

    number: int
    limit: int
    reason: str = ""


Event = Union[Phase, Progress, Log, Output, AttemptStarted]
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Phase, Progress, Log, Output, AttemptStarted)}


def encode(event: Event) -> str:
    """One line of JSON, without the line break; line breaks and control characters inside are escaped."""
    return json.dumps({"event": type(event).__name__, **asdict(event)}, ensure_ascii=True, separators=(",", ":"))


def decode(line: str) -> Event:
    """The event of one line.

    Raises:
        ValueError: the line is not an event of this version.
    """
    try:
        data = json.loads(line)
        kind = _KINDS[data.pop("event")]
        lists = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        event: Event = kind(**lists)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"not an event: {line[:200]!r}") from error
    return event
