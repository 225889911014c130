"""Carrying an installation out, one part after another; it can be killed at any moment and started again.

A lock in the folder keeps a second setup out, also while git or pip of a killed one still run. Nothing is undone after
a failure: what was fetched is kept, and the next start goes on from it.

    >>> carry_out(installation, source, Surroundings(os.environ, print))  # doctest: +SKIP
    Outcome(..., changed=('checkout', 'environment', 'weights i2v-720p', 'configuration'))
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import BackendUnavailableError, BusyError, Failure, ModelNotFoundError
from ..core.files import open_lock
from ..core.plan import counted
from ..runs.workspace import disk_error
from ..sites.local.probes.interpreters import ask_interpreter
from . import Installation, Listener, Order, Outcome, Part, Told, configuration
from . import environment as environments
from . import git_checkout as checkouts
from .planning import checks, gigabytes, look, require_space, weights_problems
from .programs import Programs
from .transfer import Fetch, damaged, fetch, forget, missing, sweep
from .weight_sources import WeightsSource


@dataclass(frozen=True)
class Surroundings:
    """What a setup is given from outside: the environment, and who listens."""

    environ: Mapping[str, str]
    told: Listener


def carry_out(installation: Installation, source: WeightsSource, around: Surroundings) -> Outcome:
    """Do what is to be done, check it, and look again.

    Raises:
        VideoGenerationError: no space, no access, damage, another setup in the same folder.
    """
    _require_answers(installation)
    require_space(installation)
    order = installation.order
    with _explaining_files(order), _locked(order) as lock:
        work = _Work(order, source, around, lock)
        for part in installation.parts:
            work.do(part)
        lines = configuration.write(order, around.environ)
        final = look(order, source, around.environ)
    if not installation.parts[-1].done and not lines:
        work.changed.append(configuration.NAME)
    target = configuration.target_of(order, around.environ)
    return Outcome(final, tuple(work.changed), target, lines, tuple(work.warnings))


def _require_answers(installation: Installation) -> None:
    for part in installation.parts:
        if part.model is not None and part.listing is None and not part.done:
            raise BackendUnavailableError(
                f"{part.source} cannot be asked: {part.note}",
                failure=Failure.ENV,
                advice="Check the network and its proxies (HTTPS_PROXY), or give a mirror or folder with --weights-source.",
            )


class _Work:
    """One setup while it goes on."""

    def __init__(self, order: Order, source: WeightsSource, around: Surroundings, lock: int) -> None:
        self.order, self.source, self.around = order, source, around
        self.lock = lock
        self.changed: list[str] = []
        self.warnings: list[str] = []

    def do(self, part: Part) -> None:
        """Bring one part to its end."""
        if part.model is not None:
            self._bring_weights(part)
        elif part.name == checkouts.NAME and not part.done:
            self._say(part, f"fetching {part.source}")
            checkouts.make(self.order, self._programs(part))
            self.changed.append(part.name)
        elif part.name == environments.NAME:
            self._make_environment(part)

    def _make_environment(self, part: Part) -> None:
        if environments.look_at(self.order).done:  # the requirements are known only now
            return
        self._say(part, "installing the requirements with pip")
        self.warnings += environments.make(self.order, self._programs(part))
        self._check_interpreter(part)
        self.changed.append(part.name)

    def _check_interpreter(self, part: Part) -> None:
        """The modules that a run would ask for must be importable; libraries of the system may be missing."""
        self._say(part, "importing what the framework needs")
        query = checks(self.order, self.order.models[0]).interpreters[0]
        found = ask_interpreter(query, environ=self.around.environ, cache_dir=None)
        optional = self.order.recipe.optional_modules
        broken = [name for name in query.modules if name not in found.modules and name not in optional]
        if found.problem or broken:
            raise BackendUnavailableError(
                f"{query.path} {found.problem or 'cannot import ' + ', '.join(broken)}",
                failure=Failure.ENV,
                evidence=tuple(f"{name}: {found.broken.get(name, 'is not installed')}" for name in broken),
                advice="Install what is missing there (a library of the system, perhaps); then run `reel doctor`.",
            )

    # Weights

    def _bring_weights(self, part: Part) -> None:
        assert part.model is not None
        before = len(self.changed)
        if part.listing is None:  # whole, and the source could not be asked
            return
        folder = part.target
        if self.order.verify:
            self._drop_damaged(part)
        files = missing(folder, part.listing)
        if files:
            folder.mkdir(parents=True, exist_ok=True)
            total = sum(file.size for file in files)
            self._say(
                part,
                f"fetching {counted(len(files), 'file')}, {gigabytes(part.todo_bytes or total)}, from {self.source.name}",
            )
            begun = part.listing.total_bytes - part.todo_bytes
            told = self._meter(part, begun, part.listing.total_bytes)
            fetch(Fetch(self.source, part.listing, folder, files), told)
            self.changed.append(part.name)
        if not missing(folder, part.listing):
            sweep(folder)
        problems = weights_problems(self.order, part.model)
        if problems:
            raise ModelNotFoundError(
                f"{folder} is not what {self.order.recipe.name} needs",
                evidence=problems,
                advice="Check --weights-source; `--verify` compares every file with its published checksum.",
            )
        if len(self.changed) > before or not part.done:
            self._say(part, "complete")

    def _drop_damaged(self, part: Part) -> None:
        assert part.listing is not None
        left = missing(part.target, part.listing)
        there = [file for file in part.listing.files if file not in left and file.checksum]
        self._say(part, f"hashing {counted(len(there), 'file')} already there")
        meter = self._meter(part, 0, sum(file.size for file in there))
        hashed = 0

        def told(count: int) -> None:
            nonlocal hashed
            hashed += count
            meter(hashed)

        for file in damaged(part.target, there, told):
            self._say(part, f"{file.name} is damaged and will be fetched again")
            forget(part.target, file)

    # Telling

    def _say(self, part: Part, text: str) -> None:
        self.around.told(Told(part.name, text))

    def _meter(self, part: Part, begun: int, total: int) -> Callable[[int], None]:
        def told(count: int) -> None:
            self.around.told(Told(part.name, done=min(begun + count, total), total=total))

        return told

    def _programs(self, part: Part) -> Programs:
        return Programs(self.around.environ, self.lock, lambda line: self._say(part, line))


@contextlib.contextmanager
def _locked(order: Order) -> Iterator[int]:
    """The folder for us alone; children inherit the descriptor, and with it the lock."""
    order.state.mkdir(parents=True, exist_ok=True)
    descriptor = open_lock(order.state / "lock")
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"another setup, or git or pip of one that was killed, still works in {order.directory}",
                evidence=(os.pread(descriptor, 200, 0).decode("utf-8", "replace"),),
                advice="Wait until it has ended, then run the same command again.",
            ) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explaining_files(order: Order) -> Iterator[None]:
    """What the file system refuses, as one of ours."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, Path(str(error.filename or order.directory))) from None
