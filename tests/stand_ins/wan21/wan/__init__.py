"""Gives the stand-in the official names; only a script is behind them.

It makes no videos. The real package imports torch, flash-attn and the rest here; so does this one, if a
stand-in interpreter says what is installed.

    >>> import wan  # doctest: +SKIP
"""

from __future__ import annotations

from .stand_in.frameworks import needs

for _name in (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "tqdm",
    "easydict",
    "ftfy",
    "dashscope",
    "imageio",
):
    needs(_name)

from . import configs, distributed, modules  # noqa: E402 - the order of the real failures
from .first_last_frame2video import WanFLF2V  # noqa: E402
from .image2video import WanI2V  # noqa: E402
from .text2video import WanT2V  # noqa: E402
from .vace import WanVace  # noqa: E402

__all__ = ["WanFLF2V", "WanI2V", "WanT2V", "WanVace", "configs", "distributed", "modules"]
