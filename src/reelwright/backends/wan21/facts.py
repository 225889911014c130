"""Wan2.1's own numbers: tasks, sizes, files, log lines and memory, each with its source.

Read in the official checkout at 9737cba (2026-03-05): generate.py, wan/configs, wan/image2video.py,
wan/first_last_frame2video.py. Memory is fitted to the published table (assets/comp_effic.png).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...core.errors import Failure
from ...core.host import GIB
from ...core.plan import Dialect
from ...core.request import Size
from ..shared.wan import CLIP_FILE, CLIP_FRAMES, T5_BYTES, T5_FILE, TOKENIZER, VAE_FILE, tokens

#: Sizes that generate.py's own tables know (720p and 480p), and those that our launcher adds to them.
OWN_SIZES = (Size(1280, 720), Size(720, 1280), Size(832, 480), Size(480, 832))
SMALL_SIZES = OWN_SIZES[2:]
ADDED_SIZES = (Size(1024, 576), Size(576, 1024), Size(720, 480), Size(480, 720))


@dataclass(frozen=True)
class Variant:
    """One task of generate.py with one model.

    Attributes:
        task: The ``--task`` value.
        key: The setting that names its weights.
        model_type: ``model_type`` in the weights' config.json.
        heads: Attention heads, which the ulysses degree must divide.
        dim, layers: Width and depth of the transformer.
        weight_bytes: fp32 weights of the transformer, as they are on disk and on the GPU.
        sizes: Sizes of the parser's table for the task.
        framework_steps: Default of ``--sample_steps``; flf2v does not contain "i2v" and so has 50.
        clip: Whether the image encoder is loaded.
    """

    task: str
    key: str
    model_type: str
    heads: int = 40
    dim: int = 5120
    layers: int = 40
    weight_bytes: int = 57_200_000_000
    sizes: tuple[Size, ...] = OWN_SIZES
    framework_steps: int = 50
    clip: bool = False


T2V_14B = Variant("t2v-14B", "t2v_model_dir", "t2v")
T2V_1_3B = Variant(
    "t2v-1.3B",
    "t2v_1_3b_model_dir",
    "t2v",
    heads=12,
    dim=1536,
    layers=30,
    weight_bytes=5_680_000_000,
    sizes=SMALL_SIZES,
)
I2V_14B = Variant("i2v-14B", "i2v_model_dir", "i2v", weight_bytes=65_600_000_000, framework_steps=40, clip=True)
FLF2V_14B = replace(I2V_14B, task="flf2v-14B", key="flf2v_model_dir", model_type="flf2v", framework_steps=50)

_CLIP_BYTES = 2.05 * GIB


def required_files(variant: Variant) -> tuple[str, ...]:
    """What a checkpoint folder must hold, relative; folders end with a slash (wan/configs/*.py)."""
    common = (T5_FILE, VAE_FILE, TOKENIZER, "config.json")
    return (*common, CLIP_FILE, "xlm-roberta-large/") if variant.clip else common


@dataclass(frozen=True)
class MemoryUse:
    """What decides the peak; ``attention_bytes`` is what an attention without a fused kernel needs in one layer."""

    variant: Variant
    size: Size
    frames: int
    ranks: int
    fsdp: bool
    offload: bool
    t5_cpu: bool
    attention_bytes: int = 0


def peak_gpu_bytes(use: MemoryUse) -> int:
    """Predicted peak memory per GPU.

    Fitted to the published peaks (i2v-14B 720p 76.7, 59.8, 41.9, 32.9 GiB on 1, 2, 4, 8 GPUs; t2v-14B 69.1, 53.9,
    37.9, 29.9; t2v-1.3B 480p 8.19, 18.1, 14.1, 12.2): weights are fp32, sharded by FSDP; activations follow the
    width and the tokens; decoding, on rank 0 beside everything that was not offloaded, follows the area. Where all else
    was offloaded before, decoding is the whole peak of t2v-1.3B at 480p on one GPU, 8.19.
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


def host_bytes(use: MemoryUse) -> int:
    """Predicted peak of the host's memory: every rank builds the whole fp32 model and the text encoder there."""
    return use.ranks * (use.variant.weight_bytes + T5_BYTES)


@dataclass(frozen=True)
class Measured:
    """A row of the published table (assets/comp_effic.png): seconds of a whole clip of 81 frames by number of GPUs."""

    card: str
    size: Size
    steps: int
    seconds: Mapping[int, float]


_PUBLISHED: Mapping[str, Measured] = {
    "t2v": Measured("H100", Size(1280, 720), 50, {1: 1837.9, 2: 945.1, 4: 497.0, 8: 287.9}),
    "i2v": Measured("H100", Size(1280, 720), 40, {1: 1491.6, 2: 753.9, 4: 403.9, 8: 238.8}),
    "t2v-1.3B": Measured("RTX 4090", Size(832, 480), 50, {1: 261.4, 2: 188.5, 4: 120.8, 8: 112.3}),
}


def published(variant: Variant) -> Measured:
    """The row for a model; first-last-frame has none of its own and is as large as image-to-video."""
    return _PUBLISHED.get(variant.task) or _PUBLISHED["t2v" if variant.model_type == "t2v" else "i2v"]


def pass_flops(variant: Variant, size: Size, frames: int) -> float:
    """Work of one pass through the transformer: two operations for each weight and token, and attention.

    Attention is 4 x tokens squared x width in each layer. At 480p the two are alike, at 720p attention is twice as
    much: time grows faster than pixels.
    """
    sequence, weights = tokens(size, frames), variant.weight_bytes / 4
    return 2.0 * weights * sequence + 4.0 * sequence**2 * variant.dim * variant.layers


def published_seconds(variant: Variant, size: Size, frames: int, steps: int, ranks: int) -> float:
    """What a clip would take on the GPUs of the published table: its figure, scaled by work and steps.

    Guidance doubles the passes there and here. Between the numbers of GPUs of the table it is interpolated; more than
    eight are taken to be no faster, for nothing is published. A 480p clip comes out at 10.2 s a step on one H100,
    where diffusers was measured at 9.8 (LightX2V's comparison).
    """
    row = published(variant)
    share = pass_flops(variant, size, frames) / pass_flops(variant, row.size, CLIP_FRAMES)
    return _by_ranks(row.seconds, ranks) * share * steps / row.steps


def _by_ranks(seconds: Mapping[int, float], ranks: int) -> float:
    """Interpolated in the logarithms, as halving and doubling are equal steps."""
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
    "loading transformer": 2700.0,  # twenty minutes were seen on a slow disk (Wan2.1#342)
    "encoding": 900.0,
    "denoising": 1800.0,
    "decoding": 2700.0,
    "saving": 900.0,
}

_RECORD = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\] [A-Z]+: "


def dialect(steps: int) -> Dialect:
    """How generate.py's log is read: rank 0 on stdout, one unnamed bar per rank on stderr."""
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
