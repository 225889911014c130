"""Weights of the repeated blocks in eight bits (e4m3), cast to the model's own type for each block's turn.

Half the memory of bfloat16 for a change of the picture: a named choice, never taken silently. It makes nothing
faster; it lets a model stay on the GPU that otherwise would be streamed. Only matrices are stored so; biases, norms,
modulation and everything outside the blocks keep their type.

diffusers' own layerwise casting does this layer by layer, without a scale, and casts back down after every use. Here
each row has a scale (a weight of 0.002 is at the end of e4m3's range and would keep no digit), the cast is thrown
away afterwards, and it happens outside the block's forward, which therefore can still be compiled as one graph.

    >>> HOOK
    'layerwise_casting'
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: diffusers looks a hook of this name up to know in which type a model computes, and needs its ``compute_dtype``.
HOOK = "layerwise_casting"
_SCALE = "reelwright_fp8_scale"
_LARGEST = 448.0  # of e4m3


def store(transformer: Any, blocks: Sequence[Any], device: str = "cpu") -> None:
    """Store the matrices of the blocks in eight bits; this cannot be undone without loading them again.

    ``device`` is where it is computed (14B on a CPU would take minutes); the weights stay where they are.
    """
    from diffusers.hooks import HookRegistry

    told = transformer.dtype  # asked before any weight is in eight bits
    hook_class = _hook_class()
    for block in blocks:
        layers = [layer for name, layer in block.named_modules() if _is_matrix(name, layer)]
        for layer in layers:
            _reduce(layer, device)
        HookRegistry.check_if_exists_or_initialize(block).register_hook(hook_class(layers, told), HOOK)


def _hook_class() -> type[Any]:
    """Made when it is needed: its base is a class of diffusers, whose import takes seconds."""
    from diffusers.hooks import ModelHook

    class Stored(ModelHook):  # type: ignore[misc]  # not installed where mypy runs
        """Cast before the block's forward, give the eight bits back after it."""

        _is_stateful = False

        def __init__(self, layers: Sequence[Any], told: Any) -> None:
            super().__init__()
            self.compute_dtype = told
            self._layers = layers
            self._kept: list[Any] = []

        def pre_forward(self, _module: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            self._give_back()  # an error inside the block before may have left its casts
            self._kept = [layer.weight.data for layer in self._layers]
            for layer, kept in zip(self._layers, self._kept, strict=True):
                scale = getattr(layer, _SCALE)
                layer.weight.data = kept.to(scale.dtype).mul_(scale)
            return args, kwargs

        def post_forward(self, _module: Any, output: Any) -> Any:
            self._give_back()
            return output

        def _give_back(self) -> None:
            for layer, kept in zip(self._layers, self._kept, strict=False):
                layer.weight.data = kept
            self._kept = []

    return Stored


def _is_matrix(name: str, layer: Any) -> bool:
    """A linear layer that is no part of a norm or of its modulation."""
    import torch

    return isinstance(layer, torch.nn.Linear) and "norm" not in name


def _reduce(layer: Any, device: str) -> None:
    """Eight bits and a scale for each row, in the type that the weight had and will be cast to."""
    import torch

    home = layer.weight.device
    weight = layer.weight.data.to(device).float()
    scale = (weight.abs().amax(dim=1, keepdim=True) / _LARGEST).clamp_(min=1e-12).to(layer.weight.dtype)
    layer.weight.data = (weight / scale.float()).clamp_(-_LARGEST, _LARGEST).to(torch.float8_e4m3fn).to(home)
    layer.weight.requires_grad_(False)
    layer.register_buffer(_SCALE, scale.to(home), persistent=False)
