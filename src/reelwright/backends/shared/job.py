"""`Job`: the input of every backend's ``plan``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from ...config.settings import Settings
from ...core.host import Host
from ...core.request import Picture, VideoRequest

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    S_co = TypeVar("S_co", bound=Settings, default=Settings, covariant=True)
else:
    from typing import TypeVar

    S_co = TypeVar("S_co", bound=Settings, covariant=True)


@dataclass(frozen=True)
class Job(Generic[S_co]):
    """One request with its settings, its pictures and the machine.

    Attributes:
        request: The user's request; its picture fields are the user's paths.
        settings: The generator's settings, as the class that it declares (`config.settings.Settings.for_generator`).
        host: The answers to the backend's query.
        first, last, depth: The pictures after the intake.
        output: Absolute path of the attempt's private video.
        overrides: Effective parameters that a retry forces, or that worked last time.
    """

    request: VideoRequest
    settings: S_co
    host: Host
    output: Path
    first: Picture | None = None
    last: Picture | None = None
    depth: Picture | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def evolve(self, **changes: Any) -> Job[S_co]:
        """A copy with some fields changed."""
        return replace(self, **changes)
