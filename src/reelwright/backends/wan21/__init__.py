"""Wan2.1 through its official, unmodified generate.py: t2v, i2v and first-last-frame, on one GPU or several.

`BACKEND` is the record; `plan` is pure. It finds before the start what the script would only find after loading
60 GB of weights, and names the fix. Numbers and formulas are in `facts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import Failure
from ...host import GIB, Checkout, CheckoutQuery, CheckpointQuery, Host, HostQuery, Interpreter
from ...plan import Command, ExpectedVideo, Finding, Job, Lever, Plan
from ...request import Size, VideoRequest, parse_size
from ...scripts import (
    ENV_NAMES,
    WRITER_CHECK,
    GpuChoice,
    checkpoint_findings,
    choose_gpus,
    environment,
    gpu_count,
    interpreter_findings,
    interpreter_queries,
    nearest_4n1,
    option,
    pick_interpreter,
    split_degrees,
    start,
)
from ...settings import Settings
from .. import Backend
from . import facts
from .facts import FLF2V_14B, I2V_14B, T2V_1_3B, T2V_14B, Variant

LAUNCHER = Path(__file__).parents[2] / "launchers" / "wan21.py"
_MODULES = ("torch", "torchvision", "diffusers", "transformers", "easydict", "ftfy", "imageio", "cv2", "dashscope")
_ATTENTION = ("flash_attn", "flash_attn_interface")
_FLAGS = ("--task", "--size", "--frame_num", "--ckpt_dir", "--offload_model", "--save_file", "--prompt", "--base_seed")
_PATTERNS: Mapping[str, tuple[str, str]] = {
    "flags": ("generate.py", r"add_argument\(\s*[\"'](--\w+)"),
    "tasks": ("wan/configs/__init__.py", r"['\"]([a-z0-9]+-[A-Z]?[0-9.]+B)['\"]\s*:"),
    "i2v_81": ("wan/image2video.py", r"torch\.ones\(\s*1,\s*(81)\b"),
    "flf2v_81": ("wan/first_last_frame2video.py", r"torch\.ones\(\s*1,\s*(81)\b"),
}
_FILES = ("generate.py", "wan/configs/__init__.py", "wan/image2video.py", "wan/first_last_frame2video.py")


def _variant(request: VideoRequest, settings: Settings) -> Variant:
    """The task for a request; text-to-video has two models, and the configured one is taken."""
    if request.task == "i2v":
        return I2V_14B
    if request.task == "flf2v":
        return FLF2V_14B
    small = settings.model == T2V_1_3B.task or (settings.model is None and settings.t2v_model_dir is None)
    return T2V_1_3B if small and (settings.model or settings.t2v_1_3b_model_dir) else T2V_14B


def _model_dir(variant: Variant, settings: Settings) -> Path | None:
    directory: Path | None = getattr(settings, variant.key)
    return directory


def query(request: VideoRequest, settings: Settings) -> HostQuery:
    """The checkout, its interpreter, the weights of this task, and the GPUs."""
    variant = _variant(request, settings)
    directory = _model_dir(variant, settings)
    checkpoints = (
        (
            CheckpointQuery(
                directory,
                required=facts.required_files(variant),
                weights=("diffusion_pytorch_model*.safetensors",),
                config="config.json",
                foreign=("model_index.json", "low_noise_model", "high_noise_model"),
                verify=settings.verify_model,
            ),
        )
        if directory
        else ()
    )
    return HostQuery(
        gpus=True,
        interpreters=interpreter_queries(settings, settings.wan2_dir, (*_MODULES, *_ATTENTION, "xfuser")),
        checkouts=(CheckoutQuery(settings.wan2_dir, _FILES, _PATTERNS),) if settings.wan2_dir else (),
        checkpoints=checkpoints,
    )


def frame(request: VideoRequest, settings: Settings) -> Size | None:
    """Pictures keep their aspect (so does the framework), unless a fit is asked for."""
    if request.fit is None and settings.fit is None:
        return None
    return _asked_size(request, settings, {})


def _asked_size(request: VideoRequest, settings: Settings, overrides: Mapping[str, Any]) -> Size:
    chosen = overrides.get("size") or request.size or settings.size or "1280x720"
    return parse_size(chosen) if isinstance(chosen, str) else Size(*chosen)


# ----------------------------------------------------------------------------------------------------------- plan


@dataclass(frozen=True)
class _Choice:
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


def plan(job: Job) -> Plan:
    """The exact command for a request, the film it will give, and every mistake that can be known now."""
    choice = _choose(job)
    findings = tuple(_findings(choice))
    expected = _expected(choice)
    # A machine that lacks something still gets its command shown; only an illegal one does not exist.
    illegal = any(item.severity == "error" and item.failure is Failure.CONFIG for item in findings)
    return Plan(
        generator=BACKEND.name,
        task=job.request.task,
        generative=True,
        run=None if illegal else _command(choice),
        expected=expected,
        parameters=choice.parameters,
        gpus=tuple(gpu.index for gpu in choice.gpus.gpus),
        gpu_bytes=facts.peak_gpu_bytes(choice.use),
        host_bytes=facts.host_bytes(choice.use),
        disk_bytes=_disk_bytes(job, expected),
        findings=findings,
        levers=tuple(_levers(choice)),
    )


def _choose(job: Job) -> _Choice:
    request, settings, overrides = job.request, job.settings, job.overrides
    variant = _variant(request, settings)
    size = _asked_size(request, settings, overrides)
    frames = overrides.get("num_frames") or _frames(request, settings)
    wanted = int(overrides.get("gpu_count") or _count(settings, job.host, variant))
    gpus = choose_gpus(settings, job.host, wanted, avoid=tuple(overrides.get("avoid_gpus", ())))
    ranks = max(1, len(gpus.gpus) or wanted)
    queries = interpreter_queries(settings, settings.wan2_dir, ())
    interpreter = pick_interpreter(queries, job.host)
    checkout = job.host.checkouts.get(settings.wan2_dir) if settings.wan2_dir else None
    has_flash = any(name in interpreter.modules for name in _ATTENTION)
    sdpa = settings.attention == "sdpa" or (settings.attention == "auto" and not has_flash)
    draft = _Choice(job, variant, size, frames, gpus, ranks, interpreter, checkout, sdpa, {})
    return replace(draft, parameters=_parameters(draft))


def _count(settings: Settings, host: Host, variant: Variant) -> int:
    """The configured count as it is; when it is detected, the largest one that ulysses alone can split."""
    count = gpu_count(settings, host)
    if settings.gpus or settings.gpu_count:
        return count
    return max(ranks for ranks in range(1, count + 1) if variant.heads % ranks == 0)


def _frames(request: VideoRequest, settings: Settings) -> int:
    if request.num_frames is not None:
        return request.num_frames
    if request.seconds is not None:
        return nearest_4n1(request.seconds * facts.FPS)
    return settings.frame_num or facts.CLIP_FRAMES


def _parameters(choice: _Choice) -> dict[str, Any]:
    """Effective parameters, by the field's names; overrides of a retry come last."""
    request, settings, variant = choice.job.request, choice.job.settings, choice.variant
    framework = settings.preset == "framework"
    single = choice.ranks == 1
    ulysses, ring = split_degrees(choice.ranks, variant.heads)
    free = min((gpu.free_bytes for gpu in choice.gpus.gpus if gpu.free_bytes is not None), default=None)
    # The text encoder alone peaks at 10.6 GiB: on a smaller card it must stay on the CPU.
    t5_cpu = single and free is not None and free < facts.T5_BYTES + GIB
    parameters: dict[str, Any] = {
        "size": choice.size,
        "num_frames": choice.frames,
        "fps": facts.FPS,
        "steps": request.steps or settings.sample_steps or (variant.framework_steps if framework else 50),
        "guidance_scale": _first(request.guidance_scale, settings.guide_scale, 5.0 if framework else 7.5),
        "flow_shift": _first(
            request.flow_shift, settings.sample_shift, facts.default_shift(variant, choice.size)
        ),
        "seed": _first(request.seed, settings.base_seed, 0),
        "offload_model": single,
        "t5_cpu": t5_cpu,
        "gpu_count": choice.ranks,
        "ulysses_size": ulysses,
        "ring_size": ring,
        "fsdp": choice.fsdp,
        "attention": "sdpa" if choice.sdpa else "flash",
        "expandable_segments": False,
    }
    forced = {name: value for name, value in choice.job.overrides.items() if name in parameters}
    return {**parameters, **forced, "size": choice.size, "num_frames": choice.frames, "gpu_count": choice.ranks}


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _expected(choice: _Choice) -> ExpectedVideo:
    picture = choice.job.first
    size = facts.output_size(choice.size.area, picture.size) if picture else choice.size
    frames = 4 * ((choice.frames - 1) // 4) + 1
    return ExpectedVideo(size.width, size.height, frames, facts.FPS)


def _disk_bytes(job: Job, expected: ExpectedVideo) -> int:
    """The log's limit, and a film at imageio's quality 8: below 0.25 byte per pixel in every clip we have seen."""
    film = expected.width * expected.height * expected.num_frames // 4
    return film + job.settings.log_limit_mb * 1024 * 1024


def _command(choice: _Choice) -> Command:
    job, parameters = choice.job, choice.parameters
    assert job.settings.wan2_dir is not None
    launched = choice.size in facts.ADDED_SIZES or choice.sdpa
    script = [str(LAUNCHER), *_launcher_options(choice), "--"] if launched else []
    argv = start(choice.interpreter.path, (*script, "generate.py", *_options(choice)), choice.ranks)
    env = environment(job.settings, choice.gpus.gpus, simulated=job.host.simulated)
    if parameters["expandable_segments"]:
        env["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    limits = facts.QUIET_LIMITS_S
    if job.settings.progress_timeout:
        limits = {"": job.settings.progress_timeout}
    return Command(
        argv=argv,
        cwd=job.settings.wan2_dir,
        env=env,
        env_names=ENV_NAMES,
        dialect=facts.dialect(parameters["steps"]),
        quiet_limits_s=limits,
        ranks=choice.ranks,
        writer_check=WRITER_CHECK,
    )


def _launcher_options(choice: _Choice) -> Iterator[str]:
    if choice.size in facts.ADDED_SIZES:
        yield option("add-size", _star(choice.size))
    if choice.sdpa:
        yield option("attention", "sdpa")


def _star(size: Size) -> str:
    return f"{size.width}*{size.height}"


def _options(choice: _Choice) -> Iterator[str]:
    """The script's own options: absolute paths, one word each, and nothing left to a default that surprises."""
    job, parameters = choice.job, choice.parameters
    yield option("task", choice.variant.task)
    yield option("size", _star(choice.size))
    yield option("frame_num", choice.frames)
    yield option("ckpt_dir", _model_dir(choice.variant, job.settings))
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


# ------------------------------------------------------------------------------------------------------- findings


def _findings(choice: _Choice) -> Iterator[Finding]:
    settings = choice.job.settings
    yield from _checkout_findings(choice)
    flash = () if choice.sdpa else ("flash_attn",)
    if "flash_attn_interface" in choice.interpreter.modules:
        flash = ()
    yield from interpreter_findings(
        choice.interpreter,
        (*_MODULES, *flash),
        framework="Wan2.1",
        multi_gpu=("xfuser",) if choice.ranks > 1 else (),
    )
    if choice.sdpa and not choice.interpreter.problem:
        yield _sdpa_finding(choice)
    directory = _model_dir(choice.variant, settings)
    checkpoint = choice.job.host.checkpoints.get(directory) if directory else None
    yield from checkpoint_findings(checkpoint, choice.variant.key)
    if checkpoint and not checkpoint.problems:
        yield from _weights_findings(choice, checkpoint.config, checkpoint.foreign)
    yield from choice.gpus.findings
    yield from _size_findings(choice)
    yield from _frame_findings(choice)
    yield from _parallel_findings(choice)
    yield from _request_findings(choice.job.request)


def _checkout_findings(choice: _Choice) -> Iterator[Finding]:
    settings, checkout = choice.job.settings, choice.checkout
    if settings.wan2_dir is None:
        fix = "Set wan2_dir to a checkout of github.com/Wan-Video/Wan2.1, or run `reel setup wan2.1`."
        yield Finding("wan2_dir.unset", "error", "wan2_dir is not set", fix)
        return
    if checkout is None or checkout.problem or "generate.py" not in checkout.files:
        problem = (checkout.problem if checkout else None) or "has no generate.py"
        fix = "Set wan2_dir to the folder that holds Wan2.1's generate.py."
        yield Finding("wan2_dir.wrong", "error", f"wan2_dir {settings.wan2_dir} {problem}", fix, Failure.ENV)
        return
    tasks = checkout.matches.get("tasks", ())
    if tasks and choice.variant.task not in tasks:
        kind = "a checkout of Wan2.2" if "i2v-A14B" in tasks else "a checkout"
        text = f"{settings.wan2_dir} is {kind} without the task {choice.variant.task}; it has {', '.join(dict.fromkeys(tasks))}"
        yield Finding("wan2_dir.task", "error", text, "Use a current checkout of Wan2.1.", Failure.ENV)
    flags = checkout.matches.get("flags", ())
    missing = [flag for flag in _FLAGS if flags and flag not in flags]
    if missing:
        text = f"generate.py of {settings.wan2_dir} does not know {', '.join(missing)}"
        yield Finding("wan2_dir.flags", "error", text, "Update the checkout of Wan2.1.", Failure.ENV)


def _sdpa_finding(choice: _Choice) -> Finding:
    broken = choice.interpreter.broken.get("flash_attn", "is not installed")
    why = "attention: sdpa" if choice.job.settings.attention == "sdpa" else f"flash_attn {broken}"
    text = f"PyTorch's own attention is used instead of flash-attn ({why}); the picture may differ in the last bits"
    return Finding("attention.sdpa", "warning", text, "Install flash-attn, or set `attention: sdpa` to silence this.")


def _weights_findings(
    choice: _Choice, config: Mapping[str, object], foreign: frozenset[str]
) -> Iterator[Finding]:
    variant, directory = choice.variant, _model_dir(choice.variant, choice.job.settings)
    if {"low_noise_model", "high_noise_model"} & foreign:
        text = f"{variant.key} {directory} holds weights of Wan2.2, not Wan2.1"
        yield Finding("model.family", "error", text, f"Set {variant.key} to Wan2.1 weights.", Failure.MODEL)
        return
    found = config.get("model_type")
    if found is not None and found != variant.model_type:
        text = f"{variant.key} {directory} holds {found} weights; {variant.task} needs {variant.model_type}"
        yield Finding("model.task", "error", text, f"Set {variant.key} to the right weights.", Failure.MODEL)
    heads = config.get("num_heads")
    if isinstance(heads, int) and heads != variant.heads:
        text = f"{variant.key} {directory} has {heads} attention heads; {variant.task} has {variant.heads}"
        fix = "The 1.3B and the 14B text-to-video weights have keys of their own: t2v_1_3b_model_dir, t2v_model_dir."
        yield Finding("model.size", "error", text, fix, Failure.MODEL)
    name = str(directory).upper()
    small = choice.size.area <= facts.SMALL_SIZES[0].area
    if ("480P" in name and not small) or ("720P" in name and small):
        trained = "480P" if "480P" in name else "720P"
        text = f"{variant.key} names {trained} weights and the size is {choice.size}: they were not trained for it"
        yield Finding("model.resolution", "warning", text, f"Use a {trained} size, or the other weights.")


def _size_findings(choice: _Choice) -> Iterator[Finding]:
    size, variant, picture = choice.size, choice.variant, choice.job.first
    added = () if variant is T2V_1_3B else facts.ADDED_SIZES
    if size not in (*variant.sizes, *added):
        known = ", ".join(map(str, (*variant.sizes, *added)))
        text = f"{variant.task} cannot make {size}"
        yield Finding("size.unsupported", "error", text, f"Choose one of {known}.")
        return
    if size in added:
        text = f"{size} is not in generate.py's own table; the unmodified script is started through a launcher that adds it"
        yield Finding("size.added", "info", text)
    if picture is None:
        return
    result = facts.output_size(size.area, picture.size)
    if result != size:
        text = (
            f"the film will be {result}: Wan2.1 keeps the picture's aspect ({picture.size}) and takes only the area "
            f"of {size}"
        )
        fix = "Give --fit cover (crop) or contain (pad) to bring the picture to the size's aspect."
        yield Finding("size.derived", "info", text, fix)
    if min(result) < 128 or max(result) > 4 * min(result):
        text = f"a film of {result} is outside anything the model was trained for"
        yield Finding("size.aspect", "warning", text, "Crop the picture: --fit cover.")


def _frame_findings(choice: _Choice) -> Iterator[Finding]:
    frames, request, variant = choice.frames, choice.job.request, choice.variant
    matches: Mapping[str, tuple[str, ...]] = choice.checkout.matches if choice.checkout else {}
    if frames % 4 != 1:
        fix = f"Use {nearest_4n1(frames)}, or another number of the form 4n+1."
        yield Finding("frames.4n1", "error", f"Wan2.1 makes 4n+1 frames, not {frames}", fix)
        return
    only_81 = "flf2v_81" in matches or (choice.checkout is None and variant is FLF2V_14B)
    if variant is FLF2V_14B and frames != facts.CLIP_FRAMES and only_81:
        text = f"first-last-frame clips have exactly 81 frames (5.06 s) in this checkout, not {frames}"
        yield Finding("frames.flf2v", "error", text, "Leave out --frames and --seconds, or ask for 81 frames.")
    elif variant is I2V_14B and frames != facts.CLIP_FRAMES and "i2v_81" in matches:
        text = f"this checkout is older than 2025-12-02: its image-to-video code makes exactly 81 frames, not {frames}"
        yield Finding("frames.old_checkout", "error", text, "Update it: git pull, in wan2_dir.")
    elif request.seconds and request.seconds > facts.CLIP_FRAMES / facts.FPS + 0.125:
        text = f"one clip is at most 81 frames, 5.06 s; {request.seconds:g} s are asked for"
        yield Finding("frames.too_long", "error", text, "Ask for 5 s per clip and chain clips into a film.")
    elif frames > facts.CLIP_FRAMES:
        text = f"{frames} frames are more than the 81 that the model was trained for: expect flicker and drift"
        yield Finding("frames.long", "warning", text, "Ask for 81 frames per clip.")
    seconds = frames / facts.FPS
    if request.seconds and abs(request.seconds - seconds) > 0.01:
        text = f"{request.seconds:g} s become {frames} frames, {seconds:.2f} s: Wan2.1 makes 4n+1 frames at 16 fps"
        yield Finding("frames.rounded", "info", text)


def _parallel_findings(choice: _Choice) -> Iterator[Finding]:
    settings, ranks, ring = choice.job.settings, choice.ranks, choice.parameters["ring_size"]
    visible = len(choice.job.host.gpus or ())
    if not (settings.gpus or settings.gpu_count or settings.total_gpus) and visible > ranks:
        text = f"{ranks} of {visible} GPUs are used: {choice.variant.heads} attention heads split evenly over {ranks}"
        yield Finding("gpus.fewer", "info", text, f"Give --gpus {visible} to use them all through ring attention.")
    picture = choice.job.first
    size = facts.output_size(choice.size.area, picture.size) if picture else choice.size
    if ring > 1 and facts.tokens(size, choice.frames) % ranks:
        text = f"{facts.tokens(size, choice.frames)} tokens do not split evenly over {ranks} GPUs: ring attention pads them and the result is slightly off"
        yield Finding("gpus.ring_padding", "warning", text, "Use 2, 4, 5 or 8 GPUs.")
    if ranks > 1 and choice.gpus.gpus and len({gpu.name for gpu in choice.gpus.gpus}) > 1:
        yield Finding("gpus.mixed", "warning", "the GPUs differ: the slowest and smallest decides", "List alike ones.")


def _request_findings(request: VideoRequest) -> Iterator[Finding]:
    if request.negative_prompt:
        text = "generate.py has no negative prompt option: it always uses the model's own"
        yield Finding("ignored.negative_prompt", "warning", text, "Leave out --negative-prompt.")
    if request.fps not in (None, facts.FPS):
        text = f"Wan2.1 makes 16 fps; {request.fps:g} fps cannot be chosen"
        yield Finding("fps.fixed", "error", text, "Leave out --fps.")
    for name in ("camera", "depth_image"):
        if getattr(request, name):
            yield Finding(f"ignored.{name}", "info", f"{name} is for the draft generator and is ignored")
    # A word is rarely under one token and a character rarely over two, so 2,000 characters surely pass 512 tokens.
    if len(request.prompt) > 2000:
        text = "the prompt is very long: the text encoder reads 512 tokens and drops the rest"
        yield Finding("prompt.long", "warning", text, "Put what matters first.")


def _levers(choice: _Choice) -> Iterator[Lever]:
    """What really lowers Wan's memory, cheapest first (reliability: steps and guidance do not)."""
    parameters, job = choice.parameters, choice.job
    if not parameters["offload_model"]:
        why = "text encoder, image encoder and transformer leave the GPU between phases (Wan README)"
        yield Lever("offload", {"offload_model": True}, "memory", "time", why)
    if not parameters["t5_cpu"] and not choice.fsdp:
        yield Lever("t5_cpu", {"t5_cpu": True}, "memory", "time", "the text encoder stays on the CPU (Wan README)")
    if not parameters["expandable_segments"]:
        why = "less memory is lost to fragmentation (Wan2.1#198)"
        yield Lever("expandable_segments", {"expandable_segments": True}, "memory", "nothing", why)
    more = _more_gpus(choice)
    if more:
        why = f"weights and sequence are split over {more} GPUs instead of {choice.ranks}"
        yield Lever("more_gpus", {"gpu_count": more, "offload_model": False}, "memory", "nothing", why)
    if choice.variant is not FLF2V_14B:
        for frames in (49, 33):
            if frames < choice.frames:
                why = f"{frames} frames have {facts.tokens(choice.size, frames):,} tokens instead of {facts.tokens(choice.size, choice.frames):,}"
                yield Lever(f"frames_{frames}", {"num_frames": frames}, "memory", "frames", why)
    if choice.size.area > facts.SMALL_SIZES[0].area:
        small = facts.SMALL_SIZES[0 if choice.size.width >= choice.size.height else 1]
        shift = _first(job.request.flow_shift, job.settings.sample_shift, facts.default_shift(choice.variant, small))
        why = "480p has 2.3 times fewer tokens and pixels than 720p"
        yield Lever("size_480p", {"size": str(small), "flow_shift": shift}, "memory", "size", why)


def _more_gpus(choice: _Choice) -> int | None:
    settings, visible = choice.job.settings, len(choice.job.host.gpus or ())
    if settings.gpus or not settings.chaining_use_fsdp_flags:
        return None
    able = [ranks for ranks in range(choice.ranks + 1, visible + 1) if choice.variant.heads % ranks == 0]
    return max(able, default=None)


# ---------------------------------------------------------------------------------------------------- the record


def capabilities(settings: Settings, host: Host) -> Mapping[str, Any]:
    """The documented mapping, true for this configuration."""
    count = len(host.gpus or ())
    per_run = max(1, min(gpu_count(settings, host), count)) if count else 1
    models = [
        variant.task for variant in (I2V_14B, FLF2V_14B, T2V_14B, T2V_1_3B) if _model_dir(variant, settings)
    ]
    return {
        "max_duration": facts.CLIP_FRAMES / facts.FPS,
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
        "fps": facts.FPS,
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
    frame=frame,
    configured=configured,
    configuration_hint="Set wan2_dir and i2v_model_dir (docs/wan21.md), or run `reel setup wan2.1`.",
)
