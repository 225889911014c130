"""What is decided about a clip of the resident engine: folder, model, size, length, GPUs, placement, speed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...core.host import GIB, Checkpoint, Gpu, Interpreter, InterpreterQuery
from ...core.plan import ExpectedVideo
from ...core.request import Size, VideoRequest
from ..shared import compatibility
from ..shared.gpu_choice import GpuChoice, Needs, Way, choose_gpus, gpu_count, split_degrees
from ..shared.launch import interpreter_query, pick_interpreter
from ..shared.rules import asked_frames, asked_size, first
from ..shared.wan import PATCH, T5_BYTES, output_size, tokens
from . import placement
from .models import Defaults, Model, Network, component_bytes, defaults_of, layout_of, network_of, recognise
from .settings import DiffusersJob as Job
from .settings import DiffusersSettings as Settings

#: Packages that the worker's interpreter must have.
MODULES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "ftfy")
#: The oldest that the engine works with, as in the extra `engine`.
LEAST: Mapping[str, tuple[int, ...]] = {"torch": (2, 6), "diffusers": (0, 42), "transformers": (5,)}
#: Relative change under which `balanced` leaves blocks out.
CACHE_THRESHOLD = 0.1
FAST_STEPS = 4
_DOCUMENTED = Defaults(50, 7.5, 5.0)
_HEADROOM = 0.3 * GIB
#: The part of CLIP that sees: 632 million weights in four bytes; the official file holds the text tower too.
_EYE_BYTES = 2_530_000_000


def weights_dir(request: VideoRequest, settings: Settings) -> Path | None:
    """The folder for a request: ``weights``, else the one that is set for its task."""
    large, small = settings.t2v_model_dir, settings.t2v_1_3b_model_dir
    texts = (small, large) if (settings.model or "").lower().endswith("1.3b") else (large, small)
    by_task = {"i2v": settings.i2v_model_dir, "flf2v": settings.flf2v_model_dir, "t2v": texts[0] or texts[1]}
    return settings.weights or by_task[request.task]


def interpreters(settings: Settings) -> tuple[InterpreterQuery, ...]:
    """The configured interpreter, else the one that runs this."""
    return (interpreter_query(settings, settings.python or Path(sys.executable), MODULES),)


@dataclass(frozen=True)
class Choice:
    """Everything decided about a clip."""

    job: Job
    directory: Path | None
    checkpoint: Checkpoint | None
    model: Model | None
    network: Network
    interpreter: Interpreter
    gpus: GpuChoice
    size: Size
    frames: int
    weights: placement.Weights
    placed: placement.Choice
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def on_cpu(self) -> bool:
        return self.job.settings.engine_device == "cpu"

    @property
    def ranks(self) -> int:
        return max(1, len(self.gpus.gpus))


def choose(job: Job) -> Choice:
    """Decide; what is wrong with it is for `checks`."""
    settings, host = job.settings, job.host
    directory = weights_dir(job.request, settings)
    checkpoint = host.checkpoints.get(directory) if directory else None
    model = recognise(checkpoint) if checkpoint else None
    network = network_of(model, checkpoint) if model and checkpoint else Network(40, 40, 5120, 0)
    size = _size(job, model)
    frames = asked_frames(job, model.fps if model else 16.0, model.frames if model else 81)
    weights = _weights(model, network, checkpoint, settings)
    clip = _Clip(job, tokens(size, frames, model.stride if model else 8), network, size, weights)
    gpus = _gpus(clip)
    placed = _placed(clip, gpus.gpus)
    found = Choice(
        job,
        directory,
        checkpoint,
        model,
        network,
        pick_interpreter(interpreters(settings), host),
        gpus,
        size,
        frames,
        weights,
        placed,
    )
    return _with_parameters(found)


@dataclass(frozen=True)
class _Clip:
    """What decides where the weights of a clip go."""

    job: Job
    tokens: int
    network: Network
    size: Size
    weights: placement.Weights


def _gpus(clip: _Clip) -> GpuChoice:
    """One card, the one on which the clip is made soonest, or as many as are asked for."""
    settings, host = clip.job.settings, clip.job.host
    if settings.engine_device == "cpu":
        return GpuChoice(())
    wanted = gpu_count(settings, host) if settings.gpus or settings.gpu_count or settings.total_gpus else 1
    avoid = tuple(clip.job.overrides.get("avoid_gpus", ()))
    return choose_gpus(host, Needs((wanted,), lambda cards: _way(clip, cards)), listed=settings.gpus, avoid=avoid)


def _way(clip: _Clip, cards: tuple[Gpu, ...]) -> Way:
    """What the fastest placement needs that fits these cards."""
    placed = _placed(clip, cards)
    seconds = placement.SLOWER[placed.rung] / len(cards)
    return Way(placed.gpu_bytes + round(_HEADROOM), placed.host_bytes, seconds)


def _placed(clip: _Clip, cards: tuple[Gpu, ...]) -> placement.Choice:
    """Where the weights go on these cards."""
    settings, overrides = clip.job.settings, clip.job.overrides
    on_cpu = settings.engine_device == "cpu"
    ranks = max(1, len(cards))
    scores = compatibility.attention_bytes(cards, clip.tokens, clip.network.heads / ranks)
    work = placement.Work(clip.tokens, clip.network.width, clip.size.area, ranks, 4 if on_cpu else 2, scores)
    room = placement.Room(None if on_cpu else _free(cards), clip.job.host.memory_available_bytes)
    learned = placement.Learned(
        str(overrides.get("placement", placement.RUNGS[0])), overrides.get("measured_peaks", {})
    )
    return placement.choose(clip.weights, work, room, settings.placement, learned)


def _size(job: Job, model: Model | None) -> Size:
    """The film's size: with a picture its aspect at the asked area, as the official scripts do; else as asked."""
    asked = asked_size(job.request, job.settings, job.overrides)
    side = model.stride if model else 8
    if job.first is not None:
        return output_size(asked.area, job.first.size, side)
    grid = side * PATCH
    return Size(asked.width // grid * grid, asked.height // grid * grid)


def _weights(
    model: Model | None, network: Network, checkpoint: Checkpoint | None, settings: Settings
) -> placement.Weights:
    """Bytes in memory: the denoiser in two bytes a weight whatever it is stored in, the VAE and CLIP in four."""
    if model is None or checkpoint is None:
        return placement.Weights(0, 0, 0, 0, 1)
    precision = 4 if settings.engine_device == "cpu" else 2
    copies = 2 if model.two_experts else 1
    if layout_of(checkpoint) == "official":
        on_disk, text = component_bytes(checkpoint, "diffusion_pytorch_model"), component_bytes(checkpoint, "models_t5")
        image, vae = component_bytes(checkpoint, "models_clip"), component_bytes(checkpoint, "Wan2.1_VAE")
        image = min(image, _EYE_BYTES)
    else:
        on_disk, text = component_bytes(checkpoint, "transformer"), component_bytes(checkpoint, "text_encoder")
        image, vae = component_bytes(checkpoint, "image_encoder"), component_bytes(checkpoint, "vae")
    denoiser = min(on_disk, network.parameters * precision * copies) if network.parameters else on_disk
    if model.family == "wan":  # the text encoder of a -Diffusers folder is stored in four bytes a weight
        text = min(text, T5_BYTES * precision // 2)
    loading, blocks = denoiser, network.layers * copies
    if settings.speed == "balanced" and settings.engine_device == "cuda":
        # In eight bits, but for the block whose turn it is; read and reduced before they come to the card (engines).
        denoiser = denoiser // 2 + denoiser // max(1, blocks)
    return placement.Weights(denoiser, text, image, vae, blocks, loading)


def _free(gpus: tuple[Gpu, ...]) -> int | None:
    known = [gpu.free_bytes for gpu in gpus if gpu.free_bytes is not None]
    return round(min(known) - _HEADROOM) if known else None


def _with_parameters(choice: Choice) -> Choice:
    return replace(choice, parameters=_parameters(choice))


def _parameters(choice: Choice) -> dict[str, Any]:
    """Effective parameters, by the field's names; what only says how it is computed is `Backend.execution`."""
    job, model = choice.job, choice.model
    request, settings = job.request, job.settings
    fast, framework = settings.speed == "fast", settings.preset == "framework"
    own = _DOCUMENTED
    if model and choice.checkpoint:
        own = defaults_of(model, choice.checkpoint, choice.size)
        own = replace(_DOCUMENTED, shift=own.shift) if model.documented and not framework else own
    ulysses, ring = split_degrees(choice.ranks, choice.network.heads)
    return {
        "model": model.name if model else None,
        "size": choice.size,
        "num_frames": choice.frames,
        "fps": model.fps if model else 16.0,
        "steps": int(
            job.overrides.get("steps") or request.steps or settings.sample_steps or (FAST_STEPS if fast else own.steps)
        ),
        "guidance_scale": first(request.guidance_scale, settings.guide_scale, 1.0 if fast else own.guidance),
        "flow_shift": first(request.flow_shift, settings.sample_shift, own.shift),
        "seed": first(request.seed, settings.base_seed, 0),
        "speed": settings.speed,
        "dtype": "float32" if choice.on_cpu else "bfloat16",
        "device": settings.engine_device,
        "placement": choice.placed.rung,
        "gpu_count": choice.ranks,
        "ulysses_size": ulysses,
        "ring_size": ring,
        "attention": _attention(settings, choice.ranks, ring),
        "compile": settings.compile and not choice.on_cpu,
    }


def _attention(settings: Settings, ranks: int, ring: int) -> str:
    """The engine's name for it; ranks get one that diffusers can split, ring attention one that tells its sums."""
    if ring > 1:
        return "_native_flash"
    if ranks > 1:
        return "native"
    return {"auto": "auto", "flash": "flash", "sdpa": "native"}[settings.attention]


def expected_video(choice: Choice) -> ExpectedVideo:
    """The promised film."""
    rate = choice.model.fps if choice.model else 16.0
    return ExpectedVideo(choice.size.width, choice.size.height, 4 * ((choice.frames - 1) // 4) + 1, rate)
