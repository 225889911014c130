"""The picture tower of the official CLIP (`models_clip_*.pth`) as transformers' `CLIPVisionModel`.

Wan looks at the features before the last layer (``use_31_block`` in the official code, ``hidden_states[-2]`` in
diffusers). The text tower of the same file is not read. Weights are stored in float16; we compute in float32, as diffusers
advises: the official script's float16 saves nothing worth having once per film.

    >>> list(places_of("visual.transformer.3.attn.proj.bias"))
    ['encoder.layers.3.self_attn.out_proj.bias']
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isqrt
from pathlib import Path
from typing import Any

from .official_weights import Weight, empty_model, explain, fill, read_pickle

#: The heads of ViT-H/14. No shape tells them, and the official file has no description beside it.
HEADS = 16
#: Parts of the file that Wan does not use.
UNUSED = ("textual.", "log_scale", "visual.head")
CLASS, POSITIONS = "visual.cls_embedding", "visual.pos_embedding"
_OUTSIDE = {
    "cls_embedding": "embeddings.class_embedding",
    "patch_embedding.weight": "embeddings.patch_embedding.weight",
    "pos_embedding": "embeddings.position_embedding.weight",
    "pre_norm.weight": "pre_layrnorm.weight",
    "pre_norm.bias": "pre_layrnorm.bias",
    "post_norm.weight": "post_layernorm.weight",
    "post_norm.bias": "post_layernorm.bias",
}
_LAYER = {
    "norm1": ("layer_norm1",),
    "attn.to_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.proj": ("self_attn.out_proj",),
    "norm2": ("layer_norm2",),
    "mlp.0": ("mlp.fc1",),
    "mlp.2": ("mlp.fc2",),
}


def load_image_encoder(path: Path) -> Any:
    """CLIP's picture tower in ``path``.

    Raises:
        ModelNotFoundError: the file is not that, or not complete.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModel

    state = {key: tensor for key, tensor in read_pickle(path).items() if not key.startswith(UNUSED)}
    try:
        config = CLIPVisionConfig(**image_config({key: tuple(tensor.shape) for key, tensor in state.items()}))
    except (KeyError, ValueError) as error:
        raise explain(path, f"it holds no picture tower of CLIP ({error} is missing)") from error
    model = empty_model(lambda: CLIPVisionModel(config))
    return fill(model, _weights(state), path)


def image_config(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """What `CLIPVisionConfig` wants to know, read off the shapes of the weights."""
    width, _, patch, _ = shapes["visual.patch_embedding.weight"]
    across = isqrt(shapes[POSITIONS][1] - 1)  # one position is the class's
    return {
        "hidden_size": width,
        "intermediate_size": shapes["visual.transformer.0.mlp.0.weight"][0],
        "num_hidden_layers": 1 + max(int(key.split(".")[2]) for key in shapes if ".transformer." in key),
        "num_attention_heads": HEADS,
        "image_size": across * patch,
        "patch_size": patch,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
    }


def places_of(key: str) -> Iterator[str]:
    """The names of an official weight in transformers: three for one that is queries, keys and values together."""
    name = key.removeprefix("visual.")
    if not name.startswith("transformer."):
        yield _OUTSIDE.get(name, key)
        return
    _, number, rest = name.split(".", 2)
    part, _, kind = rest.rpartition(".")
    for ours in _LAYER.get(part, (part,)):
        yield f"encoder.layers.{number}.{ours}.{kind}"


def _weights(state: Mapping[str, Any]) -> Iterator[Weight]:
    import torch

    for key, tensor in state.items():
        places = list(places_of(key))
        # The official embeddings carry a batch of one, and the class's a row of one.
        unpacked = tensor.flatten() if key == CLASS else tensor[0] if key == POSITIONS else tensor
        for place, part in zip(places, unpacked.chunk(len(places)), strict=True):
            yield Weight(key, place, part.to(torch.float32))
