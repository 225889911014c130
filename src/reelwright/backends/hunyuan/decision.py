"""Decisions about a run of a HunyuanVideo script: weights, size, frames, GPUs, parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core.host import Checkout, Checkpoint, Gpu
from ...core.plan import ExpectedVideo
from ...core.request import Size
from ..shared import compatibility
from ..shared.decision import Decision
from ..shared.gpu_choice import GpuChoice, SetNeeds, choose_for, smallest_free_bytes, split_degrees
from ..shared.launch import interpreter_queries, lacks_xfuser, pick_interpreter
from ..shared.rules import first, forced, requested_frames, requested_size
from . import facts
from .members import MAIN, SUPER_PARTS
from .options import FileOptions, read_options
from .record import Member, WeightFolder
from .settings import HunyuanJob as Job
from .settings import HunyuanSettings as Settings

_FILES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")


@dataclass(frozen=True)
class Release:
    """The published weights that make a clip.

    Attributes:
        resolution: The resolution that the script takes (``720p``); empty if it takes a size.
        version: The name of the transformer, if the member has several.
        super_version: The transformer of super resolution; ``None`` without.
        problem: The reason why such weights do not exist, and the fix.
    """

    resolution: str = ""
    version: str = ""
    super_version: str | None = None
    problem: tuple[str, str] | None = None

    @property
    def enlarged_to(self) -> str:
        """The resolution that super resolution makes."""
        return (self.super_version or "").partition("_")[0]


@dataclass(frozen=True, kw_only=True)
class HunyuanDecision(Decision[Settings]):
    """Everything decided about a run of a member's script."""

    member: Member
    file: FileOptions
    release: Release
    checkout: Checkout

    @property
    def steps(self) -> int:
        """Steps of the main pass."""
        return int(first(self.parameters.get("steps"), self.parameters.get("fixed_steps")))

    @property
    def super_steps(self) -> int | None:
        """Steps of super resolution; ``None`` without."""
        return self.member.enlarges[self.release.resolution][1] if self.release.super_version else None

    @property
    def passes(self) -> int:
        """2 if guidance computes the picture with and without the prompt at once, else 1."""
        if self.member.versions:
            return 1 if "distilled" in self.release.version else 2
        return 2 if self.parameters.get("cfg_scale", 1.0) > 1 else 1

    @property
    def base_size(self) -> Size:
        """The size that the transformer makes, before super resolution."""
        member, picture = self.member, self.job.first
        if not member.classes or (member.crops and not picture):
            return facts.aligned(self.size)
        base = member.classes[self.release.resolution]
        return facts.bucket(base, member.stride, picture.size if picture else self.size, cropped=member.crops)

    @property
    def output_size(self) -> Size:
        """The size of the video."""
        release = self.release
        return facts.enlarged(self.base_size, release.enlarged_to) if release.super_version else self.base_size

    @property
    def expected(self) -> ExpectedVideo | None:
        """The expected video; an opaque member promises one only if the user sets size and length."""
        if not self.member.is_opaque:
            return super().expected
        request, settings = self.job.request, self.job.settings
        size, frames = request.size or settings.size, request.num_frames or settings.frame_num
        return ExpectedVideo(*self.size, frames, fps_of(self.member, self.job)) if size and frames else None

    @property
    def gpu_bytes(self) -> int | None:
        """Predicted peak memory of each GPU in bytes; ``None`` if the member's memory is not known."""
        return None if self.member.is_opaque else facts.peak_gpu_bytes(memory_of(self))

    @property
    def host_bytes(self) -> int | None:
        """Predicted peak of host memory while loading, in bytes; ``None`` if the member's memory is not known."""
        if self.member.is_opaque:
            return None
        return facts.host_bytes(memory_of(self), self.ranks, 1 if self.member.first_rank_reads else self.ranks)


def decide(job: Job, member: Member, checkout: Checkout) -> HunyuanDecision:
    """Make every decision about a request; `checks` reports its mistakes."""
    settings = job.settings
    path = settings.config_file
    file = read_options(member, path, job.host.options_files.get(path) if path else None)
    size = requested_size(job.request, settings, {"size": file.parameters.get("size"), **job.overrides})
    draft = HunyuanDecision(
        job=job,
        member=member,
        file=file,
        size=size,
        frames=requested_frames(job, fps_of(member, job), first(file.parameters.get("num_frames"), member.clip_frames)),
        release=_release(job, member, file, size),
        interpreter=pick_interpreter(interpreter_queries(settings, settings.hunyuan_dir, ()), job.host),
        checkout=checkout,
    )
    gpus, ranks = choose_for(
        job,
        lambda cards: _needs(draft, cards),
        lambda most: tuple(ranks for ranks in range(1, most + 1) if can_share(draft, ranks)),
        lambda _most: f"more cannot share a clip of {draft.output_size}",
    )
    draft = replace(draft, gpus=gpus, ranks=ranks)
    return replace(draft, parameters=_parameters(draft))


def fps_of(member: Member, job: Job) -> float:
    """The frame rate: 24 in every script of the family; only the documented interface has an option for it."""
    return float(first(job.request.fps, job.settings.fps, member.fps)) if member.is_opaque else member.fps


# ------------------------------------------------------------------------------------------------ weights of a clip


def root_of(settings: Settings) -> Path | None:
    """The folder of all weights: ``ckpt_path``, or the checkout's own ``ckpts``."""
    main = main_file(settings)
    if main and main.parent.name == "transformers":
        return main.parents[2]
    if settings.ckpt_path and not main:
        return settings.ckpt_path
    return settings.hunyuan_dir / "ckpts" if settings.hunyuan_dir else None


def main_file(settings: Settings) -> Path | None:
    """``ckpt_path``, if it names the transformer's file itself."""
    path = settings.ckpt_path
    return path if path and path.suffix in _FILES else None


def parts_of(decision: HunyuanDecision) -> tuple[WeightFolder, ...]:
    """The weight folders that this run needs, with the versions filled in."""
    parts = versioned(decision.member.parts, decision.release.version)
    return (
        (*parts, *versioned(SUPER_PARTS, decision.release.super_version)) if decision.release.super_version else parts
    )


def versioned(parts: tuple[WeightFolder, ...], version: str) -> tuple[WeightFolder, ...]:
    """The weight folders with the name of a transformer filled in."""
    return tuple(replace(part, folder=part.folder.format(version=version)) for part in parts)


def transformer_file(decision: HunyuanDecision) -> Path:
    """The file that ``--dit-weight`` names; weights in eight bits are another file in the same folder."""
    settings, root = decision.job.settings, root_of(decision.job.settings)
    assert root is not None
    path = main_file(settings) or root / decision.member.parts[0].folder / f"{MAIN}.pt"
    if decision.parameters.get("use_fp8") and not path.stem.endswith("_fp8"):
        return path.with_name(f"{path.stem}_fp8{path.suffix}")
    return path


def has_fp8(decision: HunyuanDecision) -> bool:
    """Whether the weights in eight bits and their map exist in the same folder."""
    path = transformer_file(decision)
    found = decision.job.host.checkpoints.get(path.parent)
    name = path.stem.removesuffix("_fp8")
    return found is not None and {f"{name}_fp8{path.suffix}", f"{name}_fp8_map{path.suffix}"} <= set(found.files)


def _release(job: Job, member: Member, file: FileOptions, size: Size) -> Release:
    if not member.classes:
        return Release()
    made = facts.nearest_class(size, member.classes)
    if not member.versions:
        return Release(made)
    wanted = first(
        job.overrides.get("super_resolution"),
        job.settings.super_resolution,
        file.parameters.get("super_resolution"),
        "auto",
    )
    pairs = _pairs(member, made, wanted)
    if not pairs:
        on = wanted is True
        text = f"{made} clips are {'never' if on else 'only'} made with super resolution"
        fix = "Set super_resolution: auto, or request another size."
        return replace(_version(job, member, file, "480p" if on else "720p", on), problem=(text, fix))
    releases = [_version(job, member, file, resolution, enlarge) for resolution, enlarge in pairs]
    able = [release for release in releases if release.problem is None] or releases
    return next((release for release in able if _is_there(job, release)), able[0])


def _pairs(member: Member, made: str, wanted: Any) -> list[tuple[str, bool]]:
    """The pairs (resolution, super resolution) that give the resolution ``made``, the better first."""
    direct = [(made, False)] if made in member.enlarges else []
    larger = [(small, True) for small, (large, _) in member.enlarges.items() if large == made]
    return {True: larger, False: direct}.get(wanted, [*direct, *larger])


def _version(job: Job, member: Member, file: FileOptions, resolution: str, enlarge: bool) -> Release:
    flags = file.flags
    version = f"{resolution}_{job.request.task}"
    if flags.get("enable_step_distill"):
        version += "_step_distilled"
    elif flags.get("sparse_attn"):
        version += "_distilled_sparse"
    elif flags.get("cfg_distilled"):
        version += "_distilled"
    problem = None
    if version not in member.versions:
        text = f"{member.title} has no weights named {version}"
        problem = (text, "Step-distilled weights exist for image-to-video at 480p, sparse ones for 720p, only.")
    enlarged = f"{member.enlarges[resolution][0]}_sr_distilled" if enlarge else None
    return Release(resolution, version, enlarged, problem)


def _is_there(job: Job, release: Release) -> bool:
    return all(checkpoint is not None and not checkpoint.problems for checkpoint in _transformers(job, release))


def _transformers(job: Job, release: Release) -> list[Checkpoint | None]:
    """The folder of every transformer of the run, as far as the member has several."""
    root, names = root_of(job.settings), (release.version, release.super_version)
    return [job.host.checkpoints.get(root / "transformer" / name) if root else None for name in names if name]


# --------------------------------------------------------------------------------------------------- GPUs and memory


def heads(decision: HunyuanDecision) -> tuple[int, ...]:
    """The attention heads of every transformer of the run, from the weights' own config if it has them."""
    found = _transformers(decision.job, decision.release)
    numbers = [checkpoint.config.get("heads_num") if checkpoint else None for checkpoint in found]
    return tuple(number if isinstance(number, int) else decision.member.heads for number in numbers or [None])


def can_share(decision: HunyuanDecision, ranks: int) -> bool:
    """Whether this number of GPUs can share the clip."""
    if ranks == 1 or decision.member.parallel == "none":
        return ranks == 1
    if decision.member.parallel == "world":
        return all(number % ranks == 0 for number in heads(decision))
    return facts.can_split(decision.base_size, ranks)


def _needs(draft: HunyuanDecision, cards: tuple[Gpu, ...]) -> SetNeeds:
    """The needs of a run on these cards, and its relative time."""
    ranks = len(cards)
    decision = replace(draft, gpus=GpuChoice(cards), ranks=ranks)
    decision = replace(decision, parameters=_parameters(decision))
    return SetNeeds(
        gpu_bytes=decision.gpu_bytes,
        host_bytes=decision.host_bytes,
        seconds=facts.relative_seconds(ranks, moved=bool(decision.parameters.get("use_cpu_offload"))),
        lacks=lacks_xfuser(draft.interpreter, ranks) if draft.member.parallel == "degrees" else "",
    )


# ------------------------------------------------------------------------------------------------------ parameters


def _parameters(decision: HunyuanDecision) -> dict[str, Any]:
    """The effective parameters by their usual names; overrides of a retry come last."""
    request, settings = decision.job.request, decision.job.settings
    member, release = decision.member, decision.release
    fixed, steps = _steps(decision)
    chosen: dict[str, Any] = {
        "member": member.title,
        "size": decision.size,
        "num_frames": decision.frames,
        "fps": fps_of(member, decision.job),
        # Weights distilled to a number of steps make noise with another number: no retry may lower it.
        ("fixed_steps" if fixed else "steps"): steps,
        "seed": first(request.seed, settings.base_seed, 0),
        "gpu_count": decision.ranks,
        **({"resolution": release.resolution} if member.classes else {}),
        **({"super_resolution": release.super_version is not None} if member.enlarges else {}),
        **member.defaults,
        **(_by_degrees(decision) if member.parallel == "degrees" else {}),
        **decision.file.flags,
    }
    chosen = forced(chosen, decision.job.overrides)
    if chosen.get("use_cpu_offload", False) is None:
        chosen["use_cpu_offload"] = _needs_offload(replace(decision, parameters=chosen))
    return chosen


def _steps(decision: HunyuanDecision) -> tuple[bool, int]:
    fixed = "distilled" in decision.release.version
    request, settings = decision.job.request, decision.job.settings
    wanted = first(request.steps, settings.sample_steps, decision.file.parameters.get("steps"), 0)
    return fixed, wanted or (12 if "step" in decision.release.version else 50)


def _by_degrees(decision: HunyuanDecision) -> dict[str, Any]:
    """The parameters of scripts in which GPUs share a clip by two degrees."""
    request, settings, file = decision.job.request, decision.job.settings, decision.file
    member = decision.member
    ulysses, ring = split_degrees(decision.ranks, member.heads)
    shift = member.stable_shift if file.flags.get("i2v_stability") else member.shift
    return {
        "guidance_scale": first(
            request.guidance_scale, settings.guide_scale, file.parameters.get("guidance_scale"), member.guidance
        ),
        "flow_shift": first(request.flow_shift, settings.sample_shift, file.parameters.get("flow_shift"), shift),
        "ulysses_degree": ulysses,
        "ring_degree": ring,
        "cfg_scale": 1.0,
        "use_cpu_offload": None if decision.ranks == 1 else False,
        "expandable_segments": False,
    }


def _needs_offload(decision: HunyuanDecision) -> bool:
    """Whether the model fits only with offloading, which costs much time."""
    free = smallest_free_bytes(decision.gpus.gpus)
    return free is None or facts.peak_gpu_bytes(memory_of(decision, offload=False)) > free


def memory_of(decision: HunyuanDecision, *, offload: bool | None = None) -> facts.HunyuanMemory:
    """The inputs of the memory prediction for this run."""
    parameters, member, cards = decision.parameters, decision.member, decision.gpus.gpus
    assert member.footprint is not None
    super_resolution = decision.release.super_version is not None
    small = facts.tokens(decision.base_size, decision.frames)
    large = facts.tokens(decision.output_size, decision.frames) if super_resolution else 0
    share = max(heads(decision)) / decision.ranks
    # A member that requires flash-attn has fused kernels or does not run.
    unfused = () if "flash_attn" in member.modules else cards
    scores, enlarging = (compatibility.attention_bytes(unfused, count, share) for count in (small, large))
    blocks = parameters.get("group_offloading", True)
    if blocks is None:
        sizes = [gpu.total_bytes for gpu in cards if gpu.total_bytes is not None]
        blocks = any(size < facts.GROUP_OFFLOAD_BELOW for size in sizes)
    return facts.HunyuanMemory(
        member.footprint,
        max(small * decision.passes, large),
        attention_bytes=max(scores * decision.passes, enlarging),
        offload=bool(parameters.get(member.offload_option)) if offload is None else offload,
        in_blocks=bool(blocks),
        fp8=bool(parameters.get("use_fp8")),
        transformers=2 if super_resolution else 1,
    )
