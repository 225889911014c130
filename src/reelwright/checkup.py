"""What ``reel doctor`` and ``is_available`` ask: is this machine ready for each generator, and what is to be fixed?

It asks each backend for a plan of an imaginary picture and keeps what concerns the machine: the very findings that
a real run would meet, so that the doctor cannot disagree with the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import backends
from .backends import Backend
from .errors import ConfigurationError, Failure
from .host import GIB, Host, HostQuery
from .plan import Finding, Job
from .policy import preflight
from .request import Picture, Size, Task, VideoRequest
from .settings import Settings

#: Failures that concern the machine or the configuration, not a picture or a prompt.
_MACHINE = (Failure.ENV, Failure.MODEL, Failure.DISK, Failure.PERM, Failure.CONFIG, Failure.BUSY)
_PICTURE = Picture(Path("/imaginary.png"), Path("imaginary.png"), Size(1280, 720), Size(1280, 720), "0" * 64)


@dataclass(frozen=True)
class Row:
    """One line of the doctor's table; ``matters`` is false for generators that nobody configured."""

    part: str
    finding: Finding
    matters: bool = True

    def to_json(self) -> dict[str, Any]:
        """The finding with its part."""
        return {"part": self.part, "matters": self.matters, **self.finding.to_json()}


def check_all(settings: Settings, environ: Mapping[str, str] | None = None) -> tuple[Row, ...]:
    """Every check of the machine and of every generator."""
    environ = os.environ if environ is None else environ
    rows = list(_machine_rows(_look(HostQuery(gpus=True, disks=(Path.cwd(),)), settings, environ)))
    for name in backends.names():
        try:
            backend = backends.load_backend(name)
        except ConfigurationError as error:
            rows.append(Row(name, Finding("plugin", "warning", error.message, error.advice)))
            continue
        rows += _generator_rows(backend, settings, environ)
    return tuple(rows)


def _look(query: HostQuery, settings: Settings, environ: Mapping[str, str]) -> Host:
    from .machine.probes import take_host

    return take_host(query, environ=environ, simulated=settings.simulate_gpus, state_dir=settings.state_dir)


def _machine_rows(host: Host) -> Iterator[Row]:
    memory = f"{host.memory_available_bytes / GIB:.1f} GiB free" if host.memory_available_bytes else "memory unknown"
    yield Row("machine", Finding("machine", "info", f"{host.cpu_count} CPU cores, {memory}"))
    for gpu in host.gpus or ():
        free = f"{gpu.free_bytes / GIB:.1f} GiB free" if gpu.free_bytes is not None else "memory unknown"
        users = "".join(f"; used by pid {process.pid} ({process.name or '?'})" for process in gpu.processes)
        yield Row("machine", Finding("gpu", "info", f"GPU {gpu.index}: {gpu.name}, {free}{users}"))
    if not host.gpus:
        text = host.gpu_problem or "no GPU that this process may use"
        yield Row("machine", Finding("gpu", "warning", text, "Install the NVIDIA driver, or use the draft generator."))
    for disk in host.disks:
        room = "unknown" if disk.free_bytes is None else f"{disk.free_bytes / GIB:.1f} GiB"
        yield Row("machine", Finding("disk", "info", f"{room} free in {disk.folder}"))


def _generator_rows(backend: Backend, settings: Settings, environ: Mapping[str, str]) -> Iterator[Row]:
    configured = not backend.requires_gpu or backend.configured(settings)
    if not configured:
        yield Row(backend.name, Finding("unconfigured", "warning", "not configured", backend.configuration_hint), False)
        return
    said: set[str] = set()
    for finding in availability(backend, settings, environ):
        if finding.message not in said:
            said.add(finding.message)
            yield Row(backend.name, finding)
    if not any(True for finding in availability(backend, settings, environ) if finding.severity == "error"):
        yield Row(backend.name, Finding("ready", "info", f"{backend.title}: ready"))


def availability(backend: Backend, settings: Settings, environ: Mapping[str, str] | None = None) -> tuple[Finding, ...]:
    """What stands in the way of a run with this generator, whatever the picture; the best task counts.

    Findings of tasks that are not configured are left out as long as one task could run.
    """
    environ = os.environ if environ is None else environ
    own = settings.for_generator(backend.name)
    per_task = [_findings_for(backend, own, environ, task) for task in _tasks(backend)]
    clean = [found for found in per_task if not any(item.severity == "error" for item in found)]
    best = clean or per_task[:1]
    return tuple(dict.fromkeys(finding for found in best for finding in found))


def _tasks(backend: Backend) -> tuple[Task, ...]:
    if not backend.requires_gpu:
        return ("i2v",)
    return ("i2v", "flf2v", "t2v")


def _findings_for(backend: Backend, settings: Settings, environ: Mapping[str, str], task: Task) -> tuple[Finding, ...]:
    first = Path("imaginary.png") if task != "t2v" else None
    last = Path("imaginary.png") if task == "flf2v" else None
    request = VideoRequest(prompt="any", image=first, last_image=last, generator=backend.name, seed=0)
    here = Path.cwd()
    host = _look(replace(backend.query(request, settings), disks=(here,)), settings, environ)
    job = Job(request, settings, host, here / "film.mp4", _PICTURE if first else None, _PICTURE if last else None)
    plan = backend.plan(job)
    found = (*plan.findings, *preflight.findings(plan, host, settings))
    # Of the information only what was found on the machine: not what would become of the imaginary picture.
    return tuple(
        item for item in found if item.failure in _MACHINE and (item.severity != "info" or item.code.endswith(".found"))
    )
