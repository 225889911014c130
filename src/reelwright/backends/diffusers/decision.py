"""Decisions about a clip of the resident engine: folder, model, size, length, GPUs, placement, speed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core.host import GIB, Checkpoint, Gpu, InterpreterQuery
from ...core.plan import ExpectedVideo
from ...core.request import Size, VideoRequest
from ..shared import compatibility
from ..shared.decision import Decision
from ..shared.gpu_choice import (
    GpuChoice,
    GpuNeeds,
    SetNeeds,
    choose_gpus,
    gpu_count,
    smallest_free_bytes,
    split_degrees,
)
from ..shared.launch import interpreter_query, pick_interpreter
from ..shared.rules import first, requested_frames, requested_size
from ..shared.wan import PATCH, T5_BYTES, output_size, short_name, tokens
from . import placement
from .models import Defaults, Model, Network, component_bytes, defaults_of, layout_of, network_of, recognise
from .settings import DiffusersJob as Job
from .settings import DiffusersSettings as Settings

#: Packages that the worker's interpreter must have.
MODULES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "ftfy")
#: The modules of flash-attn, of which the engine uses either.
FLASH_ATTN = ("flash_attn", "flash_attn_interface")
#: The oldest versions that the engine works with, as in the extra `engine`.
LEAST: Mapping[str, tuple[int, ...]] = {"torch": (2, 6), "diffusers": (0, 42), "transformers": (5,)}
#: `balanced` skips blocks whose output changes by a smaller ratio than this.
CACHE_THRESHOLD = 0.1
FAST_STEPS = 4
_DOCUMENTED = Defaults(50, 7.5, 5.0)
_HEADROOM = 0.3 * GIB
#: CLIP's image tower: 632 million weights in four bytes; the official file also holds the text tower.
_IMAGE_TOWER_BYTES = 2_530_000_000
#: How the names of transformer, text encoder, image encoder and VAE begin, by whether the layout is the official one.
_COMPONENTS = {
    True: ("diffusion_pytorch_model", "models_t5", "models_clip", "Wan2.1_VAE"),
    False: ("transformer", "text_encoder", "image_encoder", "vae"),
}


def weights_dir(request: VideoRequest, settings: Settings) -> Path | None:
    """The folder of weights for a request: ``weights``, else the folder set for its task."""
    large, small = settings.t2v_model_dir, settings.t2v_1_3b_model_dir
    texts = (small, large) if short_name(settings.model or "").endswith("1.3b") else (large, small)
    by_task = {"i2v": settings.i2v_model_dir, "flf2v": settings.flf2v_model_dir, "t2v": texts[0] or texts[1]}
    return settings.weights or by_task[request.task]


def interpreters(settings: Settings) -> tuple[InterpreterQuery, ...]:
    """The configured interpreter, else the one that runs Reelwright."""
    modules = (*MODULES, *FLASH_ATTN) if settings.attention == "flash" else MODULES
    return (interpreter_query(settings, settings.python or Path(sys.executable), modules),)


@dataclass(frozen=True, kw_only=True)
class EngineDecision(Decision[Settings]):
    """Everything decided about a clip of the resident engine."""

    directory: Path | None
    checkpoint: Checkpoint | None
    model: Model | None
    network: Network
    placed: placement.ChosenPlacement

    @property
    def on_cpu(self) -> bool:
        """Whether the engine computes on the CPU, which is meant for tests."""
        return self.job.settings.engine_device == "cpu"

    @property
    def expected(self) -> ExpectedVideo:
        """The expected video; the pipelines round down to 4n+1 frames."""
        return ExpectedVideo(*self.output_size, 4 * ((self.frames - 1) // 4) + 1, self.parameters["fps"])


def decide(job: Job) -> EngineDecision:
    """Make every decision about a request; `checks` reports its mistakes."""
    directory = weights_dir(job.request, job.settings)
    checkpoint = job.host.checkpoints.get(directory) if directory else None
    model = recognise(checkpoint) if checkpoint else None
    network = network_of(model, checkpoint) if model and checkpoint else Network(40, 40, 5120, 0)
    size = _size(job, model)
    frames = requested_frames(job, model.fps if model else 16.0, model.frames if model else 81)
    weights = _weights(model, network, checkpoint, job.settings)
    clip = _Clip(job, tokens(size, frames, model.stride if model else 8), network, size, weights)
    gpus = _gpus(clip)
    decision = EngineDecision(
        job=job,
        size=size,
        frames=frames,
        interpreter=pick_interpreter(interpreters(job.settings), job.host),
        gpus=gpus,
        ranks=max(1, len(gpus.gpus)),
        directory=directory,
        checkpoint=checkpoint,
        model=model,
        network=network,
        placed=_placed(clip, gpus.gpus),
    )
    return replace(decision, parameters=_parameters(decision))


@dataclass(frozen=True)
class _Clip:
    """The inputs of the choice of a placement."""

    job: Job
    tokens: int
    network: Network
    size: Size
    weights: placement.Weights


def _gpus(clip: _Clip) -> GpuChoice:
    """Choose the card that makes the clip soonest, or the requested number of cards."""
    settings, host = clip.job.settings, clip.job.host
    if settings.engine_device == "cpu":
        return GpuChoice(())
    wanted = gpu_count(settings, host) if settings.gpus or settings.gpu_count or settings.total_gpus else 1
    avoid = tuple(clip.job.overrides.get("avoid_gpus", ()))
    return choose_gpus(host, GpuNeeds((wanted,), lambda cards: _needs(clip, cards)), listed=settings.gpus, avoid=avoid)


def _needs(clip: _Clip, cards: tuple[Gpu, ...]) -> SetNeeds:
    """The needs of the fastest placement that fits these cards."""
    placed = _placed(clip, cards)
    seconds = placement.SLOWER[placed.name] / len(cards)
    return SetNeeds(placed.gpu_bytes + round(_HEADROOM), placed.host_bytes, seconds)


def _placed(clip: _Clip, cards: tuple[Gpu, ...]) -> placement.ChosenPlacement:
    """Choose the placement of the weights for these cards."""
    settings, overrides = clip.job.settings, clip.job.overrides
    on_cpu = settings.engine_device == "cpu"
    ranks = max(1, len(cards))
    scores = compatibility.attention_bytes(cards, clip.tokens, clip.network.heads / ranks)
    work = placement.Work(clip.tokens, clip.network.width, clip.size.area, ranks, 4 if on_cpu else 2, scores)
    free = None if on_cpu else smallest_free_bytes(cards)
    room = placement.Room(None if free is None else round(free - _HEADROOM), clip.job.host.memory_available_bytes)
    learned = placement.Learned(
        str(overrides.get("placement", placement.PLACEMENTS[0])), overrides.get("measured_peaks", {})
    )
    return placement.choose(clip.weights, work, room, settings.placement, learned)


def _size(job: Job, model: Model | None) -> Size:
    """The clip's size on the model's grid.

    A picture gives its aspect at the requested area, as in the official scripts. Without one it is the requested size.
    """
    wanted = requested_size(job.request, job.settings, job.overrides)
    side = model.stride if model else 8
    if job.first is not None:
        return output_size(wanted.area, job.first.size, side)
    grid = side * PATCH
    return Size(wanted.width // grid * grid, wanted.height // grid * grid)


def _weights(
    model: Model | None, network: Network, checkpoint: Checkpoint | None, settings: Settings
) -> placement.Weights:
    """Bytes in memory: two per weight of the denoiser, in any stored format, and four per weight of VAE and CLIP."""
    if model is None or checkpoint is None:
        return placement.Weights(0, 0, 0, 0, 1)
    precision = 4 if settings.engine_device == "cpu" else 2
    copies = 2 if model.two_experts else 1
    official = layout_of(checkpoint) == "official"
    on_disk, text, image, vae = (component_bytes(checkpoint, name) for name in _COMPONENTS[official])
    image = min(image, _IMAGE_TOWER_BYTES) if official else image
    denoiser = min(on_disk, network.parameters * precision * copies) if network.parameters else on_disk
    if model.family == "wan":  # the text encoder of a -Diffusers folder is stored in four bytes a weight
        text = min(text, T5_BYTES * precision // 2)
    loading, blocks = denoiser, network.layers * copies
    if settings.speed == "balanced" and settings.engine_device == "cuda":
        # Weights have eight bits except in the computing block; the engine converts them before they reach the card.
        denoiser = denoiser // 2 + denoiser // max(1, blocks)
    return placement.Weights(denoiser, text, image, vae, blocks, loading)


def _parameters(decision: EngineDecision) -> dict[str, Any]:
    """The effective parameters by their usual names; `Backend.execution` lists those that do not change the picture."""
    job, model = decision.job, decision.model
    request, settings = job.request, job.settings
    fast, framework = settings.speed == "fast", settings.preset == "framework"
    own = _DOCUMENTED
    if model and decision.checkpoint:
        own = defaults_of(model, decision.checkpoint, decision.size)
        own = replace(_DOCUMENTED, shift=own.shift) if model.documented and not framework else own
    ulysses, ring = split_degrees(decision.ranks, decision.network.heads)
    return {
        "model": model.name if model else None,
        "size": decision.size,
        "num_frames": decision.frames,
        "fps": model.fps if model else 16.0,
        "steps": int(
            job.overrides.get("steps") or request.steps or settings.sample_steps or (FAST_STEPS if fast else own.steps)
        ),
        "guidance_scale": first(request.guidance_scale, settings.guide_scale, 1.0 if fast else own.guidance),
        "flow_shift": first(request.flow_shift, settings.sample_shift, own.shift),
        "seed": first(request.seed, settings.base_seed, 0),
        "speed": settings.speed,
        "dtype": "float32" if decision.on_cpu else "bfloat16",
        "device": settings.engine_device,
        "placement": decision.placed.name,
        "gpu_count": decision.ranks,
        "ulysses_size": ulysses,
        "ring_size": ring,
        "attention": _attention(settings, decision.ranks, ring),
        "compile": settings.compile and not decision.on_cpu,
    }


def _attention(settings: Settings, ranks: int, ring: int) -> str:
    """The engine's name of the attention.

    Several ranks need an attention that diffusers can split. A ring needs one that returns its sums.
    """
    if ring > 1:
        return "_native_flash"
    if ranks > 1:
        return "native"
    return {"auto": "auto", "flash": "flash", "sdpa": "native"}[settings.attention]
