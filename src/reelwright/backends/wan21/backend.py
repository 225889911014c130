"""The backend of Wan2.1's official, unmodified generate.py: t2v, i2v and first-last-frame, on one GPU or several.

`BACKEND` is the record; `plan` is pure. It finds mistakes before the start that the script would only find after
loading 60 GB of weights, and names the fix. The models are in `variants`, the formulas in `facts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ...core.host import CheckoutQuery, CheckpointQuery, Host, HostQuery
from ...core.plan import Command, Plan, PublishedTime
from ...core.request import Size, VideoRequest
from .. import Backend, ClipRules
from ..shared import compatibility, wan
from ..shared.capabilities import Capabilities
from ..shared.gpu_choice import clips_at_a_time
from ..shared.launch import PROCESS_SETTINGS, interpreter_queries, option, script_command
from ..shared.rules import picture_frame
from . import facts
from .assumed_models import assumed_models
from .checks import MODULES, PROGRAM, findings
from .decision import ATTENTION, WanDecision, decide, model_dir, variant_of
from .mitigations import mitigations
from .settings import Wan21Job as Job
from .settings import Wan21Settings as Settings
from .variants import ADDED_SIZES, OWN_SIZES, VARIANTS

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
    """Ask for the checkout, its interpreter, the weights of this task, and the GPUs."""
    variant = variant_of(request, settings)
    directory = model_dir(variant, settings)
    weights = CheckpointQuery(
        directory or Path(),
        required=variant.files,
        weights=("diffusion_pytorch_model*.safetensors",),
        config="config.json",
        foreign=("model_index.json", "low_noise_model", "high_noise_model"),
        verify=settings.verify_model,
        layout="wan2.1",
    )
    return HostQuery(
        gpus=True,
        interpreters=interpreter_queries(settings, settings.wan2_dir, (*MODULES, *ATTENTION, "xfuser")),
        checkouts=(CheckoutQuery(settings.wan2_dir, FILES, PATTERNS),) if settings.wan2_dir else (),
        checkpoints=(weights,) if directory else (),
    )


# ----------------------------------------------------------------------------------------------------------- plan


def plan(job: Job) -> Plan:
    """Plan the exact command and the expected video, and find every mistake that can be known before the run."""
    decision = decide(job)
    return decision.plan(
        BACKEND.name,
        tuple(findings(decision)),
        lambda: _command(decision),
        gpu_bytes=facts.peak_gpu_bytes(decision.memory),
        host_bytes=facts.host_bytes(decision.memory),
        published=_published(decision),
        mitigations=tuple(mitigations(decision)),
    )


def _published(decision: WanDecision) -> PublishedTime:
    variant, steps, ranks = decision.variant, decision.parameters["steps"], decision.ranks
    seconds = facts.published_seconds(variant, decision.size, decision.frames, steps, ranks)
    cards = f"{ranks} x {variant.published.card}"
    source = f"an estimate for {cards} from Wan2.1's published figures, scaled to this size, length and steps"
    return PublishedTime(seconds, source)


def _command(decision: WanDecision) -> Command:
    checkout = decision.job.settings.wan2_dir
    assert checkout is not None
    broken = any(_is_broken(decision.interpreter.broken.get(name)) for name in ATTENTION)
    launched = decision.size in ADDED_SIZES or decision.sdpa or broken
    launcher = [str(LAUNCHER), *_launcher_options(decision), "--"] if launched else []
    script = (*launcher, "generate.py", *_options(decision))
    return script_command(decision, script, checkout, facts.dialect(decision.parameters["steps"]), facts.QUIET_LIMITS_S)


def _is_broken(why: str | None) -> bool:
    """Whether a package is installed and cannot be imported; the framework would end at that import."""
    return why is not None and not why.startswith("ModuleNotFoundError")


def _launcher_options(decision: WanDecision) -> Iterator[str]:
    if decision.size in ADDED_SIZES:
        yield option("add-size", _star(decision.size))
    if decision.sdpa:
        yield option("attention", "sdpa")


def _star(size: Size) -> str:
    return f"{size.width}*{size.height}"


def _options(decision: WanDecision) -> Iterator[str]:
    """The script's own options: one word each, absolute paths, and every value that a default could change."""
    job, parameters = decision.job, decision.parameters
    yield option("task", decision.variant.task)
    yield option("size", _star(decision.size))
    yield option("frame_num", decision.frames)
    yield option("ckpt_dir", model_dir(decision.variant, job.settings))
    yield option("offload_model", bool(parameters["offload_model"]))
    if decision.ranks > 1:
        yield option("ulysses_size", parameters["ulysses_size"])
        yield option("ring_size", parameters["ring_size"])
    if decision.fsdp:
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


def capabilities(settings: Settings, host: Host) -> Capabilities:
    """The abilities of the configured models."""
    variants = [variant for variant in VARIANTS if model_dir(variant, settings)]
    return Capabilities(
        tasks=[variant.makes for variant in variants],
        max_duration=wan.CLIP_FRAMES / wan.FPS,
        resolutions=tuple(map(str, (*OWN_SIZES, *ADDED_SIZES))),
        requires_gpu=True,
        max_concurrent=clips_at_a_time(settings, host),
        models=tuple(variant.task for variant in variants),
        more={"fps": wan.FPS, "frames": "4n+1, 81 per clip"},
    )


def configured(settings: Settings) -> bool:
    """Whether one of the generator's keys is set."""
    return bool(settings.wan2_dir) or any(model_dir(variant, settings) for variant in VARIANTS)


BACKEND = Backend(
    name="wan2.1",
    title="Wan2.1 through the official generate.py (t2v, i2v, first-last-frame)",
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
