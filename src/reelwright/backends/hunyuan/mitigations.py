"""What really lowers the memory of these scripts, cheapest first, with no knob that they do not have.

More GPUs do not help: the weights are replicated on each of them (HunyuanVideo#33). Neither do fewer steps.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...core.plan import Mitigation
from ...core.request import Size
from . import facts
from .choice import Choice, base_size, has_fp8
from .members import DOCUMENTED, HV, HV15, HVI

_SMALLER = {HV.title: Size(960, 544), HVI.title: Size(608, 352), HV15.title: Size(832, 480)}


def mitigations(choice: Choice) -> Iterator[Mitigation]:
    """The memory mitigations of a run; those that cost no quality come first."""
    if choice.member is DOCUMENTED:
        return
    yield from _newer(choice) if choice.member is HV15 else _older(choice)
    yield from _quality(choice)


def _newer(choice: Choice) -> Iterator[Mitigation]:
    if not choice.parameters["offloading"]:
        why = "encoders, transformer and VAE leave the GPU when they are not needed"
        yield Mitigation("offload", {"offloading": True}, "memory", "time", why)
    if not choice.parameters["group_offloading"]:
        why = "the transformer's blocks come to the GPU one by one"
        yield Mitigation("group_offload", {"offloading": True, "group_offloading": True}, "memory", "time", why)


def _older(choice: Choice) -> Iterator[Mitigation]:
    parameters = choice.parameters
    if not parameters["use_cpu_offload"]:
        one = {"gpu_count": 1} if choice.ranks > 1 else {}
        why = "only what is needed at the moment is on the GPU (README); the script can do it on one GPU only"
        yield Mitigation("offload", {**one, "use_cpu_offload": True}, "memory", "time", why)
    if not parameters["expandable_segments"]:
        why = "less memory is lost to fragmentation (Wan2.1#198)"
        yield Mitigation("expandable_segments", {"expandable_segments": True}, "memory", "nothing", why)
    if parameters["cfg_scale"] > 1:
        why = "cfg_scale above 1 computes the picture with and without the prompt side by side"
        yield Mitigation("cfg_scale", {"cfg_scale": 1.0}, "memory", "guidance", why)
    if choice.member is HV and not parameters["use_fp8"] and has_fp8(choice):
        why = "weights in eight bits take about 10 GB less (README)"
        yield Mitigation("fp8", {"use_fp8": True}, "memory", "precision", why)


def _quality(choice: Choice) -> Iterator[Mitigation]:
    """Fewer frames and a smaller size, which a retry may pull only where the user allows it."""
    size = base_size(choice)
    for frames in (81, 49):
        if frames < choice.frames:
            before, after = (facts.tokens(size, count) for count in (choice.frames, frames))
            why = f"{frames} frames have {after:,} tokens instead of {before:,}"
            yield Mitigation(f"frames_{frames}", {"num_frames": frames}, "memory", "frames", why)
    small = _SMALLER[choice.member.title]
    if choice.size.height > choice.size.width:
        small = Size(small.height, small.width)
    if choice.size.area > 1.2 * small.area:
        without = {"super_resolution": False} if choice.member is HV15 else {}
        share = choice.size.area / small.area
        why = f"{small} has {share:.1f} times fewer pixels than {choice.size}"
        yield Mitigation("smaller", {"size": str(small), **without}, "memory", "size", why)
