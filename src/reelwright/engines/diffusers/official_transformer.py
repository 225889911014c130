"""The official `WanModel` as diffusers' `WanTransformer3DModel`: same weights, other names.

The names come from diffusers' own converter, asked with names alone; the weights are read shard by shard, each brought
to its type and place before the next one is touched. A model of 65 GB on the disk (float32) so needs no more memory than
it has afterwards.

    >>> family_of({"patch_embedding.weight", "img_emb.proj.0.weight"})
    'i2v'
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ...core.errors import ModelNotFoundError
from ...core.files import read_json
from .official_precision import compute_officially, is_kept, transformer_class
from .official_weights import Weight, empty_model, explain, fill

_MAX_JSON_BYTES = 16 * 1024 * 1024
STEM = "diffusion_pytorch_model"
#: Not among the names that diffusers' converter knows (it is only in its conversion script).
POSITIONS = ("img_emb.emb_pos", "condition_embedder.image_embedder.pos_embed")
#: What `config.json` must say because no shape tells it.
TOLD = ("num_heads", "eps")


def load_transformer(directory: Path, task: str, dtype: Any, device: str = "cpu") -> Any:
    """The transformer in ``directory``, for ``task``, its weights on ``device``.

    Raises:
        ModelNotFoundError: a shard or a weight is missing, unknown, or of another task.
    """
    import torch

    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    files = shards(directory)
    shapes = {key: shape for file in files for key, shape in _shapes(file)}
    family = family_of(shapes)
    if family != task:
        raise ModelNotFoundError(
            f"{directory} holds a model for {family}, and {task} was asked for.",
            advice="Give the folder of the model for that task.",
        )
    config = transformer_config(_config(directory), shapes)
    model = empty_model(lambda: transformer_class()(**config))
    places = _places(shapes)

    def weights() -> Iterator[Weight]:
        for file in files:
            for key, tensor in _tensors(file):
                place = places[key]
                yield Weight(key, place, tensor.to(device=device, dtype=torch.float32 if is_kept(place) else dtype))

    fill(model, weights(), directory)
    return compute_officially(model) if dtype is torch.bfloat16 else model


def shards(directory: Path) -> list[Path]:
    """The transformer's files: those that the index names, or the only one."""
    index = directory / f"{STEM}.safetensors.index.json"
    named = _json(index).get("weight_map", {}) if index.exists() else {"": f"{STEM}.safetensors"}
    names = sorted(set(named.values()))
    missing = [name for name in names if Path(name).name != name or not (directory / name).is_file()]
    if missing or not names:
        raise ModelNotFoundError(
            f"{directory} is not complete: {', '.join(missing) or index.name} is missing or empty.",
            advice="Download the missing files of the official repository; `reel setup` can do it.",
        )
    return [directory / name for name in names]


def family_of(keys: Collection[str]) -> str:
    """What a model with these weights films: ``t2v`` from words alone, ``i2v`` a picture, ``flf2v`` two."""
    if POSITIONS[0] in keys:
        return "flf2v"
    return "i2v" if "img_emb.proj.0.weight" in keys else "t2v"


def transformer_config(told: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """What `WanTransformer3DModel` wants to know: from the shapes, and the two things that no shape tells."""
    width, channels, *patch = shapes["patch_embedding.weight"]
    picture = shapes.get("img_emb.proj.0.weight")
    positions = shapes.get(POSITIONS[0])
    area = patch[0] * patch[1] * patch[2]
    return {
        "patch_size": tuple(patch),
        "num_attention_heads": told["num_heads"],
        "attention_head_dim": width // told["num_heads"],
        "in_channels": channels,
        "out_channels": shapes["head.head.weight"][0] // area,
        "text_dim": shapes["text_embedding.0.weight"][1],
        "freq_dim": shapes["time_embedding.0.weight"][1],
        "ffn_dim": shapes["blocks.0.ffn.0.weight"][0],
        "num_layers": 1 + max(int(key.split(".")[1]) for key in shapes if key.startswith("blocks.")),
        "cross_attn_norm": "blocks.0.norm3.weight" in shapes,
        "eps": told["eps"],
        "image_dim": picture[0] if picture else None,
        "added_kv_proj_dim": width if picture else None,
        "pos_embed_seq_len": positions[1] if positions else None,
    }


def _places(keys: Collection[str]) -> dict[str, str]:
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    renamed = convert_wan_transformer_to_diffusers({key: key for key in keys})
    return {key: place.replace(*POSITIONS) for place, key in renamed.items()}


def _config(directory: Path) -> dict[str, Any]:
    told = _json(directory / "config.json")
    missing = [name for name in TOLD if name not in told]
    if missing:
        raise explain(directory / "config.json", f"it does not say {' and '.join(missing)}")
    return told


def _json(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path, _MAX_JSON_BYTES)
    except (OSError, ValueError) as error:
        raise explain(path, f"it is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise explain(path, "it is no JSON object")
    return value


def _shapes(file: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118 - no mapping: it has keys() alone
                yield key, tuple(opened.get_slice(key).get_shape())
    except (SafetensorError, OSError) as error:
        raise explain(file, f"it is cut off or damaged ({error})") from error


def _tensors(file: Path) -> Iterator[tuple[str, Any]]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        for key in opened.keys():  # noqa: SIM118
            yield key, opened.get_tensor(key)
