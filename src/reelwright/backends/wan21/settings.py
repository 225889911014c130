"""`Wan21Settings`: the settings of the official Wan2.1 script."""

from __future__ import annotations

from pydantic import Field

from ..shared.job import Job
from ..shared.settings import WanSettings


class Wan21Settings(WanSettings):
    """The settings of ``generate.py``."""

    chaining_use_fsdp_flags: bool = Field(True, description="shard the weights over several GPUs (FSDP)")


Wan21Job = Job[Wan21Settings]
