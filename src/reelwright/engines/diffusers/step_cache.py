"""Skips most blocks in steps that change little: diffusers' first-block cache, counted, and the same on all ranks.

Each transformer has one decision per pass; `decisions` finds them. Call `forget` before every clip, so that no clip
depends on the one before. The plan sets the threshold of a small change.

    >>> add_cache(pipeline, transformer, threshold=0.1)  # doctest: +SKIP
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from ...core.errors import ConfigurationError
from .blocks import repeated_blocks


class CacheDecision:
    """Decides whether a step computes all blocks, by the same measure of change as diffusers.

    Under context parallelism each rank sees its part of the sequence. diffusers lets every rank decide by its own
    part; two ranks that decide differently wait for each other for ever. Here the sums are added up over ``group`` first.
    """

    def __init__(self, hook: Any) -> None:
        self._hook = hook
        self.group: Any = None
        self.passes = 0
        self.hits = 0

    def __call__(self, residual: Any) -> bool:
        """Whether to compute the remaining blocks."""
        self.passes += 1
        before = self._hook.state_manager.get_state().head_block_residual
        if before is None:
            return True
        change = self._change(residual.float(), before.float())
        compute = not change <= self._hook.threshold  # written so that NaN computes
        self.hits += not compute
        return compute

    def _change(self, now: Any, before: Any) -> float:
        import torch

        sums = torch.stack([(now - before).abs().sum(), before.abs().sum()])
        if self.group is not None:
            torch.distributed.all_reduce(sums, group=self.group)
        change, size = sums.tolist()
        return float(change / size) if size else float("nan")


def add_cache(pipeline: Any, transformer: Any, threshold: float) -> None:
    """Add a cache to a transformer of the pipeline.

    Raises:
        ConfigurationError: the pipeline or the model cannot have one.
    """
    from diffusers.hooks import FirstBlockCacheConfig

    if "cache_context" not in inspect.getsource(type(pipeline).__call__):
        raise ConfigurationError(
            f"{type(pipeline).__name__} does not announce its passes, which a step cache needs",
            advice="Use this model without a step cache.",
        )
    if len(repeated_blocks(transformer)) < 2:
        raise ConfigurationError("a first-block cache needs a model of at least two blocks")
    _register_blocks()
    transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    for hook in _leaders(transformer):
        hook._should_compute_remaining_blocks = CacheDecision(hook)  # diffusers decides in this one place


def _register_blocks() -> None:
    """Add HunyuanVideo-1.5's blocks, which are missing in the table that the caches of diffusers 0.42.1 use."""
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


def decisions(transformer: Any) -> list[CacheDecision]:
    """The decisions of a transformer's caches."""
    found = [hook._should_compute_remaining_blocks for hook in _leaders(transformer)]
    return [decision for decision in found if isinstance(decision, CacheDecision)]


def current_pass(transformer: Any) -> str | None:
    """The pass that a pipeline has announced (``cond`` or ``uncond``); ``None`` without a cache."""
    for hook in _leaders(transformer):
        context = hook.state_manager._context  # its property raises if there is none
        return None if context is None else str(context.name)
    return None


def forget(transformer: Any) -> None:
    """Forget earlier steps, and count from zero."""
    transformer._reset_stateful_cache()  # diffusers does so after a complete clip, but not after a stopped one
    for decision in decisions(transformer):
        decision.passes = decision.hits = 0
