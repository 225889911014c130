"""The official umT5 encoder (`models_t5_umt5-xxl-enc-bf16.pth`) as transformers' `UMT5EncoderModel`.

It stays bfloat16, as it is stored and as the official script runs it, and mapped from its file until it is moved.
Attention is transformers' plain one, which computes in the order of the official code.

    >>> place_of("blocks.3.ffn.gate.0.weight")
    'encoder.block.3.layer.1.DenseReluDense.wi_0.weight'
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .official_weights import Weight, empty_model, explain, fill, read_pickle

WORDS = "token_embedding.weight"
_OUTSIDE = {WORDS: "shared.weight", "norm.weight": "encoder.final_layer_norm.weight"}
_BLOCK = {
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
    """The text encoder in ``path``.

    Raises:
        ModelNotFoundError: the file is not that, or not complete.
    """
    from transformers import UMT5Config, UMT5EncoderModel

    state = read_pickle(path)
    try:
        sizes = text_config({key: tuple(tensor.shape) for key, tensor in state.items()})
    except (KeyError, ValueError) as error:
        raise explain(path, f"it holds no umT5 encoder ({error} is missing)") from error
    config = UMT5Config(**sizes, attn_implementation="eager")
    model = empty_model(lambda: UMT5EncoderModel(config))
    words = [Weight(WORDS, "encoder.embed_tokens.weight", state[WORDS])]  # transformers has them twice, and ties them
    fill(model, [*words, *(Weight(key, place_of(key), tensor) for key, tensor in state.items())], path)
    model.tie_weights()
    return model


def text_config(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """What `UMT5Config` wants to know, read off the shapes of the weights."""
    vocabulary, width = shapes[WORDS]
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


def place_of(key: str) -> str:
    """The name of an official weight in transformers."""
    if key in _OUTSIDE:
        return _OUTSIDE[key]
    blocks, _, rest = key.partition(".")
    number, _, part = rest.partition(".")
    return f"encoder.block.{number}.{_BLOCK.get(part, part)}" if blocks == "blocks" else key
