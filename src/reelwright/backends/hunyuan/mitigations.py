"""The mitigations that lower the memory of HunyuanVideo's scripts, cheapest first; each needs an option of the script.

More GPUs do not help: the weights are replicated on each of them (HunyuanVideo#33). Fewer steps do not help either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ...core.plan import Mitigation
from ...core.request import Size
from ..shared.mitigations import EXPANDABLE_SEGMENTS, fewer_frames
from . import facts
from .decision import HunyuanDecision, has_fp8

_OFFERED = (
    Mitigation("offload", {"offloading": True}, "time",
               "encoders, transformer and VAE leave the GPU when they are not needed"),
    Mitigation("group_offload", {"offloading": True, "group_offloading": True}, "time",
               "the transformer's blocks come to the GPU one by one"),
    Mitigation("offload", {"gpu_count": 1, "use_cpu_offload": True}, "time",
               "only what is needed at the moment is on the GPU (README); the script can do it on one GPU only"),
    EXPANDABLE_SEGMENTS,
    Mitigation("cfg_scale", {"cfg_scale": 1.0}, "guidance",
               "cfg_scale above 1 computes the picture with and without the prompt side by side"),
    Mitigation("fp8", {"use_fp8": True}, "precision", "weights in eight bits take about 10 GB less (README)"),
)  # fmt: skip


def mitigations(decision: HunyuanDecision) -> Iterator[Mitigation]:
    """Yield the memory mitigations of a run; those without a cost in quality come first."""
    if decision.member.is_opaque:
        return
    for mitigation in _OFFERED:
        if _applies(mitigation, decision):
            new = {name: value for name, value in mitigation.overrides.items() if decision.parameters[name] != value}
            yield replace(mitigation, overrides=new)
    yield from fewer_frames(decision.frames, (81, 49), lambda frames: facts.tokens(decision.base_size, frames))
    yield from _smaller_size(decision)


def _applies(mitigation: Mitigation, decision: HunyuanDecision) -> bool:
    """Whether the script has the option (the last one of the overrides) and the run does not use it yet."""
    parameters, (*_, (option, value)) = decision.parameters, mitigation.overrides.items()
    if parameters.get(option, value) == value:
        return False
    if mitigation.name == "cfg_scale":
        return decision.passes > 1
    return mitigation.name != "fp8" or has_fp8(decision)


def _smaller_size(decision: HunyuanDecision) -> Iterator[Mitigation]:
    """The member's smaller size; a retry uses it only if the user allows it."""
    size, small = decision.size, decision.member.smaller
    if size.height > size.width:
        small = Size(small.height, small.width)
    if size.area > 1.2 * small.area:
        without = {"super_resolution": False} if decision.member.enlarges else {}
        why = f"{small} has {size.area / small.area:.1f} times fewer pixels than {size}"
        yield Mitigation("smaller", {"size": str(small), **without}, "size", why)
