"""What can be known before the start: every mistake that generate.py would only find after loading its weights."""

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
from . import facts
from .choice import ATTENTION, Choice, flash_attn_missing, flash_attn_problem, model_dir, model_named
from .facts import FLF2V_14B, I2V_14B, T2V_1_3B, T2V_14B

#: imageio_ffmpeg is imported by imageio only when the film is written, and its absence is hidden there (row P27).
MODULES = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "easydict",
    "ftfy",
    "imageio",
    "imageio_ffmpeg",
    "cv2",
    "dashscope",
)
#: Without one of these generate.py cannot even be imported: a clone that was cut short, or a zip of one folder.
PROGRAM = ("generate.py", "wan/__init__.py", "wan/configs/__init__.py", "wan/modules/model.py", "wan/utils/__init__.py")
_FLAGS = ("--task", "--size", "--frame_num", "--ckpt_dir", "--offload_model", "--save_file", "--prompt", "--base_seed")


def findings(choice: Choice) -> Iterator[Finding]:
    settings = choice.job.settings
    yield from _checkout_findings(choice)
    flash = None if choice.sdpa else flash_attn_missing(choice.variant, choice.interpreter)
    yield from interpreter_findings(
        choice.interpreter,
        (*MODULES, *([flash] if flash else [])),
        framework="Wan2.1",
        multi_gpu=("xfuser",) if choice.ranks > 1 else (),
    )
    if choice.sdpa and "torch" in choice.interpreter.modules:
        yield _sdpa_finding(choice)
    yield from _card_findings(choice)
    if settings.model and model_named(settings) is None:
        text = f"model: {settings.model} is none of generate.py's: i2v-14B, flf2v-14B, t2v-14B, t2v-1.3B"
        severity: Severity = "error" if choice.job.request.task == "t2v" else "warning"
        yield Finding("model.unknown", severity, text, "Correct `model`, or leave it out.")
    directory = model_dir(choice.variant, settings)
    checkpoint = choice.job.host.checkpoints.get(directory) if directory else None
    other = tuple(_task_findings(choice, checkpoint.config)) if checkpoint and not checkpoint.kind else ()
    yield from other or checkpoint_findings(checkpoint, choice.variant.key)
    if checkpoint and not checkpoint.problems:
        yield from _weights_findings(choice, checkpoint)
    yield from choice.gpus.findings
    yield from _size_findings(choice)
    yield from _frame_findings(choice)
    yield from _parallel_findings(choice)
    yield from _request_findings(choice.job.request)


def _checkout_findings(choice: Choice) -> Iterator[Finding]:
    settings, checkout = choice.job.settings, choice.checkout
    if settings.wan2_dir is None:
        fix = "Set wan2_dir to a checkout of github.com/Wan-Video/Wan2.1, or run `reel setup wan2.1`."
        yield Finding("wan2_dir.unset", "error", "wan2_dir is not set", fix)
        return
    fault = checkout_fault(checkout, PROGRAM, f"wan2_dir {settings.wan2_dir}", "github.com/Wan-Video/Wan2.1")
    if checkout is None or fault:
        text, fix = fault or (f"wan2_dir {settings.wan2_dir} was not looked at", "Run it again.")
        yield Finding("wan2_dir.wrong", "error", text, fix, Failure.ENV)
        return
    tasks = checkout.matches.get("tasks", ())
    if tasks and choice.variant.task not in tasks:
        kind = "a checkout of Wan2.2" if "i2v-A14B" in tasks else "a checkout"
        text = f"{settings.wan2_dir} is {kind} without the task {choice.variant.task}; it has {', '.join(dict.fromkeys(tasks))}"
        yield Finding("wan2_dir.task", "error", text, "Use a current checkout of Wan2.1.", Failure.ENV)
    if checkout.matches.get("i2v_81") and choice.variant is I2V_14B:
        text = f"{settings.wan2_dir} is older than 2025-12-02: its image-to-video code makes exactly 81 frames"
        yield Finding("checkout.old", "info", text, "Update it for other lengths: git pull, in wan2_dir.")
    flags = checkout.matches.get("flags", ())
    missing = [flag for flag in _FLAGS if flags and flag not in flags]
    if missing:
        text = f"generate.py of {settings.wan2_dir} does not know {', '.join(missing)}"
        yield Finding("wan2_dir.flags", "error", text, "Update the checkout of Wan2.1.", Failure.ENV)


def _card_findings(choice: Choice) -> Iterator[Finding]:
    """Whether the cards, the driver, the packages and the checkout's own requirements fit each other."""
    problem = None if choice.sdpa else flash_attn_problem(choice)
    if problem:
        fix = "Set `attention: auto` or `attention: sdpa`, or use another card."
        hopeless = problem.startswith("flash_attn ") or any(
            (gpu.capability or (9, 0))[0] != 8 for gpu in choice.gpus.gpus
        )
        yield Finding("attention.card", "error" if hopeless else "warning", problem, fix, Failure.ENV)
    matches: Mapping[str, tuple[str, ...]] = choice.checkout.matches if choice.checkout else {}
    needs = compatibility.Needs(
        choice.interpreter,
        choice.gpus.gpus,
        "Wan2.1",
        matches.get("requirements", ()),
        matches.get("requires_python", ()),
        (*MODULES, *ATTENTION, "xfuser"),
    )
    yield from compatibility.findings(needs, choice.job.host)


def _sdpa_finding(choice: Choice) -> Finding:
    broken = choice.interpreter.broken.get("flash_attn", "is not installed")
    unfit = None if flash_attn_missing(choice.variant, choice.interpreter) else flash_attn_problem(choice)
    why = "attention: sdpa" if choice.job.settings.attention == "sdpa" else unfit or f"flash_attn {broken}"
    if unfit and choice.job.settings.attention == "auto":
        text = f"PyTorch's own attention is used: {unfit}; the picture may differ in the last bits"
        return Finding("attention.sdpa", "warning", text, "Set `attention: sdpa` to silence this.")
    text = f"PyTorch's own attention is used instead of flash-attn ({why}); the picture may differ in the last bits"
    if choice.job.settings.attention == "sdpa":
        return Finding("attention.sdpa", "info", text)
    return Finding("attention.sdpa", "warning", text, "Install flash-attn, or set `attention: sdpa` to silence this.")


def _task_findings(choice: Choice, config: Mapping[str, object]) -> Iterator[Finding]:
    """Weights for another task or of another size: then files of this one are missing too, which is no cause."""
    variant, directory = choice.variant, model_dir(choice.variant, choice.job.settings)
    found = config.get("model_type")
    if found is not None and found != variant.model_type:
        right = {item.model_type: item.key for item in (T2V_14B, I2V_14B, FLF2V_14B)}.get(str(found))
        text = f"{variant.key} {directory} holds {found} weights; {variant.task} needs {variant.model_type}"
        fix = f"Set {right} to this folder, and {variant.key}" if right else f"Set {variant.key}"
        yield Finding("model.task", "error", text, f"{fix} to {variant.model_type} weights.", Failure.MODEL)
        return
    heads = config.get("num_heads")
    if isinstance(heads, int) and heads != variant.heads:
        text = f"{variant.key} {directory} has {heads} attention heads; {variant.task} has {variant.heads}"
        fix = "The 1.3B and the 14B text-to-video weights have keys of their own: t2v_1_3b_model_dir, t2v_model_dir."
        yield Finding("model.size", "error", text, fix, Failure.MODEL)
    channels, own = config.get("in_dim"), 16 if variant.model_type == "t2v" else 36
    if isinstance(channels, int) and channels != own:
        text = f"{variant.key} {directory} takes {channels} channels; {variant.task} has {own}: it is a derived model"
        fix = f"Set {variant.key} to the official weights; those of Fun, Control and others need code of their own."
        yield Finding("model.derived", "error", text, fix, Failure.MODEL)


def _weights_findings(choice: Choice, checkpoint: Checkpoint) -> Iterator[Finding]:
    variant = choice.variant
    name = model_name(checkpoint.directory).upper()
    small = choice.size.area <= facts.SMALL_SIZES[0].area
    trained = [size for size in ("480P", "720P") if re.search(rf"(?<!\d){size}", name)]
    if trained in (["480P"], ["720P"]) and (trained == ["480P"]) != small:
        text = f"{variant.key} names {trained[0]} weights and the size is {choice.size}: they were not trained for it"
        yield Finding("model.resolution", "warning", text, f"Use a {trained[0]} size, or the other weights.")
    if checkpoint.dtypes and checkpoint.dtypes <= {"BF16", "F16"}:
        kind = ", ".join(sorted(checkpoint.dtypes))
        text = f"{variant.key} {checkpoint.directory} stores its weights as {kind}; the published ones are F32"
        yield Finding("model.dtype", "warning", text, "The film may differ from one of the published weights.")


def _size_findings(choice: Choice) -> Iterator[Finding]:
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
    result = wan.output_size(size.area, picture.size)
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


def _frame_findings(choice: Choice) -> Iterator[Finding]:
    frames, variant = choice.frames, choice.variant
    length = Length("Wan2.1", wan.FPS, wan.CLIP_FRAMES, wan.CLIP_FRAMES / wan.FPS)
    yield from length_findings(choice.job.request, frames, length)
    if frames % 4 != 1 or frames == wan.CLIP_FRAMES:
        return
    matches: Mapping[str, tuple[str, ...]] = choice.checkout.matches if choice.checkout else {}
    if variant is FLF2V_14B and (matches.get("flf2v_81") or choice.checkout is None):
        text = f"first-last-frame clips have exactly 81 frames (5.06 s) in this checkout, not {frames}"
        yield Finding("frames.flf2v", "error", text, "Leave out --frames and --seconds, or ask for 81 frames.")
    elif variant is I2V_14B and matches.get("i2v_81"):
        text = f"this checkout is older than 2025-12-02: its image-to-video code makes exactly 81 frames, not {frames}"
        yield Finding("frames.old_checkout", "error", text, "Update it: git pull, in wan2_dir.")


def _parallel_findings(choice: Choice) -> Iterator[Finding]:
    ranks, ring = choice.ranks, choice.parameters["ring_size"]
    picture = choice.job.first
    size = wan.output_size(choice.size.area, picture.size) if picture else choice.size
    if ring > 1 and wan.tokens(size, choice.frames) % ranks:
        text = f"{wan.tokens(size, choice.frames)} tokens do not split evenly over {ranks} GPUs: ring attention pads them and the result is slightly off"
        yield Finding("gpus.ring_padding", "warning", text, "Use 2, 4, 5 or 8 GPUs.")
    yield from gpu_findings(choice.gpus.gpus)


def _request_findings(request: VideoRequest) -> Iterator[Finding]:
    if request.negative_prompt:
        text = "generate.py has no negative prompt option: it always uses the model's own"
        yield Finding("ignored.negative_prompt", "warning", text, "Leave out --negative-prompt.")
    yield from request_findings(request, "Wan2.1", wan.FPS, tokens=512)
