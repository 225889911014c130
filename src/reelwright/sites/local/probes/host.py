"""Answers a `HostQuery`: `take_host` is the one function that looks at the complete machine.

It runs the slow probes (driver, interpreters, folders of weights) side by side. It does not judge the answers, and
does not raise for faults of the machine. A hung driver, disk or interpreter costs its own time limit and no more.

    >>> host = take_host(HostQuery(disks=(Path("/tmp"),)), environ=os.environ, simulated=None, state_dir=None)
    >>> host.disks[0].writable
    True
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from ....core import host as host_values
from ....core.errors import VideoGenerationError
from ....core.host import GIB, Disk, Gpu, Host, HostQuery, OptionsFile, simulated_gpus
from .checkouts import look_at_checkout
from .checkpoints import look_at_checkpoint
from .gpus import Taken, take_gpus
from .interpreters import ask_interpreter
from .memory import HostMemory, cpu_count, shared_memory, take_memory

_REPORT_EVERY_S = 10.0
CACHE = "interpreters"  # the folder of remembered answers, in the state folder


def take_host(  # noqa: PLR0913 -- the query, and values that replace the machine's
    query: HostQuery,
    *,
    environ: Mapping[str, str],
    simulated: str | None,
    state_dir: Path | None,
    simulated_memory: str | None = None,
    report: Callable[[str], None] | None = None,
) -> Host:
    """The answers to the query. While weights are verified, ``report`` is called in this thread.

    ``simulated`` GPUs (``8x80GiB``) replace the machine's. The driver is then not asked, and the host's memory is
    unknown unless it is simulated too: this machine's memory says nothing about another machine.

    Raises:
        ConfigurationError: ``simulated`` or ``simulated_memory`` does not have that form.
    """
    imagined = simulated_gpus(simulated) if simulated is not None else None
    memory = _memory(simulated_memory, imagined=imagined is not None)
    cache_dir = state_dir / CACHE if state_dir is not None else None
    shm = shared_memory()
    with ThreadPoolExecutor(max_workers=8) as pool:
        gpus = pool.submit(_gpus, query, environ, imagined)
        interpreters = [
            pool.submit(ask_interpreter, item, environ=environ, cache_dir=cache_dir) for item in query.interpreters
        ]
        checkouts = [pool.submit(look_at_checkout, item, environ=environ) for item in query.checkouts]
        hashed = Hashed()
        checkpoints = [
            pool.submit(look_at_checkpoint, item, on_progress=hashed.of(item.directory)) for item in query.checkpoints
        ]
        if report is not None:
            hashed.report_until_done(checkpoints, report, _REPORT_EVERY_S)
        taken = gpus.result()
        return Host(
            gpus=taken.gpus,
            gpu_problem=taken.problem,
            gpu_advice=taken.advice,
            driver_version=taken.driver_version,
            driver_cuda=taken.driver_cuda,
            simulated=imagined is not None,
            memory_simulated=simulated_memory is not None,
            cpu_count=cpu_count(),
            memory_total_bytes=memory.total_bytes,
            memory_available_bytes=memory.available_bytes,
            memory_limited=memory.limited,
            swap_bytes=memory.swap_bytes,
            shm_total_bytes=shm.total_bytes,
            shm_free_bytes=shm.available_bytes,
            disks=tuple(take_disk(path) for path in query.disks),
            interpreters={asked.result().path: asked.result() for asked in interpreters},
            checkouts={asked.result().directory: asked.result() for asked in checkouts},
            checkpoints={asked.result().directory: asked.result() for asked in checkpoints},
            options_files={path: take_options(path) for path in query.options_files},
        )


class Hashed:
    """The bytes of weights hashed so far, over all folders."""

    def __init__(self) -> None:
        self._folders: dict[Path, tuple[int, int]] = {}

    def of(self, folder: Path) -> Callable[[int, int], None]:
        """A callback for (bytes hashed, bytes to hash) of a folder; any thread may call it."""

        def on_progress(done: int, total: int) -> None:
            self._folders[folder] = (done, total)

        return on_progress

    def report_until_done(self, looks: list[Future[Any]], report: Callable[[str], None], every_s: float) -> None:
        """Wait for the looks; report the progress at intervals once hashing has begun."""
        while wait(looks, timeout=every_s).not_done:
            sizes = list(self._folders.values())
            done, total = sum(size[0] for size in sizes), sum(size[1] for size in sizes)
            if total:
                report(f"verifying the weights: {done / GIB:.1f} of {total / GIB:.1f} GiB")


def _gpus(query: HostQuery, environ: Mapping[str, str], imagined: tuple[Gpu, ...] | None) -> Taken:
    if imagined is not None:
        return Taken(imagined)
    return take_gpus(environ) if query.gpus else Taken(None)


def _memory(simulated: str | None, *, imagined: bool) -> HostMemory:
    """The simulated memory, else the machine's; unknown if only the GPUs are simulated."""
    if simulated is not None:
        size = host_values.simulated_memory(simulated)
        return HostMemory(size, size)
    return HostMemory() if imagined else take_memory()


def take_disk(path: Path) -> Disk:
    """The file system of a path, which does not have to exist."""
    folder = path
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        found = os.statvfs(folder)
    except OSError:
        return Disk(folder, None, None)
    # access(2) knows read-only mounts too, also for root.
    writable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    return Disk(folder, found.f_bavail * found.f_frsize, writable)


def take_options(path: Path) -> OptionsFile:
    """The content of a YAML file of options, or its problem: the backend turns a bad file into a finding."""
    from ....config.yamlfile import read_yaml

    try:
        document = read_yaml(path)
    except VideoGenerationError as error:
        return OptionsFile(path, " ".join(part for part in (error.message, *error.evidence[:1]) if part))
    return OptionsFile(path, None, document.values, document.lines)
