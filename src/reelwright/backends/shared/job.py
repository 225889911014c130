"""`Job`: the input of every backend's ``plan``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...config.settings import Settings
from ...core.host import Host
from ...core.request import Picture, VideoRequest


@dataclass(frozen=True)
class Job:
    """One request with everything that was found out about it: the input of a backend's ``plan``.

    Attributes:
        request: What is asked; its picture fields are the user's paths.
        settings: Already narrowed to the generator (``config.settings.for_generator``).
        host: The answers to the backend's query.
        first, last, depth: The pictures after the intake.
        output: Absolute path of the attempt's private film.
        overrides: Effective parameters forced by a retry or by what worked last time.
    """

    request: VideoRequest
    settings: Settings
    host: Host
    output: Path
    first: Picture | None = None
    last: Picture | None = None
    depth: Picture | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def evolve(self, **changes: Any) -> Job:
        """A copy with some fields changed."""
        return replace(self, **changes)
