"""The official `Wan2.1_VAE.pth` as diffusers' `AutoencoderKLWan`, of any size.

diffusers' own converter knows the names of the published size only (two residual blocks a level); here the levels are
counted, so that small models can be read too. The VAE stays float32, as in the official script.

    >>> place_of("encoder.downsamples.0.residual.2.weight", 2)
    'encoder.down_blocks.0.conv1.weight'
    >>> place_of("decoder.upsamples.3.time_conv.bias", 2)
    'decoder.up_blocks.0.upsamplers.0.time_conv.bias'
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from .official_weights import Weight, empty_model, explain, fill, read_pickle

#: What the parts of a residual block are called.
_RESIDUAL = {
    "residual.0.": "norm1.",
    "residual.2.": "conv1.",
    "residual.3.": "norm2.",
    "residual.6.": "conv2.",
    "shortcut.": "conv_shortcut.",
}
#: What the parts of the coder and the decoder are called, outside their levels.
_PARTS = {
    "conv1.": "conv_in.",
    "middle.0.": "mid_block.resnets.0.",
    "middle.1.": "mid_block.attentions.0.",
    "middle.2.": "mid_block.resnets.1.",
    "head.0.": "norm_out.",
    "head.2.": "conv_out.",
}
_OUTSIDE = {"conv1.": "quant_conv.", "conv2.": "post_quant_conv."}


def load_vae(path: Path) -> Any:
    """The VAE in ``path``.

    Raises:
        ModelNotFoundError: the file is not that, or not complete.
    """
    import torch
    from diffusers import AutoencoderKLWan

    state = read_pickle(path)
    try:
        config = vae_config({key: tuple(tensor.shape) for key, tensor in state.items()})
    except (KeyError, IndexError, ValueError) as error:
        raise explain(path, f"it holds no VAE of Wan2.1 ({error} is missing)") from error
    model = empty_model(lambda: AutoencoderKLWan(**config))
    blocks = config["num_res_blocks"]
    weights = (Weight(key, place_of(key, blocks), tensor.to(torch.float32)) for key, tensor in state.items())
    return fill(model, weights, path)


def vae_config(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """What `AutoencoderKLWan` wants to know, read off the shapes of the weights."""
    base = shapes["encoder.conv1.weight"][0]
    resampling = sorted({_index(key) for key in shapes if re.match(r"encoder\.downsamples\.\d+\.resample\.", key)})
    ends = [-1, *resampling, 1 + max(_index(key) for key in shapes if key.startswith("encoder.downsamples."))]
    widths = [shapes[f"encoder.downsamples.{after + 1}.residual.6.weight"][0] for after in ends[:-1]]
    return {
        "base_dim": base,
        "z_dim": shapes["conv2.weight"][0],
        "dim_mult": [width // base for width in widths],
        "num_res_blocks": min(after - before - 1 for before, after in pairwise(ends)),
        "temperal_downsample": [f"encoder.downsamples.{index}.time_conv.weight" in shapes for index in resampling],
    }


def place_of(key: str, blocks: int) -> str:
    """The name of an official weight in diffusers, for a VAE with ``blocks`` residual blocks a level."""
    side, _, rest = key.partition(".")
    if side not in ("encoder", "decoder"):
        return _renamed(key, _OUTSIDE)
    if rest.startswith("downsamples."):
        return f"{side}.{_inside(rest.replace('downsamples.', 'down_blocks.', 1))}"
    if rest.startswith("upsamples."):
        _, number, part = rest.split(".", 2)
        level, within = divmod(int(number), blocks + 2)  # a decoder's level has one residual block more, and its end
        where = f"resnets.{within}" if within <= blocks else "upsamplers.0"
        return f"{side}.up_blocks.{level}.{where}.{_renamed(part, _RESIDUAL)}"
    return f"{side}.{_inside(_renamed(rest, _PARTS))}"


def _inside(rest: str) -> str:
    """The name with the parts of a residual block renamed."""
    for official, ours in _RESIDUAL.items():
        rest = rest.replace(f".{official}", f".{ours}")
    return rest


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for official, ours in names.items():
        if name.startswith(official):
            return ours + name.removeprefix(official)
    return name


def _index(key: str) -> int:
    return int(key.split(".")[2])
