"""Implements the work that all ranks of one clip share: join each other, share a transformer, and pass its calls on.

Context parallel means that each rank holds the complete transformer and computes a part of the sequence; attention
exchanges heads (ulysses) or keys and values (ring). diffusers splits and gathers. Rank 0 sends each call of the
transformer (its tensors, and the pass it belongs to) and all ranks then compute it together, so the others need no
scheduler, no encoder and no VAE. `parallel` and `follower` start and run the processes.

Tensors of the GPU go through NCCL, the descriptions of calls through gloo on the loopback: a rank that waits for the
next call uses no GPU time and does not trigger NCCL's watchdog.

    >>> Rank(0, 2, "store", {"device": "cpu", "parallel": {"ulysses": 2}}).device
    'cpu'
"""

from __future__ import annotations

import json
import os
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ...core.errors import ConfigurationError
from . import speed, step_cache

#: The longest time that ranks wait for each other inside a step; the first step may compile.
_STEP_LIMIT = timedelta(minutes=10)
_NO_LSE = frozenset({"native"})  # returns no log-sum-exp, which a ring needs to combine its parts


@dataclass(frozen=True)
class Rank:
    """One rank: its number, the count of ranks, a file where they meet (private to this user), and ``Load.model``."""

    number: int
    count: int
    store: str
    model: Mapping[str, Any]

    @property
    def device(self) -> str:
        """The device of this rank."""
        kind = str(self.model.get("device", "cuda"))
        return f"cuda:{self.number}" if kind == "cuda" else kind

    @property
    def degrees(self) -> tuple[int, int]:
        """(ulysses, ring)."""
        parallel = self.model.get("parallel") or {}
        return int(parallel.get("ulysses", 1)), int(parallel.get("ring", 1))


def check(rank: Rank, transformers: Sequence[Any]) -> None:
    """Refuse a split that would fail in the first step.

    Raises:
        ConfigurationError: this model, or this attention, cannot be split this way.
    """
    ulysses, ring = rank.degrees
    if ulysses * ring != rank.count:
        raise ConfigurationError(f"ulysses {ulysses} times ring {ring} is not the number of ranks, {rank.count}")
    for transformer in transformers:
        name = type(transformer).__name__
        if not getattr(transformer, "_cp_plan", None):
            raise ConfigurationError(
                f"diffusers has no plan for splitting {name}", advice="Use one GPU for each clip with this model."
            )
        heads = int(transformer.config.num_attention_heads)
        if heads % ulysses:
            raise ConfigurationError(
                f"{heads} attention heads of {name} cannot be shared by {ulysses} ranks",
                advice="Choose a number of GPUs that divides the heads.",
            )
    attention = speed.speed_choice(rank.model).attention
    if ring > 1 and attention in _NO_LSE:
        raise ConfigurationError(
            f"ring attention over {ring} ranks cannot use the attention {attention}",
            advice="Choose ulysses, or the attention _native_cudnn or _native_flash.",
        )


def join(rank: Rank) -> None:
    """Meet the other ranks; blocks until all have joined."""
    import torch

    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, "lo")  # one machine: no port is open to the network
    cuda = rank.device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(rank.device)
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        init_method=f"file://{rank.store}",
        rank=rank.number,
        world_size=rank.count,
        timeout=_STEP_LIMIT,
    )


def leave() -> None:
    """Leave the group, if this process joined it."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def share(transformer: Any, rank: Rank) -> SharedTransformer:
    """Let a transformer compute its part of every sequence. All ranks call it, after `join` and after adding hooks."""
    import torch
    from diffusers import ContextParallelConfig

    ulysses, ring = rank.degrees
    config = ContextParallelConfig(ulysses_degree=ulysses, ring_degree=ring)
    if rank.device == "cpu":
        transformer._resolve_parallel_config = types.MethodType(_resolve_on_cpu, transformer)
    transformer.enable_parallelism(config=config)
    for decision in step_cache.decisions(transformer):
        decision.group = torch.distributed.group.WORLD
    return SharedTransformer(transformer, config, rank)


def unshare(shared: SharedTransformer) -> None:
    """Let a transformer compute complete sequences again; diffusers has no method for this."""
    from diffusers.hooks.context_parallel import remove_context_parallel

    transformer = shared.transformer
    remove_context_parallel(transformer, transformer._cp_plan)
    for module in transformer.modules():
        processor = getattr(module, "processor", None)
        if processor is not None and getattr(processor, "_parallel_config", None) is not None:
            processor._parallel_config = None
    transformer._parallel_config = None
    for decision in step_cache.decisions(transformer):
        decision.group = None


def _resolve_on_cpu(transformer: Any, config: Any) -> Any:
    """Resolve the configuration as for a GPU; on a CPU, diffusers 0.42.1 divides by a device count of zero."""
    import torch
    from diffusers.models._modeling_parallel import ParallelConfig

    mesh = torch.distributed.device_mesh.init_device_mesh(
        "cpu", config.mesh_shape, mesh_dim_names=config.mesh_dim_names
    )
    resolved = ParallelConfig(context_parallel_config=config)
    number, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
    resolved.setup(number, count, torch.device("cpu"), mesh=mesh)
    transformer._parallel_config = resolved
    return resolved


@dataclass(frozen=True)
class SharedTransformer:
    """A transformer whose calls are split over the ranks."""

    transformer: Any
    config: Any
    rank: Rank

    def fit(self, shape: Sequence[int]) -> None:
        """Prepare for latents of this shape (batch, channels, frames, height, width).

        Raises:
            ConfigurationError: the ranks cannot share the sequence evenly.
        """
        patch = self.transformer.config.patch_size
        tokens = (shape[2] // patch[0]) * (shape[3] // patch[1]) * (shape[4] // patch[2])
        uneven = tokens % self.rank.count != 0
        ulysses, ring = self.rank.degrees
        if uneven and (min(ulysses, ring) > 1 or self.rank.device == "cpu"):
            raise ConfigurationError(
                f"{tokens} tokens cannot be shared evenly by {self.rank.count} ranks",
                advice="Choose another size, or a number of GPUs that divides the tokens.",
            )
        self.config.ulysses_anything = uneven and ulysses > 1
        self.config.ring_anything = uneven and ring > 1


@dataclass(frozen=True)
class TransformerCall:
    """One call: the transformer's index, the pass (for a step cache) and the arguments."""

    index: int
    pass_name: str | None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def send(call: TransformerCall | None) -> None:
    """Pass a call on to all other ranks; ``None`` ends the clip."""
    import torch

    tensors: list[Any] = []

    def describe(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return {"value": value}
        tensors.append(value)
        return {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape), "on": value.device.type}

    header = call and {
        "index": call.index,
        "pass": call.pass_name,
        "args": [describe(value) for value in call.args],
        "kwargs": {name: describe(value) for name, value in call.kwargs.items()},
    }
    data = torch.frombuffer(bytearray(json.dumps(header).encode()), dtype=torch.uint8)
    torch.distributed.broadcast(torch.tensor([data.numel()]), 0)
    torch.distributed.broadcast(data, 0)
    for tensor in tensors:
        torch.distributed.broadcast(tensor.contiguous(), 0)


def receive(device: str) -> TransformerCall | None:
    """The next call that rank 0 sends, with its tensors on this rank's device; ``None`` at the end of the clip."""
    import torch

    size = torch.zeros(1, dtype=torch.int64)
    torch.distributed.broadcast(size, 0)
    data = torch.empty(int(size), dtype=torch.uint8)
    torch.distributed.broadcast(data, 0)
    header = json.loads(data.numpy().tobytes())
    if header is None:
        return None

    def receive_value(entry: Mapping[str, Any]) -> Any:
        if "value" in entry:
            return entry["value"]
        where = "cpu" if entry["on"] == "cpu" else device
        tensor = torch.empty(entry["shape"], dtype=getattr(torch, entry["dtype"]), device=where)
        torch.distributed.broadcast(tensor, 0)
        return tensor

    args = tuple(receive_value(entry) for entry in header["args"])
    kwargs = {name: receive_value(entry) for name, entry in header["kwargs"].items()}
    return TransformerCall(header["index"], header["pass"], args, kwargs)
