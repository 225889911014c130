"""Engines for the other ranks of `test_parallel`: the real follower on a tiny transformer, and ones that fail."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

from reelwright.engines.diffusers import speed
from reelwright.engines.diffusers.collective import TransformerCall
from reelwright.engines.diffusers.follower import Follower
from tests.engine_diffusers.denoiser import a_pipeline


def build(model: Mapping[str, Any], device: str) -> Any:
    """The transformer that rank 0 has, as fast as it is there."""
    import torch

    torch.set_num_threads(1)
    if (model.get("parallel") or {}).get("ring", 1) > 1:
        ring_on_cpu()
    pipeline = a_pipeline()
    speed.apply(pipeline, model)
    return pipeline.to(device)


def ring_on_cpu() -> None:
    """A CPU's kernel that returns its log-sum-exp, instead of the GPU's that diffusers calls for ``_native_flash``.

    Only what a ring asks of it: diffusers 0.42.1 has no attention on a CPU that could take part in one.
    """
    import torch
    from diffusers.models import attention_dispatch

    def forward(_ctx: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
        turned = (tensor.permute(0, 2, 1, 3) for tensor in (query, key, value))
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*turned)
        return out.permute(0, 2, 1, 3), lse.permute(0, 2, 1)

    attention_dispatch._native_flash_attention_forward_op = forward


class _Failing(Follower):
    calls = 0

    def _compute(self, call: TransformerCall) -> None:
        self.calls += 1
        if self.calls == 3:
            self.fail()
        super()._compute(call)

    def fail(self) -> None:
        raise NotImplementedError


class _Killed(_Failing):
    def fail(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class _OutOfMemory(_Failing):
    def fail(self) -> None:
        """Not before the call, but inside it, when the others are in a collective already."""
        import torch

        def full(*_: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        self._shared[0].transformer.blocks[2].register_forward_pre_hook(full)


class _DeadBeforeJoining(Follower):
    def load(self, *_: Any) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}


FAITHFUL = Follower(build)
KILLED = _Killed(build)
OUT_OF_MEMORY = _OutOfMemory(build)
DEAD_BEFORE_JOINING = _DeadBeforeJoining(build)
