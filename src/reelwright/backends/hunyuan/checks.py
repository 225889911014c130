"""Findings about mistakes that HunyuanVideo's scripts would only notice after loading their weights."""

from __future__ import annotations

from collections.abc import Iterator

from ...core.errors import Failure
from ...core.host import Checkout
from ...core.plan import Finding
from ..shared import compatibility
from ..shared.gpu_choice import gpu_findings
from ..shared.launch import checkpoint_findings, interpreter_findings
from ..shared.rules import Length, largest, length_findings, request_findings
from . import facts
from .decision import HunyuanDecision, can_share, fps_of, has_fp8, main_file, root_of, transformer_file
from .members import FAMILY
from .record import Member
from .settings import HunyuanJob as Job
from .weight_folders import part_findings

_TASKS = {"t2v": "text-to-video", "i2v": "image-to-video", "flf2v": "first-last-frame-to-video"}


# ---------------------------------------------------------------------------------------------------- the checkout


def checkout_problem(job: Job, checkout: Checkout | None) -> Finding:
    """The finding that says why no script can run."""
    directory = job.settings.hunyuan_dir
    known = "; ".join(f"{member.script} ({member.title})" for member in FAMILY)
    if checkout and checkout.elsewhere:
        text = f"hunyuan_dir: {directory} has no script of the HunyuanVideo family"
        return Finding("hunyuan_dir.wrong", "error", text, f"Set it to {checkout.elsewhere}.", Failure.ENV)
    if directory is None:
        fix = "Set hunyuan_dir to a checkout of HunyuanVideo, HunyuanVideo-I2V or HunyuanVideo-1.5."
        return Finding("hunyuan_dir.unset", "error", "hunyuan_dir is not set", fix)
    problem = (checkout.problem if checkout else None) or f"{directory} is not a checkout of the HunyuanVideo family"
    return Finding("hunyuan_dir.wrong", "error", f"hunyuan_dir: {problem}", f"It must hold {known}.", Failure.ENV)


def member_findings(job: Job, member: Member, checkout: Checkout) -> Iterator[Finding]:
    """Name the member that was found and its tasks, and report whether it can make the request."""
    abilities = " and ".join(_TASKS[task] for task in member.tasks)
    commit = f" at {checkout.commit[:7]}" if checkout.commit else ""
    yield Finding("member.found", "info", f"{checkout.directory} is {member.title}{commit}: {abilities}")
    task = job.request.task
    if task not in member.tasks:
        text = f"{member.title} cannot make {_TASKS[task]} clips: it makes {abilities}"
        yield Finding("task.unsupported", "error", text, _fix_for(task), Failure.INPUT)
    flags = checkout.matches.get(member.flags_in, ())
    if not flags:
        text = f"hunyuan_dir {checkout.directory} is incomplete: it has {member.script} and no {member.flags_file}"
        fix = f"Clone {member.source} again: this one is incomplete."
        yield Finding("hunyuan_dir.wrong", "error", text, fix, Failure.ENV)
    missing = [flag for flag in member.flags if flag not in flags]
    if flags and missing:
        text = f"{member.script} of {checkout.directory} does not know {', '.join(missing)}"
        yield Finding("hunyuan_dir.flags", "error", text, f"Update the checkout: {member.source}.", Failure.ENV)


def _fix_for(task: str) -> str:
    able = [member for member in FAMILY if task in member.tasks and not member.is_opaque]
    if not able:
        return "Give one picture, or use the generator wan2.1, which has first-last-frame weights."
    names = " or ".join(f"{member.title} ({member.source})" for member in able)
    without = ", or leave out the picture" if task == "i2v" else ", or give a picture"
    return f"Set hunyuan_dir to a checkout of {names}{without}."


# --------------------------------------------------------------------------------------------------------- the run


def findings(decision: HunyuanDecision) -> Iterator[Finding]:
    """Yield every problem that prevents the run, and every fact that the user should know."""
    job, member = decision.job, decision.member
    yield from member_findings(job, member, decision.checkout)
    yield from decision.file.findings
    several = ("xfuser",) if decision.ranks > 1 and member.parallel == "degrees" else ()
    yield from interpreter_findings(decision.interpreter, (*member.modules, *several), framework=member.title)
    yield from _weights_findings(decision)
    yield from decision.gpus.findings
    yield from _card_findings(decision)
    yield from gpu_findings(decision.gpus.gpus)
    yield from _release_findings(decision)
    yield from _size_findings(decision)
    yield from _length_findings(decision)
    yield from _sharing_findings(decision)
    yield from _parameter_findings(decision)
    yield from request_findings(job.request, member.title, fps_of(member, job), tokens=member.text_tokens)


def _weights_findings(decision: HunyuanDecision) -> Iterator[Finding]:
    checkpoints, settings = decision.job.host.checkpoints, decision.job.settings
    root, main = root_of(settings), main_file(settings)
    if decision.member.is_opaque:
        path = main.parent if main else settings.ckpt_path
        yield from checkpoint_findings(checkpoints.get(path) if path else None, "ckpt_path")
        if settings.config_file is None:
            fix = "Set config_file to the model's configuration (it is passed on with --cfg-path)."
            yield Finding("config_file.unset", "error", "config_file is not set", fix)
        return
    assert root is not None
    net = decision.member.unpublished_net
    if net and decision.parameters.get("model") == net:
        text = f"the published image-to-video weights are not for {net}, the parser's own default"
        yield Finding("model.net", "warning", text, "Leave `model` out of config_file.")
    whole = checkpoints.get(root)
    if whole is not None and whole.problems and main is None:
        yield from checkpoint_findings(whole, "ckpt_path")
        return
    yield from part_findings(decision, root)
    if decision.member.names_video:
        yield from _transformer_findings(decision)


def _transformer_findings(decision: HunyuanDecision) -> Iterator[Finding]:
    path = transformer_file(decision)
    found = decision.job.host.checkpoints.get(path.parent)
    names = {path.name, f"{path.stem}_map{path.suffix}"} if decision.parameters.get("use_fp8") else {path.name}
    missing = sorted(names - set(found.files)) if found and not found.problems else []
    if missing:
        text = f"ckpt_path: {path.parent} has no {', '.join(missing)}"
        fix = f"Download the weights again from the place that {decision.member.source} names."
        yield Finding("model.incomplete", "error", text, fix, Failure.MODEL)


def _card_findings(decision: HunyuanDecision) -> Iterator[Finding]:
    """Report cards, drivers, packages and requirements of the checkout that do not fit each other."""
    member, interpreter, cards = decision.member, decision.interpreter, decision.gpus.gpus
    problem = next(filter(None, (compatibility.flash_attn_problem(gpu, "flash_attn") for gpu in cards)), None)
    if problem and "flash_attn" in member.modules:
        text = f"{member.title} computes attention with flash-attn only: {problem}"
        fix = "Use a card of compute capability 8.0 or newer (Ampere, 2020): PyTorch's attention needs far more memory here."
        yield Finding("attention.card", "error", text, fix, Failure.ENV)
    environment = compatibility.RunEnvironment(
        interpreter, cards, member.title, decision.checkout, (*member.modules, "xfuser")
    )
    yield from compatibility.findings(environment, decision.job.host)


def _release_findings(decision: HunyuanDecision) -> Iterator[Finding]:
    if decision.release.problem:
        text, fix = decision.release.problem
        yield Finding("model.form", "error", text, fix)
    if decision.release.super_version and not decision.release.problem:
        text = (
            f"made at {decision.release.resolution} and enlarged to {decision.release.enlarged_to} by super resolution"
        )
        yield Finding("size.super_resolution", "info", text, "Set super_resolution: false to do without.")
    elif not decision.member.enlarges and decision.job.settings.super_resolution:
        text = f"{decision.member.title} has no super resolution"
        yield Finding("ignored.super_resolution", "warning", text, "HunyuanVideo-1.5 has it.")


def _size_findings(decision: HunyuanDecision) -> Iterator[Finding]:
    member, size, picture = decision.member, decision.size, decision.job.first
    if decision.member.is_opaque:
        text = (
            "the documented script names neither size nor length of its video: they are checked only where you set them"
        )
        yield Finding("size.unknown", "info", text, "Set --size and --frames to have them verified.")
        return
    result = decision.output_size
    if result != size:
        if member.classes:
            why = f"the nearest to the {f'aspect of the picture ({picture.size})' if picture else 'size'}"
        else:
            why = "both sides are multiples of 16"
        yield Finding("size.derived", "info", f"the clip will be {result}: {why} that {member.title} makes")
    if member.trained_sizes and facts.aligned(size) not in member.trained_sizes:
        text = f"{member.title} was not trained for {facts.aligned(size)}"
        known = ", ".join(map(str, member.trained_sizes))
        yield Finding("size.untrained", "warning", text, f"Choose one of {known}.")
    if picture:
        shorter, longer = sorted((picture.size.width * result.height, picture.size.height * result.width))
        if shorter < 0.75 * longer:
            text = f"{1 - shorter / longer:.0%} of the picture ({picture.size}) are cut off for a clip of {result}"
            yield Finding("picture.cropped", "warning", text, "Use --fit contain to pad it instead.")


def _length_findings(decision: HunyuanDecision) -> Iterator[Finding]:
    member, settings, request = decision.member, decision.job.settings, decision.job.request
    fps = fps_of(member, decision.job)
    if member.is_opaque:
        longest = settings.max_duration
        if longest and request.seconds and request.seconds > longest:
            text = f"{request.seconds:g} s are requested and max_duration is {longest:g} s"
            yield Finding("frames.too_long", "error", text, "Make each clip shorter, and chain clips into a film.")
        return
    length = Length(member.title, fps, member.clip_frames, settings.max_duration or member.trained_s)
    yield from length_findings(request, decision.frames, length)


def _sharing_findings(decision: HunyuanDecision) -> Iterator[Finding]:
    ranks, member = decision.ranks, decision.member
    if not can_share(decision, ranks):
        most = largest(ranks, lambda count: can_share(decision, count))
        why = {
            "degrees": f"neither rows nor columns of {decision.output_size} split evenly over them",
            "world": "its attention heads do not split evenly over them",
            "none": "its script uses one GPU only",
        }[member.parallel]
        text = f"{ranks} GPUs cannot share a clip of {member.title}: {why}"
        yield Finding("gpus.split", "error", text, f"Use {most}: gpu_count: {most}.")
    if ranks > 1 and decision.parameters.get("use_cpu_offload"):
        text = "the script refuses use_cpu_offload on several GPUs"
        yield Finding("gpus.offload", "error", text, "Take it out of config_file, or set gpu_count: 1.")


def _parameter_findings(decision: HunyuanDecision) -> Iterator[Finding]:
    yield from _distilled_findings(decision)
    yield from _ignored_findings(decision)
    parameters = decision.parameters
    for one, other in (("sparse_attn", "use_sageattn"), ("enable_step_distill", "enable_cache")):
        if parameters.get(one) and parameters.get(other):
            yield Finding(
                "config_file", "error", f"{one} and {other} exclude each other", "Keep one of them in config_file."
            )
    if parameters.get("group_offloading") and not parameters.get("offloading"):
        yield Finding("config_file", "error", "group_offloading needs offloading", "Set offloading: true as well.")
    if parameters.get("use_fp8") and not has_fp8(decision):
        text = "use_fp8 needs the eight-bit weights and their map beside the other weights"
        yield Finding("model.fp8", "error", text, "Download them, or take use_fp8 out of config_file.", Failure.MODEL)


def _distilled_findings(decision: HunyuanDecision) -> Iterator[Finding]:
    """Refuse other step counts for distilled weights: they make a wrong picture with them (README of 1.5)."""
    if "fixed_steps" not in decision.parameters:
        return
    fitting = (8, 12) if "step" in decision.release.version else (50,)
    if decision.steps not in fitting:
        wanted = " or ".join(map(str, fitting))
        text = (
            f"{decision.release.version} was distilled to {wanted} steps; {decision.steps} steps give a wrong picture"
        )
        yield Finding("steps.distilled", "error", text, "Leave out the steps.")


def _ignored_findings(decision: HunyuanDecision) -> Iterator[Finding]:
    request, settings = decision.job.request, decision.job.settings
    for name, key in (("guidance_scale", "guide_scale"), ("flow_shift", "sample_shift")):
        asked = (getattr(request, name), getattr(settings, key))
        if name not in decision.parameters and asked != (None, None):
            text = f"{decision.member.script} has no option for {name}: it follows from the weights"
            yield Finding(f"ignored.{name}", "warning", text, f"Leave out {key}.")
    if request.negative_prompt and decision.member.is_opaque:
        yield Finding("ignored.negative_prompt", "warning", "the script has no option for a negative prompt")
    elif request.negative_prompt and decision.passes == 1:
        text = "the negative prompt has no effect: it needs cfg_scale above 1, or weights that are not distilled"
        yield Finding("ignored.negative_prompt", "warning", text, "Set cfg_scale in config_file; it doubles the time.")
