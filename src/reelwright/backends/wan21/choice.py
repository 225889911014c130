"""What is decided about a run of generate.py before it becomes a command: task, size, frames, GPUs, parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ... import wan
from ...asked import asked_frames, asked_size, first, forced, largest
from ...host import GIB, Checkout, Host, Interpreter
from ...plan import ExpectedVideo, Job
from ...request import Size, VideoRequest
from ...scripts import GpuChoice, choose_gpus, gpu_count, interpreter_queries, pick_interpreter, split_degrees
from ...settings import Settings
from . import facts
from .facts import FLF2V_14B, I2V_14B, T2V_1_3B, T2V_14B, Variant

ATTENTION = ("flash_attn", "flash_attn_interface")


def variant_of(request: VideoRequest, settings: Settings) -> Variant:
    """The task for a request; text-to-video has two models, and the configured one is taken."""
    if request.task == "i2v":
        return I2V_14B
    if request.task == "flf2v":
        return FLF2V_14B
    small = settings.model == T2V_1_3B.task or (settings.model is None and settings.t2v_model_dir is None)
    return T2V_1_3B if small and (settings.model or settings.t2v_1_3b_model_dir) else T2V_14B


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
    sdpa: bool
    parameters: Mapping[str, Any]

    @property
    def fsdp(self) -> bool:
        return self.ranks > 1 and self.job.settings.chaining_use_fsdp_flags

    @property
    def use(self) -> facts.MemoryUse:
        offload, t5_cpu = bool(self.parameters["offload_model"]), bool(self.parameters["t5_cpu"])
        return facts.MemoryUse(self.variant, self.size, self.frames, self.ranks, self.fsdp, offload, t5_cpu)


def choose(job: Job) -> Choice:
    request, settings, overrides = job.request, job.settings, job.overrides
    variant = variant_of(request, settings)
    size = asked_size(request, settings, overrides)
    frames = asked_frames(job, wan.FPS, wan.CLIP_FRAMES)
    wanted = int(overrides.get("gpu_count") or _count(settings, job.host, variant))
    gpus = choose_gpus(settings, job.host, wanted, avoid=tuple(overrides.get("avoid_gpus", ())))
    ranks = max(1, len(gpus.gpus) or wanted)
    queries = interpreter_queries(settings, settings.wan2_dir, ())
    interpreter = pick_interpreter(queries, job.host)
    checkout = job.host.checkouts.get(settings.wan2_dir) if settings.wan2_dir else None
    missing = flash_attn_missing(variant, interpreter)
    sdpa = settings.attention == "sdpa" or (settings.attention == "auto" and missing is not None)
    draft = Choice(job, variant, size, frames, gpus, ranks, interpreter, checkout, sdpa, {})
    return replace(draft, parameters=_parameters(draft))


def _count(settings: Settings, host: Host, variant: Variant) -> int:
    """The configured count as it is; when it is detected, the largest one that ulysses alone can split."""
    count = gpu_count(settings, host)
    if settings.gpus or settings.gpu_count:
        return count
    return largest(count, lambda ranks: variant.heads % ranks == 0)


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
        "attention": "sdpa" if choice.sdpa else "flash",
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
    picture = choice.job.first
    size = wan.output_size(choice.size.area, picture.size) if picture else choice.size
    frames = 4 * ((choice.frames - 1) // 4) + 1
    return ExpectedVideo(size.width, size.height, frames, wan.FPS)
