"""The HunyuanVideo family as data: a row per checkout. A new member is a new row.

A row holds the marks of a checkout, its abilities, its needs and the command of its script. Sources: HunyuanVideo at
fa14b00 (2025-05-23), HunyuanVideo-I2V at 1481c1d (2025-05-20), HunyuanVideo-1.5 at 60783e7 (2026-04-10). The fourth
member is the interface of the requirement: no public checkout has it; a user's own checkout may. Formulas for sizes and
memory, and log patterns, are in `facts`.

    >>> recognise(Checkout(Path("HunyuanVideo"), files=frozenset({"sample_video.py"}))) is HV
    True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...core.host import Checkout, CheckoutQuery
from ...core.request import Size
from ..shared.compatibility import REQUIREMENTS
from . import facts
from .record import FLAGS, Member, Option, TextEncoder, WeightFolder

#: Stem of the older members' transformer file; weights in eight bits add ``_fp8`` and ``_fp8_map``.
MAIN = "mp_rank_00_model_states"
_TEXT_MODEL = ("config.json", "tokenizer_config.json")
_ANY_TENSORS = ("*.[bs]*",)  # .bin or .safetensors: transformers reads either
_PRECISIONS = Option("text", ("fp32", "fp16", "bf16"))
_FLAG, _SWITCH, _INT, _FLOAT, _TEXT = (Option(kind) for kind in ("flag", "switch", "int", "float", "text"))
_SHARED_MODULES = ("torch", "torchvision", "diffusers", "transformers", "einops", "loguru", "imageio", "imageio_ffmpeg")
_SHARED_FLAGS = ("--model-base", "--save-path", "--video-length", "--infer-steps", "--seed", "--flow-reverse")

#: Options in hyvideo/config.py, which the two older members share.
_OLDER_OPTIONS: Mapping[str, Option] = {
    **dict.fromkeys(("precision", "vae_precision", "text_encoder_precision", "text_encoder_precision_2"), _PRECISIONS),
    "cfg_scale": _FLOAT,
    "neg_prompt": _TEXT,
    "flow_solver": Option("text", ("euler",)),
    "use_linear_quadratic_schedule": _FLAG,
    "linear_schedule_end": _INT,
    **dict.fromkeys(("use_cpu_offload", "disable_autocast", "reproduce"), _FLAG),
}
_OLDER_PARAMETERS: Mapping[str, str] = {
    "infer_steps": "steps",
    "video_length": "num_frames",
    "video_size": "size",
    "embedded_cfg_scale": "guidance_scale",
    "flow_shift": "flow_shift",
}


_OLDER_COMMAND = (
    "--model-base={root}",
    "--save-path={folder}",
    "--video-length={frames}",
    "--infer-steps={steps}",
    "--embedded-cfg-scale={guidance_scale}",
    "--flow-shift={flow_shift}",
    "--flow-reverse",  # without it: noise, and exit status 0
    "--seed={seed}",
    "--ulysses-degree={ulysses_degree}",
    "--ring-degree={ring_degree}",
)


def _older_parts(model: str, text_encoder: str) -> tuple[WeightFolder, ...]:
    return (
        WeightFolder(f"{model}/transformers", (), (f"{MAIN}*.pt",)),
        WeightFolder(f"{model}/vae", ("config.json", "pytorch_model.pt")),
        WeightFolder(text_encoder, _TEXT_MODEL, ("*.safetensors",), config="config.json"),
        WeightFolder("text_encoder_2", _TEXT_MODEL, _ANY_TENSORS),
    )


#: Transformers in the PIPELINE_CONFIGS of 1.5; any other name raises KeyError after everything is loaded.
VERSIONS = frozenset(
    [f"{size}_{task}{kind}" for size in ("480p", "720p") for task in ("t2v", "i2v") for kind in ("", "_distilled")]
    + ["720p_t2v_distilled_sparse", "720p_i2v_distilled_sparse", "480p_i2v_step_distilled"]
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
    command=("--dit-weight={transformer}", "--video-size", "{height}", "{width}", *_OLDER_COMMAND),
    dialect=facts.older_dialect,
    parallel="degrees",
    guidance=6.0,
    names_video=True,
    parts=_older_parts("hunyuan-video-t2v-720p", "text_encoder"),
    encoder=TextEncoder("text_encoder", whole=False),
    options={**_OLDER_OPTIONS, "model": Option("text", ("HYVideo-T/2-cfgdistill", "HYVideo-T/2")), "use_fp8": _FLAG},
    parameters=_OLDER_PARAMETERS,
    defaults={"use_fp8": False},
    negative="neg_prompt",
    sizes=tuple(map(str, facts.HV_SIZES)),
    trained_sizes=facts.HV_SIZES,
    smaller=Size(960, 544),
    footprint=facts.OLDER,
)

HVI = replace(
    HV,
    title="HunyuanVideo-I2V",
    script="sample_image2video.py",
    marks=("sample_image2video.py",),
    tasks=("i2v",),
    flags=(*_SHARED_FLAGS, "--i2v-mode", "--i2v-image-path", "--i2v-resolution", "--i2v-dit-weight"),
    # hyvideo/utils/helpers.py imports deepspeed and tensorboard, for training.
    modules=(*HV.modules, "safetensors", "deepspeed", "tensorboard"),
    source="github.com/Tencent-Hunyuan/HunyuanVideo-I2V",
    command=(
        "--i2v-mode",
        "--i2v-dit-weight={transformer}",
        "--i2v-image-path={picture}",
        "--i2v-resolution={resolution}",
        *_OLDER_COMMAND,
    ),
    parts=_older_parts("hunyuan-video-i2v-720p", "text_encoder_i2v"),
    encoder=TextEncoder("text_encoder_i2v", whole=True),
    first_rank_reads=True,  # it sends the other ranks their share
    options={
        **_OLDER_OPTIONS,
        "model": Option("text", ("HYVideo-T/2", "HYVideo-T/2-cfgdistill")),
        "i2v_condition_type": Option("text", ("token_replace", "latent_concat")),
        "i2v_stability": _FLAG,
        "use_lora": _FLAG,
        "lora_path": _TEXT,
        "lora_scale": _FLOAT,
        "lora_rank": _INT,
    },
    # Every command in its README names this net; the parser's default does not fit the published weights.
    defaults={"model": "HYVideo-T/2"},
    unpublished_net="HYVideo-T/2-cfgdistill",
    shift=17.0,
    sizes=("1280x720", "720x1280", "960x540", "540x960", "640x360", "360x640"),
    trained_sizes=(),
    classes=facts.HVI_BASE,
    stride=32,
    crops=True,
    smaller=Size(608, 352),
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
    command=(
        "--model_path={root}",
        "--resolution={resolution}",
        "--sr={super_resolution}",
        "--video_length={frames}",
        "--num_inference_steps={steps}",
        "--seed={seed}",
        "--image_path={picture}",
        "--aspect_ratio={aspect_ratio}",
        "--rewrite=false",  # it would send the prompt to a server
        "--save_generation_config=false",
        "--output_path={output}",
    ),
    dialect=facts.newer_dialect,
    parallel="world",
    heads=16,  # transformer/<version>/config.json; the constructor's default is another
    clip_frames=121,
    parts=(
        WeightFolder("transformer/{version}", weights=("*.safetensors",), config="config.json"),
        WeightFolder("vae", weights=("*.safetensors",)),
        WeightFolder("scheduler", ("scheduler_config.json",)),
        WeightFolder("text_encoder/llm", _TEXT_MODEL, ("*.safetensors",)),
        WeightFolder("text_encoder/byt5-small", _TEXT_MODEL, _ANY_TENSORS),
        WeightFolder("text_encoder/Glyph-SDXL-v2/assets", ("color_idx.json", "multilingual_10-lang_idx.json")),
        WeightFolder("text_encoder/Glyph-SDXL-v2/checkpoints", ("byt5_model.pt",)),
        WeightFolder("vision_encoder/siglip", ("feature_extractor/",), ()),
        WeightFolder("vision_encoder/siglip/image_encoder", weights=("*.safetensors",)),
    ),
    options={
        "negative_prompt": _TEXT,
        **dict.fromkeys(("cfg_distilled", "enable_step_distill", "sparse_attn"), _SWITCH),
        **dict.fromkeys(("offloading", "group_offloading", "overlap_group_offloading"), _SWITCH),
        "dtype": Option("text", ("bf16", "fp32")),
        "use_sageattn": _SWITCH,
        "sage_blocks_range": _TEXT,
        **dict.fromkeys(("enable_torch_compile", "enable_cache"), _SWITCH),
        "cache_type": Option("text", ("deepcache", "teacache", "taylorcache")),
        "no_cache_block_id": _TEXT,
        **dict.fromkeys(("cache_start_step", "cache_end_step", "total_steps", "cache_step_interval"), _INT),
        "use_fp8_gemm": _SWITCH,
        **dict.fromkeys(("quant_type", "include_patterns", "checkpoint_path", "lora_path"), _TEXT),
    },
    parameters={"num_inference_steps": "steps", "video_length": "num_frames", "sr": "super_resolution"},
    defaults={"offloading": True, "group_offloading": None},
    negative="negative_prompt",
    offload_option="offloading",
    sizes=("832x480", "480x832", "1280x720", "720x1280", "1920x1080", "1080x1920"),
    classes=facts.HV15_BASE,
    enlarges=facts.SUPER,
    versions=VERSIONS,
    text_tokens=1000,
    footprint=facts.NEWER,
)

DOCUMENTED = Member(
    title="the documented inference.py",
    script="inference.py",
    marks=("inference.py",),
    tasks=("i2v",),
    flags_in="documented_flags",
    flags=("--cfg-path", "--ckpt-path", "--source-image", "--prompt", "--save-path", "--steps", "--fps", "--seed"),
    modules=("torch",),
    source="the requirement's own interface",
    command=(
        "--cfg-path={config_file}",
        "--ckpt-path={ckpt_path}",
        "--source-image={picture}",
        "--save-path={output}",
        "--steps={steps}",
        "--fps={fps}",
        "--seed={seed}",
    ),
    dialect=facts.documented_dialect,
    recognised_by_flags=True,
    fps=16.0,  # what the reference code passes
    clip_frames=81,
    sizes=("1280x720", "1024x576"),
)

FAMILY = (HVI, HV15, HV, DOCUMENTED)
#: Weight folders of super resolution.
SUPER_PARTS = (
    WeightFolder("transformer/{version}", weights=("*.safetensors",), config="config.json"),
    WeightFolder("upsampler/{version}", weights=("*.safetensors",)),
)
#: Flags that ``config_file`` may not set because the command sets them, with the advice for each.
DECIDED: Mapping[str, str] = {
    "prompt": "Give the prompt with the request.",
    "model_base": "Set ckpt_path.",
    "dit_weight": "Set ckpt_path.",
    "i2v_dit_weight": "Set ckpt_path.",
    "model_path": "Set ckpt_path.",
    "save_path": "Choose where the video goes with -o.",
    "output_path": "Choose where the video goes with -o.",
    "i2v_image_path": "Give the picture with the request.",
    "image_path": "Give the picture with the request.",
    "i2v_mode": "It is always on where the checkout needs it.",
    "flow_reverse": "It is always on: without it the video is noise.",
    "i2v_resolution": "Set size.",
    "resolution": "Set size.",
    "aspect_ratio": "Set size.",
    "ulysses_degree": "Set gpu_count.",
    "ring_degree": "Set gpu_count.",
    "seed": "Set base_seed, or give a seed with the request.",
    "num_videos": "One clip is made at a time.",
    "rewrite": "It sends the prompt to a server; write the prompt as you want it.",
    "latent_channels": "The script's own check refuses every number.",
}


def checkout_query(directory: Path) -> CheckoutQuery:
    """The query of a checkout: the files that identify it, and its flags."""
    return CheckoutQuery(
        directory,
        files=tuple(dict.fromkeys(mark for member in FAMILY for mark in member.marks)),
        patterns={**REQUIREMENTS, **FLAGS},
    )


def recognise(checkout: Checkout | None) -> Member | None:
    """The member that a checkout holds; ``None`` for another program."""
    if checkout is None:
        return None
    for member in FAMILY:
        known = not member.recognised_by_flags or set(member.flags) <= set(checkout.matches.get(member.flags_in, ()))
        if known and all(mark in checkout.files for mark in member.marks):
            return member
    return None
