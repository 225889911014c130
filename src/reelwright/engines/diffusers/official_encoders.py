"""Reads the official ``.pth`` files of Wan2.1: umT5, CLIP's picture tower and the VAE.

Each becomes the model of transformers or diffusers that pipelines expect. Sizes are read off the shapes of the weights,
so small models can be read too. umT5 stays bfloat16, as stored and as the official script runs it. CLIP is computed in
float32, as diffusers advises (it runs once per clip, so the official float16 saves little), and the VAE is float32, as
in the official script.

    >>> text_place("blocks.3.ffn.gate.0.weight")
    'encoder.block.3.layer.1.DenseReluDense.wi_0.weight'
    >>> vae_place("decoder.upsamples.3.time_conv.bias", 2)
    'decoder.up_blocks.0.upsamplers.0.time_conv.bias'
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import isqrt
from pathlib import Path
from typing import Any

from .official_weights import Shapes, Weight, empty_model, fill, read_pickle, shapes_of

# ---------------------------------------------------------------------------------------------------------------- umT5

_WORDS = "token_embedding.weight"
_TEXT_OUTSIDE = {_WORDS: "shared.weight", "norm.weight": "encoder.final_layer_norm.weight"}
_TEXT_BLOCK = {
    "norm1.weight": "layer.0.layer_norm.weight",
    "attn.q.weight": "layer.0.SelfAttention.q.weight",
    "attn.k.weight": "layer.0.SelfAttention.k.weight",
    "attn.v.weight": "layer.0.SelfAttention.v.weight",
    "attn.o.weight": "layer.0.SelfAttention.o.weight",
    "pos_embedding.embedding.weight": "layer.0.SelfAttention.relative_attention_bias.weight",
    "norm2.weight": "layer.1.layer_norm.weight",
    "ffn.gate.0.weight": "layer.1.DenseReluDense.wi_0.weight",
    "ffn.fc1.weight": "layer.1.DenseReluDense.wi_1.weight",
    "ffn.fc2.weight": "layer.1.DenseReluDense.wo.weight",
}


def load_text_encoder(path: Path) -> Any:
    """The `UMT5EncoderModel` in ``path``, mapped from the file until it is moved.

    Raises:
        ModelNotFoundError: the file holds something else, or is incomplete.
    """
    from transformers import UMT5Config, UMT5EncoderModel

    state = read_pickle(path)
    # transformers' eager attention computes in the order of the official code
    config = UMT5Config(**shapes_of(path, state, _text_config, "umT5 encoder"), attn_implementation="eager")
    model = empty_model(lambda: UMT5EncoderModel(config))
    words = Weight(_WORDS, "encoder.embed_tokens.weight", state[_WORDS])  # transformers has them twice, and ties them
    fill(model, [words, *(Weight(key, text_place(key), tensor) for key, tensor in state.items())], path)
    model.tie_weights()
    return model


def _text_config(shapes: Shapes) -> dict[str, Any]:
    vocabulary, width = shapes[_WORDS]
    buckets, heads = shapes["blocks.0.pos_embedding.embedding.weight"]
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": shapes["blocks.0.attn.q.weight"][0] // heads,
        "d_ff": shapes["blocks.0.ffn.fc1.weight"][0],
        "num_heads": heads,
        "num_layers": 1 + max(int(key.split(".")[1]) for key in shapes if key.startswith("blocks.")),
        "relative_attention_num_buckets": buckets,
    }


def text_place(key: str) -> str:
    """The name that an official weight of umT5 has in transformers."""
    if key in _TEXT_OUTSIDE:
        return _TEXT_OUTSIDE[key]
    blocks, _, rest = key.partition(".")
    number, _, part = rest.partition(".")
    return f"encoder.block.{number}.{_TEXT_BLOCK.get(part, part)}" if blocks == "blocks" else key


# ---------------------------------------------------------------------------------------------------------------- CLIP

_HEADS = 16  # of ViT-H/14; no shape shows them, and the official file has no description beside it
_UNUSED = ("textual.", "log_scale", "visual.head")
_CLASS, _POSITIONS = "visual.cls_embedding", "visual.pos_embedding"
_CLIP_OUTSIDE = {
    "cls_embedding": "embeddings.class_embedding",
    "patch_embedding.weight": "embeddings.patch_embedding.weight",
    "pos_embedding": "embeddings.position_embedding.weight",
    "pre_norm.weight": "pre_layrnorm.weight",
    "pre_norm.bias": "pre_layrnorm.bias",
    "post_norm.weight": "post_layernorm.weight",
    "post_norm.bias": "post_layernorm.bias",
}
_CLIP_LAYER = {
    "norm1": ("layer_norm1",),
    "attn.to_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.proj": ("self_attn.out_proj",),
    "norm2": ("layer_norm2",),
    "mlp.0": ("mlp.fc1",),
    "mlp.2": ("mlp.fc2",),
}


def load_image_encoder(path: Path) -> Any:
    """The `CLIPVisionModel` in ``path``; the text tower of the same file is not read.

    Wan uses the features before the last layer: ``use_31_block`` in the official code, ``hidden_states[-2]`` in
    diffusers.

    Raises:
        ModelNotFoundError: the file holds something else, or is incomplete.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModel

    state = {key: tensor for key, tensor in read_pickle(path).items() if not key.startswith(_UNUSED)}
    config = CLIPVisionConfig(**shapes_of(path, state, _clip_config, "picture tower of CLIP"))
    return fill(empty_model(lambda: CLIPVisionModel(config)), _clip_weights(state), path)


def _clip_config(shapes: Shapes) -> dict[str, Any]:
    width, _, patch, _ = shapes["visual.patch_embedding.weight"]
    across = isqrt(shapes[_POSITIONS][1] - 1)  # one position is the class's
    return {
        "hidden_size": width,
        "intermediate_size": shapes["visual.transformer.0.mlp.0.weight"][0],
        "num_hidden_layers": 1 + max(int(key.split(".")[2]) for key in shapes if ".transformer." in key),
        "num_attention_heads": _HEADS,
        "image_size": across * patch,
        "patch_size": patch,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
    }


def _clip_weights(state: Mapping[str, Any]) -> Iterator[Weight]:
    import torch

    for key, tensor in state.items():
        places = _clip_places(key)
        # The official embeddings carry a batch of one, and the class's a row of one.
        unpacked = tensor.flatten() if key == _CLASS else tensor[0] if key == _POSITIONS else tensor
        for place, part in zip(places, unpacked.chunk(len(places)), strict=True):
            yield Weight(key, place, part.to(torch.float32))


def _clip_places(key: str) -> list[str]:
    """The names in transformers: three for a weight that holds queries, keys and values together."""
    name = key.removeprefix("visual.")
    if not name.startswith("transformer."):
        return [_CLIP_OUTSIDE.get(name, key)]
    _, number, rest = name.split(".", 2)
    part, _, kind = rest.rpartition(".")
    return [f"encoder.layers.{number}.{ours}.{kind}" for ours in _CLIP_LAYER.get(part, (part,))]


# ----------------------------------------------------------------------------------------------------------------- VAE

_RESIDUAL = {
    "residual.0.": "norm1.",
    "residual.2.": "conv1.",
    "residual.3.": "norm2.",
    "residual.6.": "conv2.",
    "shortcut.": "conv_shortcut.",
}
_VAE_SIDE = {
    "conv1.": "conv_in.",
    "middle.0.": "mid_block.resnets.0.",
    "middle.1.": "mid_block.attentions.0.",
    "middle.2.": "mid_block.resnets.1.",
    "head.0.": "norm_out.",
    "head.2.": "conv_out.",
}
_VAE_OUTSIDE = {"conv1.": "quant_conv.", "conv2.": "post_quant_conv."}


def load_vae(path: Path) -> Any:
    """The `AutoencoderKLWan` in ``path``.

    diffusers' own converter only knows the published size (two residual blocks a level); here the levels are counted.

    Raises:
        ModelNotFoundError: the file holds something else, or is incomplete.
    """
    import torch
    from diffusers import AutoencoderKLWan

    state = read_pickle(path)
    config = shapes_of(path, state, _vae_config, "VAE of Wan2.1")
    blocks = config["num_res_blocks"]
    weights = (Weight(key, vae_place(key, blocks), tensor.to(torch.float32)) for key, tensor in state.items())
    return fill(empty_model(lambda: AutoencoderKLWan(**config)), weights, path)


def _vae_config(shapes: Shapes) -> dict[str, Any]:
    base = shapes["encoder.conv1.weight"][0]
    resampling = sorted({_level(key) for key in shapes if re.match(r"encoder\.downsamples\.\d+\.resample\.", key)})
    ends = [-1, *resampling, 1 + max(_level(key) for key in shapes if key.startswith("encoder.downsamples."))]
    widths = [shapes[f"encoder.downsamples.{after + 1}.residual.6.weight"][0] for after in ends[:-1]]
    return {
        "base_dim": base,
        "z_dim": shapes["conv2.weight"][0],
        "dim_mult": [width // base for width in widths],
        "num_res_blocks": min(after - before - 1 for before, after in pairwise(ends)),
        "temperal_downsample": [f"encoder.downsamples.{index}.time_conv.weight" in shapes for index in resampling],
    }


def _level(key: str) -> int:
    return int(key.split(".")[2])


def vae_place(key: str, blocks: int) -> str:
    """The name that an official weight has in diffusers, for a VAE with ``blocks`` residual blocks a level."""
    side, _, rest = key.partition(".")
    if side not in ("encoder", "decoder"):
        return _renamed(key, _VAE_OUTSIDE)
    if rest.startswith("upsamples."):
        _, number, part = rest.split(".", 2)
        level, within = divmod(int(number), blocks + 2)  # a decoder's level has one residual block more, and its end
        where = f"resnets.{within}" if within <= blocks else "upsamplers.0"
        return f"{side}.up_blocks.{level}.{where}.{_renamed(part, _RESIDUAL)}"
    rest = _renamed(rest, {"downsamples.": "down_blocks.", **_VAE_SIDE})
    for official, ours in _RESIDUAL.items():
        rest = rest.replace(f".{official}", f".{ours}")
    return f"{side}.{rest}"


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for official, ours in names.items():
        if name.startswith(official):
            return ours + name.removeprefix(official)
    return name
