"""Findings about mistakes that the resident engine would only notice after minutes of loading."""

from __future__ import annotations

from collections.abc import Iterator

from ...core.errors import Failure
from ...core.host import GIB
from ...core.plan import Finding, Severity
from ..shared import compatibility
from ..shared.gpu_choice import gpu_findings, smallest_free_bytes
from ..shared.launch import interpreter_findings
from ..shared.rules import Length, length_findings, request_findings, too_long_findings
from ..shared.wan import short_name
from . import placement
from .decision import FLASH_ATTN, LEAST, MODULES, EngineDecision
from .models import MODELS, TEXT_TOKENS

_ADVICE = "Set `weights` to a folder of Wan2.1 (either layout), Wan2.2 or HunyuanVideo (docs/engine.md)."


def findings(decision: EngineDecision) -> Iterator[Finding]:
    """Yield every problem that prevents the run, and every fact that the user should know."""
    yield from interpreter_findings(decision.interpreter, MODULES, framework="the resident engine")
    yield from _version_findings(decision)
    yield from _folder_findings(decision)
    yield from decision.gpus.findings
    yield from gpu_findings(decision.gpus.gpus)
    if not decision.on_cpu:
        environment = compatibility.RunEnvironment(decision.interpreter, decision.gpus.gpus, "the resident engine")
        yield from compatibility.findings(environment, decision.job.host)
    if decision.model is None:
        longest = max(MODELS.values(), key=lambda model: model.frames / model.fps)
        length = Length("the engine", longest.fps, longest.frames, longest.frames / longest.fps)
        yield from too_long_findings(decision.job.request, length)
        return
    yield from _task_findings(decision)
    yield from _length_findings(decision)
    yield from request_findings(
        decision.job.request, decision.model.name, decision.model.fps, tokens=TEXT_TOKENS, encodes=True
    )
    yield from _size_findings(decision)
    yield from _attention_findings(decision)
    yield from _speed_findings(decision)
    yield from _lora_findings(decision)
    yield from _placement_findings(decision)
    yield from _parallel_findings(decision)


def _version_findings(decision: EngineDecision) -> Iterator[Finding]:
    found = decision.interpreter.modules
    for name, least in LEAST.items():
        if name in found and compatibility.is_older(found[name], least):
            wanted = ".".join(map(str, least))
            text = f"{name} {found[name]} in {decision.interpreter.path} is too old: the engine needs {wanted}"
            fix = f"Install it there: {decision.interpreter.path} -m pip install '{name}>={wanted}'"
            yield Finding("packages.old", "error", text, fix, Failure.ENV)


def _folder_findings(decision: EngineDecision) -> Iterator[Finding]:
    if decision.directory is None:
        yield Finding("model.unset", "error", f"no weights are set for {decision.job.request.task}", _ADVICE)
        return
    checkpoint = decision.checkpoint
    if checkpoint and checkpoint.kind:
        text = f"weights: {checkpoint.directory} {checkpoint.kind.what}"
        yield Finding(f"model.{checkpoint.kind.code}", "error", text, checkpoint.kind.fix, Failure.MODEL)
        return
    for problem in checkpoint.problems if checkpoint else (f"{decision.directory} was not checked",):
        gone = problem == f"{decision.directory} is missing"
        fix = _ADVICE if gone else "Download it again; existing files are kept."
        yield Finding("model.incomplete", "error", f"weights: {problem}", fix, Failure.MODEL)
    if checkpoint and not checkpoint.problems and decision.model is None:
        text = f"{decision.directory} holds no model that the engine knows; it knows {', '.join(MODELS)}"
        yield Finding("model.unknown", "error", text, _ADVICE, Failure.MODEL)


def _task_findings(decision: EngineDecision) -> Iterator[Finding]:
    model, task = decision.model, decision.job.request.task
    assert model is not None
    named = decision.job.settings.model
    if named is not None and short_name(named) != short_name(model.name):
        text = f"{decision.directory} holds {model.name}, and `model` says {named}"
        yield Finding("model.other", "error", text, "Correct `model` or `weights`.")
    if task not in model.tasks:
        text = f"{model.name} in {decision.directory} does {', '.join(model.tasks)}, not {task}"
        yield Finding(
            "model.task", "error", text, "Set `weights` (or the folder of that task) to a model that does it."
        )


def _length_findings(decision: EngineDecision) -> Iterator[Finding]:
    model = decision.model
    assert model is not None
    if model.fixed_frames and decision.frames != model.frames:
        text = f"{model.name} makes exactly {model.frames} frames, not {decision.frames}"
        yield Finding("frames.fixed", "error", text, f"Use {model.frames} frames ({model.frames / model.fps:.2f} s).")
        return
    length = Length(model.name, model.fps, model.frames, model.frames / model.fps)
    yield from length_findings(decision.job.request, decision.frames, length)


def _size_findings(decision: EngineDecision) -> Iterator[Finding]:
    size = decision.size
    if min(size) < 32:
        yield Finding("size.small", "error", f"{size} is too small for the model", "Use at least 64x64.")
    asked = decision.job.request.size
    if asked is not None and asked != size:
        text = f"{asked} becomes {size}: it keeps the picture's aspect, rounded to the model's grid"
        yield Finding("size.derived", "info", text)


def _attention_findings(decision: EngineDecision) -> Iterator[Finding]:
    """Report flash-attn that is configured and cannot compute this clip, or is not used."""
    if decision.job.settings.attention != "flash":
        return
    fix = "Set `attention: auto` or `attention: sdpa`."
    model = decision.model
    assert model is not None
    if decision.ranks > 1:
        text = "`attention: flash` is not used: several GPUs share a clip with PyTorch's own attention"
        yield Finding("attention.ranks", "warning", text, f"{fix} With gpu_count: 1, flash-attn is used.")
    elif decision.on_cpu:
        yield Finding("attention.cpu", "error", "flash-attn does not run on a CPU, and engine_device is cpu", fix)
    elif model.family != "wan":
        text = f"{model.name} gives attention a mask, which flash-attn does not take"
        yield Finding("attention.model", "error", text, fix)
    elif not decision.interpreter.problem:
        yield from _flash_attn_findings(decision, fix)


def _flash_attn_findings(decision: EngineDecision, fix: str) -> Iterator[Finding]:
    """Report flash-attn that cannot be imported, or that does not run on the card; either generation is enough."""
    python, name = decision.interpreter, FLASH_ATTN[0]
    installed = [module for module in FLASH_ATTN if module in python.modules]
    if not installed:
        text = f"{python.path} cannot import {name}: {python.broken.get(name, 'is not installed')}"
        yield Finding(f"module.{name}", "error", text, fix, Failure.ENV)
        return
    for gpu in decision.gpus.gpus:
        problems = [compatibility.flash_attn_problem(gpu, module) for module in installed]
        if all(problems):
            yield Finding("attention.card", "error", str(problems[0]), fix, Failure.ENV)


def _speed_findings(decision: EngineDecision) -> Iterator[Finding]:
    settings = decision.job.settings
    guidance, steps = decision.parameters["guidance_scale"], decision.parameters["steps"]
    if settings.speed == "fast" and not settings.lora:
        fix = "Name a step-distilled LoRA of this model with `lora`, or choose `speed: balanced`."
        yield Finding("speed.lora", "error", "`speed: fast` needs a step-distilled LoRA, and none is set", fix)
    if settings.speed == "exact" and settings.lora:
        fix = "Choose `speed: fast` or `balanced`, or leave out `lora`."
        yield Finding("speed.exact", "error", "`speed: exact` uses the model's own weights: a LoRA changes them", fix)
    if settings.speed == "fast" and (guidance > 1 or steps > 12):
        text = f"`speed: fast` is for 4 to 8 steps without guidance; {steps} steps with guidance {guidance:g} are requested"
        yield Finding("speed.fast", "warning", text, "Leave out steps and guidance.")
    if settings.speed == "balanced":
        text = "`speed: balanced` skips blocks that change little and keeps weights in eight bits: the picture differs a little"
        yield Finding("speed.balanced", "info", text)


def _lora_findings(decision: EngineDecision) -> Iterator[Finding]:
    for path in (lora.path for lora in decision.job.settings.lora):
        found = decision.job.host.checkpoints.get(path.parent)
        missing = found is not None and path.parent != decision.directory and path.name not in found.files
        for problem in found.problems if found else ():
            if missing or path.name in problem:
                yield Finding("lora.file", "error", f"lora: {problem}", "Correct `lora`.", Failure.MODEL)
        if path.suffix != ".safetensors":
            fix = "Only .safetensors are read: other formats can run code."
            yield Finding("lora.format", "error", f"{path} is not a .safetensors file", fix)
    model = decision.model
    assert model is not None
    second = [lora.path.name for lora in decision.job.settings.lora if lora.into == "transformer_2"]
    if second and not model.two_experts:
        text = f"lora: {', '.join(second)} is for transformer_2, and {model.name} has one transformer"
        yield Finding("lora.into", "error", text, "Leave out `into`.")


def _placement_findings(decision: EngineDecision) -> Iterator[Finding]:
    if decision.on_cpu or not decision.gpus.gpus:
        return
    placed, model = decision.placed, decision.model
    assert model is not None
    free = smallest_free_bytes(decision.gpus.gpus)
    have = "unknown" if free is None else f"{free / GIB:.1f} GiB"
    if placed.host_short:
        host = decision.job.host
        available, total = host.memory_available_bytes or 0, host.memory_total_bytes or 0
        limit = f" of the {total / GIB:.1f} that this container or job may use" if host.memory_limited else ""
        text = (
            f"{model.name} needs {placed.host_bytes / GIB:.1f} GiB of host memory while its weights are read, and "
            f"{available / GIB:.1f} GiB are available{limit}; the card is large enough ({have} free)"
        )
        fix = "End other programs, add memory, or choose a smaller model (t2v-1.3B)."
        yield Finding("memory.host", "error", text, fix, Failure.OOM_HOST)
    elif not placed.fits:
        text = (
            f"{model.name} at {decision.size}, {decision.frames} frames needs {placed.gpu_bytes / GIB:.1f} GiB of a "
            f"card even in the placement {placed.name}; {have} are free"
        )
        users = "; ".join(f"GPU {gpu.index} is used by {gpu.users}" for gpu in decision.gpus.gpus if gpu.processes)
        text = f"{text}; {users}" if users else text
        fix = "Use a smaller size or fewer frames, free the card, or set `placement` to try anyway."
        severity: Severity = "warning" if decision.job.settings.placement != "auto" else "error"
        yield Finding("memory.gpu", severity, text, fix, Failure.OOM_GPU)
    elif placed.name != placement.PLACEMENTS[0] and decision.job.settings.placement == "auto":
        source = "measured here" if placed.measured else "predicted"
        text = (
            f"{model.name} at {decision.size}: the weights do not all fit on the card ({have} free): placement {placed.name} "
            f"({placed.gpu_bytes / GIB:.1f} GiB {source}), slower, with the same picture"
        )
        yield Finding("placement", "info", text)


def _parallel_findings(decision: EngineDecision) -> Iterator[Finding]:
    ring, model = decision.parameters["ring_size"], decision.model
    if decision.ranks > 1 and model is not None and model.family != "wan":
        text = f"one clip of {model.name} cannot be split over {decision.ranks} GPUs: diffusers 0.42.1 splits Wan only"
        yield Finding(
            "parallel.model", "error", text, "Set gpu_count: 1; more GPUs make more clips of a film at a time."
        )
    if decision.ranks > 1 and decision.placed.name not in placement.PLACEMENTS[:2]:
        text = f"several GPUs share a clip only where each holds the whole transformer, not on {decision.placed.name}"
        yield Finding("parallel.placement", "error", text, "Set gpu_count: 1, or a smaller size.")
    if decision.ranks > 1 and ring > 1 and decision.model is not None:
        heads = decision.network.heads
        text = f"{decision.ranks} GPUs do not divide the {heads} heads of {decision.model.name}: a ring of {ring} is slower"
        yield Finding("parallel.ring", "warning", text, "Use a number of GPUs that divides the heads.")
