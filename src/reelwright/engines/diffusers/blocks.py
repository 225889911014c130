"""Changes how the repeated blocks of a transformer compute: compiled, or with weights in eight bits.

*Compiled*: torch makes fewer passes over memory between the large products. Compiled code rounds in other places, so a
clip uses one of the two for all its steps, and the manifest says which. If compiling is impossible (no compiler, a
block that torch cannot trace, weights that move inside a block), the blocks compute as written.

*Eight bits* (e4m3): the weights take half the memory of bfloat16 but change the picture, so only a named choice uses
them. They make nothing faster; they keep a model on the GPU that would otherwise be streamed. Only matrices are stored
this way; biases, norms, modulation and everything outside the blocks keep their type. diffusers' own layerwise casting
does this layer by layer, without a scale, and casts back down after every use. Here each row has a scale (a weight of
0.002 is at the end of e4m3's range and would keep no digit), the cast is discarded after use, and it happens outside
the block's forward, so the forward can still be compiled as one graph.

    >>> compile_problem("cpu")  # doctest: +SKIP
    ''
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from .torch_errors import first_line

TRANSFORMERS = ("transformer", "transformer_2")
#: diffusers reads the ``compute_dtype`` of the hook of this name to find the type that a model computes in.
FP8_HOOK = "layerwise_casting"
#: Sizes that a warm worker may compile before torch would silently stop compiling: each costs one compilation.
_SIZES = 64
_SWITCHES = "_reelwright_switches"
_SCALE = "reelwright_fp8_scale"
_LARGEST = 448.0  # of e4m3


def transformers(pipeline: Any) -> list[Any]:
    """The networks that denoise: one, or two for Wan2.2's high and low noise."""
    found = (getattr(pipeline, name, None) for name in TRANSFORMERS)
    return [module for module in found if module is not None]


def repeated_blocks(transformer: Any) -> list[Any]:
    """The repeated blocks, in order; diffusers names their classes."""
    names = set(transformer._repeated_blocks or ())  # compile_repeated_blocks reads the same attribute
    return [module for module in transformer.modules() if type(module).__name__ in names]


# ------------------------------------------------------------------------------------------------------------ compiled


class _Forward:
    """A block's forward, compiled or as written."""

    def __init__(self, written: Callable[..., Any], compiled: Callable[..., Any]) -> None:
        functools.update_wrapper(self, written)
        self._written, self._compiled = written, compiled
        self.is_compiled = True

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return (self._compiled if self.is_compiled else self._written)(*arguments, **options)


def compile_problem(device: str) -> str:
    """The reason why compiling fails here; empty if it works. Compiles a line of code, which takes seconds once."""
    import torch

    try:
        with torch.no_grad():
            torch.compile(lambda x: x * 2 + 1, fullgraph=True)(torch.ones(16, device=device))
    except Exception as error:  # noqa: BLE001 -- a missing compiler, header or driver: each has another class
        return first_line(error)
    return ""


def compile_blocks(transformer: Any) -> None:
    """Compile each block at its first call. Call this before hooks are added, so that no hook is in the graph.

    ``dynamic=False``: otherwise torch makes a graph for all sizes at the second size, and a warm worker uses another
    graph than a fresh one. ``deterministic``: torch does not choose a kernel by timing it.
    ``emulate_precision_casts`` rounds where eager code rounds; measured on a CPU in bfloat16 it brings the relative
    difference from 7e-3 to 2e-3.
    """
    import torch
    from torch._inductor import config

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _SIZES)
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # an error instead of a silent change
    config.emulate_precision_casts = True
    if hasattr(config, "deterministic"):  # torch 2.10
        config.deterministic = True
    for block in repeated_blocks(transformer):
        block.forward = _Forward(block.forward, torch.compile(block.forward, fullgraph=True, dynamic=False))
    setattr(transformer, _SWITCHES, [block.forward for block in repeated_blocks(transformer)])


def use_compiled(transformer: Any, *, compiled: bool) -> None:
    """Switch the blocks to compiled code or to code as written; without `compile_blocks` they compute as written."""
    for forward in getattr(transformer, _SWITCHES, ()):
        forward.is_compiled = compiled


# ---------------------------------------------------------------------------------------------------------- eight bits


def store_in_fp8(transformer: Any, device: str = "cpu") -> None:
    """Store the matrices of the blocks in eight bits; only loading them again undoes it.

    The conversion runs on ``device`` (a CPU would take minutes for 14B); the weights stay where they are.
    """
    from diffusers.hooks import HookRegistry

    dtype = transformer.dtype  # read before any weight is in eight bits
    hook_class = _fp8_hook_class()
    for block in repeated_blocks(transformer):
        layers = [layer for name, layer in block.named_modules() if _is_matrix(name, layer)]
        for layer in layers:
            _reduce(layer, device)
        HookRegistry.check_if_exists_or_initialize(block).register_hook(hook_class(layers, dtype), FP8_HOOK)


@functools.cache
def _fp8_hook_class() -> type[Any]:
    """The hook's class; a function defines it because importing its base class from diffusers takes seconds."""
    from diffusers.hooks import ModelHook

    class CastForForward(ModelHook):  # type: ignore[misc]  # not installed where mypy runs
        """Casts the weights before the block's forward, and restores the eight bits after it."""

        _is_stateful = False

        def __init__(self, layers: Sequence[Any], dtype: Any) -> None:
            super().__init__()
            self.compute_dtype = dtype
            self._layers = layers
            self._stored: list[Any] = []

        def pre_forward(self, _module: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            self._restore()  # an error inside the last forward may have left casts
            self._stored = [layer.weight.data for layer in self._layers]
            for layer, stored in zip(self._layers, self._stored, strict=True):
                scale = getattr(layer, _SCALE)
                layer.weight.data = stored.to(scale.dtype).mul_(scale)
            return args, kwargs

        def post_forward(self, _module: Any, output: Any) -> Any:
            self._restore()
            return output

        def _restore(self) -> None:
            for layer, stored in zip(self._layers, self._stored, strict=False):
                layer.weight.data = stored
            self._stored = []

    return CastForForward


def _is_matrix(name: str, layer: Any) -> bool:
    """Whether this is a linear layer outside the norms and their modulation."""
    import torch

    return isinstance(layer, torch.nn.Linear) and "norm" not in name


def _reduce(layer: Any, device: str) -> None:
    """Store a weight in eight bits, with a scale for each row. The scale keeps the type that the weight had."""
    import torch

    home = layer.weight.device
    weight = layer.weight.data.to(device).float()
    scale = (weight.abs().amax(dim=1, keepdim=True) / _LARGEST).clamp_(min=1e-12).to(layer.weight.dtype)
    layer.weight.data = (weight / scale.float()).clamp_(-_LARGEST, _LARGEST).to(torch.float8_e4m3fn).to(home)
    layer.weight.requires_grad_(False)
    layer.register_buffer(_SCALE, scale.to(home), persistent=False)
