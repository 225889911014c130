"""`WanSettings`: the settings of every generator that runs a Wan model, by the official script or by the engine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ...config.fields import FilePath
from ...config.settings import Settings


class WanSettings(Settings):
    """The folders of the Wan models, and the model to use."""

    wan2_dir: FilePath | None = Field(None, description="checkout of Wan2.1")
    i2v_model_dir: FilePath | None = Field(None, description="weights for image-to-video")
    flf2v_model_dir: FilePath | None = Field(None, description="weights for first-last-frame-to-video")
    t2v_model_dir: FilePath | None = Field(None, description="weights for text-to-video, 14B")
    t2v_1_3b_model_dir: FilePath | None = Field(None, description="weights for text-to-video, 1.3B")
    model: str | None = Field(None, description="model where a generator has several, such as t2v-1.3B")
    preset: Literal["documented", "framework"] = Field("documented", description="whose defaults: 50/7.5 or 40/5.0")
    attention: Literal["auto", "flash", "sdpa"] = Field(
        "auto", description="flash-attn, or PyTorch's own; auto takes the best that there is"
    )
