"""Chooses the attention kernel, and measures how much it differs from PyTorch's own.

*Dense* backends compute the same sums in another order. They differ by rounding only; this module measures the
difference from ``native`` on the device when the model is loaded. *Quantised* ones round to eight bits. Backends named
``…_hub`` download a kernel at first use, and are refused. On a CPU (torch 2.13) ``_native_flash`` gives the same bits
as ``native``, because ``native`` uses that kernel; the mathematical one and flex differ by 3e-7 in float32 and 4e-3 in
bfloat16. The choice depends on the card and the installed packages, never on timings, so the same machine always uses
the same kernel and gives the same bits. This module installs nothing.

    >>> sorted(QUANTISED)[0], rounding("bfloat16")
    ('_sage_qk_int8_pv_fp16_cuda', 0.02)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...core.errors import ConfigurationError
from .torch_errors import first_line

QUANTISED = frozenset(
    {
        *("sage", "sage_varlen", "_sage_qk_int8_pv_fp8_cuda", "_sage_qk_int8_pv_fp8_cuda_sm90"),
        *("_sage_qk_int8_pv_fp16_cuda", "_sage_qk_int8_pv_fp16_triton"),
    }
)
#: Lengths (queries, keys) to compare: within a clip, to the text's 512 tokens, to the picture's 257 (Wan2.1).
_LENGTHS = ((1536, 1536), (1536, 512), (1536, 257))


def rounding(dtype: str) -> float:
    """The relative difference that another order of the same sums can cause: a few units in the last place."""
    return {"float32": 1e-5, "float16": 3e-3}.get(dtype, 2e-2)


def candidates(name: str, capability: tuple[int, int] | None) -> tuple[str, ...]:
    """The backends behind a choice, the fastest first, by the card's compute capability (``None``: no card).

    ``auto`` ends with PyTorch's own attention, which uses FlashAttention 2. FlashAttention 3 is written for compute
    capability 9 (its README). On those cards cuDNN's attention is up to 75 % faster than FlashAttention 2 (release
    notes of PyTorch 2.5); on earlier cards the two are the same.
    """
    generation = capability[0] if capability else 0
    flash = ("_flash_3", "flash") if generation == 9 else ("flash",)
    if name == "flash":
        return flash
    if name != "auto":
        return (name,)
    return ("native",) if generation < 9 else (*flash[:-1], "_native_cudnn", "native")


def choose(transformers: Sequence[Any], name: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """Let the transformers use the first candidate that works here.

    Returns its name and its relative difference from ``native`` on this device.

    Raises:
        ConfigurationError: no candidate works: it is unknown, not installed, not for this device, or computes
            something else.
    """
    names = candidates(name, _capability(str(model.get("device", "cpu"))))
    for number, candidate in enumerate(names, start=1):
        try:
            return _use(transformers, candidate, model)
        except ConfigurationError:
            if number == len(names):
                raise
    raise AssertionError(names)


def _capability(device: str) -> tuple[int, int] | None:
    import torch

    return torch.cuda.get_device_capability(device) if device.startswith("cuda") else None


def _use(transformers: Sequence[Any], name: str, model: Mapping[str, Any]) -> dict[str, Any]:
    if name.endswith("_hub"):
        raise ConfigurationError(
            f"the attention {name} downloads its kernel when it is used", advice="Choose an installed one, or native."
        )
    difference = 0.0
    if name != "native":
        try:
            difference = difference_from_native(name, model)
        except (ValueError, RuntimeError, ImportError, NotImplementedError) as error:
            raise ConfigurationError(
                f"the attention {name} cannot be used here: {first_line(error)}",
                advice="Set `attention: sdpa` for PyTorch's own.",
            ) from error
        limit = rounding(str(model.get("dtype")))
        if name not in QUANTISED and not difference <= limit:
            raise ConfigurationError(
                f"the attention {name} differs by {difference:.1e} from PyTorch's own on this device, and rounding "
                f"explains {limit:.0e}",
                advice="Set `attention: sdpa`; the installed kernel may not fit this GPU.",
            )
    from diffusers.models.attention_dispatch import attention_backend

    with attention_backend():  # diffusers also gives the name to all modules that choose none, until this block ends
        for transformer in transformers:
            transformer.set_attention_backend(name)
    return {"attention": name, "attention_difference": difference}


def difference_from_native(name: str, model: Mapping[str, Any]) -> float:
    """The largest relative difference from ``native`` over some lengths; 0.0 means the same bits.

    Hunyuan's transformers give attention a mask, so their comparison has one; Wan's do not.
    """
    import torch
    from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend, dispatch_attention_fn

    generator = torch.Generator().manual_seed(0)
    dtype, device = getattr(torch, str(model.get("dtype", "bfloat16"))), model.get("device", "cpu")
    masked = not str(model.get("family", "wan")).startswith("wan")
    found = 0.0
    for queries, keys in _LENGTHS:
        q, k, v = (
            torch.randn(1, length, 2, 128, generator=generator).to(device, dtype) for length in (queries, keys, keys)
        )
        mask = torch.ones(1, 1, 1, keys, dtype=torch.bool, device=device) if masked else None
        with attention_backend(name):  # checks that its package is installed
            other = dispatch_attention_fn(q, k, v, attn_mask=mask, backend=AttentionBackendName(name))
        own = dispatch_attention_fn(q, k, v, attn_mask=mask, backend=AttentionBackendName.NATIVE)
        if not torch.equal(own, other):
            found = max(found, float((other.double() - own.double()).norm() / own.double().norm()))
    return found
