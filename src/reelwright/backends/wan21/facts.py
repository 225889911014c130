"""Formulas for Wan2.1's memory and time, and the format of its log, each with its source.

The models are in `variants`. Source: the official checkout at 9737cba (2026-03-05), generate.py, wan/image2video.py and
wan/first_last_frame2video.py. Memory is fitted to the published table (assets/comp_effic.png).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...core.errors import Failure
from ...core.host import GIB
from ...core.plan import Dialect
from ...core.request import Size
from ..shared.wan import CLIP_FRAMES, T5_BYTES, tokens
from .variants import Variant

_CLIP_BYTES = 2.05 * GIB


@dataclass(frozen=True)
class WanMemory:
    """The inputs of the memory prediction; ``attention_bytes`` is the need of a layer without a fused kernel."""

    variant: Variant
    size: Size
    frames: int
    ranks: int
    fsdp: bool
    offload: bool
    t5_cpu: bool
    attention_bytes: int = 0


def peak_gpu_bytes(use: WanMemory) -> int:
    """Predicted peak memory per GPU.

    The formula is fitted to the published peaks (i2v-14B 720p 76.7, 59.8, 41.9, 32.9 GiB on 1, 2, 4, 8 GPUs; t2v-14B
    69.1, 53.9, 37.9, 29.9; t2v-1.3B 480p 8.19, 18.1, 14.1, 12.2). Weights are fp32, sharded by FSDP. Activations grow
    with the width and the tokens. Decoding grows with the area; it runs on rank 0 beside everything that was not
    offloaded. For t2v-1.3B at 480p on one GPU all else is offloaded before, and decoding alone is the peak of 8.19.
    """
    variant = use.variant
    sequence = tokens(use.size, use.frames)
    active = variant.dim / 5120 * (5.5 + 1.33e-4 * sequence / use.ranks) * GIB + use.attention_bytes
    decoding = (1.13 + 2.2595e-5 * use.size.area) * GIB
    text = 0 if use.t5_cpu else T5_BYTES
    clip = _CLIP_BYTES if variant.clip else 0.0
    share = use.ranks if use.fsdp and use.ranks > 1 else 1
    weights = variant.weight_bytes / share
    if use.offload:
        alone = (0.2 + 2.0e-5 * use.size.area) * GIB
        return round(max(weights + active, text / share + clip, alone + clip))
    return round(weights + text / share + clip + max(active, decoding))


def host_bytes(use: WanMemory) -> int:
    """Predicted peak of host memory in bytes: every rank builds the complete fp32 model and the text encoder there."""
    return use.ranks * (use.variant.weight_bytes + T5_BYTES)


def pass_flops(variant: Variant, size: Size, frames: int) -> float:
    """The operations of one pass through the transformer: two for each weight and token, and attention.

    Attention takes 4 x tokens squared x width in each layer. At 480p both parts are equal; at 720p attention is twice
    as large, so time grows faster than pixels.
    """
    sequence, weights = tokens(size, frames), variant.weight_bytes / 4
    return 2.0 * weights * sequence + 4.0 * sequence**2 * variant.dim * variant.layers


def published_seconds(variant: Variant, size: Size, frames: int, steps: int, ranks: int) -> float:
    """The seconds of a clip on the GPUs of the published table: the published figure, scaled by work and steps.

    Guidance doubles the passes in both. The time is interpolated between the table's numbers of GPUs. The table ends at
    eight GPUs, so more of them count as no faster. For a 480p clip on one H100 this gives 10.2 s a step; diffusers was
    measured at 9.8 (LightX2V's comparison).
    """
    row = variant.published
    share = pass_flops(variant, size, frames) / pass_flops(variant, row.size, CLIP_FRAMES)
    return _by_ranks(row.seconds, ranks) * share * steps / row.steps


def _by_ranks(seconds: Mapping[int, float], ranks: int) -> float:
    """Interpolate the seconds on a logarithmic scale, on which halving and doubling are equal steps."""
    below = max((known for known in seconds if known <= ranks), default=1)
    above = min((known for known in seconds if known >= ranks), default=below)
    if below == above:
        return seconds[below]
    share = math.log(ranks / below) / math.log(above / below)
    return math.exp(math.log(seconds[below]) * (1 - share) + math.log(seconds[above]) * share)


QUIET_LIMITS_S: Mapping[str, float] = {
    "": 900.0,
    "starting": 900.0,
    "loading text encoder": 1200.0,
    "loading CLIP": 900.0,
    "loading transformer": 2700.0,  # it took twenty minutes on a slow disk (Wan2.1#342)
    "encoding": 900.0,
    "denoising": 1800.0,
    "decoding": 2700.0,
    "saving": 900.0,
}

_RECORD = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\] [A-Z]+: "


def dialect(steps: int) -> Dialect:
    """The log of generate.py: rank 0 on stdout, one unnamed bar per rank on stderr."""
    return Dialect(
        phases=(
            (_RECORD + r"Creating Wan(?:I2V|T2V|FLF2V) pipeline", "loading text encoder"),
            (_RECORD + r"loading \S.*models_t5_", "loading text encoder"),
            (_RECORD + r"loading \S.*VAE\.pth", "loading VAE"),
            (_RECORD + r"loading \S.*models_clip_", "loading CLIP"),
            (_RECORD + r"Creating WanModel from ", "loading transformer"),
            (_RECORD + r"Generating video", "encoding"),
            (_RECORD + r"Saving generated video to ", "saving"),
        ),
        bars=("denoising",),
        totals=(steps,),
        output=_RECORD + r"Saving generated video to (.+)$",
        user_text=(
            _RECORD + r"(?:Input|Extended) prompt: ",
            _RECORD + r"Generation job args: ",
            _RECORD + r"Input (?:image|first frame|last frame): ",
        ),
        record=_RECORD,
        failures=(
            (
                Failure.ENV,
                r"cannot import name 'MAX_AREA_CONFIGS' from 'wan\.configs'|No module named 'wan'",
                "The checkout is broken or another `wan` package is in its way: clone Wan2.1 afresh.",
            ),
        ),
    )
