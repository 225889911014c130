"""The family as data: what each official checkout is recognised by, can do, needs and is asked for.

Read in the official sources: HunyuanVideo at fa14b00 (2025-05-23), HunyuanVideo-I2V at 1481c1d (2025-05-20),
HunyuanVideo-1.5 at 60783e7 (2026-04-10). The fourth member is the interface of the reference document, which no
public checkout has; it is driven where somebody's checkout does. Not here: sizes, memory and log lines (`facts`),
and how the flags are written (`commands`).

    >>> recognise(Checkout(Path("HunyuanVideo"), files=frozenset({"sample_video.py"}))) is HV
    True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ...core.host import Checkout, CheckoutQuery
from ...core.request import Task
from ..shared.compatibility import REQUIREMENTS

Kind = Literal["flag", "switch", "int", "float", "text"]


@dataclass(frozen=True)
class Option:
    """A flag that a user may set in ``config_file``.

    Attributes:
        kind: ``flag`` takes no value (store_true); ``switch`` takes true or false.
        choices: The only values of a ``text``.
    """

    kind: Kind
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A folder of weights below the root, as `core.host.CheckpointQuery` looks at it; ``{version}`` is a transformer's."""

    folder: str
    required: tuple[str, ...] = ("config.json",)
    weights: tuple[str, ...] = ()
    config: str | None = None


@dataclass(frozen=True)
class Member:
    """One checkout of the family.

    Attributes:
        title: Its name for people.
        script: The program that is started.
        marks: Files by which the checkout is recognised; all must be there.
        tasks: What it can do.
        flags_in: The name of the pattern that finds its flags.
        flags: Flags that every command of ours needs.
        modules: What its interpreter must be able to import.
        parallel: How several GPUs share a clip: by two degrees, by the number of processes alone, or not at all.
        heads: Attention heads, unless the weights' config says it.
        fps: Frames per second; fixed in every script but the documented one.
        clip_frames: The length it was trained for.
        guidance: Default guidance; ``None`` where no flag sets it.
        names_film: Whether it names its film itself, in a folder that we give.
        parts: Its weights.
        options: What ``config_file`` may set.
        parameters: Flags of ``config_file`` that are effective parameters of ours, and their names.
        source: Where the checkout comes from.
    """

    title: str
    script: str
    marks: tuple[str, ...]
    tasks: tuple[Task, ...]
    flags_in: str
    flags: tuple[str, ...]
    modules: tuple[str, ...]
    source: str
    parallel: Literal["degrees", "world", "none"] = "none"
    heads: int = 24
    fps: float = 24.0
    clip_frames: int = 129
    guidance: float | None = None
    names_film: bool = False
    parts: tuple[Part, ...] = ()
    options: Mapping[str, Option] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def flags_file(self) -> str:
        """The file that defines its flags; without it the script cannot start."""
        return FLAGS[self.flags_in][0]


#: Stem of the older members' transformer file; ``_fp8`` and ``_fp8_map`` follow where it is in eight bits.
MAIN = "mp_rank_00_model_states"
_TEXT_MODEL = ("config.json", "tokenizer_config.json")
_ANY_TENSORS = ("*.[bs]*",)  # .bin or .safetensors: transformers reads either
_PRECISIONS = Option("text", ("fp32", "fp16", "bf16"))
_SHARED_MODULES = ("torch", "torchvision", "diffusers", "transformers", "einops", "loguru", "imageio", "imageio_ffmpeg")
_SHARED_FLAGS = ("--model-base", "--save-path", "--video-length", "--infer-steps", "--seed", "--flow-reverse")

#: hyvideo/config.py, which the two older members share.
_OLDER_OPTIONS: Mapping[str, Option] = {
    "precision": _PRECISIONS,
    "vae_precision": _PRECISIONS,
    "text_encoder_precision": _PRECISIONS,
    "text_encoder_precision_2": _PRECISIONS,
    "cfg_scale": Option("float"),
    "neg_prompt": Option("text"),
    "flow_solver": Option("text", ("euler",)),
    "use_linear_quadratic_schedule": Option("flag"),
    "linear_schedule_end": Option("int"),
    "use_cpu_offload": Option("flag"),
    "disable_autocast": Option("flag"),
    "reproduce": Option("flag"),
}
_OLDER_PARAMETERS: Mapping[str, str] = {
    "infer_steps": "steps",
    "video_length": "num_frames",
    "video_size": "size",
    "embedded_cfg_scale": "guidance_scale",
    "flow_shift": "flow_shift",
}


def _older_parts(model: str, text_encoder: str) -> tuple[Part, ...]:
    return (
        Part(f"{model}/transformers", (), (f"{MAIN}*.pt",)),
        Part(f"{model}/vae", ("config.json", "pytorch_model.pt")),
        Part(text_encoder, _TEXT_MODEL, ("*.safetensors",), config="config.json"),
        Part("text_encoder_2", _TEXT_MODEL, _ANY_TENSORS),
    )


HV = Member(
    title="HunyuanVideo",
    script="sample_video.py",
    marks=("sample_video.py",),
    tasks=("t2v",),
    flags_in="older_flags",
    flags=(*_SHARED_FLAGS, "--dit-weight", "--video-size"),
    modules=(*_SHARED_MODULES, "flash_attn"),
    source="github.com/Tencent-Hunyuan/HunyuanVideo",
    parallel="degrees",
    guidance=6.0,
    names_film=True,
    parts=_older_parts("hunyuan-video-t2v-720p", "text_encoder"),
    options={
        **_OLDER_OPTIONS,
        "model": Option("text", ("HYVideo-T/2-cfgdistill", "HYVideo-T/2")),
        "use_fp8": Option("flag"),
    },
    parameters=_OLDER_PARAMETERS,
)

HVI = replace(
    HV,
    title="HunyuanVideo-I2V",
    script="sample_image2video.py",
    marks=("sample_image2video.py",),
    tasks=("i2v",),
    flags=(*_SHARED_FLAGS, "--i2v-mode", "--i2v-image-path", "--i2v-resolution", "--i2v-dit-weight"),
    # deepspeed and tensorboard are imported by hyvideo/utils/helpers.py, for training.
    modules=(*HV.modules, "safetensors", "deepspeed", "tensorboard"),
    source="github.com/Tencent-Hunyuan/HunyuanVideo-I2V",
    parts=_older_parts("hunyuan-video-i2v-720p", "text_encoder_i2v"),
    options={
        **_OLDER_OPTIONS,
        # Every command of its README passes this net; the parser's default does not fit the published weights.
        "model": Option("text", ("HYVideo-T/2", "HYVideo-T/2-cfgdistill")),
        "i2v_condition_type": Option("text", ("token_replace", "latent_concat")),
        "i2v_stability": Option("flag"),
        "use_lora": Option("flag"),
        "lora_path": Option("text"),
        "lora_scale": Option("float"),
        "lora_rank": Option("int"),
    },
)

HV15 = Member(
    title="HunyuanVideo-1.5",
    script="generate.py",
    marks=("generate.py", "hyvideo/pipelines/hunyuan_video_pipeline.py"),
    tasks=("t2v", "i2v"),
    flags_in="newer_flags",
    flags=("--model_path", "--resolution", "--video_length", "--output_path", "--sr", "--image_path", "--seed"),
    modules=(*_SHARED_MODULES, "safetensors", "psutil"),
    source="github.com/Tencent-Hunyuan/HunyuanVideo-1.5",
    parallel="world",
    heads=16,  # transformer/<version>/config.json; the constructor's default is another
    clip_frames=121,
    parts=(
        Part("transformer/{version}", weights=("*.safetensors",), config="config.json"),
        Part("vae", weights=("*.safetensors",)),
        Part("scheduler", ("scheduler_config.json",)),
        Part("text_encoder/llm", _TEXT_MODEL, ("*.safetensors",)),
        Part("text_encoder/byt5-small", _TEXT_MODEL, _ANY_TENSORS),
        Part("text_encoder/Glyph-SDXL-v2/assets", ("color_idx.json", "multilingual_10-lang_idx.json")),
        Part("text_encoder/Glyph-SDXL-v2/checkpoints", ("byt5_model.pt",)),
        Part("vision_encoder/siglip", ("feature_extractor/",), ()),
        Part("vision_encoder/siglip/image_encoder", weights=("*.safetensors",)),
    ),
    options={
        "negative_prompt": Option("text"),
        "cfg_distilled": Option("switch"),
        "enable_step_distill": Option("switch"),
        "sparse_attn": Option("switch"),
        "offloading": Option("switch"),
        "group_offloading": Option("switch"),
        "overlap_group_offloading": Option("switch"),
        "dtype": Option("text", ("bf16", "fp32")),
        "use_sageattn": Option("switch"),
        "sage_blocks_range": Option("text"),
        "enable_torch_compile": Option("switch"),
        "enable_cache": Option("switch"),
        "cache_type": Option("text", ("deepcache", "teacache", "taylorcache")),
        "no_cache_block_id": Option("text"),
        "cache_start_step": Option("int"),
        "cache_end_step": Option("int"),
        "total_steps": Option("int"),
        "cache_step_interval": Option("int"),
        "use_fp8_gemm": Option("switch"),
        "quant_type": Option("text"),
        "include_patterns": Option("text"),
        "checkpoint_path": Option("text"),
        "lora_path": Option("text"),
    },
    parameters={
        "num_inference_steps": "steps",
        "video_length": "num_frames",
        "sr": "super_resolution",
    },
)

DOCUMENTED = Member(
    title="the documented inference.py",
    script="inference.py",
    marks=("inference.py",),
    tasks=("i2v",),
    flags_in="documented_flags",
    flags=("--cfg-path", "--ckpt-path", "--source-image", "--prompt", "--save-path", "--steps", "--fps", "--seed"),
    modules=("torch",),
    source="the document's own interface",
    fps=16.0,  # what the reference code passes
    clip_frames=81,
)

#: Transformers of 1.5 that its PIPELINE_CONFIGS know; any other name is a KeyError after everything was loaded.
VERSIONS = frozenset(
    [f"{size}_{task}{kind}" for size in ("480p", "720p") for task in ("t2v", "i2v") for kind in ("", "_distilled")]
    + ["720p_t2v_distilled_sparse", "720p_i2v_distilled_sparse", "480p_i2v_step_distilled"]
)
FAMILY = (HVI, HV15, HV, DOCUMENTED)
#: Parts of super resolution, by the class of size that it makes.
SUPER_PARTS = (
    Part("transformer/{version}", weights=("*.safetensors",), config="config.json"),
    Part("upsampler/{version}", weights=("*.safetensors",)),
)
#: Flags of ``config_file`` that the command decides by itself, and what to set instead.
DECIDED: Mapping[str, str] = {
    "prompt": "Give the prompt with the request.",
    "model_base": "Set ckpt_path.",
    "dit_weight": "Set ckpt_path.",
    "i2v_dit_weight": "Set ckpt_path.",
    "model_path": "Set ckpt_path.",
    "save_path": "Say where the film goes with -o.",
    "output_path": "Say where the film goes with -o.",
    "i2v_image_path": "Give the picture with the request.",
    "image_path": "Give the picture with the request.",
    "i2v_mode": "It is always on where the checkout needs it.",
    "flow_reverse": "It is always on: without it the film is noise.",
    "i2v_resolution": "Set size.",
    "resolution": "Set size.",
    "aspect_ratio": "Set size.",
    "ulysses_degree": "Set gpu_count.",
    "ring_degree": "Set gpu_count.",
    "seed": "Set base_seed, or give a seed with the request.",
    "num_videos": "One film is made at a time.",
    "rewrite": "It sends the prompt to a server; write the prompt as you want it.",
    "latent_channels": "It is refused by the script's own check, whatever the number.",
}


#: Where each member's flags are defined, and how they are found.
FLAGS: Mapping[str, tuple[str, str]] = {
    "older_flags": ("hyvideo/config.py", r"[\"'](--[\w-]+)[\"']"),
    "newer_flags": ("generate.py", r"[\"'](--\w+)[\"']"),
    "documented_flags": ("inference.py", r"[\"'](--[\w-]+)[\"']"),
}


def checkout_query(directory: Path) -> CheckoutQuery:
    """What to look for in a checkout, so that it can be recognised and its flags compared."""
    return CheckoutQuery(
        directory,
        files=tuple(dict.fromkeys(mark for member in FAMILY for mark in member.marks)),
        patterns={**REQUIREMENTS, **FLAGS},
    )


def recognise(checkout: Checkout | None) -> Member | None:
    """The member that a checkout is; ``None`` if it is none of the family."""
    if checkout is None:
        return None
    for member in FAMILY:
        known = member is not DOCUMENTED or set(member.flags) <= set(checkout.matches.get(member.flags_in, ()))
        if known and all(mark in checkout.files for mark in member.marks):
            return member
    return None
