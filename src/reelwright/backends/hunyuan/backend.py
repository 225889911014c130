"""The backend of the HunyuanVideo family: Tencent's official, unmodified scripts as one generator.

It runs HunyuanVideo (text-to-video), HunyuanVideo-I2V (image-to-video), HunyuanVideo-1.5 (both), and the interface of
the requirement if a checkout has it. ``hunyuan_dir`` decides: `members` recognises the checkout by its files. `BACKEND`
is the record; `plan` is pure. It finds mistakes before the start that the scripts would only find after loading 40 GB
of weights.
"""

from __future__ import annotations

from pathlib import Path

from ...core.host import CheckpointQuery, Host, HostQuery
from ...core.plan import Finding, Plan
from ...core.request import VideoRequest
from .. import Backend, ClipRules
from ..shared.capabilities import Capabilities
from ..shared.gpu_choice import clips_at_a_time
from ..shared.launch import PROCESS_SETTINGS, interpreter_queries
from ..shared.rules import Length, picture_frame, too_long_findings
from .assumed_models import assumed_models
from .checks import checkout_problem, findings, member_findings
from .commands import command_of
from .decision import decide, main_file, root_of, versioned
from .members import FAMILY, HV, HV15, SUPER_PARTS, checkout_query, recognise
from .mitigations import mitigations
from .record import WeightFolder
from .settings import HunyuanJob as Job
from .settings import HunyuanSettings as Settings


def query(request: VideoRequest, settings: Settings) -> HostQuery:
    """Ask for the checkout, its interpreter, the weights of every possible member, the options file, and the GPUs."""
    modules = dict.fromkeys(module for member in FAMILY for module in (*member.modules, "xfuser"))
    directory = settings.hunyuan_dir
    return HostQuery(
        gpus=True,
        interpreters=interpreter_queries(settings, directory, tuple(modules)),
        checkouts=(checkout_query(directory),) if directory else (),
        checkpoints=tuple(_checkpoints(request, settings).values()),
        options_files=(settings.config_file,) if settings.config_file else (),
    )


def _checkpoints(request: VideoRequest, settings: Settings) -> dict[Path, CheckpointQuery]:
    """Every folder of weights by its path; the checkout, which is not read yet, decides which member uses them."""
    root, main, verify = root_of(settings), main_file(settings), settings.verify_model
    if root is None:
        return {}
    queries = {root: CheckpointQuery(root, layout="hunyuan")}
    for part in _parts(request):
        folder = root / part.folder
        queries[folder] = CheckpointQuery(folder, part.required, part.weights, part.config, verify=verify)
    if main:
        queries[main.parent] = CheckpointQuery(
            main.parent, (main.name,), (f"{main.stem}*{main.suffix}",), verify=verify
        )
    return queries


def _parts(request: VideoRequest) -> list[WeightFolder]:
    """The weight folders of every member, for each transformer that makes the request's task."""
    parts = [part for member in FAMILY for part in member.parts if "{version}" not in part.folder]
    for member in FAMILY:
        for version in sorted(version for version in member.versions if f"_{request.task}" in version):
            parts += [part for part in versioned(member.parts, version) if part.folder.endswith(version)]
        for large, _ in member.enlarges.values():
            parts += versioned(SUPER_PARTS, f"{large}_sr_distilled")
    return parts


def plan(job: Job) -> Plan:
    """Plan the exact command and the expected video, and find every mistake that can be known before the run."""
    checkout = job.host.checkouts.get(job.settings.hunyuan_dir) if job.settings.hunyuan_dir else None
    member = recognise(checkout)
    if member is None or checkout is None:
        length = Length("HunyuanVideo", HV.fps, HV.clip_frames, job.settings.max_duration or HV.trained_s)
        return _refused(job, (checkout_problem(job, checkout), *too_long_findings(job.request, length)))
    if job.request.task not in member.tasks:
        return _refused(job, tuple(member_findings(job, member, checkout)))
    decision = decide(job, member, checkout)
    return decision.plan(
        BACKEND.name,
        tuple(findings(decision)),
        lambda: command_of(decision),
        gpu_bytes=decision.gpu_bytes,
        host_bytes=decision.host_bytes,
        mitigations=tuple(mitigations(decision)),
    )


def _refused(job: Job, found: tuple[Finding, ...]) -> Plan:
    return Plan(BACKEND.name, job.request.task, True, None, None, findings=found)


# ---------------------------------------------------------------------------------------------------- the record


def capabilities(settings: Settings, host: Host) -> Capabilities:
    """The abilities of the checkout that was found."""
    member = recognise(host.checkouts.get(settings.hunyuan_dir) if settings.hunyuan_dir else None)
    alone = member is not None and member.parallel == "none"
    return Capabilities(
        tasks=member.tasks if member else (),
        max_duration=settings.max_duration or (member or HV).trained_s,
        resolutions=member.sizes if member else (),
        requires_gpu=True,
        max_concurrent=max(1, len(host.gpus or ())) if alone else clips_at_a_time(settings, host),
        models=(member.title,) if member else (),
        more={"fps": (member or HV).fps, "frames": f"4n+1, {(member or HV).clip_frames} per clip"},
    )


def configured(settings: Settings) -> bool:
    """Whether one of the generator's keys is set."""
    return any((settings.hunyuan_dir, settings.ckpt_path))


BACKEND = Backend(
    name="hunyuan",
    title="HunyuanVideo, HunyuanVideo-I2V or HunyuanVideo-1.5 through its official script",
    query=query,
    plan=plan,
    capabilities=capabilities,
    frame=picture_frame,
    configured=configured,
    configuration_hint="Set hunyuan_dir, and ckpt_path if the weights are elsewhere (docs/hunyuan.md).",
    # The length that every member makes well; HunyuanVideo and HunyuanVideo-I2V make up to 129 frames.
    clip=ClipRules(HV15.fps, HV15.clip_frames, 4),
    execution=frozenset(
        {
            *("gpu_count", "ulysses_degree", "ring_degree", "use_cpu_offload", "expandable_segments"),
            *("offloading", "group_offloading", "overlap_group_offloading"),
        }
    ),
    assumed_models=assumed_models,
    settings=Settings,
    settings_used=PROCESS_SETTINGS | {"fps", "accept_valid_on_nonzero"},
)
