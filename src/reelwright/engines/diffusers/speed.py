"""Speed presets: what a pipeline may do to be faster, each a named choice that the manifest records.

``exact`` computes every block of every step in the model's own precision. ``balanced`` may leave blocks out of steps
that change little (first-block cache) and keep weights in eight bits. ``fast`` runs on step-distilled weights that the
user gives as LoRA files. Whatever is applied is told in the facts; nothing is chosen here that the plan did not ask
for. This module decides no placement (`placements`) and no number of steps or guidance (the plan does).

The order is: load, `apply`, placement, `parallel`. Before every clip `reset`, so that the tenth clip gives the bytes
of the first; after it `observed`.

    >>> asked_for({"speed": {"preset": "balanced", "cache": {"kind": "first_block", "threshold": 0.1}}}).threshold
    0.1
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import ConfigurationError
from . import attention, compilation, fp8
from .lora import Adapter, fused

PRESETS = ("exact", "balanced", "fast")


@dataclass(frozen=True)
class Asked:
    """``model["speed"]`` and ``model["attention"]``, checked.

    Attributes:
        preset: One of `PRESETS`.
        attention: diffusers' name of the attention backend, or a choice of `attention.candidates`.
        compiled: The repeated blocks are compiled.
        threshold: Relative change of the first block's residual under which the others are left out; ``None``: never.
        fp8: Weights of the repeated blocks are stored in eight bits.
        adapters: LoRA files, in the order in which they are added.
    """

    preset: str = "exact"
    attention: str = "native"
    compiled: bool = False
    threshold: float | None = None
    fp8: bool = False
    adapters: tuple[Adapter, ...] = ()


def asked_for(model: Mapping[str, Any]) -> Asked:
    """The choice in ``Load.model``.

    Raises:
        ConfigurationError: it is unknown, or the preset does not allow it.
    """
    speed = model.get("speed") or {}
    cache = speed.get("cache")
    if cache is not None and cache.get("kind") != "first_block":
        raise ConfigurationError(f"there is no step cache named {cache.get('kind')!r}", advice="Known: first_block.")
    adapters = tuple(
        Adapter(Path(entry["path"]), float(entry.get("scale", 1.0)), entry.get("into", "transformer"))
        for entry in speed.get("lora") or ()
    )
    asked = Asked(
        speed.get("preset", "exact"),
        model.get("attention") or "native",
        bool(speed.get("compile")),
        float(cache["threshold"]) if cache is not None else None,
        bool(speed.get("fp8")),
        adapters,
    )
    _agree(asked)
    return asked


def _agree(asked: Asked) -> None:
    """Refuse a choice that contradicts its name: ``exact`` means what it says."""
    if asked.preset not in PRESETS:
        raise ConfigurationError(f"there is no speed preset {asked.preset!r}", advice=f"Known: {', '.join(PRESETS)}.")
    changed = {"step cache": asked.threshold is not None, "fp8 weights": asked.fp8, "LoRA": bool(asked.adapters)}
    for name, there in changed.items():
        if asked.preset == "exact" and there:
            raise ConfigurationError(f"the preset exact allows no {name}", advice="Choose balanced or fast.")
    if asked.preset == "exact" and asked.attention in attention.QUANTISED:
        raise ConfigurationError(
            f"the attention {asked.attention} rounds to eight bits, which the preset exact does not allow",
            advice="Choose attention native, or the preset balanced.",
        )
    if asked.preset == "fast" and not asked.adapters:
        raise ConfigurationError(
            "the preset fast needs step-distilled weights, and no LoRA file is given",
            advice="Name the .safetensors of a step-distilled LoRA for this model, or choose balanced.",
        )


def transformers(pipeline: Any) -> list[Any]:
    """The networks that denoise: one, or two for Wan2.2's high and low noise."""
    found = (getattr(pipeline, name, None) for name in ("transformer", "transformer_2"))
    return [module for module in found if module is not None]


def blocks(transformer: Any) -> list[Any]:
    """The repeated blocks, in order; diffusers names their classes."""
    names = set(transformer._repeated_blocks or ())  # what compile_repeated_blocks goes by
    return [module for module in transformer.modules() if type(module).__name__ in names]


def apply(pipeline: Any, model: Mapping[str, Any]) -> dict[str, Any]:
    """Make a freshly loaded pipeline as fast as asked; returns what was done, for the manifest.

    Raises:
        ConfigurationError: this pipeline or this device cannot do it.
        ModelNotFoundError: a LoRA file cannot be used.
    """
    asked = asked_for(model)
    added = [fused(pipeline, adapter) for adapter in asked.adapters]
    there = transformers(pipeline)
    told = attention.choose(there, asked.attention, model)
    problem = compilation.problem(str(model.get("device", "cpu"))) if asked.compiled else ""
    for transformer in there:
        if asked.compiled and not problem:
            compilation.prepare(transformer, blocks(transformer))  # before any hook, so that it lies beneath them
        if asked.fp8:
            fp8.store(transformer, blocks(transformer), str(model.get("device", "cpu")))
        if asked.threshold is not None:
            _cache(pipeline, transformer, asked.threshold)
    return {
        "preset": asked.preset,
        **told,
        "compile": asked.compiled and not problem,
        **({"compile_problem": problem} if problem else {}),
        "cache": None if asked.threshold is None else {"kind": "first_block", "threshold": asked.threshold},
        "fp8": asked.fp8,
        "lora": added,
    }


def reset(pipeline: Any) -> None:
    """Forget everything that a cache keeps of earlier steps, so that no clip depends on the one before."""
    for transformer in transformers(pipeline):
        transformer._reset_stateful_cache()  # diffusers does so at the end of a whole clip, not of a stopped one
        for decision in decisions(transformer):
            decision.forget()


def observed(pipeline: Any) -> dict[str, int]:
    """Passes through the transformers since `reset`, and how many of them the cache shortened; empty without one."""
    found = [decision for transformer in transformers(pipeline) for decision in decisions(transformer)]
    if not found:
        return {}
    return {"passes": sum(one.passes for one in found), "cache_hits": sum(one.hits for one in found)}


# ------------------------------------------------------------------------------------------------- first-block cache


def _cache(pipeline: Any, transformer: Any, threshold: float) -> None:
    from diffusers.hooks import FirstBlockCacheConfig

    if "cache_context" not in inspect.getsource(type(pipeline).__call__):
        raise ConfigurationError(
            f"{type(pipeline).__name__} tells no cache which of its passes is running",
            advice="Use this model without a step cache.",
        )
    if len(blocks(transformer)) < 2:
        raise ConfigurationError("a first-block cache needs a model of at least two blocks")
    _register_blocks()
    transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    for hook in _leaders(transformer):
        hook._should_compute_remaining_blocks = Decision(hook)  # the one place where it decides


def _register_blocks() -> None:
    """HunyuanVideo-1.5's blocks, which diffusers 0.42.1 left out of the table its caches go by."""
    from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
    from diffusers.models.transformers.transformer_hunyuan_video15 import HunyuanVideo15TransformerBlock

    metadata = TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=1)
    TransformerBlockRegistry.register(model_class=HunyuanVideo15TransformerBlock, metadata=metadata)


def _leaders(transformer: Any) -> Iterator[Any]:
    from diffusers.hooks.first_block_cache import _FBC_LEADER_BLOCK_HOOK

    for module in transformer.modules():
        registry = getattr(module, "_diffusers_hook", None)
        hook = registry.get_hook(_FBC_LEADER_BLOCK_HOOK) if registry else None
        if hook is not None:
            yield hook


def decisions(transformer: Any) -> list[Decision]:
    """What decides for each cache of a transformer; `parallel` gives it the ranks that must agree."""
    found = [hook._should_compute_remaining_blocks for hook in _leaders(transformer)]
    return [decision for decision in found if isinstance(decision, Decision)]


def current_pass(transformer: Any) -> str | None:
    """The name of the pass that a pipeline has announced (``cond`` or ``uncond``); ``None`` without a cache."""
    for hook in _leaders(transformer):
        context = hook.state_manager._context  # its property raises where there is none
        return None if context is None else str(context.name)
    return None


class Decision:
    """Whether a step computes all blocks: by the change that diffusers goes by, counted, and the same on all ranks.

    Under context parallelism each rank sees its part of the sequence. diffusers lets every rank decide by its own
    part; two that decide differently wait for each other for ever. Here the sums are added up over ``group`` first.
    """

    def __init__(self, hook: Any) -> None:
        self._hook = hook
        self.group: Any = None
        self.passes = 0
        self.hits = 0

    def forget(self) -> None:
        """Count from nought."""
        self.passes = self.hits = 0

    def __call__(self, residual: Any) -> bool:
        """``True``: compute the remaining blocks."""
        self.passes += 1
        before = self._hook.state_manager.get_state().head_block_residual
        if before is None:
            return True
        change = self._change(residual.float(), before.float())
        compute = not change <= self._hook.threshold  # a change that is no number is none to build on
        self.hits += not compute
        return compute

    def _change(self, now: Any, before: Any) -> float:
        import torch

        sums = torch.stack([(now - before).abs().sum(), before.abs().sum()])
        if self.group is not None:
            torch.distributed.all_reduce(sums, group=self.group)
        change, size = sums.tolist()
        return float(change / size) if size else float("nan")
