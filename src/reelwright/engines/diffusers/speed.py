"""Applies a speed preset: each way to be faster is a named choice of the plan, and the manifest records it.

``exact`` computes every block of every step in the model's own precision. ``balanced`` may leave blocks out of steps
that change little (step cache) and keep weights in eight bits. ``fast`` runs on step-distilled weights that the user
gives as LoRA files. The plan makes all choices, also of placement, steps and guidance.

The order is: load, `apply`, placement, `parallel`. Call `reset` before every clip, so that the tenth clip has the bytes
of the first, and `observed` after it.

    >>> speed_choice({"speed": {"preset": "balanced", "cache": {"kind": "first_block", "threshold": 0.1}}}).threshold
    0.1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import ConfigurationError
from . import attention, blocks, step_cache
from .lora import Adapter, fuse

PRESETS = ("exact", "balanced", "fast")


@dataclass(frozen=True)
class SpeedChoice:
    """``model["speed"]`` and ``model["attention"]``, checked.

    Attributes:
        preset: One of `PRESETS`.
        attention: diffusers' name of the attention backend, or a choice of `attention.candidates`.
        compiled: The repeated blocks are compiled.
        threshold: Relative change of the first block's residual below which the others are left out; ``None``: never.
        fp8: Weights of the repeated blocks are stored in eight bits.
        adapters: LoRA files, in the order in which they are added.
    """

    preset: str = "exact"
    attention: str = "native"
    compiled: bool = False
    threshold: float | None = None
    fp8: bool = False
    adapters: tuple[Adapter, ...] = ()


def speed_choice(model: Mapping[str, Any]) -> SpeedChoice:
    """The choice in ``Load.model``.

    Raises:
        ConfigurationError: it is unknown, or the preset does not allow it.
    """
    speed = model.get("speed") or {}
    cache = speed.get("cache")
    if cache is not None and cache.get("kind") != "first_block":
        raise ConfigurationError(f"there is no step cache named {cache.get('kind')!r}", advice="Known: first_block.")
    choice = SpeedChoice(
        speed.get("preset", "exact"),
        model.get("attention") or "native",
        bool(speed.get("compile")),
        float(cache["threshold"]) if cache is not None else None,
        bool(speed.get("fp8")),
        tuple(
            Adapter(Path(entry["path"]), float(entry.get("scale", 1.0)), entry.get("into", "transformer"))
            for entry in speed.get("lora") or ()
        ),
    )
    _check(choice)
    return choice


def _check(choice: SpeedChoice) -> None:
    """Refuse a choice that contradicts the preset; ``exact`` allows nothing that changes the result."""
    if choice.preset not in PRESETS:
        raise ConfigurationError(f"there is no speed preset {choice.preset!r}", advice=f"Known: {', '.join(PRESETS)}.")
    inexact = {"step cache": choice.threshold is not None, "fp8 weights": choice.fp8, "LoRA": bool(choice.adapters)}
    for name, chosen in inexact.items():
        if choice.preset == "exact" and chosen:
            raise ConfigurationError(f"the preset exact allows no {name}", advice="Choose balanced or fast.")
    if choice.preset == "exact" and choice.attention in attention.QUANTISED:
        raise ConfigurationError(
            f"the attention {choice.attention} rounds to eight bits, which the preset exact does not allow",
            advice="Choose attention native, or the preset balanced.",
        )
    if choice.preset == "fast" and not choice.adapters:
        raise ConfigurationError(
            "the preset fast needs step-distilled weights, and no LoRA file is given",
            advice="Name the .safetensors of a step-distilled LoRA for this model, or choose balanced.",
        )


def apply(pipeline: Any, model: Mapping[str, Any]) -> dict[str, Any]:
    """Apply the plan's speed choices to a freshly loaded pipeline; returns facts for the manifest.

    Raises:
        ConfigurationError: this pipeline or this device cannot do it.
        ModelNotFoundError: a LoRA file cannot be used.
    """
    choice, device = speed_choice(model), str(model.get("device", "cpu"))
    added = [fuse(pipeline, adapter) for adapter in choice.adapters]
    used = attention.choose(blocks.transformers(pipeline), choice.attention, model)
    problem = blocks.compile_problem(device) if choice.compiled else ""
    for transformer in blocks.transformers(pipeline):
        if choice.compiled and not problem:
            blocks.compile_blocks(transformer)  # before any hook is added, so that no hook is in the graph
        if choice.fp8:
            blocks.store_in_fp8(transformer, device)
        if choice.threshold is not None:
            step_cache.add_cache(pipeline, transformer, choice.threshold)
    return {
        "preset": choice.preset,
        **used,
        "compile": choice.compiled and not problem,
        **({"compile_problem": problem} if problem else {}),
        "cache": None if choice.threshold is None else {"kind": "first_block", "threshold": choice.threshold},
        "fp8": choice.fp8,
        "lora": added,
    }


def reset(pipeline: Any) -> None:
    """Drop everything that a cache keeps from earlier steps."""
    for transformer in blocks.transformers(pipeline):
        step_cache.forget(transformer)


def observed(pipeline: Any) -> dict[str, int]:
    """Passes through the transformers since `reset`, and how many the cache shortened; empty without a cache."""
    found = [one for transformer in blocks.transformers(pipeline) for one in step_cache.decisions(transformer)]
    return {"passes": sum(one.passes for one in found), "cache_hits": sum(one.hits for one in found)} if found else {}
