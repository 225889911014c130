"""Decisions about a run of generate.py before it becomes a command: model, size, frames, GPUs, parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core.host import GIB, Checkout, Gpu, Interpreter
from ...core.request import Size, VideoRequest
from ..shared import compatibility, wan
from ..shared.decision import Decision
from ..shared.gpu_choice import GpuChoice, SetNeeds, choose_for, smallest_free_bytes, split_degrees
from ..shared.launch import interpreter_queries, lacks_xfuser, pick_interpreter
from ..shared.rules import first, forced, requested_frames, requested_size
from . import facts
from .settings import Wan21Job as Job
from .settings import Wan21Settings as Settings
from .variants import VARIANTS, Variant

ATTENTION = ("flash_attn", "flash_attn_interface")


def variant_of(request: VideoRequest, settings: Settings) -> Variant:
    """The model for a request: among those for its task the configured `model`, else the first with weights."""
    able = [variant for variant in VARIANTS if variant.makes == request.task]
    named = model_named(settings)
    return named if named in able else next((item for item in able if model_dir(item, settings)), able[0])


def model_named(settings: Settings) -> Variant | None:
    """The model that the setting `model` names; ``None`` if it names no model of Wan2.1."""
    name = wan.short_name(settings.model or "")
    return next((variant for variant in VARIANTS if variant.task.lower() == name), None)


def model_dir(variant: Variant, settings: Settings) -> Path | None:
    """The folder of a model's weights from the settings; ``None`` if it is not set."""
    directory: Path | None = getattr(settings, variant.key)
    return directory


@dataclass(frozen=True, kw_only=True)
class WanDecision(Decision[Settings]):
    """Everything decided about a run of generate.py."""

    variant: Variant
    checkout: Checkout | None
    attention: str = "flash"

    @property
    def sdpa(self) -> bool:
        """Whether PyTorch's own attention replaces flash-attn."""
        return self.attention == "sdpa"

    @property
    def fsdp(self) -> bool:
        """Whether the weights are split over the GPUs."""
        return self.ranks > 1 and self.job.settings.chaining_use_fsdp_flags

    @property
    def memory(self) -> facts.WanMemory:
        """The inputs of the memory prediction."""
        offload, t5_cpu = bool(self.parameters["offload_model"]), bool(self.parameters["t5_cpu"])
        attention = compatibility.attention_bytes(
            self.gpus.gpus, wan.tokens(self.output_size, self.frames), self.variant.heads / self.ranks
        )
        return facts.WanMemory(self.variant, self.size, self.frames, self.ranks, self.fsdp, offload, t5_cpu, attention)

    @property
    def output_size(self) -> Size:
        """The size that the script derives from the picture's aspect."""
        picture = self.job.first
        return wan.output_size(self.size.area, picture.size) if picture else self.size

    @property
    def flash_attn_problem(self) -> str | None:
        """The reason why the flash-attn that generate.py calls does not run on these cards; ``None`` if it does.

        The script calls the third generation if it can be imported, on any card (wan/modules/attention.py); its image
        encoder calls the second.
        """
        modules = self.interpreter.modules
        called = [name for name in reversed(ATTENTION) if name in modules][:1]
        if self.variant.clip and ATTENTION[0] in modules:
            called = list(dict.fromkeys([*called, ATTENTION[0]]))
        found = [compatibility.flash_attn_problem(gpu, name) for gpu in self.gpus.gpus for name in called]
        return next((problem for problem in found if problem), None)


def decide(job: Job) -> WanDecision:
    """Make every decision about a request; `checks` reports its mistakes."""
    settings = job.settings
    variant = variant_of(job.request, settings)
    draft = WanDecision(
        job=job,
        variant=variant,
        size=requested_size(job.request, settings, job.overrides),
        frames=requested_frames(job, wan.FPS, wan.CLIP_FRAMES),
        interpreter=pick_interpreter(interpreter_queries(settings, settings.wan2_dir, ()), job.host),
        checkout=job.host.checkouts.get(settings.wan2_dir) if settings.wan2_dir else None,
    )
    gpus, ranks = choose_for(
        job,
        lambda cards: _needs(draft, cards),
        lambda most: _counts(draft, most),
        lambda most: f"{variant.heads} attention heads split evenly over {most} at most",
    )
    draft = replace(draft, gpus=gpus, ranks=ranks)
    draft = replace(draft, attention=_attention(draft))
    return replace(draft, parameters=_parameters(draft))


def _counts(draft: WanDecision, most: int) -> tuple[int, ...]:
    """The numbers of GPUs that can share the clip.

    generate.py takes any number: through ulysses if it divides the heads, else through ring attention. Ring attention
    pads tokens that do not split evenly. The picture is then slightly off, because the mask is not used.
    """
    heads, sequence = draft.variant.heads, wan.tokens(draft.output_size, draft.frames)
    ulysses = [ranks for ranks in range(1, most + 1) if heads % ranks == 0]
    ring = [ranks for ranks in range(1, most + 1) if heads % ranks and sequence % ranks == 0]
    return (*ring, *ulysses)


def _needs(draft: WanDecision, cards: tuple[Gpu, ...]) -> SetNeeds:
    """The needs of a run on these cards, and its time."""
    ranks = len(cards)
    decision = replace(draft, gpus=GpuChoice(cards), ranks=ranks)
    decision = replace(decision, parameters=_parameters(decision))
    steps = decision.parameters["steps"]
    return SetNeeds(
        gpu_bytes=facts.peak_gpu_bytes(decision.memory),
        host_bytes=facts.host_bytes(decision.memory),
        seconds=facts.published_seconds(draft.variant, draft.size, draft.frames, steps, ranks),
        detour=draft.variant.heads % ranks != 0,
        lacks=lacks_xfuser(draft.interpreter, ranks),
    )


def flash_attn_missing(variant: Variant, interpreter: Interpreter) -> str | None:
    """The package that generate.py lacks for flash attention in this task; ``None`` if it lacks none.

    Its transformer takes either generation; its image encoder requires the second (wan/modules/clip.py).
    """
    enough = ATTENTION[:1] if variant.clip else ATTENTION
    return None if any(name in interpreter.modules for name in enough) else ATTENTION[0]


def _attention(decision: WanDecision) -> str:
    """``flash`` or ``sdpa``; ``auto`` takes flash-attn if it is installed and runs on these cards."""
    wanted = decision.job.settings.attention
    if wanted != "auto":
        return wanted
    missing = flash_attn_missing(decision.variant, decision.interpreter)
    return "sdpa" if missing or decision.flash_attn_problem else "flash"


def _parameters(decision: WanDecision) -> dict[str, Any]:
    """The effective parameters by their usual names; overrides of a retry come last."""
    request, settings, variant = decision.job.request, decision.job.settings, decision.variant
    framework = settings.preset == "framework"
    ulysses, ring = split_degrees(decision.ranks, variant.heads)
    free = smallest_free_bytes(decision.gpus.gpus)
    parameters: dict[str, Any] = {
        "size": decision.size,
        "num_frames": decision.frames,
        "fps": wan.FPS,
        "steps": request.steps or settings.sample_steps or (variant.framework_steps if framework else 50),
        "guidance_scale": first(request.guidance_scale, settings.guide_scale, 5.0 if framework else 7.5),
        "flow_shift": first(request.flow_shift, settings.sample_shift, wan.default_shift(variant.makes, decision.size)),
        "seed": first(request.seed, settings.base_seed, 0),
        "offload_model": _offload(decision),
        # The text encoder alone peaks at 10.6 GiB: on a smaller card it must stay on the CPU.
        "t5_cpu": decision.ranks == 1 and free is not None and free < wan.T5_BYTES + GIB,
        "gpu_count": decision.ranks,
        "ulysses_size": ulysses,
        "ring_size": ring,
        "fsdp": decision.fsdp,
        "attention": decision.attention,
        "expandable_segments": False,
    }
    return forced(parameters, decision.job.overrides)


def _offload(decision: WanDecision) -> bool:
    """Whether to offload: on one GPU always, as the framework does; on several if each cannot hold all weights."""
    smallest = min((gpu.total_bytes for gpu in decision.gpus.gpus if gpu.total_bytes is not None), default=None)
    if decision.ranks == 1 or decision.fsdp or smallest is None:
        return decision.ranks == 1
    memory = facts.WanMemory(
        decision.variant, decision.size, decision.frames, decision.ranks, fsdp=False, offload=False, t5_cpu=False
    )
    return facts.peak_gpu_bytes(memory) > smallest
