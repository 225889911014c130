"""What is decided about a run of generate.py before it becomes a command: task, size, frames, GPUs, parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core.host import GIB, Checkout, Gpu, Interpreter
from ...core.plan import ExpectedVideo
from ...core.request import Size, VideoRequest
from ..shared import compatibility, wan
from ..shared.gpu_choice import GpuChoice, Needs, Way, choose_gpus, gpu_count, split_degrees
from ..shared.launch import interpreter_queries, pick_interpreter
from ..shared.rules import asked_frames, asked_size, first, forced
from . import facts
from .facts import FLF2V_14B, I2V_14B, T2V_1_3B, T2V_14B, Variant
from .settings import Wan21Job as Job
from .settings import Wan21Settings as Settings

ATTENTION = ("flash_attn", "flash_attn_interface")


def variant_of(request: VideoRequest, settings: Settings) -> Variant:
    """The task for a request; text-to-video has two models, and the configured one is taken."""
    if request.task == "i2v":
        return I2V_14B
    if request.task == "flf2v":
        return FLF2V_14B
    named = model_named(settings)
    if named in (T2V_14B, T2V_1_3B):
        return named
    return T2V_1_3B if settings.t2v_1_3b_model_dir and not settings.t2v_model_dir else T2V_14B


def model_named(settings: Settings) -> Variant | None:
    """What the setting `model` names, as generate.py or the resident engine calls it; ``None``: nothing of Wan2.1."""
    name = (settings.model or "").lower().removeprefix("wan2.1-")
    return next((item for item in (I2V_14B, FLF2V_14B, T2V_14B, T2V_1_3B) if item.task.lower() == name), None)


def flash_attn_missing(variant: Variant, interpreter: Interpreter) -> str | None:
    """The package without which generate.py has no flash attention for this task; ``None`` if it has one.

    Its transformer takes either generation; its image encoder asks for the second by number (wan/modules/clip.py).
    """
    enough = ATTENTION[:1] if variant.clip else ATTENTION
    return None if any(name in interpreter.modules for name in enough) else ATTENTION[0]


def model_dir(variant: Variant, settings: Settings) -> Path | None:
    directory: Path | None = getattr(settings, variant.key)
    return directory


@dataclass(frozen=True)
class Choice:
    """Everything decided about a run, before it becomes a command."""

    job: Job
    variant: Variant
    size: Size
    frames: int
    gpus: GpuChoice
    ranks: int
    interpreter: Interpreter
    checkout: Checkout | None
    attention: str
    parameters: Mapping[str, Any]

    @property
    def sdpa(self) -> bool:
        """Whether PyTorch's own attention takes the place of flash-attn."""
        return self.attention == "sdpa"

    @property
    def fsdp(self) -> bool:
        return self.ranks > 1 and self.job.settings.chaining_use_fsdp_flags

    @property
    def use(self) -> facts.MemoryUse:
        offload, t5_cpu = bool(self.parameters["offload_model"]), bool(self.parameters["t5_cpu"])
        attention = compatibility.attention_bytes(
            self.gpus.gpus, wan.tokens(_film_size(self), self.frames), self.variant.heads / self.ranks
        )
        return facts.MemoryUse(self.variant, self.size, self.frames, self.ranks, self.fsdp, offload, t5_cpu, attention)


def choose(job: Job) -> Choice:
    request, settings, overrides = job.request, job.settings, job.overrides
    variant = variant_of(request, settings)
    size = asked_size(request, settings, overrides)
    frames = asked_frames(job, wan.FPS, wan.CLIP_FRAMES)
    queries = interpreter_queries(settings, settings.wan2_dir, ())
    interpreter = pick_interpreter(queries, job.host)
    checkout = job.host.checkouts.get(settings.wan2_dir) if settings.wan2_dir else None
    draft = Choice(job, variant, size, frames, GpuChoice(()), 1, interpreter, checkout, "flash", {})
    counts = _counts(draft)
    asked = settings.gpus or settings.gpu_count or "gpu_count" in overrides
    limit = "" if asked else f"{variant.heads} attention heads split evenly over {counts[-1]} at most"
    needs = Needs(counts, lambda cards: _way(draft, cards), limit)
    gpus = choose_gpus(job.host, needs, listed=settings.gpus, avoid=tuple(overrides.get("avoid_gpus", ())))
    ranks = len(gpus.gpus) or len(settings.gpus or ()) or counts[0]
    draft = replace(draft, gpus=gpus, ranks=ranks)
    draft = replace(draft, attention=_attention(draft))
    return replace(draft, parameters=_parameters(draft))


def _counts(draft: Choice) -> tuple[int, ...]:
    """The legal numbers of GPUs: the asked one as it is; where it is detected, all that can share the clip.

    generate.py takes any number, through ulysses where it divides the heads and through ring attention where not. Ring
    attention pads tokens that do not split evenly, and the picture is then slightly off (the mask is not used).
    """
    settings, overrides = draft.job.settings, draft.job.overrides
    asked = overrides.get("gpu_count") or settings.gpu_count
    if asked or settings.gpus:
        return (int(asked or len(settings.gpus or ())),)
    most = gpu_count(settings, draft.job.host)
    sequence = wan.tokens(_film_size(draft), draft.frames)
    ulysses = [ranks for ranks in range(1, most + 1) if draft.variant.heads % ranks == 0]
    ring = [ranks for ranks in range(1, most + 1) if draft.variant.heads % ranks and sequence % ranks == 0]
    return (*ring, *ulysses)


def _way(draft: Choice, cards: tuple[Gpu, ...]) -> Way:
    """What a set of cards would need, and how long it would take."""
    ranks = len(cards)
    choice = replace(draft, gpus=GpuChoice(cards), ranks=ranks)
    choice = replace(choice, parameters=_parameters(choice))
    steps = choice.parameters["steps"]
    missing = ranks > 1 and not draft.interpreter.problem and "xfuser" not in draft.interpreter.modules
    return Way(
        gpu_bytes=facts.peak_gpu_bytes(choice.use),
        host_bytes=facts.host_bytes(choice.use),
        seconds=facts.published_seconds(draft.variant, draft.size, draft.frames, steps, ranks),
        detour=draft.variant.heads % ranks != 0,
        lacks="xfuser is not installed, which several GPUs need to share a clip" if missing else "",
    )


def _film_size(choice: Choice) -> Size:
    """The size that the script derives from the picture's aspect."""
    picture = choice.job.first
    return wan.output_size(choice.size.area, picture.size) if picture else choice.size


def _attention(choice: Choice) -> str:
    """``flash`` or ``sdpa``; ``auto`` takes flash-attn where it is there and runs on these cards."""
    asked = choice.job.settings.attention
    if asked != "auto":
        return asked
    missing = flash_attn_missing(choice.variant, choice.interpreter)
    return "sdpa" if missing or flash_attn_problem(choice) else "flash"


def flash_attn_problem(choice: Choice) -> str | None:
    """Why the flash-attn that generate.py would call does not run on these cards; ``None`` if it does.

    It calls the third generation wherever that can be imported, whatever the card (wan/modules/attention.py); its image
    encoder asks for the second.
    """
    modules = choice.interpreter.modules
    called = [name for name in reversed(ATTENTION) if name in modules][:1]
    if choice.variant.clip and ATTENTION[0] in modules:
        called = list(dict.fromkeys([*called, ATTENTION[0]]))
    found = [compatibility.flash_attn_problem(gpu, name) for gpu in choice.gpus.gpus for name in called]
    return next((problem for problem in found if problem), None)


def _parameters(choice: Choice) -> dict[str, Any]:
    """Effective parameters, by the field's names; overrides of a retry come last."""
    request, settings, variant = choice.job.request, choice.job.settings, choice.variant
    framework = settings.preset == "framework"
    single = choice.ranks == 1
    ulysses, ring = split_degrees(choice.ranks, variant.heads)
    free = min((gpu.free_bytes for gpu in choice.gpus.gpus if gpu.free_bytes is not None), default=None)
    # The text encoder alone peaks at 10.6 GiB: on a smaller card it must stay on the CPU.
    t5_cpu = single and free is not None and free < wan.T5_BYTES + GIB
    parameters: dict[str, Any] = {
        "size": choice.size,
        "num_frames": choice.frames,
        "fps": wan.FPS,
        "steps": request.steps or settings.sample_steps or (variant.framework_steps if framework else 50),
        "guidance_scale": first(request.guidance_scale, settings.guide_scale, 5.0 if framework else 7.5),
        "flow_shift": first(
            request.flow_shift, settings.sample_shift, wan.default_shift(variant.model_type, choice.size)
        ),
        "seed": first(request.seed, settings.base_seed, 0),
        "offload_model": _offload(choice),
        "t5_cpu": t5_cpu,
        "gpu_count": choice.ranks,
        "ulysses_size": ulysses,
        "ring_size": ring,
        "fsdp": choice.fsdp,
        "attention": choice.attention,
        "expandable_segments": False,
    }
    return forced(parameters, choice.job.overrides, ("size", "num_frames", "gpu_count"))


def _offload(choice: Choice) -> bool:
    """On one GPU always, as the framework does; on several where whole weights on each would not fit otherwise."""
    smallest = min((gpu.total_bytes for gpu in choice.gpus.gpus if gpu.total_bytes is not None), default=None)
    if choice.ranks == 1 or choice.fsdp or smallest is None:
        return choice.ranks == 1
    use = facts.MemoryUse(
        choice.variant, choice.size, choice.frames, choice.ranks, fsdp=False, offload=False, t5_cpu=False
    )
    return facts.peak_gpu_bytes(use) > smallest


def expected_video(choice: Choice) -> ExpectedVideo:
    size = _film_size(choice)
    return ExpectedVideo(size.width, size.height, choice.frames, wan.FPS)
