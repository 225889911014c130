"""Parses the arguments of both older scripts, with the official names, types, choices and defaults."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

PRECISIONS = ["fp32", "fp16", "bf16"]
MODELS = ["HYVideo-T/2", "HYVideo-T/2-cfgdistill"]


def is_i2v() -> bool:
    """Whether this checkout is HunyuanVideo-I2V."""
    return (Path(__file__).parents[1] / "sample_image2video.py").exists()


def parse_args(namespace: argparse.Namespace | None = None) -> argparse.Namespace:
    """Parse the arguments and check them as the official parser does."""
    i2v = is_i2v()
    title = "HunyuanVideo inference/lora training script" if i2v else "HunyuanVideo inference script"
    parser = argparse.ArgumentParser(description=title)
    add = parser.add_argument
    _add_models(add, i2v)
    _add_sampling(add, i2v)
    if i2v:
        _add_i2v(add)
    args = parser.parse_args(namespace=namespace)
    if args.latent_channels != 16:  # a given value is a string, so no given value passes
        raise ValueError(f"Latent channels ({args.latent_channels}) must match the VAE channels (16).")
    return args


def _add_models(add: Any, i2v: bool) -> None:
    add("--model", type=str, choices=[*MODELS, *(["HYVideo-S/2"] if i2v else [])], default="HYVideo-T/2-cfgdistill")
    add("--latent-channels", type=str, default=16)
    add("--precision", type=str, default="bf16", choices=PRECISIONS)
    add("--rope-theta", type=int, default=256)
    if i2v:
        add("--gradient-checkpoint", action="store_true")
        add("--gradient-checkpoint-layers", type=int, default=-1)
    encoders = ["clipL", "llm", *(["llm-i2v"] if i2v else [])]
    llm, template = ("llm-i2v", "-i2v") if i2v else ("llm", "")
    templates = ["dit-llm-encode", "dit-llm-encode-video"]
    templates += [f"{name}-i2v" for name in templates] if i2v else []
    add("--vae", type=str, default="884-16c-hy", choices=["884-16c-hy"])
    add("--vae-precision", type=str, default="fp16", choices=PRECISIONS)
    add("--vae-tiling", action="store_true", default=True)
    add("--text-encoder", type=str, default=llm, choices=encoders)
    add("--text-encoder-precision", type=str, default="fp16", choices=PRECISIONS)
    add("--text-states-dim", type=int, default=4096)
    add("--text-len", type=int, default=256)
    add("--tokenizer", type=str, default=llm, choices=encoders)
    add("--prompt-template", type=str, default=f"dit-llm-encode{template}", choices=templates)
    add("--prompt-template-video", type=str, default=f"dit-llm-encode-video{template}", choices=templates)
    add("--hidden-state-skip-layer", type=int, default=2)
    add("--apply-final-norm", action="store_true")
    add("--text-encoder-2", type=str, default="clipL", choices=encoders)
    add("--text-encoder-precision-2", type=str, default="fp16", choices=PRECISIONS)
    add("--text-states-dim-2", type=int, default=768)
    add("--tokenizer-2", type=str, default="clipL", choices=encoders)
    add("--text-len-2", type=int, default=77)


def _add_sampling(add: Any, i2v: bool) -> None:
    add("--denoise-type", type=str, default="flow")
    add("--flow-shift", type=float, default=17.0 if i2v else 7.0)
    add("--flow-reverse", action="store_true")
    add("--flow-solver", type=str, default="euler")
    add("--use-linear-quadratic-schedule", action="store_true")
    add("--linear-schedule-end", type=int, default=25)
    add("--model-base", type=str, default="ckpts")
    weights = "transformers/mp_rank_00_model_states.pt"
    add("--dit-weight", type=str, default=f"ckpts/hunyuan-video-t2v-720p/{weights}")
    if i2v:
        add("--i2v-dit-weight", type=str, default=f"ckpts/hunyuan-video-i2v-720p/{weights}")
    add("--model-resolution", type=str, default="540p", choices=["540p", "720p"])
    add("--load-key", type=str, default="module")
    add("--use-cpu-offload", action="store_true")
    add("--batch-size", type=int, default=1)
    add("--infer-steps", type=int, default=50)
    add("--disable-autocast", action="store_true")
    add("--save-path", type=str, default="./results")
    add("--save-path-suffix", type=str, default="")
    add("--name-suffix", type=str, default="")
    add("--num-videos", type=int, default=1)
    add("--video-size", type=int, nargs="+", default=(720, 1280))
    add("--video-length", type=int, default=129)
    add("--prompt", type=str, default=None)
    add("--seed-type", type=str, default="auto", choices=["file", "random", "fixed", "auto"])
    add("--seed", type=int, default=None)
    add("--neg-prompt", type=str, default=None)
    add("--cfg-scale", type=float, default=1.0)
    add("--embedded-cfg-scale", type=float, default=None if i2v else 6.0)
    add("--use-fp8", action="store_true")
    add("--reproduce", action="store_true")
    add("--ulysses-degree", type=int, default=1)
    add("--ring-degree", type=int, default=1)


def _add_i2v(add: Any) -> None:
    add("--i2v-mode", action="store_true")
    add("--i2v-resolution", type=str, default="720p", choices=["720p", "540p", "360p"])
    add("--i2v-image-path", type=str, default="./assets/demo/i2v/imgs/0.png")
    conditions = ["token_replace", "latent_concat"]
    add("--i2v-condition-type", type=str, default="token_replace", choices=conditions)
    add("--i2v-stability", action="store_true")
    add("--use-lora", action="store_true")
    add("--lora-path", type=str, default="")
    add("--lora-scale", type=float, default=1.0)
    add("--lora-rank", type=int, default=64)
