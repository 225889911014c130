"""The repeated blocks of a transformer, compiled: fewer passes over memory between the large products.

Compiled code rounds in other places than the code as it is written, so a film is made by one of the two from its first
step to its last, and the manifest says by which. Where nothing can be compiled (no compiler on the machine, a block
that torch cannot trace, weights that are moved inside a block) the blocks compute as they are written.

    >>> problem("cpu")  # doctest: +SKIP
    ''
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

#: Sizes that a warm worker may compile before torch would silently compute without: each costs one compilation.
_SIZES = 64
_SWITCHES = "_reelwright_switches"


class Switch:
    """A block's forward, compiled or as it is written."""

    def __init__(self, written: Callable[..., Any], compiled: Callable[..., Any]) -> None:
        functools.update_wrapper(self, written)
        self._written, self._compiled = written, compiled
        self.on = True

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return (self._compiled if self.on else self._written)(*arguments, **options)


def problem(device: str) -> str:
    """Why nothing can be compiled here; empty where it can. Compiles a line of code, which takes seconds once."""
    import torch

    try:
        with torch.no_grad():
            torch.compile(lambda x: x * 2 + 1, fullgraph=True)(torch.ones(16, device=device))
    except Exception as error:  # noqa: BLE001 -- a missing compiler, header or driver: each has another class
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return ""


def prepare(transformer: Any, blocks: Iterable[Any]) -> None:
    """Have each block compiled at its first call, beneath any hook that comes later: no hook is in the graph.

    ``dynamic=False``: torch would make a graph for any size when a second size comes, and a warm worker would use
    another graph than a fresh one. ``deterministic``: no kernel is chosen by how fast it was a moment ago.
    ``emulate_precision_casts`` rounds where eager code rounds; measured on a CPU in bfloat16 it brings the relative
    difference from 7e-3 to 2e-3.
    """
    import torch
    from torch._inductor import config

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _SIZES)
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # never silently something else
    config.emulate_precision_casts = True
    if hasattr(config, "deterministic"):  # torch 2.10
        config.deterministic = True
    switches = []
    for block in blocks:
        block.forward = Switch(block.forward, torch.compile(block.forward, fullgraph=True, dynamic=False))
        switches.append(block.forward)
    setattr(transformer, _SWITCHES, switches)


def turn(transformers: Sequence[Any], *, on: bool) -> None:
    """Let them compute compiled, or as they are written; nothing to do where nothing was prepared."""
    for transformer in transformers:
        for switch in getattr(transformer, _SWITCHES, ()):
            switch.on = on


def failed(error: BaseException) -> bool:
    """Whether compiling failed, and not what was compiled."""
    import torch

    return isinstance(error, torch._dynamo.exc.TorchDynamoException)
