"""Findings about whether a plan fits this machine, shared by every backend, and the exception for the errors.

>>> raise_for(findings(plan, host, settings))   # nothing happens when no finding is an error
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..backends.shared.gpu_choice import HOPELESS
from ..core.errors import Failure, VideoGenerationError, all_of, error_for
from ..core.host import GIB, Gpu, Host, host_too_small
from ..core.plan import Command, Finding, Plan
from .texts import SHM_ADVICE, SHM_SEGMENT_BYTES

MIB = 1024 * 1024
_DISK_MARGIN_BYTES = 64 * 1024 * 1024


def findings(plan: Plan, host: Host) -> tuple[Finding, ...]:
    """Findings about a plan on this machine: memory, disk, rights, simulated GPUs."""
    simulated = [item for item in simulation_findings(host) if plan.gpus or item.code != "gpu.simulated"]
    gpus = (*_cuda_findings(plan, host), *simulated, *_gpu_findings(plan, host))
    memory = (*_host_memory_findings(plan, host), *_shared_memory_findings(plan, host))
    return (*gpus, *memory, *_disk_findings(plan, host))


def _cuda_findings(plan: Plan, host: Host) -> Iterator[Finding]:
    """Report a torch that cannot use the cards; the framework would only notice it after its imports."""
    python = host.interpreters.get(Path(plan.run.argv[0])) if isinstance(plan.run, Command) else None
    if python is None or "torch" not in python.modules or host.simulated or not plan.gpus:
        return
    torch = f"torch {python.modules['torch']} of {python.path}"
    if python.cuda_version is None:
        text = f"{torch} is built without CUDA"
        yield Finding("torch.no_cuda", "error", text, "Install a build of torch with CUDA there.", Failure.ENV)
    elif python.cuda_devices == 0:
        text = f"{torch} (CUDA {python.cuda_version}) sees no GPU, but the driver does"
        fix = "The driver may be too old for that CUDA: update it, or install torch for an older CUDA."
        yield Finding("torch.no_gpu", "error", text, fix, Failure.ENV)


def simulation_findings(host: Host) -> Iterator[Finding]:
    """Warn about simulated GPUs and memory."""
    if host.simulated and host.gpus:
        text = "the GPUs are SIMULATED: this plan is for another machine, and a run here would use no GPU"
        yield Finding("gpu.simulated", "warning", text, "Leave out --simulate-gpus for a real run.")
    if host.memory_simulated:
        text = f"the host memory is SIMULATED: {(host.memory_total_bytes or 0) / GIB:.0f} GiB"
        yield Finding("memory.simulated", "warning", text, "Leave out --simulate-memory for a real run.")


def _gpu_findings(plan: Plan, host: Host) -> Iterator[Finding]:
    if any(finding.code == "memory.gpu" for finding in plan.findings):  # the backend knows more and has reported it
        return
    chosen = [gpu for gpu in host.gpus or () if gpu.index in plan.gpus]
    kinds = {(gpu.name, gpu.total_bytes): gpu for gpu in reversed(chosen)}.values()
    small = [gpu for gpu in reversed(kinds) if _share(plan, gpu) > HOPELESS]
    tight = [gpu for gpu in reversed(kinds) if 1 < _share(plan, gpu) <= HOPELESS]
    if small:
        text = f"{_sizes(plan, small)}: it would run out of memory after loading"
        fix = "Use a smaller --size, fewer --frames, or a larger card (fewer steps do not help)."
        yield Finding("gpu.too_small", "error", text, fix, Failure.OOM_GPU)
    if tight:
        text = f"{_sizes(plan, tight)}: it may run out of memory"
        yield Finding("gpu.tight", "warning", text, "Use a smaller --size or fewer --frames.")
    for gpu in chosen:
        need, free = plan.gpu_bytes or 0, gpu.free_bytes
        if free is not None and need > free and _share(plan, gpu) <= 1:
            users = f"; used by {gpu.users}" if gpu.processes else ""
            text = f"{_sizes(plan, [gpu])}, and only {free / GIB:.1f} GiB are free{users}"
            fix = "End the other program, or choose other GPUs with --gpus."
            yield Finding("gpu.busy", "error", text, fix, Failure.BUSY)


def _share(plan: Plan, gpu: Gpu) -> float:
    """The plan's need as a share of the card's total memory; 0 if either is not known."""
    return (plan.gpu_bytes or 0) / gpu.total_bytes if gpu.total_bytes else 0.0


def _sizes(plan: Plan, gpus: Sequence[Gpu]) -> str:
    sizes = ["unknown memory" if gpu.total_bytes is None else f"{gpu.total_bytes / GIB:.1f} GiB" for gpu in gpus]
    have = ", ".join(f"GPU {gpu.index} ({gpu.name}) has {size}" for gpu, size in zip(gpus, sizes, strict=True))
    return f"about {(plan.gpu_bytes or 0) / GIB:.1f} GiB are needed; {have}"


def _host_memory_findings(plan: Plan, host: Host) -> Iterator[Finding]:
    need, total, available = plan.host_bytes, host.memory_total_bytes, host.memory_available_bytes
    if need is None or any(finding.code == "memory.host" for finding in plan.findings):
        return
    ranks = plan.run.ranks if isinstance(plan.run, Command) else 1
    each = f" ({ranks} processes, each of which loads the whole model)" if ranks > 1 else ""
    text = f"about {need / GIB:.0f} GiB of host memory are needed while loading{each}"
    fewer = "Use fewer GPUs (each rank loads the whole model), or add memory." if ranks > 1 else "Add memory or swap."
    if host_too_small(need, host):
        swap = f" and {host.swap_bytes / GIB:.0f} GiB of swap" if host.swap_bytes else ""
        who = "this container or job may use" if host.memory_limited else "this machine has"
        text = f"{text}, and {who} {(total or 0) / GIB:.0f} GiB{swap}: the kernel would end the run"
        yield Finding("host.too_small", "error", text, fewer, Failure.OOM_HOST)
    elif available is not None and need > available:
        yield Finding("host.memory", "warning", f"{text}, {available / GIB:.0f} GiB are available", fewer)


def _shared_memory_findings(plan: Plan, host: Host) -> Iterator[Finding]:
    """Report a /dev/shm that is too small for NCCL, which takes segments of about 32 MiB for each pair of ranks."""
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
            yield Finding("disk.writable", "error", text, "Choose a folder that you can write to.", Failure.PERM)
        elif disk.free_bytes is not None and disk.free_bytes < need:
            text = f"{disk.free_bytes / GIB:.2f} GiB are free in {disk.folder}, up to {need / GIB:.2f} GiB are needed"
            yield Finding("disk.space", "error", text, "Free some space, or choose another folder.", Failure.DISK)


def raise_for(found: Iterable[Finding]) -> None:
    """Raise for the error findings, all at once.

    Raises:
        VideoGenerationError: Of the class of the first error's failure, with the other errors as evidence.
    """
    if errors := errors_of(found):
        raise all_of(errors)


def errors_of(found: Iterable[Finding]) -> list[VideoGenerationError]:
    """The error findings as exceptions, in their order."""
    return [error_for(item.failure, item.message, advice=item.fix) for item in found if item.severity == "error"]
