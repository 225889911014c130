"""Reads the official `WanModel` as diffusers' `WanTransformer3DModel`: the same weights under other names.

The names come from diffusers' own converter, called with names alone. Weights are read shard by shard, and each is
brought to its type and device before the next one is read, so a model of 65 GB on the disk (float32) needs no more
memory while loading than afterwards.

    >>> task_of({"patch_embedding.weight", "img_emb.proj.0.weight"})
    'i2v'
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ...core.errors import ModelNotFoundError
from .official_precision import compute_officially, is_kept, transformer_class
from .official_weights import Shapes, Weight, empty_model, fill, read_object, unusable

_STEM = "diffusion_pytorch_model"
#: Missing in the names that diffusers' converter exports (they are only in its conversion script).
_POSITIONS = ("img_emb.emb_pos", "condition_embedder.image_embedder.pos_embed")
#: Read from `config.json`, because no shape shows them.
_CONFIGURED = ("num_heads", "eps")


def load_transformer(directory: Path, task: str, dtype: Any, device: str = "cpu") -> Any:
    """The transformer in ``directory`` for ``task``, with its weights on ``device``.

    Raises:
        ModelNotFoundError: a shard or a weight is missing or unknown, or the model is for another task.
    """
    import torch

    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    files = _shards(directory)
    shapes = {key: shape for file in files for key, shape in _shapes(file)}
    found = task_of(shapes)
    if found != task:
        raise ModelNotFoundError(
            f"{directory} holds a model for {found}, not {task}.",
            advice="Give the folder of the model for that task.",
        )
    config = _transformer_config(_config(directory), shapes)
    places = _places(shapes)

    def weights() -> Iterator[Weight]:
        for file in files:
            for key, tensor in _tensors(file):
                place = places[key]
                yield Weight(key, place, tensor.to(device=device, dtype=torch.float32 if is_kept(place) else dtype))

    model = fill(empty_model(lambda: transformer_class()(**config)), weights(), directory)
    return compute_officially(model) if dtype is torch.bfloat16 else model


def _shards(directory: Path) -> list[Path]:
    """The transformer's files: those that the index names, or the only one."""
    index = directory / f"{_STEM}.safetensors.index.json"
    named = read_object(index).get("weight_map", {}) if index.exists() else {"": f"{_STEM}.safetensors"}
    names = sorted(set(named.values()))
    missing = [name for name in names if Path(name).name != name or not (directory / name).is_file()]
    if missing or not names:
        raise ModelNotFoundError(
            f"{directory} is not complete: {', '.join(missing) or index.name} is missing or empty.",
            advice="Download the missing files of the official repository; `reel setup` can do it.",
        )
    return [directory / name for name in names]


def task_of(keys: Collection[str]) -> str:
    """The task of a model with these weights: ``t2v`` takes no picture, ``i2v`` one, ``flf2v`` two."""
    if _POSITIONS[0] in keys:
        return "flf2v"
    return "i2v" if "img_emb.proj.0.weight" in keys else "t2v"


def _transformer_config(configured: dict[str, Any], shapes: Shapes) -> dict[str, Any]:
    """The arguments of `WanTransformer3DModel`: from the shapes, and from `config.json` where no shape shows them."""
    width, channels, *patch = shapes["patch_embedding.weight"]
    picture = shapes.get("img_emb.proj.0.weight")
    positions = shapes.get(_POSITIONS[0])
    return {
        "patch_size": tuple(patch),
        "num_attention_heads": configured["num_heads"],
        "attention_head_dim": width // configured["num_heads"],
        "in_channels": channels,
        "out_channels": shapes["head.head.weight"][0] // (patch[0] * patch[1] * patch[2]),
        "text_dim": shapes["text_embedding.0.weight"][1],
        "freq_dim": shapes["time_embedding.0.weight"][1],
        "ffn_dim": shapes["blocks.0.ffn.0.weight"][0],
        "num_layers": 1 + max(int(key.split(".")[1]) for key in shapes if key.startswith("blocks.")),
        "cross_attn_norm": "blocks.0.norm3.weight" in shapes,
        "eps": configured["eps"],
        "image_dim": picture[0] if picture else None,
        "added_kv_proj_dim": width if picture else None,
        "pos_embed_seq_len": positions[1] if positions else None,
    }


def _places(keys: Collection[str]) -> dict[str, str]:
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    renamed = convert_wan_transformer_to_diffusers({key: key for key in keys})
    return {key: place.replace(*_POSITIONS) for place, key in renamed.items()}


def _config(directory: Path) -> dict[str, Any]:
    values = read_object(directory / "config.json")
    missing = [name for name in _CONFIGURED if name not in values]
    if missing:
        raise unusable(directory / "config.json", f"it lacks {' and '.join(missing)}")
    return values


def _shapes(file: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118 - no mapping: it has keys() alone
                yield key, tuple(opened.get_slice(key).get_shape())
    except (SafetensorError, OSError) as error:
        raise unusable(file, f"it is cut off or damaged ({error})") from error


def _tensors(file: Path) -> Iterator[tuple[str, Any]]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        for key in opened.keys():  # noqa: SIM118
            yield key, opened.get_tensor(key)
