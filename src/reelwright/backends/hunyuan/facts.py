"""Formulas and log patterns of the HunyuanVideo family: sizes of clips, GPUs that can share one, memory.

The formulas come from hyvideo/utils/data_utils.py (buckets), hyvideo/inference.py (alignment, splitting) and
hyvideo/pipelines (super resolution) of the checkouts named in `members`; tests/real_hunyuan compares them with it.

    >>> bucket(HVI_BASE["720p"], 32, Size(1024, 768), cropped=True)
    Size(width=1088, height=832)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from ...core.errors import Failure
from ...core.host import GIB
from ...core.plan import Dialect
from ...core.request import Size

GB = 1_000_000_000

# ---------------------------------------------------------------------------------------------------------- sizes

#: Side of the square that has the area of a resolution.
HVI_BASE: Mapping[str, int] = {"720p": 960, "540p": 720, "360p": 480}
HV15_BASE: Mapping[str, int] = {"480p": 640, "720p": 960, "1080p": 1440}
#: The resolution that super resolution makes of another, and its own number of steps.
SUPER: Mapping[str, tuple[str, int]] = {"480p": ("720p", 6), "720p": ("1080p", 8)}
#: Sizes of the table in HunyuanVideo's README; other sizes also run, untrained.
HV_SIZES = (
    Size(1280, 720), Size(720, 1280), Size(1104, 832), Size(832, 1104), Size(960, 960), Size(960, 544), Size(544, 960),
    Size(832, 624), Size(624, 832), Size(720, 720),
)  # fmt: skip
_ALIGN = 16


def aligned(size: Size) -> Size:
    """Both sides rounded up to multiples of 16, as predict() does."""
    return Size(*(math.ceil(side / _ALIGN) * _ALIGN for side in size))


@cache
def buckets(base: int, stride: int) -> tuple[tuple[int, int], ...]:
    """Pairs of sides with an area up to ``base`` squared, in steps of ``stride``, up to 4:1, by falling first side."""
    most = round((base / stride) ** 2)
    one, other = most, 1
    found = []
    while one > 0:
        if max(one, other) <= 4 * min(one, other):
            found.append((one * stride, other * stride))
        if (other + 1) * one <= most:
            other += 1
        else:
            one -= 1
    return tuple(found)


def bucket(base: int, stride: int, picture: Size, *, cropped: bool = False) -> Size:
    """The size nearest to a picture's aspect; ``cropped`` excludes longer aspects, so that no picture is padded."""
    aspect = picture.height / picture.width
    pairs = [(height, width, round(height / width, 5) - aspect) for height, width in buckets(base, stride)]
    if cropped:
        pairs = [pair for pair in pairs if (pair[2] <= 0) == (aspect >= 1)]
    height, width, _ = min(pairs, key=lambda pair: abs(pair[2]))
    return Size(width, height)


def enlarged(size: Size, resolution: str) -> Size:
    """The size of a video of ``size`` after super resolution to ``resolution``."""
    wanted = size.width / size.height
    width, height = min(buckets(HV15_BASE[resolution], _ALIGN), key=lambda sides: abs(sides[0] / sides[1] - wanted))
    return Size(width, height)


def nearest_class(size: Size, classes: Mapping[str, int]) -> str:
    """The resolution whose area is nearest to that of a size (by ratio)."""
    return min(classes, key=lambda name: abs(math.log(size.area / classes[name] ** 2)))


def tokens(size: Size, frames: int) -> int:
    """The length of the transformer's sequence; a token has 16 pixels a side (8 x 2, or 16 x 1 in 1.5).

    There is one latent frame for the first frame, then one for every four.
    """
    return ((frames - 1) // 4 + 1) * (size.height // _ALIGN) * (size.width // _ALIGN)


def can_split(size: Size, ranks: int) -> bool:
    """Whether rows or columns split evenly over the ranks; else the script raises ValueError at the first step."""
    return (size.height // _ALIGN) % ranks == 0 or (size.width // _ALIGN) % ranks == 0


# --------------------------------------------------------------------------------------------------------- memory


@dataclass(frozen=True)
class Footprint:
    """The GPU memory of a member, in bytes.

    Attributes:
        transformer: Its weights.
        others: Text encoders, image encoder and VAE.
        text: The largest of these, which runs in its own phase.
        per_token: Activations per token of the sequence.
        decoding: The need of decoding.
    """

    transformer: int
    others: int
    text: int
    per_token: int
    decoding: int


# 13B and a Llama-8B in half precision, replicated on each GPU. 720p of 129 frames (118,800 tokens) peaks at 60 GB
# (README), 960x544 of 53 frames on 4 GPUs above 46 GiB (HunyuanVideo#85): more GPUs do not lower it (#33).
OLDER = Footprint(25_640_000_000, 15_800_000_000, 15_000_000_000, 156_000, 6_500_000_000)
# 8.3B, Qwen2.5-VL's language part (the published 14 GB are this part alone), byT5, SigLIP and VAE. The activations are
# an estimate that keeps 480p below the published figure.
NEWER = Footprint(16_700_000_000, 17_500_000_000, 14_100_000_000, 60_000, 6_000_000_000)
_LEFT_BEHIND = 2 * GB  # offloading never moves this off the GPU
_FP8_SAVES = 10 * GB  # README of HunyuanVideo
#: With less GPU memory than this, HunyuanVideo-1.5 moves the transformer's blocks one by one without being configured.
GROUP_OFFLOAD_BELOW = 60 * GIB


@dataclass(frozen=True)
class HunyuanMemory:
    """The inputs of the memory prediction.

    Attributes:
        footprint: The memory of the member.
        sequence: Tokens of the longest pass (that of super resolution, if the run has it).
        passes: 2 if classifier-free guidance computes both passes at once.
        offload: Whether only the component of the current phase is on the GPU.
        in_blocks: Whether only some blocks of the transformer are on the GPU.
        fp8: Whether the weights have eight bits.
        transformers: 2 with super resolution.
        attention_bytes: The need of one attention layer without a fused kernel.
    """

    footprint: Footprint
    sequence: int
    passes: int = 1
    offload: bool = False
    in_blocks: bool = False
    fp8: bool = False
    transformers: int = 1
    attention_bytes: int = 0


def peak_gpu_bytes(use: HunyuanMemory) -> int:
    """Predicted peak memory per GPU, the same on one and on many: weights are replicated and every rank decodes."""
    weights = use.footprint
    active = use.sequence * weights.per_token * use.passes + use.attention_bytes
    saved = _FP8_SAVES if use.fp8 else 0
    if not use.offload:
        resident = weights.transformer * use.transformers - saved + weights.others
        return resident + max(active, weights.decoding)
    if use.in_blocks:
        return max(weights.text, _LEFT_BEHIND + active, weights.decoding)
    return max(weights.text, weights.transformer - saved + active, weights.decoding)


def relative_seconds(ranks: int, *, moved: bool) -> float:
    """The time on several GPUs as a share of the time on one: 1904 s become 337.6 on eight (HunyuanVideo's README).

    ``moved``: the weights move to the card and back for each phase, which at least doubles the time.
    """
    return float(ranks ** -(math.log(1904 / 337.6) / math.log(8))) * (2.0 if moved else 1.0)


def host_bytes(use: HunyuanMemory, ranks: int, readers: int) -> int:
    """Predicted peak of host memory: ``readers`` ranks load the transformer there, and all ranks load the rest."""
    weights = use.footprint
    return readers * weights.transformer * use.transformers + ranks * weights.others


# ----------------------------------------------------------------------------------------------------------- logs

QUIET_LIMITS_S: Mapping[str, float] = {
    "": 900.0,
    "starting": 2700.0,  # HunyuanVideo-1.5 loads everything silently
    "loading text encoder": 1800.0,
    "loading transformer": 2700.0,
    "encoding": 1800.0,
    "denoising": 1800.0,
    "super resolution": 1800.0,
    "decoding": 2700.0,
}
_LOGURU = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \| [A-Z]+ +\| \S+:\S+:\d+ - "
_MISSING_WEIGHTS = (
    r"Invalid model path: |Invalid fp8_map path: |No model weights found in |Missing key: `|Glyph checkpoint not found"
    r"|Error loading byT5 glyph processor|(?:llm|siglip) not found\. Please refer to checkpoints-download"
    r"|We couldn't connect to 'https://huggingface\.co'|KeyError: '(?:480p|720p)_"
)
_MISSING_PACKAGE = (
    r"'NoneType' object is not callable|flex-block-attn is not|sgl_kernel is not installed|Please install angelslim"
)
_FAILURES = (
    (Failure.CONFIG,
     r"Latent channels \(.*must match the VAE channels|cannot be enabled simultaneously|Enabling both step distilled",
     "The options do not match the checkout: compare `reel plan` with its README."),
    (Failure.MODEL, _MISSING_WEIGHTS,
     "The folder of weights is incomplete, or belongs to another model. `reel doctor` names what is missing."),
    (Failure.ENV, _MISSING_PACKAGE,
     "flash-attn, or a package that an option of config_file needs (flex-block-attn, sgl-kernel, angelslim), is missing."),
    (Failure.INPUT, r"File name too long",
     "The prompt became part of the video's name. Use shorter folders, or a shorter prompt."),
)  # fmt: skip


#: The text of a log record of sample_video.py or sample_image2video.py -> the phase that begins with it.
_OLDER_PHASES: Mapping[str, str] = {
    r"Building model\.\.\.": "loading transformer",
    r"Loading 3D VAE model ": "loading VAE",
    r"Loading text encoder model \(clipL\)": "loading CLIP",
    r"Loading text encoder model ": "loading text encoder",
    r"Input \(height, width, video_length\) = ": "encoding",
    r"Success, time: ": "saving",
}


def older_dialect(steps: int, super_steps: int | None = None) -> Dialect:
    """The log of the two sample scripts: loguru on stderr from every rank, one unnamed bar per rank."""
    del super_steps  # these scripts have none
    return Dialect(
        phases=tuple((_LOGURU + words, phase) for words, phase in _OLDER_PHASES.items()),
        totals=(steps,),
        output=_LOGURU + r"Sample save to: (.+)$",
        # Namespace(...) and the block of parameters repeat the prompt, each as one quoted string.
        user_text=(r"Namespace\(", r" +prompt: \[", r" +neg_prompt: \["),
        record=_LOGURU,
        failures=_FAILURES,
    )


def newer_dialect(steps: int, super_steps: int | None) -> Dialect:
    """The log of generate.py of 1.5: a banner for each pass on rank 0's stdout, and a bar of each pass per rank."""
    second = super_steps is not None
    return Dialect(
        phases=(
            (r"Loading checkpoint shards", "loading text encoder"),
            (r"\W*HunyuanVideo Generation Task", "encoding"),
            (r"\W*HunyuanVideo SR Generation Task", "super resolution"),
        ),
        bars=("denoising", "super resolution") if second else ("denoising",),
        totals=(steps, super_steps) if super_steps is not None else (steps,),
        output=r"Saved (?:SR )?video to: (.+)$",
        user_text=(r"(?:User |Rewritten )?Prompt: ", r"Reference Image: "),
        record=_LOGURU,
        failures=_FAILURES,
    )


def documented_dialect(steps: int, super_steps: int | None = None) -> Dialect:
    """The log of the documented script, whose format is unknown; a bar of the right length counts as the sampling."""
    del super_steps
    return Dialect(totals=(steps,), failures=_FAILURES)
