"""Adds the user's LoRA files to the weights, once they are read safely and checked against the model.

Only safetensors are read; a pickle could run code. A file with layers that the model does not have is refused;
diffusers would warn and use the rest. The change is added to the weights once, so steps take no longer. Removing it
would round the weights, so another preset loads them again. This module downloads nothing.

    >>> Adapter(Path("distilled.safetensors")).scale
    1.0
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import ConfigurationError, ModelNotFoundError
from ...core.files import sha256_of


@dataclass(frozen=True)
class Adapter:
    """One file, its strength, and the transformer it is added to (``transformer_2``: Wan2.2's low noise)."""

    path: Path
    scale: float = 1.0
    into: str = "transformer"


def fuse(pipeline: Any, adapter: Adapter) -> dict[str, Any]:
    """Add a file to the weights; returns its name, hash and scale for the manifest.

    Raises:
        ModelNotFoundError: the file is missing or no safetensors.
        ConfigurationError: the file is for another model.
    """
    tensors, digest = _read(adapter.path)
    transformer = getattr(pipeline, adapter.into, None)
    if transformer is None or not hasattr(pipeline, "load_lora_weights"):
        raise ConfigurationError(f"{type(pipeline).__name__} has no {adapter.into} that takes a LoRA")
    wanted = _attach(pipeline, adapter, tensors)
    taken = {name for name, module in transformer.named_modules() if len(getattr(module, "lora_A", ())) > 0}
    if not wanted or wanted - taken:
        missing = sorted(wanted - taken)[:3] or ["(none at all)"]
        raise _does_not_fit(adapter, f"the model has no layers {', '.join(missing)}")
    pipeline.fuse_lora(components=[adapter.into], lora_scale=adapter.scale, safe_fusing=True)
    pipeline.unload_lora_weights()
    return {"name": adapter.path.name, "sha256": digest, "scale": adapter.scale, "into": adapter.into}


def _read(path: Path) -> tuple[dict[str, Any], str]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    advice = "Give the path of a LoRA in the safetensors format."
    if path.suffix != ".safetensors" or not path.is_file():
        problem = "is not a file" if path.suffix == ".safetensors" else "is not named .safetensors"
        raise ModelNotFoundError(f"the LoRA {path} {problem}", advice=advice)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ModelNotFoundError(f"the LoRA {path} cannot be read: {error}", advice=advice) from error
    return tensors, sha256_of(path)


def _attach(pipeline: Any, adapter: Adapter, tensors: dict[str, Any]) -> set[str]:
    """Attach the adapter to the layers; returns the names of the layers in the file."""
    options = {"load_into_transformer_2": True} if adapter.into == "transformer_2" else {}
    try:
        known = pipeline.lora_state_dict(dict(tensors))
        pipeline.load_lora_weights(tensors, adapter_name="given", **options)
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        lines = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
        raise _does_not_fit(adapter, " ".join(lines[:2])) from error
    names = {key.partition(".lora_")[0] for key in known if ".lora_" in key}
    return {name.removeprefix("transformer.") for name in names}


def _does_not_fit(adapter: Adapter, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"the LoRA {adapter.path} does not fit this model: {reason}", advice="Give one made for exactly this model."
    )
