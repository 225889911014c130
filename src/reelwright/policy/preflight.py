"""Is a plan fit for this machine? Findings that every backend shares, and the exception for the first error.

>>> raise_for(findings(plan, host, settings))   # nothing happens when no finding is an error
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import Failure, VideoGenerationError, all_of, error_for
from ..gpu_choice import HOPELESS
from ..host import GIB, Gpu, Host, host_too_small
from ..plan import Command, Finding, Plan
from ..settings import Settings
from .texts import SHM_ADVICE, SHM_SEGMENT_BYTES

MIB = 1024 * 1024
_DISK_MARGIN_BYTES = 64 * 1024 * 1024


def findings(plan: Plan, host: Host, settings: Settings | None) -> tuple[Finding, ...]:
    """What the machine has to say to a plan: memory, disk, rights, simulated GPUs."""
    del settings
    gpus = (*_cuda_findings(plan, host), *_gpu_findings(plan, host))
    memory = (*_host_memory_findings(plan, host), *_shared_memory_findings(plan, host))
    return (*gpus, *memory, *_disk_findings(plan, host))


def _cuda_findings(plan: Plan, host: Host) -> Iterator[Finding]:
    """A torch that cannot use the cards: the framework would say so, after its imports and in words of its own."""
    python = host.interpreters.get(Path(plan.run.argv[0])) if isinstance(plan.run, Command) else None
    if python is None or "torch" not in python.modules or host.simulated or not plan.gpus:
        return
    torch = f"torch {python.modules['torch']} of {python.path}"
    if python.cuda_version is None:
        text = f"{torch} is built without CUDA"
        yield Finding("torch.no_cuda", "error", text, "Install a build of torch with CUDA there.", Failure.ENV)
    elif python.cuda_devices == 0:
        text = f"{torch} (CUDA {python.cuda_version}) sees no GPU, and the driver does"
        fix = "The driver may be too old for that CUDA: update it, or install torch for an older CUDA."
        yield Finding("torch.no_gpu", "error", text, fix, Failure.ENV)


def _gpu_findings(plan: Plan, host: Host) -> Iterator[Finding]:
    if host.simulated and plan.gpus:
        text = "the GPUs are SIMULATED: this plan is for a machine that is not this one, and a run would not use a GPU"
        yield Finding("gpu.simulated", "warning", text, "Leave out --simulate-gpus for a real run.")
    chosen = [gpu for gpu in host.gpus or () if gpu.index in plan.gpus]
    said: set[tuple[object, ...]] = set()
    for gpu in chosen:
        for finding in _memory_findings(plan, gpu):
            alike = (finding.code, gpu.total_bytes, gpu.name)
            if finding.code == "gpu.busy" or alike not in said:  # once for cards of a kind
                yield finding
            said.add(alike)


def _memory_findings(plan: Plan, gpu: Gpu) -> Iterator[Finding]:
    need, total, free = plan.gpu_bytes, gpu.total_bytes, gpu.free_bytes
    if not need or total is None:
        return
    sizes = f"about {need / GIB:.1f} GiB are needed; GPU {gpu.index} ({gpu.name}) has {total / GIB:.1f} GiB"
    if need > HOPELESS * total:
        yield Finding(
            "gpu.too_small",
            "error",
            f"{sizes}: this would end out of memory after loading",
            "Use a smaller --size, fewer --frames, or a larger card (fewer steps do not help).",
            Failure.OOM_GPU,
        )
    elif need > total:
        yield Finding(
            "gpu.tight", "warning", f"{sizes}: it may run out of memory", "Use a smaller --size or fewer --frames."
        )
    elif free is not None and need > free:
        users = ", ".join(
            f"pid {process.pid} ({process.name or 'unknown'}"
            + (f", {process.used_bytes / GIB:.1f} GiB)" if process.used_bytes else ")")
            for process in gpu.processes
        )
        yield Finding(
            "gpu.busy",
            "error",
            f"{sizes}, and only {free / GIB:.1f} GiB are free" + (f"; used by {users}" if users else ""),
            "End the other program, or choose other GPUs with --gpus.",
            Failure.BUSY,
        )


def _host_memory_findings(plan: Plan, host: Host) -> Iterator[Finding]:
    need, total, available = plan.host_bytes, host.memory_total_bytes, host.memory_available_bytes
    if host.memory_simulated:
        text = f"the host memory is SIMULATED: {(total or 0) / GIB:.0f} GiB"
        yield Finding("memory.simulated", "warning", text, "Leave out --simulate-memory for a real run.")
    if need is None or any(finding.code == "memory.host" for finding in plan.findings):
        return
    ranks = plan.run.ranks if isinstance(plan.run, Command) else 1
    each = f" ({ranks} processes, each of which loads the whole model)" if ranks > 1 else ""
    text = f"about {need / GIB:.0f} GiB of host memory are needed while loading{each}"
    fewer = "Use fewer GPUs (each rank loads the whole model), or add memory." if ranks > 1 else "Add memory or swap."
    if host_too_small(need, host):
        text = f"{text}, and this machine has {(total or 0) / GIB:.0f} GiB: the kernel would end the run"
        yield Finding("host.too_small", "error", text, fewer, Failure.OOM_HOST)
    elif available is not None and need > available:
        yield Finding("host.memory", "warning", f"{text}, {available / GIB:.0f} GiB are available", fewer)


def _shared_memory_findings(plan: Plan, host: Host) -> Iterator[Finding]:
    """A /dev/shm that is too small for NCCL: it takes segments of about 32 MiB for each pair of ranks."""
    free, total = host.shm_free_bytes, host.shm_total_bytes
    if plan.program is None or max(plan.program.ranks, len(plan.gpus)) < 2 or host.simulated or free is None:
        return
    pairs = max(plan.program.ranks, len(plan.gpus)) - 1
    sizes = f"shared memory (/dev/shm) has {free // MIB} MiB free of {(total or 0) // MIB} MiB"
    if free < SHM_SEGMENT_BYTES:
        text = f"{sizes}: the processes of a run on several GPUs cannot exchange data"
        yield Finding("host.shm", "error", text, SHM_ADVICE, Failure.ENV)
    elif free < 4 * pairs * SHM_SEGMENT_BYTES:
        yield Finding("host.shm", "warning", f"{sizes}: that may be too little for several GPUs", SHM_ADVICE)


def _disk_findings(plan: Plan, host: Host) -> Iterator[Finding]:
    for disk in host.disks:
        need = plan.disk_bytes + _DISK_MARGIN_BYTES
        if disk.writable is False:
            text = f"{disk.folder} cannot be written"
            yield Finding("disk.writable", "error", text, "Choose a folder of your own.", Failure.PERM)
        elif disk.free_bytes is not None and disk.free_bytes < need:
            text = f"{disk.free_bytes / GIB:.2f} GiB are free in {disk.folder}, up to {need / GIB:.2f} GiB are needed"
            yield Finding("disk.space", "error", text, "Free some space, or choose another folder.", Failure.DISK)


def raise_for(found: Iterable[Finding]) -> None:
    """Raise for the error findings, all at once.

    Raises:
        VideoGenerationError: of the class of the first one's failure, with the others as evidence.
    """
    if errors := errors_of(found):
        raise all_of(errors)


def errors_of(found: Iterable[Finding]) -> list[VideoGenerationError]:
    """The error findings as exceptions, in their order."""
    return [error_for(item.failure, item.message, advice=item.fix) for item in found if item.severity == "error"]
