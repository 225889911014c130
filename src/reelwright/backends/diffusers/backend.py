"""The backend of the resident engine, which loads Wan2.1, Wan2.2 or HunyuanVideo once and keeps the weights.

`BACKEND` is the record; `plan` is pure. A plan calls `engines.diffusers` in a worker. It names the model to load, the
clip to make, and the file that keeps the denoised latents until the video is complete. Sizes, lengths and defaults
match the official scripts, so a shot can move from one to the other.

    >>> BACKEND.name
    'diffusers'
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.host import CheckoutQuery, CheckpointQuery, Host, HostQuery
from ...core.plan import Command, Dialect, EngineCall, Plan
from ...core.request import VideoRequest
from .. import Backend, ClipRules
from ..shared.capabilities import Capabilities
from ..shared.launch import ENV_NAMES, PROCESS_SETTINGS, environment
from ..shared.rules import picture_frame
from ..shared.wan import CLIP_FILE, T5_FILE, TOKENIZER, VAE_FILE
from .assumed_models import assumed_models
from .checks import findings
from .decision import CACHE_THRESHOLD, EngineDecision, decide, interpreters, weights_dir
from .models import CONFIGS, MODELS, layout_of, recognise
from .settings import DiffusersJob as Job
from .settings import DiffusersSettings as Settings

LAUNCHER = Path(__file__).parents[2] / "launchers" / "resident.py"
ENGINE = "diffusers"
#: The official script adds its own negative prompt. These patterns find it in the user's checkout, if one is set.
_NEGATIVE: Mapping[str, tuple[str, str]] = {
    "all": ("wan/configs/shared_config.py", r"sample_neg_prompt = ['\"]([^'\"]*)['\"]"),
    "i2v": ("wan/configs/wan_i2v_14B.py", r"sample_neg_prompt = ['\"]([^'\"]*)['\"] \+"),
    "flf2v": ("wan/configs/__init__.py", r"flf2v_14B\.sample_neg_prompt = ['\"]([^'\"]*)['\"] \+"),
}
_USUAL = MODELS["wan2.1-i2v-14B"]
_QUIET_LIMITS_S: Mapping[str, float] = {
    "": 900.0,
    "starting": 300.0,
    "loading text encoder": 1200.0,
    "loading transformer": 2700.0,
    "denoising": 1800.0,
    "decoding": 2700.0,
}


def query(request: VideoRequest, settings: Settings) -> HostQuery:
    """Ask for the folder in either layout, the interpreter, the GPUs, and the negative prompt of a Wan checkout."""
    directory = weights_dir(request, settings)
    pictures = (CLIP_FILE,) if request.task in ("i2v", "flf2v") else ()
    official = CheckpointQuery(
        directory or Path(),
        required=(T5_FILE, VAE_FILE, TOKENIZER, "config.json", *pictures),
        weights=("diffusion_pytorch_model*.safetensors",),
        config="config.json",
        verify=settings.verify_model,
        layout="engine",
    )
    folder = CheckpointQuery(
        directory or Path(),
        configs=CONFIGS,
        components=True,
        verify=settings.verify_model,
        otherwise=official,
        layout="engine",
    )
    files = tuple(dict.fromkeys(file for file, _ in _NEGATIVE.values()))
    return HostQuery(
        gpus=settings.engine_device == "cuda",
        interpreters=interpreters(settings),
        checkouts=(CheckoutQuery(settings.wan2_dir, files, _NEGATIVE),) if settings.wan2_dir else (),
        checkpoints=((folder,) if directory else ()) + _loras(settings, directory),
    )


def _loras(settings: Settings, directory: Path | None) -> tuple[CheckpointQuery, ...]:
    """The folders of LoRA files, each with its files. The engine itself checks a LoRA in the folder of the weights."""
    folders = dict.fromkeys(lora.path.parent for lora in settings.lora)
    return tuple(
        CheckpointQuery(folder, required=tuple(lora.path.name for lora in settings.lora if lora.path.parent == folder))
        for folder in folders
        if folder != directory
    )


# ----------------------------------------------------------------------------------------------------------- plan


def plan(job: Job) -> Plan:
    """Plan the engine call and the expected video, and find every mistake that can be known before the run."""
    decision = decide(job)
    return decision.plan(
        BACKEND.name,
        tuple(findings(decision)),
        lambda: _call(decision) if decision.model else None,
        more_disk_bytes=_frames_bytes(decision),
        gpu_bytes=None if decision.on_cpu else decision.placed.gpu_bytes,
        host_bytes=decision.placed.host_bytes,
    )


def _frames_bytes(decision: EngineDecision) -> int:
    """Bytes on disk of the frames between worker and encoder, and of the latents."""
    return decision.size.area * decision.frames * 3 + decision.size.area * decision.frames // 4


def _call(decision: EngineDecision) -> EngineCall:
    model, options = _model(decision), _options(decision)
    key = _latents_key(decision, model, options)
    folder = decision.job.settings.state_dir / "latents"
    kept = {"latents": str(folder / f"{key[:32]}.safetensors"), "latents_key": key}
    return EngineCall(ENGINE, {**options, **kept}, model, _worker(decision))


def _worker(decision: EngineDecision) -> Command:
    settings, job = decision.job.settings, decision.job
    limits = {"": settings.progress_timeout} if settings.progress_timeout else _QUIET_LIMITS_S
    return Command(
        argv=(str(decision.interpreter.path), str(LAUNCHER), ENGINE),
        cwd=Path("/"),
        env=environment(settings, decision.gpus.gpus, simulated=job.host.simulated),
        env_names=ENV_NAMES,
        dialect=Dialect(bars=()),
        quiet_limits_s=limits,
        hidden=frozenset(settings.env),
    )


def _model(decision: EngineDecision) -> dict[str, Any]:
    """The model that the engine loads; see docs/decisions/0006."""
    model, parameters = decision.model, decision.parameters
    assert model is not None
    assert decision.checkpoint is not None
    return {
        "name": model.name,
        "family": model.family,
        "directory": str(decision.directory),
        "layout": layout_of(decision.checkpoint),
        "tasks": dict(model.tasks),
        "dtype": parameters["dtype"],
        "device": parameters["device"],
        "ranks": decision.ranks,
        "parallel": {"ulysses": parameters["ulysses_size"], "ring": parameters["ring_size"]},
        "attention": parameters["attention"],
        "placements": list(decision.placed.placements),
        "speed": _speed(decision),
    }


def _speed(decision: EngineDecision) -> dict[str, Any]:
    settings, model = decision.job.settings, decision.model
    assert model is not None
    balanced = settings.speed == "balanced"
    return {
        "preset": settings.speed,
        "compile": decision.parameters["compile"],
        "cache": {"kind": "first_block", "threshold": CACHE_THRESHOLD} if balanced and model.cache else None,
        "fp8": balanced and not decision.on_cpu,
        "lora": [{"path": str(lora.path), "scale": lora.scale, "into": lora.into} for lora in settings.lora],
    }


def _options(decision: EngineDecision) -> dict[str, Any]:
    job, parameters = decision.job, decision.parameters
    return {
        "task": job.request.task,
        "prompt": job.request.prompt,
        "negative_prompt": job.request.negative_prompt or _official_negative(decision),
        "image": str(job.first.path) if job.first else None,
        "last_image": str(job.last.path) if job.last else None,
        "width": decision.size.width,
        "height": decision.size.height,
        "num_frames": decision.frames,
        "fps": parameters["fps"],
        "steps": parameters["steps"],
        "guidance_scale": parameters["guidance_scale"],
        "flow_shift": parameters["flow_shift"],
        "seed": parameters["seed"],
        "decode": ["full", "tiled", "cpu"],
        "codec": job.request.codec or job.settings.codec,
    }


def _official_negative(decision: EngineDecision) -> str:
    """The official script's own negative prompt from the configured checkout; empty without one."""
    settings, model = decision.job.settings, decision.model
    checkout = decision.job.host.checkouts.get(settings.wan2_dir) if settings.wan2_dir else None
    if checkout is None or model is None or not model.name.startswith("wan2.1"):
        return ""
    parts = {"t2v": ("all",), "i2v": ("i2v", "all"), "flf2v": ("flf2v", "i2v", "all")}[model.kind]
    return "".join((checkout.matches.get(part) or ("",))[0] for part in parts)


def _latents_key(decision: EngineDecision, model: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """A hash of everything that the latents depend on, without the placement and the names of private files."""
    job = decision.job
    assert decision.checkpoint is not None
    named = {name: value for name, value in options.items() if name not in ("image", "last_image", "decode", "codec")}
    pictures = [[picture.sha256, str(picture.size)] if picture else None for picture in (job.first, job.last)]
    loaded = {name: value for name, value in model.items() if name != "placements"}
    beside = [job.host.checkpoints.get(lora.path.parent) for lora in job.settings.lora]
    files = [found.fingerprint for found in (decision.checkpoint, *beside) if found]
    text = json.dumps(
        [1, loaded, named, pictures, files, dict(decision.interpreter.modules)], sort_keys=True, default=str
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# ---------------------------------------------------------------------------------------------------- the record


def capabilities(settings: Settings, host: Host) -> Capabilities:
    """The abilities of the models in the configured folders."""
    found = [recognise(checkpoint) for checkpoint in host.checkpoints.values() if not checkpoint.problems]
    models = [model for model in found if model is not None]
    longest = max(model.frames / model.fps for model in models or [_USUAL])
    return Capabilities(
        tasks={task for model in models for task in model.tasks},
        max_duration=longest,
        resolutions=("any multiple of 16",),
        requires_gpu=settings.engine_device == "cuda",
        max_concurrent=max(1, len(host.gpus or ()) // (settings.gpu_count or 1)),
        models=tuple(model.name for model in models),
        more={"fps": models[0].fps if models else None, "frames": "4n+1"},
    )


def configured(settings: Settings) -> bool:
    """Whether ``weights`` is set. The folders of the official scripts alone do not select this engine."""
    return settings.weights is not None


def clip_of(settings: Settings) -> ClipRules:
    """The limits of a clip of the configured ``model``, or of Wan2.1 if it names none of the engine's models."""
    model = MODELS.get(settings.model or "", _USUAL)
    return ClipRules(model.fps, model.frames, 4)


BACKEND = Backend(
    name="diffusers",
    title="Resident engine: Wan2.1, Wan2.2 and HunyuanVideo on diffusers, weights loaded once",
    query=query,
    plan=plan,
    capabilities=capabilities,
    frame=picture_frame,
    configured=configured,
    assumed_models=assumed_models,
    settings=Settings,
    settings_used=PROCESS_SETTINGS | {"codec"},
    configuration_hint="Set weights to a folder of a model and install the extra `engine` (docs/engine.md).",
    clip_of=clip_of,
    execution=frozenset({"placement", "gpu_count", "ulysses_size", "ring_size", "device", "attention", "compile"}),
    resident=True,
)
