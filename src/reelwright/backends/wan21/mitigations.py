"""The mitigations that lower the memory of generate.py, cheapest first; fewer steps or a lower guidance do not help."""

from __future__ import annotations

from collections.abc import Iterator

from ...core.plan import Mitigation
from ..shared import wan
from ..shared.mitigations import EXPANDABLE_SEGMENTS, fewer_frames
from ..shared.rules import first
from .decision import WanDecision
from .variants import SMALL_SIZES


def mitigations(decision: WanDecision) -> Iterator[Mitigation]:
    """Yield the memory mitigations of a run; those without a cost in quality come first."""
    parameters = decision.parameters
    if not parameters["offload_model"]:
        why = "text encoder, image encoder and transformer leave the GPU between phases (Wan README)"
        yield Mitigation("offload", {"offload_model": True}, "time", why)
    if not parameters["t5_cpu"] and not decision.fsdp:
        yield Mitigation("t5_cpu", {"t5_cpu": True}, "time", "the text encoder stays on the CPU (Wan README)")
    if not parameters["expandable_segments"]:
        yield EXPANDABLE_SEGMENTS
    more = _more_gpus(decision)
    if more:
        why = f"weights and sequence are split over {more} GPUs instead of {decision.ranks}"
        yield Mitigation("more_gpus", {"gpu_count": more, "offload_model": False}, "nothing", why)
    if decision.variant.fixed is None or decision.variant.fixed.old:
        yield from fewer_frames(decision.frames, (49, 33), lambda frames: wan.tokens(decision.size, frames))
    yield from _smaller_size(decision)


def _smaller_size(decision: WanDecision) -> Iterator[Mitigation]:
    """The size 480p; a retry uses it only if the user allows it."""
    job, size = decision.job, decision.size
    if size.area > SMALL_SIZES[0].area:
        small = SMALL_SIZES[0 if size.width >= size.height else 1]
        shift = first(
            job.request.flow_shift, job.settings.sample_shift, wan.default_shift(decision.variant.makes, small)
        )
        why = "480p has 2.3 times fewer tokens and pixels than 720p"
        yield Mitigation("size_480p", {"size": str(small), "flow_shift": shift}, "size", why)


def _more_gpus(decision: WanDecision) -> int | None:
    settings, visible = decision.job.settings, len(decision.job.host.gpus or ())
    if settings.gpus or not settings.chaining_use_fsdp_flags:
        return None
    able = [ranks for ranks in range(decision.ranks + 1, visible + 1) if decision.variant.heads % ranks == 0]
    return max(able, default=None)
