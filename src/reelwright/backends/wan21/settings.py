"""`Wan21Settings`: what only the official Wan2.1 script has, and its own flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from ..shared.job import Job
from ..shared.settings import WanSettings


class Wan21Settings(WanSettings):
    """The settings of ``generate.py``."""

    flags: ClassVar[Mapping[str, str]] = {
        "size": "--size",
        "frame_num": "--frame_num",
        "sample_steps": "--sample_steps",
        "sample_shift": "--sample_shift",
        "guide_scale": "--sample_guide_scale",
        "base_seed": "--base_seed",
        "i2v_model_dir": "--ckpt_dir",
        "flf2v_model_dir": "--ckpt_dir",
        "t2v_model_dir": "--ckpt_dir",
        "t2v_1_3b_model_dir": "--ckpt_dir",
        "model": "--task",
        "gpu_count": "--ulysses_size",
        "chaining_use_fsdp_flags": "--dit_fsdp --t5_fsdp",
    }

    chaining_use_fsdp_flags: bool = Field(True, description="shard the weights over several GPUs (FSDP)")


Wan21Job = Job[Wan21Settings]
