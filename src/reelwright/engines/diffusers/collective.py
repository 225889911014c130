"""What all ranks of one clip do alike: join each other, share a transformer, and pass every call of it on.

Context parallel means that each rank holds the whole transformer and computes a part of the sequence; attention
exchanges heads (ulysses) or keys and values (ring). diffusers splits and gathers; here is what it needs around it.
Rank 0 sends each call of the transformer (its tensors, and which pass it is) and all ranks then compute it together,
so the others need no scheduler, no encoder and no VAE. This module starts no process: see `parallel` and `follower`.

Tensors of the GPU go through NCCL, what describes a call through gloo on the loopback: a rank that waits for the
next call burns no GPU and trips no watchdog of NCCL.

    >>> Place(0, 2, "store", {"device": "cpu", "parallel": {"ulysses": 2}}).device
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
from . import speed

#: The longest that ranks wait for each other inside a step; the first one may compile.
PATIENCE = timedelta(minutes=10)
_NO_LSE = frozenset({"native"})  # returns no log-sum-exp, by which the parts of a ring are put together


@dataclass(frozen=True)
class Place:
    """Which of how many, where they meet (a file that only this user can read), and ``Load.model``."""

    rank: int
    ranks: int
    store: str
    model: Mapping[str, Any]

    @property
    def device(self) -> str:
        """The device of this rank."""
        kind = str(self.model.get("device", "cuda"))
        return f"cuda:{self.rank}" if kind == "cuda" else kind

    @property
    def degrees(self) -> tuple[int, int]:
        """(ulysses, ring)."""
        parallel = self.model.get("parallel") or {}
        return int(parallel.get("ulysses", 1)), int(parallel.get("ring", 1))


def check(place: Place, transformers: Sequence[Any]) -> None:
    """Refuse what would fail in the first step.

    Raises:
        ConfigurationError: this model, or this attention, cannot be split so.
    """
    ulysses, ring = place.degrees
    if ulysses * ring != place.ranks:
        raise ConfigurationError(f"ulysses {ulysses} times ring {ring} is not the number of ranks, {place.ranks}")
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
    attention = speed.asked_for(place.model).attention
    if ring > 1 and attention in _NO_LSE:
        raise ConfigurationError(
            f"ring attention over {ring} ranks cannot use the attention {attention}",
            advice="Choose ulysses, or the attention _native_cudnn or _native_flash.",
        )


def join(place: Place) -> None:
    """Meet the other ranks; blocks until all are there."""
    import torch

    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, "lo")  # one machine: nothing of this listens to the network
    cuda = place.device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(place.device)
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        init_method=f"file://{place.store}",
        rank=place.rank,
        world_size=place.ranks,
        timeout=PATIENCE,
    )


def leave() -> None:
    """Part from the others, if they were met."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def share(transformer: Any, place: Place) -> Shared:
    """Let a transformer compute its part of every sequence; all ranks do this after `join`, hooks being in place."""
    import torch
    from diffusers import ContextParallelConfig

    ulysses, ring = place.degrees
    config = ContextParallelConfig(ulysses_degree=ulysses, ring_degree=ring)
    if place.device == "cpu":
        transformer._resolve_parallel_config = types.MethodType(_resolved_on_cpu, transformer)
    transformer.enable_parallelism(config=config)
    for decision in speed.decisions(transformer):
        decision.group = torch.distributed.group.WORLD
    return Shared(transformer, config, place)


def unshare(shared: Shared) -> None:
    """Let a transformer compute whole sequences again; diffusers has no such method of its own."""
    from diffusers.hooks.context_parallel import remove_context_parallel

    transformer = shared.transformer
    remove_context_parallel(transformer, transformer._cp_plan)
    for module in transformer.modules():
        processor = getattr(module, "processor", None)
        if processor is not None and getattr(processor, "_parallel_config", None) is not None:
            processor._parallel_config = None
    transformer._parallel_config = None
    for decision in speed.decisions(transformer):
        decision.group = None


def _resolved_on_cpu(transformer: Any, config: Any) -> Any:
    """What diffusers does there for a GPU; on a CPU it divides by a device count of nought (0.42.1)."""
    import torch
    from diffusers.models._modeling_parallel import ParallelConfig

    mesh = torch.distributed.device_mesh.init_device_mesh(
        "cpu", config.mesh_shape, mesh_dim_names=config.mesh_dim_names
    )
    resolved = ParallelConfig(context_parallel_config=config)
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    resolved.setup(rank, ranks, torch.device("cpu"), mesh=mesh)
    transformer._parallel_config = resolved
    return resolved


@dataclass(frozen=True)
class Shared:
    """A transformer whose calls are split over the ranks."""

    transformer: Any
    config: Any
    place: Place

    def fit(self, shape: Sequence[int]) -> None:
        """Be ready for latents of this shape (batch, channels, frames, height, width).

        Raises:
            ConfigurationError: the sequence cannot be split so.
        """
        patch = self.transformer.config.patch_size
        tokens = (shape[2] // patch[0]) * (shape[3] // patch[1]) * (shape[4] // patch[2])
        uneven = tokens % self.place.ranks != 0
        ulysses, ring = self.place.degrees
        if uneven and (min(ulysses, ring) > 1 or self.place.device == "cpu"):
            raise ConfigurationError(
                f"{tokens} tokens cannot be shared evenly by {self.place.ranks} ranks",
                advice="Choose another size, or a number of GPUs that divides the tokens.",
            )
        self.config.ulysses_anything = uneven and ulysses > 1
        self.config.ring_anything = uneven and ring > 1


@dataclass(frozen=True)
class Call:
    """One call of a transformer: which one, in which pass (for a step cache), with what."""

    index: int
    pass_name: str | None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def send(call: Call | None) -> None:
    """Pass a call on to all other ranks; ``None`` says that the clip is over."""
    import torch

    tensors: list[Any] = []

    def described(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return {"value": value}
        tensors.append(value)
        return {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape), "on": value.device.type}

    header = call and {
        "index": call.index,
        "pass": call.pass_name,
        "args": [described(value) for value in call.args],
        "kwargs": {name: described(value) for name, value in call.kwargs.items()},
    }
    data = torch.frombuffer(bytearray(json.dumps(header).encode()), dtype=torch.uint8)
    torch.distributed.broadcast(torch.tensor([data.numel()]), 0)
    torch.distributed.broadcast(data, 0)
    for tensor in tensors:
        torch.distributed.broadcast(tensor.contiguous(), 0)


def receive(device: str) -> Call | None:
    """The next call that rank 0 sends, its tensors on this rank's device; ``None`` at the end of the clip."""
    import torch

    size = torch.zeros(1, dtype=torch.int64)
    torch.distributed.broadcast(size, 0)
    data = torch.empty(int(size), dtype=torch.uint8)
    torch.distributed.broadcast(data, 0)
    header = json.loads(data.numpy().tobytes())
    if header is None:
        return None

    def made(told: Mapping[str, Any]) -> Any:
        if "value" in told:
            return told["value"]
        where = "cpu" if told["on"] == "cpu" else device
        tensor = torch.empty(told["shape"], dtype=getattr(torch, told["dtype"]), device=where)
        torch.distributed.broadcast(tensor, 0)
        return tensor

    args = tuple(made(told) for told in header["args"])
    return Call(header["index"], header["pass"], args, {name: made(told) for name, told in header["kwargs"].items()})
