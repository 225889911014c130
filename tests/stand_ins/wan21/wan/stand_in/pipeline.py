"""Imitates loading, sampling and decoding for the four pipelines, as seen from outside, with faults.

It computes nothing. The points named in `launch` come in the order of the real code: load, encode,
step 1..n, vae; generate.py has `save` and `end`.

    >>> Sampling(steps=40, seed=1, frames=81).frames
    81
"""

from __future__ import annotations

import importlib
import logging
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from wan.modules import attention, clip, model

from . import weights
from .bars import bar
from .film import Film
from .launch import Launch

_CHANNELS = {"t2v": 16, "i2v": 36, "flf2v": 36}


@dataclass(frozen=True)
class Sampling:
    """The arguments of the sampling loop; guidance and shift are left out, because they change nothing visible."""

    steps: int
    seed: int
    frames: int


@dataclass(frozen=True)
class Place:
    """The weights of this rank, and how it loads them."""

    checkpoint_dir: str
    launch: Launch
    use_usp: bool = False
    dit_fsdp: bool = False

    @property
    def collective(self) -> bool:
        """Whether the ranks wait for each other at every step."""
        return self.launch.world > 1 and (self.use_usp or self.dit_fsdp)


class Pipeline:
    """One loaded model. ``model_type`` is the task that the weights must be for."""

    model_type = "t2v"
    has_clip = False

    def __init__(self, config: Any, place: Place) -> None:
        self.config, self.place, self.launch = config, place, place.launch
        folder = place.checkpoint_dir
        self._load(config.t5_checkpoint, config.t5_tokenizer)
        self.launch.at("load")
        self._load(config.vae_checkpoint, None)
        if self.has_clip:
            self._load(config.clip_checkpoint, config.clip_tokenizer)
        logging.info(f"Creating WanModel from {folder}")
        self._wait()
        self.weights = weights.open_transformer(folder, show_bar=self.launch.rank == 0)
        if place.use_usp:
            self.between = importlib.import_module("wan.distributed.xdit_context_parallel")
        self.launch.barrier("loaded")

    def _load(self, name: str, tokenizer: str | None) -> None:
        path = os.path.join(self.place.checkpoint_dir, name)  # noqa: PTH118 - "" stays relative, as in the real code
        logging.info(f"loading {path}")
        self._wait()
        weights.open_archive(path)
        if tokenizer:
            weights.open_tokenizer(os.path.join(self.place.checkpoint_dir, tokenizer))  # noqa: PTH118

    def _wait(self) -> None:
        time.sleep(float(self.launch.plan.get("load_s", 0)) / (4 if self.has_clip else 3))

    def sample(self, size: tuple[int, int], sampling: Sampling, picture: Image.Image | None) -> Film | None:
        """Encode, denoise and decode; returns the clip on rank 0."""
        if self.launch.plan.get("flash_attn") == "absent":
            attention.FLASH_ATTN_2_AVAILABLE = attention.FLASH_ATTN_3_AVAILABLE = False
        self.launch.at("encode")
        if self.has_clip:
            # The real clip module requests version 2 by name, so flash-attention 3 alone is not enough for pictures.
            self._attend(clip.flash_attention, 2)
        self._denoise(int(self.launch.plan.get("steps", sampling.steps)))
        film = None
        if self.launch.rank == 0:
            self.launch.at("vae")
            frames = 4 * ((sampling.frames - 1) // 4) + 1
            film = Film(*size, frames, sampling.seed, _tint(picture))
        self.launch.barrier("decoded")
        return film

    def _denoise(self, steps: int) -> None:
        pause_s = float(self.launch.plan.get("step_s", 0))
        for step in bar(steps, shown=self.launch.plan.get("cr_bar", True)):
            self.launch.at(f"step {step}")
            if step == 1:
                self._attend(model.flash_attention, None)
                self._attend_between()
                self._check_weights()
            if self.place.collective:
                self.launch.barrier(f"step-{step}")
            time.sleep(pause_s)

    def _attend(self, function: Callable[..., Any], version: int | None) -> None:
        """Call attention as the model does: a replacement is noted, and the framework's own may fail its
        assertion."""
        if function.__module__ == attention.__name__:
            function(version=version)
        else:
            self.launch.note(attention=f"{function.__module__}.{function.__qualname__}")

    def _attend_between(self) -> None:
        """Attend with xfuser, if the sequence is split; xfuser has its own choice of kernels."""
        if self.place.use_usp and self.between.xFuserLongContextAttention is not None:
            layer = self.between.xFuserLongContextAttention()
            layer()
            self.launch.note(between=layer.attn_type.name)

    def _check_weights(self) -> None:
        """Fail for weights of another task, which the real code notices only at this point."""
        found = str(self.weights.get("model_type"))
        have, want = int(self.weights.get("in_dim", 16)), _CHANNELS[self.model_type]
        if have != want:
            raise RuntimeError(
                f"Given groups=1, weight of size [{self.weights.get('dim')}, {have}, 1, 2, 2], expected "
                f"input[1, {want}, 21, 60, 104] "
                f"to have {have} channels, but got {want} channels instead"
            )
        if (found, self.model_type) == ("flf2v", "i2v"):
            raise RuntimeError("shape '[-1, 514, 1280]' is invalid for input of size 328960")


def seed_of(seed: int) -> int:
    """The seed itself, or a random one for a negative number."""
    return seed if seed >= 0 else random.randint(0, sys.maxsize)


def mask_problem(frames: int, rows: int, columns: int) -> str | None:
    """The message of the mask's reshape if the number of frames is not 4n+1."""
    held = frames + 3
    if held % 4 == 0:
        return None
    return f"shape '[1, {held // 4}, 4, {rows}, {columns}]' is invalid for input of size {held * rows * columns}"


def fixed_mask_problem(frames: int) -> str | None:
    """The message of joining a mask for 81 frames with latents of another length."""
    latent = (frames - 1) // 4 + 1
    if latent == 21:
        return None
    sizes = f"Expected size 21 but got size {latent} for tensor number 1 in the list."
    return f"Sizes of tensors must match except in dimension 0. {sizes}"


def _tint(picture: Image.Image | None) -> tuple[int, int]:
    """Chroma near the picture's own, so that another picture gives another clip."""
    if picture is None:
        return 118, 138
    _, blue, red = picture.convert("YCbCr").resize((1, 1)).split()
    return int(blue.getpixel((0, 0))), int(red.getpixel((0, 0)))  # type: ignore[arg-type]
