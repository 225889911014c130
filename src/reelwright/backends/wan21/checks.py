"""Findings about mistakes that generate.py would only notice after loading its weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ...core.errors import Failure
from ...core.host import Checkpoint
from ...core.plan import Finding, Severity
from ...core.request import VideoRequest
from ..shared import compatibility, wan
from ..shared.gpu_choice import gpu_findings
from ..shared.launch import checkout_fault, checkpoint_findings, interpreter_findings, model_name
from ..shared.rules import Length, length_findings, request_findings
from .decision import ATTENTION, WanDecision, flash_attn_missing, model_dir, model_named
from .variants import SMALL_SIZES, VARIANTS

#: imageio imports imageio_ffmpeg only when the video is written, and hides its absence (row P27).
MODULES = (
    "torch", "torchvision", "diffusers", "transformers", "easydict", "ftfy", "imageio", "imageio_ffmpeg", "cv2",
    "dashscope",
)  # fmt: skip
#: Files without which generate.py cannot be imported; they are missing in an incomplete clone or a zip of one folder.
PROGRAM = ("generate.py", "wan/__init__.py", "wan/configs/__init__.py", "wan/modules/model.py", "wan/utils/__init__.py")
_FLAGS = ("--task", "--size", "--frame_num", "--ckpt_dir", "--offload_model", "--save_file", "--prompt", "--base_seed")


def findings(decision: WanDecision) -> Iterator[Finding]:
    """Yield every problem that prevents the run, and every fact that the user should know."""
    settings = decision.job.settings
    yield from _checkout_findings(decision)
    flash = None if decision.sdpa else flash_attn_missing(decision.variant, decision.interpreter)
    needed = (*MODULES, *([flash] if flash else []), *(["xfuser"] if decision.ranks > 1 else []))
    yield from interpreter_findings(decision.interpreter, needed, framework="Wan2.1")
    if decision.sdpa and "torch" in decision.interpreter.modules:
        yield _sdpa_finding(decision)
    yield from _card_findings(decision)
    if settings.model and model_named(settings) is None:
        text = f"model: {settings.model} is none of generate.py's: {', '.join(variant.task for variant in VARIANTS)}"
        severity: Severity = "error" if decision.job.request.task == "t2v" else "warning"
        yield Finding("model.unknown", severity, text, "Correct `model`, or leave it out.")
    directory = model_dir(decision.variant, settings)
    checkpoint = decision.job.host.checkpoints.get(directory) if directory else None
    other = tuple(_task_findings(decision, checkpoint.config)) if checkpoint and not checkpoint.kind else ()
    yield from other or checkpoint_findings(checkpoint, decision.variant.key)
    if checkpoint and not checkpoint.problems:
        yield from _weights_findings(decision, checkpoint)
    yield from decision.gpus.findings
    yield from _size_findings(decision)
    yield from _frame_findings(decision)
    yield from _parallel_findings(decision)
    yield from _request_findings(decision.job.request)


def _checkout_findings(decision: WanDecision) -> Iterator[Finding]:
    settings, checkout = decision.job.settings, decision.checkout
    if settings.wan2_dir is None:
        fix = "Set wan2_dir to a checkout of github.com/Wan-Video/Wan2.1, or run `reel setup wan2.1`."
        yield Finding("wan2_dir.unset", "error", "wan2_dir is not set", fix)
        return
    fault = checkout_fault(checkout, PROGRAM, f"wan2_dir {settings.wan2_dir}", "github.com/Wan-Video/Wan2.1")
    if fault:
        yield Finding("wan2_dir.wrong", "error", *fault, Failure.ENV)
        return
    assert checkout is not None
    tasks = checkout.matches.get("tasks", ())
    if tasks and decision.variant.task not in tasks:
        kind = "a checkout of Wan2.2" if "i2v-A14B" in tasks else "a checkout"
        text = f"{settings.wan2_dir} is {kind} without the task {decision.variant.task}; it has {', '.join(dict.fromkeys(tasks))}"
        yield Finding("wan2_dir.task", "error", text, "Use a current checkout of Wan2.1.", Failure.ENV)
    fixed = decision.variant.fixed
    if fixed and fixed.old and checkout.matches.get(fixed.pattern):
        text = f"{settings.wan2_dir} is older than 2025-12-02: its image-to-video code makes exactly 81 frames"
        yield Finding("checkout.old", "info", text, "Update it for other lengths: git pull, in wan2_dir.")
    flags = checkout.matches.get("flags", ())
    missing = [flag for flag in _FLAGS if flags and flag not in flags]
    if missing:
        text = f"generate.py of {settings.wan2_dir} does not know {', '.join(missing)}"
        yield Finding("wan2_dir.flags", "error", text, "Update the checkout of Wan2.1.", Failure.ENV)


def _card_findings(decision: WanDecision) -> Iterator[Finding]:
    """Report cards, drivers, packages and requirements of the checkout that do not fit each other."""
    problem = None if decision.sdpa else decision.flash_attn_problem
    if problem:
        fix = "Set `attention: auto` or `attention: sdpa`, or use another card."
        newer_or_older = any((gpu.capability or (9, 0))[0] != 8 for gpu in decision.gpus.gpus)
        hopeless = problem.startswith("flash_attn ") or newer_or_older
        yield Finding("attention.card", "error" if hopeless else "warning", problem, fix, Failure.ENV)
    environment = compatibility.RunEnvironment(
        decision.interpreter, decision.gpus.gpus, "Wan2.1", decision.checkout, (*MODULES, *ATTENTION, "xfuser")
    )
    yield from compatibility.findings(environment, decision.job.host)


def _sdpa_finding(decision: WanDecision) -> Finding:
    broken = decision.interpreter.broken.get("flash_attn", "is not installed")
    unfit = None if flash_attn_missing(decision.variant, decision.interpreter) else decision.flash_attn_problem
    why = "attention: sdpa" if decision.job.settings.attention == "sdpa" else unfit or f"flash_attn {broken}"
    if unfit and decision.job.settings.attention == "auto":
        text = f"PyTorch's own attention is used: {unfit}; the picture may differ in the last bits"
        return Finding("attention.sdpa", "warning", text, "Set `attention: sdpa` to silence this.")
    text = f"PyTorch's own attention is used instead of flash-attn ({why}); the picture may differ in the last bits"
    if decision.job.settings.attention == "sdpa":
        return Finding("attention.sdpa", "info", text)
    return Finding("attention.sdpa", "warning", text, "Install flash-attn, or set `attention: sdpa` to silence this.")


def _task_findings(decision: WanDecision, config: Mapping[str, object]) -> Iterator[Finding]:
    """Report weights for another task or of another size; their missing files alone would not name the cause."""
    variant, directory = decision.variant, model_dir(decision.variant, decision.job.settings)
    found = config.get("model_type")
    if found is not None and found != variant.makes:
        right = next((item.key for item in VARIANTS if item.makes == found), None)
        text = f"{variant.key} {directory} holds {found} weights; {variant.task} needs {variant.makes}"
        fix = f"Set {right} to this folder, and {variant.key}" if right else f"Set {variant.key}"
        yield Finding("model.task", "error", text, f"{fix} to {variant.makes} weights.", Failure.MODEL)
        return
    heads = config.get("num_heads")
    if isinstance(heads, int) and heads != variant.heads:
        text = f"{variant.key} {directory} has {heads} attention heads; {variant.task} has {variant.heads}"
        fix = (
            "The 1.3B and the 14B text-to-video weights have settings of their own: t2v_1_3b_model_dir, t2v_model_dir."
        )
        yield Finding("model.size", "error", text, fix, Failure.MODEL)
    channels = config.get("in_dim")
    if isinstance(channels, int) and channels != variant.channels:
        text = f"{variant.key} {directory} takes {channels} channels; {variant.task} has {variant.channels}: it is a derived model"
        fix = f"Set {variant.key} to the official weights; those of Fun, Control and others need other code."
        yield Finding("model.derived", "error", text, fix, Failure.MODEL)


def _weights_findings(decision: WanDecision, checkpoint: Checkpoint) -> Iterator[Finding]:
    variant = decision.variant
    name = model_name(checkpoint.directory).upper()
    small = decision.size.area <= SMALL_SIZES[0].area
    trained = [size for size in ("480P", "720P") if re.search(rf"(?<!\d){size}", name)]
    if trained in (["480P"], ["720P"]) and (trained == ["480P"]) != small:
        text = f"{variant.key} names {trained[0]} weights and the size is {decision.size}: they were not trained for it"
        yield Finding("model.resolution", "warning", text, f"Use a {trained[0]} size, or the other weights.")
    if checkpoint.dtypes and checkpoint.dtypes <= {"BF16", "F16"}:
        kind = ", ".join(sorted(checkpoint.dtypes))
        text = f"{variant.key} {checkpoint.directory} stores its weights as {kind}; the published ones are F32"
        yield Finding("model.dtype", "warning", text, "The clip may differ from one of the published weights.")


def _size_findings(decision: WanDecision) -> Iterator[Finding]:
    size, variant, picture = decision.size, decision.variant, decision.job.first
    known = (*variant.sizes, *variant.added_sizes)
    if size not in known:
        text = f"{variant.task} cannot make {size}"
        yield Finding("size.unsupported", "error", text, f"Choose one of {', '.join(map(str, known))}.")
        return
    if size in variant.added_sizes:
        text = f"{size} is not in generate.py's own table; the unmodified script is started through a launcher that adds it"
        yield Finding("size.added", "info", text)
    if picture is None:
        return
    result = wan.output_size(size.area, picture.size)
    if result != size:
        text = (
            f"the clip will be {result}: Wan2.1 keeps the picture's aspect ({picture.size}) and takes only the area "
            f"of {size}"
        )
        fix = "Use --fit cover (crop) or contain (pad) to get the aspect of the size."
        yield Finding("size.derived", "info", text, fix)
    if min(result) < 128 or max(result) > 4 * min(result):
        text = f"the model was not trained for a clip of {result}"
        yield Finding("size.aspect", "warning", text, "Crop the picture: --fit cover.")


def _frame_findings(decision: WanDecision) -> Iterator[Finding]:
    frames, fixed, checkout = decision.frames, decision.variant.fixed, decision.checkout
    length = Length("Wan2.1", wan.FPS, wan.CLIP_FRAMES, wan.CLIP_FRAMES / wan.FPS)
    yield from length_findings(decision.job.request, frames, length)
    if fixed is None or frames % 4 != 1 or frames == wan.CLIP_FRAMES:
        return
    if checkout.matches.get(fixed.pattern) if checkout else not fixed.old:
        yield Finding(fixed.code, "error", fixed.text.format(frames=frames), fixed.fix)


def _parallel_findings(decision: WanDecision) -> Iterator[Finding]:
    ranks, ring = decision.ranks, decision.parameters["ring_size"]
    tokens = wan.tokens(decision.output_size, decision.frames)
    if ring > 1 and tokens % ranks:
        text = f"{tokens} tokens do not split evenly over {ranks} GPUs: ring attention pads them and the result is slightly off"
        yield Finding("gpus.ring_padding", "warning", text, "Use 2, 4, 5 or 8 GPUs.")
    yield from gpu_findings(decision.gpus.gpus)


def _request_findings(request: VideoRequest) -> Iterator[Finding]:
    if request.negative_prompt:
        text = "generate.py has no negative prompt option: it always uses the model's own"
        yield Finding("ignored.negative_prompt", "warning", text, "Leave out --negative-prompt.")
    yield from request_findings(request, "Wan2.1", wan.FPS, tokens=512)
