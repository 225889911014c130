"""Tiny random weights in the layout of the official Wan2.1 download, by its names and shapes; some hundred kilobytes.

Written from the description of the layout; nothing of Wan2.1 is in here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.engine_diffusers.tiny import WORDS, tokenizer

TEXT = "models_t5_umt5-xxl-enc-bf16.pth"
VAE = "Wan2.1_VAE.pth"
CLIP = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
SHARD = "diffusion_pytorch_model-0000{}-of-00002.safetensors"
INDEX = "diffusion_pytorch_model.safetensors.index.json"
Shapes = dict[str, tuple[int, ...]]
#: Sizes of the tiny transformer: width, feed-forward, text, waves, CLIP.
WIDTH, INNER, WORD, WAVES, EYE = 48, 64, 16, 32, 32


def _linear(name: str, out: int, into: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (out, into), **({f"{name}.bias": (out,)} if bias else {})}


def transformer(task: str, layers: int = 2, inner: int = INNER) -> Shapes:
    shapes: Shapes = {
        "patch_embedding.weight": (WIDTH, 16 if task == "t2v" else 36, 1, 2, 2),
        "patch_embedding.bias": (WIDTH,),
        **_linear("text_embedding.0", WIDTH, WORD),
        **_linear("text_embedding.2", WIDTH, WIDTH),
        **_linear("time_embedding.0", WIDTH, WAVES),
        **_linear("time_embedding.2", WIDTH, WIDTH),
        **_linear("time_projection.1", 6 * WIDTH, WIDTH),
        **_linear("head.head", 16 * 4, WIDTH),
        "head.modulation": (1, 2, WIDTH),
    }
    if task != "t2v":
        for number, (out, into) in {1: (EYE, EYE), 3: (WIDTH, EYE)}.items():
            shapes |= _linear(f"img_emb.proj.{number}", out, into)
        for number, size in {0: EYE, 4: WIDTH}.items():
            shapes |= {f"img_emb.proj.{number}.weight": (size,), f"img_emb.proj.{number}.bias": (size,)}
    if task == "flf2v":
        shapes["img_emb.emb_pos"] = (1, 2 * 5, EYE)
    for layer in range(layers):
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in _block(task, inner).items()}
    return shapes


def _block(task: str, inner: int) -> Shapes:
    shapes: Shapes = {"modulation": (1, 6, WIDTH), "norm3.weight": (WIDTH,), "norm3.bias": (WIDTH,)}
    shapes |= _linear("ffn.0", inner, WIDTH) | _linear("ffn.2", WIDTH, inner)
    for kind in ("self_attn", "cross_attn"):
        parts = ["q", "k", "v", "o"] + (["k_img", "v_img"] if kind == "cross_attn" and task != "t2v" else [])
        for part in parts:
            shapes |= _linear(f"{kind}.{part}", WIDTH, WIDTH)
        for part in [name for name in parts if name[0] in "qk"]:
            shapes[f"{kind}.norm_{part}.weight"] = (WIDTH,)
    return shapes


def text(layers: int = 2) -> Shapes:
    width, inner, heads, buckets = WORD, 32, 4, 8
    shapes: Shapes = {"token_embedding.weight": (len(WORDS), width), "norm.weight": (width,)}
    for layer in range(layers):
        block: Shapes = {"norm1.weight": (width,), "norm2.weight": (width,)}
        for part in "qkvo":
            block |= _linear(f"attn.{part}", width, width, bias=False)
        block |= _linear("ffn.gate.0", inner, width, bias=False) | _linear("ffn.fc1", inner, width, bias=False)
        block |= _linear("ffn.fc2", width, inner, bias=False) | {"pos_embedding.embedding.weight": (buckets, heads)}
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


def clip(layers: int = 3) -> Shapes:
    shapes: Shapes = {
        "log_scale": (),
        "textual.token_embedding.weight": (7, 3),
        "visual.head": (EYE, 8),
        "visual.cls_embedding": (1, 1, EYE),
        "visual.pos_embedding": (1, 5, EYE),
        "visual.patch_embedding.weight": (EYE, 3, 14, 14),
    }
    norms = ["pre_norm", "post_norm"]
    for layer in range(layers):
        within = f"transformer.{layer}"
        norms += [f"{within}.norm1", f"{within}.norm2"]
        for name, out, into in (("attn.to_qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.0", 2, 1), ("mlp.2", 1, 2)):
            shapes |= _linear(f"visual.{within}.{name}", out * EYE, into * EYE)
    for norm in norms:
        shapes |= {f"visual.{norm}.weight": (EYE,), f"visual.{norm}.bias": (EYE,)}
    return shapes


def vae(base: int = 4, times: tuple[int, ...] = (1, 2, 2, 2), blocks: int = 1) -> Shapes:
    """Down: ``blocks`` residual blocks a level and a halving; up: one block more and a doubling that halves widths."""
    widths = [base * factor for factor in times]
    temporal = [False, True, True]
    shapes: Shapes = {
        **_conv("conv1", 32, 32, 1),
        **_conv("conv2", 16, 16, 1),
        **_conv("encoder.conv1", base, 3),
        **_conv("decoder.conv1", widths[-1], 16),
        **_head("encoder", widths[-1], 32),
        **_head("decoder", base, 3),
        **_middle("encoder", widths[-1]),
        **_middle("decoder", widths[-1]),
    }
    number, into = 0, base
    for level, width in enumerate(widths):
        for _ in range(blocks):
            shapes |= _residual(f"encoder.downsamples.{number}", into, width)
            number, into = number + 1, width
        if level < len(widths) - 1:
            shapes |= _resample(f"encoder.downsamples.{number}", width, width, temporal[level], width)
            number += 1
    number, into = 0, widths[-1]
    for level, width in enumerate(reversed(widths)):
        for _ in range(blocks + 1):
            shapes |= _residual(f"decoder.upsamples.{number}", into, width)
            number, into = number + 1, width
        if level < len(widths) - 1:
            shapes |= _resample(f"decoder.upsamples.{number}", width // 2, width, temporal[::-1][level], 2 * width)
            number, into = number + 1, width // 2
    return shapes


def _conv(name: str, out: int, into: int, side: int = 3) -> Shapes:
    return {f"{name}.weight": (out, into, side, side, side), f"{name}.bias": (out,)}


def _residual(name: str, into: int, out: int) -> Shapes:
    shapes: Shapes = {f"{name}.residual.0.gamma": (into, 1, 1, 1), f"{name}.residual.3.gamma": (out, 1, 1, 1)}
    shapes |= _conv(f"{name}.residual.2", out, into) | _conv(f"{name}.residual.6", out, out)
    return shapes | (_conv(f"{name}.shortcut", out, into, 1) if into != out else {})


def _resample(name: str, out: int, into: int, temporal: bool, time_out: int) -> Shapes:
    shapes: Shapes = {f"{name}.resample.1.weight": (out, into, 3, 3), f"{name}.resample.1.bias": (out,)}
    if temporal:
        shapes |= {f"{name}.time_conv.weight": (time_out, into, 3, 1, 1), f"{name}.time_conv.bias": (time_out,)}
    return shapes


def _middle(side: str, width: int) -> Shapes:
    attention = f"{side}.middle.1"
    return {
        **_residual(f"{side}.middle.0", width, width),
        f"{attention}.norm.gamma": (width, 1, 1),
        f"{attention}.to_qkv.weight": (3 * width, width, 1, 1),
        f"{attention}.to_qkv.bias": (3 * width,),
        f"{attention}.proj.weight": (width, width, 1, 1),
        f"{attention}.proj.bias": (width,),
        **_residual(f"{side}.middle.2", width, width),
    }


def _head(side: str, width: int, out: int) -> Shapes:
    return {f"{side}.head.0.gamma": (width, 1, 1, 1), **_conv(f"{side}.head.2", out, width)}


def random_weights(shapes: Mapping[str, tuple[int, ...]], dtype: str = "float32") -> dict[str, Any]:
    """Weights of about the size that trained ones have; norms around one."""
    import torch

    generator = torch.Generator().manual_seed(7)
    found = {}
    for name, shape in shapes.items():
        weight = torch.randn(shape, generator=generator) / max(1, shape[-1] if len(shape) == 2 else 4) ** 0.5
        scale = ("norm" in name or "gamma" in name) and name.endswith(("weight", "gamma")) and "attn.norm." not in name
        found[name] = (1 + weight / 10 if scale else weight).to(getattr(torch, dtype))
    return found


def build(folder: Path, task: str) -> Path:
    """The whole download for ``task`` in ``folder``; returns it."""
    import torch

    folder.mkdir(parents=True)
    write_transformer(folder, transformer(task))
    torch.save(random_weights(text(), "bfloat16"), folder / TEXT)
    torch.save(random_weights(vae()), folder / VAE)
    if task != "t2v":
        torch.save(random_weights(clip(), "float16"), folder / CLIP)
    tokenizer().save_pretrained(folder / "google" / "umt5-xxl")
    return folder


def write_transformer(folder: Path, shapes: Shapes) -> None:
    """Two shards, their index and the description."""
    from safetensors.torch import save_file

    names, weights = sorted(shapes), random_weights(shapes)
    parts = {SHARD.format(1): names[::2], SHARD.format(2): names[1::2]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file)
    placed = {name: file for file, part in parts.items() for name in part}
    (folder / INDEX).write_text(json.dumps({"weight_map": placed}), "utf-8")
    (folder / "config.json").write_text(json.dumps({"num_heads": 4, "eps": 1e-6, "model_type": "i2v"}), "utf-8")
