"""The HunyuanVideo family through Tencent's official, unmodified scripts, as one generator.

HunyuanVideo (text-to-video), HunyuanVideo-I2V (image-to-video) and HunyuanVideo-1.5 (both), and the interface that
the reference document describes where a checkout has it. ``hunyuan_dir`` decides: the checkout is recognised by its
files (`members`). `BACKEND` is the record; `core.plan` is pure and finds before the start what the scripts would only find
after loading 40 GB of weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...core.host import CheckpointQuery, Host, HostQuery
from ...core.plan import Plan
from ...core.request import VideoRequest
from .. import Backend, ClipRules
from ..shared.gpu_choice import gpu_count
from ..shared.launch import PROCESS_SETTINGS, interpreter_queries
from ..shared.rules import Length, disk_bytes, is_illegal, picture_frame, too_long_findings
from . import facts
from .assumed_models import assumed_models
from .checks import checkout_problem, findings, member_findings
from .choice import Choice, choose, expected_video, host_bytes, main_file, memory_use, root_of, versioned
from .commands import command_of
from .members import DOCUMENTED, FAMILY, HV, HV15, HVI, SUPER_PARTS, VERSIONS, Member, Part, checkout_query, recognise
from .mitigations import mitigations
from .settings import HunyuanJob as Job
from .settings import HunyuanSettings as Settings

_SIZES: Mapping[str, tuple[str, ...]] = {
    HV.title: tuple(map(str, facts.HV_SIZES)),
    HVI.title: ("1280x720", "720x1280", "960x540", "540x960", "640x360", "360x640"),
    HV15.title: ("832x480", "480x832", "1280x720", "720x1280", "1920x1080", "1080x1920"),
    DOCUMENTED.title: ("1280x720", "1024x576"),
}


def query(request: VideoRequest, settings: Settings) -> HostQuery:
    """The checkout, its interpreter, the weights of every member that it could be, the options file, and the GPUs."""
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
    """Every folder of weights by its path: which member it is will be known only from the checkout."""
    root, main = root_of(settings), main_file(settings)
    if root is None:
        return {}
    queries = {root: CheckpointQuery(root, layout="hunyuan")}
    for part in _parts(request):
        folder = root / part.folder
        verify = settings.verify_model
        queries[folder] = CheckpointQuery(folder, part.required, part.weights, part.config, verify=verify)
    if main:
        queries[main.parent] = CheckpointQuery(
            main.parent, (main.name,), (f"{main.stem}*{main.suffix}",), verify=settings.verify_model
        )
    return queries


def _parts(request: VideoRequest) -> list[Part]:
    versions = sorted(version for version in VERSIONS if f"_{request.task}" in version)
    enlarging = [f"{large}_sr_distilled" for large, _ in facts.SUPER.values()]
    parts = [part for member in FAMILY for part in member.parts if "{version}" not in part.folder]
    for version in versions:
        parts += [part for part in versioned(HV15.parts, version) if part.folder.endswith(version)]
    return parts + [part for version in enlarging for part in versioned(SUPER_PARTS, version)]


def plan(job: Job) -> Plan:
    """The exact command for a request, the film it will give, and every mistake that can be known now."""
    checkout = job.host.checkouts.get(job.settings.hunyuan_dir) if job.settings.hunyuan_dir else None
    member = recognise(checkout)
    if member is None or checkout is None:
        length = Length("HunyuanVideo", HV.fps, HV.clip_frames, job.settings.max_duration or _trained_s(HV))
        return _refused(job, (checkout_problem(job, checkout), *too_long_findings(job.request, length)))
    if job.request.task not in member.tasks:
        return _refused(job, tuple(member_findings(job, member, checkout)))
    choice = choose(job, member, checkout)
    found = tuple(findings(choice))
    return _planned(choice).evolve(run=None if is_illegal(found) else command_of(choice), findings=found)


def _refused(job: Job, found: Any) -> Plan:
    return Plan(BACKEND.name, job.request.task, True, None, None, findings=found)


def _planned(choice: Choice) -> Plan:
    """The plan without its command; what the documented script needs is not known."""
    use = None if choice.member is DOCUMENTED else memory_use(choice)
    expected = expected_video(choice)
    return Plan(
        generator=BACKEND.name,
        task=choice.job.request.task,
        generative=True,
        run=None,
        expected=expected,
        parameters={"member": choice.member.title, **choice.parameters},
        gpus=tuple(gpu.index for gpu in choice.gpus.gpus),
        gpu_bytes=facts.peak_gpu_bytes(use) if use else None,
        host_bytes=host_bytes(choice),
        disk_bytes=disk_bytes(choice.job.settings, expected),
        mitigations=tuple(mitigations(choice)),
    )


# ---------------------------------------------------------------------------------------------------- the record


def capabilities(settings: Settings, host: Host) -> Mapping[str, Any]:
    """The documented mapping, true for the checkout that was found."""
    member = recognise(host.checkouts.get(settings.hunyuan_dir) if settings.hunyuan_dir else None)
    count = len(host.gpus or ())
    per_run = max(1, min(gpu_count(settings, host), count)) if count else 1
    tasks = member.tasks if member else ()
    return {
        "max_duration": settings.max_duration or _trained_s(member or HV),
        "supported_resolutions": list(_SIZES[member.title]) if member else [],
        "supported_formats": ["mp4"],
        "input_types": [*(["text"] if "t2v" in tasks else []), *(["image"] if "i2v" in tasks else [])],
        "requires_gpu": True,
        "cost_per_second": 0.0,
        "max_concurrent": max(1, count // per_run) if member is not DOCUMENTED else max(1, count),
        "supports_image_to_video": "i2v" in tasks,
        "supports_text_to_video": "t2v" in tasks,
        "supports_first_last_frame": False,
        "models": [member.title] if member else [],
        "fps": member.fps if member else HV.fps,
        "frames": f"4n+1, {(member or HV).clip_frames} per clip",
    }


def _trained_s(member: Member) -> float:
    return member.clip_frames / member.fps


def configured(settings: Settings) -> bool:
    """Whether any of its keys is set."""
    return any((settings.hunyuan_dir, settings.ckpt_path))


_TITLE = "HunyuanVideo, HunyuanVideo-I2V or HunyuanVideo-1.5 through its official script"
_ON_ONE_OR_SEVERAL = ("gpu_count", "ulysses_degree", "ring_degree", "use_cpu_offload", "expandable_segments")
_IN_PIECES = ("offloading", "group_offloading", "overlap_group_offloading")

# Name, title, generative, needs a GPU, and the functions in the order of the record.
BACKEND = Backend("hunyuan", _TITLE, True, True, query, plan, capabilities, picture_frame, configured)
BACKEND = replace(
    BACKEND,
    configuration_hint="Set hunyuan_dir, and ckpt_path if the weights lie elsewhere (docs/hunyuan.md).",
    # A clip that every member makes well; HunyuanVideo and HunyuanVideo-I2V go to 129.
    clip=ClipRules(HV15.fps, HV15.clip_frames, 4),
    execution=frozenset((*_ON_ONE_OR_SEVERAL, *_IN_PIECES)),
    assumed_models=assumed_models,
    settings=Settings,
    settings_used=PROCESS_SETTINGS | {"fps", "accept_valid_on_nonzero"},
)
