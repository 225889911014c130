"""What is decided about a run before it becomes a command: weights, size, frames, GPUs, parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core.host import Checkout, Checkpoint, Gpu, Interpreter
from ...core.plan import ExpectedVideo
from ...core.request import Size
from ..shared import compatibility
from ..shared.gpu_choice import GpuChoice, Needs, Way, choose_gpus, gpu_count, split_degrees
from ..shared.launch import interpreter_queries, pick_interpreter
from ..shared.rules import asked_frames, asked_size, first, forced
from . import facts
from .members import DOCUMENTED, HV15, HVI, MAIN, SUPER_PARTS, VERSIONS, Member, Part
from .options import Chosen, read_options
from .settings import HunyuanJob as Job
from .settings import HunyuanSettings as Settings

_FILES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")


@dataclass(frozen=True)
class Form:
    """Which weights make the film.

    Attributes:
        resolution: What the script is asked for (``720p``); empty where it takes a size.
        version: The transformer of 1.5.
        super_version: The transformer of its super resolution; ``None`` for none.
        problem: Why there is no such thing, and the fix.
    """

    resolution: str = ""
    version: str = ""
    super_version: str | None = None
    problem: tuple[str, str] | None = None

    @property
    def enlarged_to(self) -> str:
        """The class of size that super resolution makes."""
        return (self.super_version or "").partition("_")[0]


@dataclass(frozen=True)
class Choice:
    """Everything decided about a run, before it becomes a command."""

    job: Job
    member: Member
    file: Chosen
    size: Size
    frames: int
    form: Form
    gpus: GpuChoice
    ranks: int
    interpreter: Interpreter
    checkout: Checkout
    parameters: Mapping[str, Any]

    @property
    def steps(self) -> int:
        return int(first(self.parameters.get("steps"), self.parameters.get("fixed_steps")))

    @property
    def super_steps(self) -> int | None:
        return facts.SUPER[self.form.resolution][1] if self.form.super_version else None

    @property
    def passes(self) -> int:
        """2 where guidance computes the picture with and without the prompt at once."""
        if self.member is HV15:
            return 1 if "distilled" in self.form.version else 2
        return 2 if self.parameters.get("cfg_scale", 1.0) > 1 else 1


def choose(job: Job, member: Member, checkout: Checkout) -> Choice:
    settings = job.settings
    file = read_options(member, settings.config_file, _options_file(job))
    size = asked_size(job.request, settings, {"size": file.parameters.get("size"), **job.overrides})
    frames = asked_frames(job, fps_of(member, job), first(file.parameters.get("num_frames"), member.clip_frames))
    form = _form(job, member, file, size)
    queries = interpreter_queries(settings, settings.hunyuan_dir, ())
    draft = Choice(
        job, member, file, size, frames, form, GpuChoice(()), 1, pick_interpreter(queries, job.host), checkout, {}
    )
    counts = _counts(draft)
    asked = settings.gpus or settings.gpu_count or "gpu_count" in job.overrides
    limit = "" if asked else f"more cannot share a film of {film_size(draft)}"
    needs = Needs(counts, lambda cards: _way(draft, cards), limit)
    avoid = tuple(job.overrides.get("avoid_gpus", ()))
    gpus = choose_gpus(job.host, needs, listed=settings.gpus, avoid=avoid)
    draft = replace(draft, gpus=gpus, ranks=len(gpus.gpus) or len(settings.gpus or ()) or counts[0])
    return replace(draft, parameters=_parameters(draft))


def _options_file(job: Job) -> Any:
    path = job.settings.config_file
    return job.host.options_files.get(path) if path else None


def fps_of(member: Member, job: Job) -> float:
    """24 in every script of the family; only the documented interface has a choice."""
    return float(first(job.request.fps, job.settings.fps, member.fps)) if member is DOCUMENTED else member.fps


# ----------------------------------------------------------------------------------------------- weights of a film


def root_of(settings: Settings) -> Path | None:
    """The folder of all weights: ``ckpt_path``, or the checkout's own ``ckpts``."""
    main = main_file(settings)
    if main and main.parent.name == "transformers":
        return main.parents[2]
    if settings.ckpt_path and not main:
        return settings.ckpt_path
    return settings.hunyuan_dir / "ckpts" if settings.hunyuan_dir else None


def main_file(settings: Settings) -> Path | None:
    """``ckpt_path``, where it names the transformer's file itself."""
    path = settings.ckpt_path
    return path if path and path.suffix in _FILES else None


def parts_of(choice: Choice) -> tuple[Part, ...]:
    """The parts of the weights that this run needs, with the versions filled in."""
    parts = versioned(choice.member.parts, choice.form.version)
    return (*parts, *versioned(SUPER_PARTS, choice.form.super_version)) if choice.form.super_version else parts


def versioned(parts: tuple[Part, ...], version: str) -> tuple[Part, ...]:
    return tuple(replace(part, folder=part.folder.format(version=version)) for part in parts)


def transformer_file(choice: Choice) -> Path:
    """The file that ``--dit-weight`` names; in eight bits it is another one beside it."""
    settings, root = choice.job.settings, root_of(choice.job.settings)
    assert root is not None
    path = main_file(settings) or root / choice.member.parts[0].folder / f"{MAIN}.pt"
    if choice.parameters.get("use_fp8") and not path.stem.endswith("_fp8"):
        return path.with_name(f"{path.stem}_fp8{path.suffix}")
    return path


def has_fp8(choice: Choice) -> bool:
    """Whether weights in eight bits lie beside the others, with their map."""
    found = choice.job.host.checkpoints.get(transformer_file(choice).parent)
    return found is not None and {f"{MAIN}_fp8.pt", f"{MAIN}_fp8_map.pt"} <= set(found.files)


def _form(job: Job, member: Member, file: Chosen, size: Size) -> Form:
    if member is HVI:
        return Form(facts.nearest_class(size, facts.HVI_BASE))
    if member is not HV15:
        return Form()
    wanted = first(
        job.overrides.get("super_resolution"),
        job.settings.super_resolution,
        file.parameters.get("super_resolution"),
        "auto",
    )
    made = facts.nearest_class(size, facts.HV15_BASE)
    pairs = _pairs(made, wanted)
    if not pairs:
        on = wanted is True
        text = f"{made} films are {'never' if on else 'only'} made with super resolution"
        fix = "Set super_resolution: auto, or ask for another size."
        return replace(_version(job, file, "480p" if on else "720p", on), problem=(text, fix))
    forms = [_version(job, file, resolution, enlarge) for resolution, enlarge in pairs]
    able = [form for form in forms if form.problem is None] or forms
    return next((form for form in able if _is_there(job, form)), able[0])


def _pairs(made: str, wanted: Any) -> list[tuple[str, bool]]:
    """(resolution, super resolution) that give a class of size, the better first."""
    direct = [(made, False)] if made in facts.SUPER else []
    larger = [(small, True) for small, (large, _) in facts.SUPER.items() if large == made]
    return {True: larger, False: direct}.get(wanted, [*direct, *larger])


def _version(job: Job, file: Chosen, resolution: str, enlarge: bool) -> Form:
    flags = file.flags
    version = f"{resolution}_{job.request.task}"
    if flags.get("enable_step_distill"):
        version += "_step_distilled"
    elif flags.get("sparse_attn"):
        version += "_distilled_sparse"
    elif flags.get("cfg_distilled"):
        version += "_distilled"
    problem = None
    if version not in VERSIONS:
        text = f"HunyuanVideo-1.5 has no weights named {version}"
        problem = (text, "Step-distilled weights exist for image-to-video at 480p, sparse ones for 720p, only.")
    return Form(resolution, version, f"{facts.SUPER[resolution][0]}_sr_distilled" if enlarge else None, problem)


def _is_there(job: Job, form: Form) -> bool:
    root = root_of(job.settings)
    names = [form.version, *([form.super_version] if form.super_version else [])]
    found = [job.host.checkpoints.get(root / "transformer" / name) for name in names] if root else [None]
    return all(checkpoint is not None and not checkpoint.problems for checkpoint in found)


# --------------------------------------------------------------------------------------------------- size and GPUs


def expected_video(choice: Choice) -> ExpectedVideo | None:
    """The film that the run promises; nothing for the documented script, unless size and length were asked for."""
    request, settings = choice.job.request, choice.job.settings
    fps = fps_of(choice.member, choice.job)
    if choice.member is DOCUMENTED:
        size = request.size or settings.size
        length = request.num_frames or settings.frame_num
        return ExpectedVideo(*choice.size, length, fps) if size and length else None
    return ExpectedVideo(*film_size(choice), choice.frames, fps)


def film_size(choice: Choice) -> Size:
    base = base_size(choice)
    return facts.enlarged(base, choice.form.enlarged_to) if choice.form.super_version else base


def base_size(choice: Choice) -> Size:
    """The size that the transformer makes, before super resolution."""
    picture = choice.job.first
    if choice.member is HVI and picture:
        return facts.bucket(facts.HVI_BASE[choice.form.resolution], 32, picture.size, cropped=True)
    if choice.member is HV15:
        return facts.bucket(facts.HV15_BASE[choice.form.resolution], 16, picture.size if picture else choice.size)
    return facts.aligned(choice.size)


def heads(choice: Choice) -> tuple[int, ...]:
    """Attention heads of every transformer of the run, from the weights' own config where it says so."""
    root = root_of(choice.job.settings)
    names = [name for name in (choice.form.version, choice.form.super_version) if name]
    found: list[Checkpoint | None] = [
        choice.job.host.checkpoints.get(root / "transformer" / name) for name in names if root
    ]
    told = [checkpoint.config.get("heads_num") if checkpoint else None for checkpoint in found]
    return tuple(number if isinstance(number, int) else choice.member.heads for number in told or [None])


def can_share(choice: Choice, ranks: int) -> bool:
    """Whether that many GPUs can make this film together."""
    if ranks == 1 or choice.member.parallel == "none":
        return ranks == 1
    if choice.member.parallel == "world":
        return all(number % ranks == 0 for number in heads(choice))
    return facts.can_split(base_size(choice), ranks)


def _counts(draft: Choice) -> tuple[int, ...]:
    """The legal numbers of GPUs: the asked one as it is; where it is detected, all that can share the film."""
    settings = draft.job.settings
    asked = draft.job.overrides.get("gpu_count") or settings.gpu_count
    if asked or settings.gpus:
        return (int(asked or len(settings.gpus or ())),)
    most = gpu_count(settings, draft.job.host)
    return tuple(ranks for ranks in range(1, most + 1) if can_share(draft, ranks))


def _way(draft: Choice, cards: tuple[Gpu, ...]) -> Way:
    """What a set of cards would need, and how long it would take."""
    ranks, member = len(cards), draft.member
    choice = replace(draft, gpus=GpuChoice(cards), ranks=ranks)
    choice = replace(choice, parameters=_parameters(choice))
    missing = ranks > 1 and member.parallel == "degrees" and not draft.interpreter.problem
    missing = missing and "xfuser" not in draft.interpreter.modules
    use = None if member is DOCUMENTED else memory_use(choice)
    return Way(
        gpu_bytes=facts.peak_gpu_bytes(use) if use else None,
        host_bytes=host_bytes(choice),
        seconds=facts.relative_seconds(ranks, moved=bool(choice.parameters.get("use_cpu_offload"))),
        lacks="xfuser is not installed, which several GPUs need to share a film" if missing else "",
    )


def host_bytes(choice: Choice) -> int | None:
    """What the host needs while loading; not known of the documented script."""
    if choice.member is DOCUMENTED:
        return None
    readers = 1 if choice.member is HVI else choice.ranks  # its first rank reads and sends the others theirs
    return facts.host_bytes(memory_use(choice), choice.ranks, readers)


# ------------------------------------------------------------------------------------------------------ parameters


def _parameters(choice: Choice) -> dict[str, Any]:
    """Effective parameters, by the field's names; overrides of a retry come last."""
    request, settings = choice.job.request, choice.job.settings
    fixed, steps = _steps(choice)
    chosen: dict[str, Any] = {
        "size": choice.size,
        "num_frames": choice.frames,
        "fps": fps_of(choice.member, choice.job),
        # Weights that were distilled to a number of steps make noise with another one: no retry may lower it.
        ("fixed_steps" if fixed else "steps"): steps,
        "seed": first(request.seed, settings.base_seed, 0),
        "gpu_count": choice.ranks,
        **(_newer(choice) if choice.member is HV15 else {}),
        **(_older(choice) if choice.member.parallel == "degrees" else {}),
        **choice.file.flags,
    }
    chosen = forced(chosen, choice.job.overrides, ("size", "num_frames", "gpu_count"))
    if chosen.get("use_cpu_offload", False) is None:
        chosen["use_cpu_offload"] = _needs_offload(replace(choice, parameters=chosen))
    return chosen


def _steps(choice: Choice) -> tuple[bool, int]:
    fixed = "distilled" in choice.form.version
    asked = first(choice.job.request.steps, choice.job.settings.sample_steps, choice.file.parameters.get("steps"), 0)
    return fixed, asked or (12 if "step" in choice.form.version else 50)


def _newer(choice: Choice) -> dict[str, Any]:
    return {
        "resolution": choice.form.resolution,
        "super_resolution": choice.form.super_version is not None,
        "offloading": True,
        "group_offloading": None,
    }


def _older(choice: Choice) -> dict[str, Any]:
    request, settings, file = choice.job.request, choice.job.settings, choice.file
    ulysses, ring = split_degrees(choice.ranks, choice.member.heads)
    i2v = choice.member is HVI
    shift = 17.0 if i2v and not file.flags.get("i2v_stability") else 7.0
    return {
        **({"resolution": choice.form.resolution, "model": "HYVideo-T/2"} if i2v else {"use_fp8": False}),
        "guidance_scale": first(
            request.guidance_scale, settings.guide_scale, file.parameters.get("guidance_scale"), choice.member.guidance
        ),
        "flow_shift": first(request.flow_shift, settings.sample_shift, file.parameters.get("flow_shift"), shift),
        "ulysses_degree": ulysses,
        "ring_degree": ring,
        "cfg_scale": 1.0,
        "use_cpu_offload": None if choice.ranks == 1 else False,
        "expandable_segments": False,
    }


def _needs_offload(choice: Choice) -> bool:
    """Offloading costs much time: only where the model does not fit otherwise."""
    free = min((gpu.free_bytes for gpu in choice.gpus.gpus if gpu.free_bytes is not None), default=None)
    return free is None or facts.peak_gpu_bytes(memory_use(choice, offload=False)) > free


def memory_use(choice: Choice, *, offload: bool | None = None) -> facts.MemoryUse:
    """What decides the peak of this run."""
    parameters, newer = choice.parameters, choice.member is HV15
    small = facts.tokens(base_size(choice), choice.frames)
    large = facts.tokens(film_size(choice), choice.frames) if choice.form.super_version else 0
    share = max(heads(choice)) / choice.ranks
    cards = choice.gpus.gpus if newer else ()  # the older ones have flash-attn, or do not run
    scores, enlarging = (compatibility.attention_bytes(cards, count, share) for count in (small, large))
    blocks = parameters.get("group_offloading")
    if blocks is None:
        blocks = any((gpu.total_bytes or 0) < facts.GROUP_OFFLOAD_BELOW for gpu in choice.gpus.gpus)
    chosen = parameters.get("offloading") if newer else parameters.get("use_cpu_offload")
    return facts.MemoryUse(
        facts.NEWER if newer else facts.OLDER,
        max(small * choice.passes, large),
        attention_bytes=max(scores * choice.passes, enlarging),
        offload=bool(chosen) if offload is None else offload,
        in_blocks=bool(blocks) if newer else True,
        fp8=bool(parameters.get("use_fp8")),
        transformers=2 if choice.form.super_version else 1,
    )
