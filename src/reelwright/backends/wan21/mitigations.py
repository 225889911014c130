"""What really lowers the memory of generate.py, cheapest first; steps and guidance do not."""

from __future__ import annotations

from collections.abc import Iterator

from ...core.plan import Mitigation
from ..shared import wan
from ..shared.rules import first
from . import facts
from .choice import Choice
from .facts import FLF2V_14B


def mitigations(choice: Choice) -> Iterator[Mitigation]:
    """The memory mitigations of a run; those that cost no quality come first."""
    parameters = choice.parameters
    if not parameters["offload_model"]:
        why = "text encoder, image encoder and transformer leave the GPU between phases (Wan README)"
        yield Mitigation("offload", {"offload_model": True}, "memory", "time", why)
    if not parameters["t5_cpu"] and not choice.fsdp:
        yield Mitigation("t5_cpu", {"t5_cpu": True}, "memory", "time", "the text encoder stays on the CPU (Wan README)")
    if not parameters["expandable_segments"]:
        why = "less memory is lost to fragmentation (Wan2.1#198)"
        yield Mitigation("expandable_segments", {"expandable_segments": True}, "memory", "nothing", why)
    more = _more_gpus(choice)
    if more:
        why = f"weights and sequence are split over {more} GPUs instead of {choice.ranks}"
        yield Mitigation("more_gpus", {"gpu_count": more, "offload_model": False}, "memory", "nothing", why)
    yield from _quality_levers(choice)


def _quality_levers(choice: Choice) -> Iterator[Mitigation]:
    """Fewer frames and a smaller size, which a retry may pull only where the user allows it."""
    job = choice.job
    for frames in (49, 33):
        if frames < choice.frames and choice.variant is not FLF2V_14B:
            before, after = (wan.tokens(choice.size, count) for count in (choice.frames, frames))
            why = f"{frames} frames have {after:,} tokens instead of {before:,}"
            yield Mitigation(f"frames_{frames}", {"num_frames": frames}, "memory", "frames", why)
    if choice.size.area > facts.SMALL_SIZES[0].area:
        small = facts.SMALL_SIZES[0 if choice.size.width >= choice.size.height else 1]
        shift = first(
            job.request.flow_shift, job.settings.sample_shift, wan.default_shift(choice.variant.model_type, small)
        )
        why = "480p has 2.3 times fewer tokens and pixels than 720p"
        yield Mitigation("size_480p", {"size": str(small), "flow_shift": shift}, "memory", "size", why)


def _more_gpus(choice: Choice) -> int | None:
    settings, visible = choice.job.settings, len(choice.job.host.gpus or ())
    if settings.gpus or not settings.chaining_use_fsdp_flags:
        return None
    able = [ranks for ranks in range(choice.ranks + 1, visible + 1) if choice.variant.heads % ranks == 0]
    return max(able, default=None)
