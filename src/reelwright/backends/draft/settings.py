"""`DraftSettings`: the settings of the draft."""

from __future__ import annotations

from pydantic import Field

from ...config.settings import Settings
from ..shared.job import Job


class DraftSettings(Settings):
    """The settings of the CPU animatic."""

    label: bool = Field(True, description="the draft's corner label")


DraftJob = Job[DraftSettings]
