"""Wan2.1 through its official, unmodified generate.py: t2v, i2v and first-last-frame, on one GPU or several.

`BACKEND` is the record; `core.plan` is pure. It finds before the start what the script would only find after loading
60 GB of weights, and names the fix. Numbers and formulas are in `facts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...core.host import CheckoutQuery, CheckpointQuery, Host, HostQuery
from ...core.plan import Command, Plan, PublishedTime
from ...core.request import Size, VideoRequest
from .. import Backend, ClipRules
from ..shared import compatibility, wan
from ..shared.gpu_choice import gpu_count
from ..shared.launch import EXPANDABLE_SEGMENTS, PROCESS_SETTINGS, Program, command, interpreter_queries, option
from ..shared.rules import disk_bytes, is_illegal, picture_frame
from . import facts
from .assumed_models import assumed_models
from .checks import MODULES, PROGRAM, findings
from .choice import ATTENTION, Choice, choose, expected_video, model_dir, variant_of
from .facts import FLF2V_14B, I2V_14B, T2V_1_3B, T2V_14B
from .mitigations import mitigations
from .settings import Wan21Job as Job
from .settings import Wan21Settings as Settings

LAUNCHER = Path(__file__).parents[2] / "launchers" / "wan21.py"
PATTERNS: Mapping[str, tuple[str, str]] = {
    **compatibility.REQUIREMENTS,
    "flags": ("generate.py", r"add_argument\(\s*[\"'](--\w+)"),
    "tasks": ("wan/configs/__init__.py", r"['\"]([a-z0-9]+-[A-Z]?[0-9.]+B)['\"]\s*:"),
    "i2v_81": ("wan/image2video.py", r"torch\.ones\(\s*1,\s*(81)\b"),
    "flf2v_81": ("wan/first_last_frame2video.py", r"torch\.ones\(\s*1,\s*(81)\b"),
}
FILES = (*PROGRAM, "wan/image2video.py", "wan/first_last_frame2video.py")


def query(request: VideoRequest, settings: Settings) -> HostQuery:
    """The checkout, its interpreter, the weights of this task, and the GPUs."""
    variant = variant_of(request, settings)
    directory = model_dir(variant, settings)
    checkpoints = (
        (
            CheckpointQuery(
                directory,
                required=facts.required_files(variant),
                weights=("diffusion_pytorch_model*.safetensors",),
                config="config.json",
                foreign=("model_index.json", "low_noise_model", "high_noise_model"),
                verify=settings.verify_model,
                layout="wan2.1",
            ),
        )
        if directory
        else ()
    )
    return HostQuery(
        gpus=True,
        interpreters=interpreter_queries(settings, settings.wan2_dir, (*MODULES, *ATTENTION, "xfuser")),
        checkouts=(CheckoutQuery(settings.wan2_dir, FILES, PATTERNS),) if settings.wan2_dir else (),
        checkpoints=checkpoints,
    )


# ----------------------------------------------------------------------------------------------------------- plan


def plan(job: Job) -> Plan:
    """The exact command for a request, the film it will give, and every mistake that can be known now."""
    choice = choose(job)
    found = tuple(findings(choice))
    expected = expected_video(choice)
    return Plan(
        generator=BACKEND.name,
        task=job.request.task,
        generative=True,
        run=None if is_illegal(found) else _command(choice),
        expected=expected,
        parameters=choice.parameters,
        gpus=tuple(gpu.index for gpu in choice.gpus.gpus),
        gpu_bytes=facts.peak_gpu_bytes(choice.use),
        host_bytes=facts.host_bytes(choice.use),
        disk_bytes=disk_bytes(job.settings, expected),
        published=_published(choice),
        findings=found,
        mitigations=tuple(mitigations(choice)),
    )


def _published(choice: Choice) -> PublishedTime:
    size, steps, ranks = choice.size, choice.parameters["steps"], choice.ranks
    seconds = facts.published_seconds(choice.variant, size, choice.frames, steps, ranks)
    cards = f"{ranks} x {facts.published(choice.variant).card}"
    source = f"an estimate for {cards} from Wan2.1's published figures, scaled to this size, length and steps"
    return PublishedTime(seconds, source)


def _command(choice: Choice) -> Command:
    job, parameters = choice.job, choice.parameters
    assert job.settings.wan2_dir is not None
    broken = any(_is_broken(choice.interpreter.broken.get(name)) for name in ATTENTION)
    launched = choice.size in facts.ADDED_SIZES or choice.sdpa or broken
    script = [str(LAUNCHER), *_launcher_options(choice), "--"] if launched else []
    program = Program(
        python=choice.interpreter.path,
        script=(*script, "generate.py", *_options(choice)),
        cwd=job.settings.wan2_dir,
        gpus=choice.gpus.gpus,
        ranks=choice.ranks,
        dialect=facts.dialect(parameters["steps"]),
        quiet_limits_s=facts.QUIET_LIMITS_S,
        env=EXPANDABLE_SEGMENTS if parameters["expandable_segments"] else {},
    )
    return command(job, program)


def _is_broken(why: str | None) -> bool:
    """Whether a package is there and cannot be imported, which would end the framework's own import of it."""
    return why is not None and not why.startswith("ModuleNotFoundError")


def _launcher_options(choice: Choice) -> Iterator[str]:
    if choice.size in facts.ADDED_SIZES:
        yield option("add-size", _star(choice.size))
    if choice.sdpa:
        yield option("attention", "sdpa")


def _star(size: Size) -> str:
    return f"{size.width}*{size.height}"


def _options(choice: Choice) -> Iterator[str]:
    """The script's own options: absolute paths, one word each, and nothing left to a default that surprises."""
    job, parameters = choice.job, choice.parameters
    yield option("task", choice.variant.task)
    yield option("size", _star(choice.size))
    yield option("frame_num", choice.frames)
    yield option("ckpt_dir", model_dir(choice.variant, job.settings))
    yield option("offload_model", bool(parameters["offload_model"]))
    if choice.ranks > 1:
        yield option("ulysses_size", parameters["ulysses_size"])
        yield option("ring_size", parameters["ring_size"])
    if choice.fsdp:
        yield "--dit_fsdp"
        if not parameters["t5_cpu"]:
            yield "--t5_fsdp"
    if parameters["t5_cpu"]:
        yield "--t5_cpu"
    if job.last and job.first:
        yield option("first_frame", job.first.path)
        yield option("last_frame", job.last.path)
    elif job.first:
        yield option("image", job.first.path)
    yield option("sample_steps", parameters["steps"])
    yield option("sample_shift", parameters["flow_shift"])
    yield option("sample_guide_scale", parameters["guidance_scale"])
    yield option("base_seed", parameters["seed"])
    yield option("save_file", job.output)
    yield option("prompt", job.request.prompt)


# ---------------------------------------------------------------------------------------------------- the record


def capabilities(settings: Settings, host: Host) -> Mapping[str, Any]:
    """The documented mapping, true for this configuration."""
    count = len(host.gpus or ())
    per_run = max(1, min(gpu_count(settings, host), count)) if count else 1
    models = [variant.task for variant in (I2V_14B, FLF2V_14B, T2V_14B, T2V_1_3B) if model_dir(variant, settings)]
    return {
        "max_duration": wan.CLIP_FRAMES / wan.FPS,
        "supported_resolutions": [str(size) for size in (*facts.OWN_SIZES, *facts.ADDED_SIZES)],
        "supported_formats": ["mp4"],
        "input_types": ["text", "image"],
        "requires_gpu": True,
        "cost_per_second": 0.0,
        "max_concurrent": max(1, count // per_run),
        "supports_image_to_video": I2V_14B.task in models,
        "supports_text_to_video": bool({T2V_14B.task, T2V_1_3B.task} & set(models)),
        "supports_first_last_frame": FLF2V_14B.task in models,
        "models": models,
        "fps": wan.FPS,
        "frames": "4n+1, 81 per clip",
    }


def configured(settings: Settings) -> bool:
    """Whether any of its keys is set."""
    keys = ("wan2_dir", "i2v_model_dir", "flf2v_model_dir", "t2v_model_dir", "t2v_1_3b_model_dir")
    return any(getattr(settings, key) for key in keys)


BACKEND = Backend(
    name="wan2.1",
    title="Wan2.1 through the official generate.py (t2v, i2v, first-last-frame)",
    generative=True,
    requires_gpu=True,
    query=query,
    plan=plan,
    capabilities=capabilities,
    frame=picture_frame,
    configured=configured,
    clip=ClipRules(wan.FPS, wan.CLIP_FRAMES, 4),
    execution=frozenset(
        {"offload_model", "t5_cpu", "gpu_count", "ulysses_size", "ring_size", "fsdp", "expandable_segments"}
    ),
    assumed_models=lambda: assumed_models(FILES),
    settings=Settings,
    settings_used=PROCESS_SETTINGS | {"accept_valid_on_nonzero"},
    configuration_hint="Set wan2_dir and i2v_model_dir (docs/wan21.md), or run `reel setup wan2.1`.",
)
