"""`HunyuanSettings`: the settings of the HunyuanVideo family."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ...config.fields import AUTO, FilePath, PositiveFloat
from ...config.settings import Settings
from ..shared.job import Job


class HunyuanSettings(Settings):
    """The settings of HunyuanVideo, HunyuanVideo-I2V, HunyuanVideo-1.5 and the documented ``inference.py``."""

    hunyuan_dir: FilePath | None = Field(None, description="checkout of HunyuanVideo, HunyuanVideo-I2V or 1.5")
    config_file: FilePath | None = Field(None, description="HunyuanVideo: YAML file of options")
    ckpt_path: FilePath | None = Field(None, description="HunyuanVideo: folder (or main file) of the weights")
    max_duration: PositiveFloat | None = Field(None, description="HunyuanVideo: longest clip in seconds")
    super_resolution: Annotated[bool | None, AUTO] = Field(
        None, description="HunyuanVideo-1.5: make a smaller clip and enlarge it; auto does so where the size needs it"
    )


HunyuanJob = Job[HunyuanSettings]
