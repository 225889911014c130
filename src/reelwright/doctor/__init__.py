"""Checks for ``reel doctor`` and ``is_available`` whether this machine is ready for each generator, and what to fix.

It prepares an order with an assumed picture for each task of each generator, and keeps the findings that concern the
machine. The same code prepares a real run, so the doctor cannot disagree with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import backends
from ..backends import Backend
from ..config.settings import Settings
from ..core.errors import ConfigurationError, Failure, VideoGenerationError
from ..core.host import GIB, Host, HostQuery
from ..core.plan import Finding, counted
from ..core.request import Picture, Size, Task, VideoRequest
from ..policy import preflight
from ..runs import history
from ..runs.order import Order
from ..runs.prepare import Prepared, Preparer
from ..sites import Site

#: Failures that concern the machine or the configuration, not a picture or a prompt.
_MACHINE = (Failure.ENV, Failure.MODEL, Failure.DISK, Failure.PERM, Failure.CONFIG, Failure.BUSY)
#: Findings that the doctor reports although they do not forbid a run.
_REPORTED = ("checkout.old", "member.found", "gpu.too_small", "placement")
#: The smaller of the two sizes that every generator makes.
_SMALL = Size(832, 480)
_ASSUMED = Picture(Path("/assumed.png"), Path("assumed.png"), Size(1280, 720), Size(1280, 720), "0" * 64)


@dataclass(frozen=True)
class Row:
    """One line of the doctor's table; ``matters`` is false for a generator that is not configured."""

    part: str
    finding: Finding
    matters: bool = True

    def to_json(self) -> dict[str, Any]:
        """The finding as JSON values, with its part."""
        return {"part": self.part, "matters": self.matters, **self.finding.to_json()}


def check_all(settings: Settings, site: Site) -> tuple[Row, ...]:
    """Check the machine and every generator."""
    preparer = Preparer(site)
    host = preparer.look(HostQuery(gpus=True), settings, Path.cwd())
    rows = list(machine_rows(host, history.Learned(settings.state_dir).suspect_gpus()))
    for name in backends.names():
        try:
            backend = backends.load_backend(name)
        except ConfigurationError as error:
            rows.append(Row(name, Finding("plugin", "warning", error.message, error.advice)))
            continue
        rows += _generator_rows(backend, settings, preparer)
    if any(row.finding.code == "gpu.none" for row in rows):  # a generator's row reports it, with the fix
        rows = [row for row in rows if row.finding.code != "gpu" or row.finding.severity == "info"]
    return tuple(rows)


def machine_rows(host: Host, suspects: Mapping[str, str]) -> Iterator[Row]:
    """The rows about the machine: memory, GPUs and disks."""
    memory = f"{host.memory_available_bytes / GIB:.1f} GiB free" if host.memory_available_bytes else "memory unknown"
    yield Row("machine", Finding("machine", "info", f"{host.cpu_count} CPU cores, {memory}"))
    for gpu in host.gpus or ():
        free = f"{gpu.free_bytes / GIB:.1f} GiB free" if gpu.free_bytes is not None else "memory unknown"
        users = "".join(f"; used by pid {process.pid} ({process.name or '?'})" for process in gpu.processes)
        yield Row("machine", Finding("gpu", "info", f"GPU {gpu.index}: {gpu.name}, {free}{users}"))
    for uuid, said in suspects.items():
        text = f"the last run on {uuid} ended with a GPU fault: {said}"
        yield Row("machine", Finding("gpu.suspect", "warning", text, "Other GPUs are used first; look at `dmesg`."))
    if not host.gpus:
        text = host.gpu_problem or "no GPU that this process may use"
        fix = host.gpu_advice or "Install the NVIDIA driver."
        yield Row("machine", Finding("gpu", "warning", text, f"{fix} The draft generator needs no GPU."))
    for finding in preflight.simulation_findings(host):
        yield Row("machine", finding)
    for disk in host.disks:
        room = "unknown" if disk.free_bytes is None else f"{disk.free_bytes / GIB:.1f} GiB"
        yield Row("machine", Finding("disk", "info", f"{room} free in {disk.folder}"))


def _generator_rows(backend: Backend, settings: Settings, preparer: Preparer) -> Iterator[Row]:
    try:
        settings.for_generator(backend.name)
    except VideoGenerationError as error:
        yield Row(backend.name, Finding("generator.settings", "error", error.message, error.advice))
        return
    asked = _ask_all(backend, settings, preparer)
    if not asked:
        yield Row(backend.name, Finding("unconfigured", "warning", "not configured", backend.configuration_hint), False)
        return
    ready = [f"{task}{answer.only_at}" for task, answer in asked.items() if answer.ready]
    reported: dict[str, Row] = {}
    for task, answer in _concerned(asked).items():
        for finding in (*_parts(answer.host), *answer.reported):
            demoted = finding.severity == "error" and ready
            shown = replace(finding, severity="warning", message=f"{task}: {finding.message}") if demoted else finding
            reported.setdefault(finding.message, Row(backend.name, shown))
    if not ready and not any(row.finding.severity == "error" for row in reported.values()):
        reported.update({item.message: Row(backend.name, item) for item in next(iter(asked.values())).errors})
    yield from sorted(reported.values(), key=lambda row: row.finding.severity != "info")
    if ready:
        tasks = f" for {', '.join(ready)}" if backend.requires_gpu else ""
        yield Row(backend.name, Finding("ready", "info", f"{backend.title}: ready{tasks}"))


def _concerned(asked: Mapping[Task, _Answer]) -> Mapping[Task, _Answer]:
    """The answers for the tasks that are set up; if none is, the answer for the first task."""
    there = {
        task: answer for task, answer in asked.items() if "model.unset" not in {item.code for item in answer.errors}
    }
    return there or dict(list(asked.items())[:1])


def _parts(host: Host) -> Iterator[Finding]:
    """Findings about a generator's intact parts: checkout, interpreter, weights. The plan reports the faulty ones."""
    for checkout in host.checkouts.values():
        if not checkout.problem:
            known = f"commit {checkout.commit[:10]}" if checkout.commit else "no git history"
            dated = f" of {checkout.committed_at[:10]}" if checkout.committed_at else ""
            yield Finding("checkout", "info", f"{checkout.directory}: {known}{dated}")
    for python in host.interpreters.values():
        if not python.problem:
            modules = ", ".join(f"{name} {version}" for name, version in sorted(python.modules.items()))
            cuda = f", CUDA {python.cuda_version}" if python.cuda_version else ""
            yield Finding("interpreter", "info", f"{python.path}: Python {python.python_version}{cuda}; {modules}")
    for weights in host.checkpoints.values():
        if not weights.problems:
            size = f"{weights.total_bytes / GIB:.1f} GiB in {counted(len(weights.files), 'file')}"
            yield Finding("weights", "info", f"{weights.directory}: {size}, complete")


def availability(backend: Backend, settings: Settings, site: Site) -> tuple[Finding, ...]:
    """The findings about a run of this generator with any picture, from the tasks that would run, else from the first.

    Without an error among them, at least one task would run.
    """
    asked = _ask_all(backend, settings, Preparer(site))
    if not asked:
        hint = backend.configuration_hint
        return (Finding("unconfigured", "error", f"not configured: {hint}" if hint else "not configured", hint),)
    answers = [answer for answer in asked.values() if answer.ready]
    if answers:
        return tuple(dict.fromkeys(item for answer in answers for item in answer.reported if item.severity != "error"))
    first = next(iter(_concerned(asked).values()))
    return tuple(dict.fromkeys((*first.errors, *(item for item in first.reported if item.severity != "error"))))


def _ask_all(backend: Backend, settings: Settings, preparer: Preparer) -> dict[Task, _Answer]:
    """The answer for each task; empty for a generator that is not configured."""
    if not backend.requires_gpu:
        return {"i2v": _ask(backend, settings, preparer, "i2v")}
    if not backend.configured(settings.for_generator(backend.name)):
        return {}
    tasks: tuple[Task, ...] = ("i2v", "flf2v", "t2v")
    return {task: _ask(backend, settings, preparer, task) for task in tasks}


@dataclass(frozen=True)
class _Answer:
    """The outcome of preparing one task.

    Attributes:
        host: The machine, as far as the task's query describes it.
        reported: The findings that the doctor reports.
        errors: Findings that forbid a run at the configured size; empty if it would run.
        smaller: A smaller size at which it would run.
    """

    host: Host
    reported: tuple[Finding, ...]
    errors: tuple[Finding, ...]
    smaller: Size | None = None

    @property
    def ready(self) -> bool:
        return not self.errors or self.smaller is not None

    @property
    def only_at(self) -> str:
        return f" (at {self.smaller})" if self.smaller else ""


def _ask(backend: Backend, settings: Settings, preparer: Preparer, task: Task) -> _Answer:
    """Prepare a task with an assumed picture; if only the size is too large, prepare a smaller one too."""
    prepared = _prepared(backend, settings, preparer, task)
    found = prepared.plan.findings
    errors = tuple(item for item in found if item.severity == "error")
    reported = tuple(item for item in found if item.code in _REPORTED or _concerns_machine(item))
    # A smaller size may need less memory.
    reported = tuple(
        replace(item, severity="warning") if item.failure is Failure.OOM_GPU else item for item in reported
    )
    if not errors or not all(_concerns_size(item) for item in errors):
        return _Answer(prepared.job.host, reported, errors)
    small = _prepared(backend, settings, preparer, task, _SMALL).plan
    return _Answer(prepared.job.host, reported, errors, None if small.errors else _SMALL)


def _prepared(
    backend: Backend, settings: Settings, preparer: Preparer, task: Task, size: Size | None = None
) -> Prepared:
    pictures = {"i2v": ("first",), "flf2v": ("first", "last")}.get(task, ())
    first, last = (_ASSUMED.source if role in pictures else None for role in ("first", "last"))
    request = VideoRequest(prompt="any", image=first, last_image=last, generator=backend.name, seed=0, size=size)
    video = Path.cwd() / "film.mp4"
    return preparer.plan(
        backend, Order(request, settings, video), dict.fromkeys(pictures, _ASSUMED), video, learn=False
    )


def _concerns_size(finding: Finding) -> bool:
    return finding.failure is Failure.OOM_GPU or finding.code.startswith("size.")


def _concerns_machine(finding: Finding) -> bool:
    simulated = finding.code in ("gpu.simulated", "memory.simulated")  # the machine's rows report it once
    return (
        finding.severity != "info"
        and finding.failure in _MACHINE
        and not simulated
        and finding.code != "setting.unused"
    )
