"""Carries out an installation part by part; it can be killed at any moment and started again.

A lock in the folder blocks a second setup, even while git or pip of a killed one still runs. A failure undoes nothing:
finished and partial downloads stay, and the next start continues from them.

    >>> carry_out(installation, source, os.environ, print)  # doctest: +SKIP
    SetupOutcome(..., changed=('checkout', 'environment', 'weights i2v-720p', 'configuration'))
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ..core.errors import BackendUnavailableError, BusyError, Failure, ModelNotFoundError
from ..core.files import open_lock
from ..core.plan import counted
from ..runs.workspace import disk_error
from ..sites.local.probes.interpreters import ask_interpreter
from . import (
    Installation,
    Report,
    SetupEvent,
    SetupOrder,
    SetupOutcome,
    SetupPart,
    configuration,
    environment,
    git_checkout,
)
from .planning import checks, gigabytes, look, require_space, weights_problems
from .programs import Programs
from .transfer import Fetch, fetch, is_sound, missing, remove, remove_partial_files
from .weight_sources import Listing, WeightsSource


def carry_out(
    installation: Installation, source: WeightsSource, environ: Mapping[str, str], report: Report
) -> SetupOutcome:
    """Install the missing parts, check them, and return the new state.

    Raises:
        VideoGenerationError: no space, no access, damage, or another setup in the same folder.
    """
    for part in installation.parts:
        if part.model is not None and part.listing is None and not part.done:
            raise BackendUnavailableError(
                f"{part.source} cannot be reached: {part.note}",
                failure=Failure.ENV,
                advice="Check the network and its proxies (HTTPS_PROXY), or give a mirror or folder with --weights-source.",
            )
    require_space(installation)
    order = installation.order
    with _explaining_files(order), _locked(order) as lock:
        work = _Work(order, source, environ, report, lock)
        for part in installation.parts:
            work.do(part)
        lines = configuration.write(order, environ)
        final = look(order, source, environ)
    if not installation.parts[-1].done and not lines:
        work.changed.append(configuration.NAME)
    return SetupOutcome(
        final, tuple(work.changed), configuration.target_of(order, environ), lines, tuple(work.warnings)
    )


class _Work:
    """A running setup."""

    def __init__(
        self, order: SetupOrder, source: WeightsSource, environ: Mapping[str, str], report: Report, lock: int
    ) -> None:
        self.order, self.source, self.environ, self.report, self.lock = order, source, environ, report, lock
        self.changed: list[str] = []
        self.warnings: list[str] = []

    def do(self, part: SetupPart) -> None:
        """Finish one part."""
        if part.model is not None:
            if part.listing is not None:  # without a listing, the source cannot be reached and the weights are complete
                self._fetch_weights(part, part.listing)
                self._check_weights(part)
        elif part.name == git_checkout.NAME and not part.done:
            self._say(part, f"fetching {part.source}")
            git_checkout.make(self.order, self._programs(part))
            self.changed.append(part.name)
        elif part.name == environment.NAME and not environment.look_at(self.order).done:
            # checked again, because the requirements are known only after the checkout
            self._say(part, "installing the requirements with pip")
            self.warnings += environment.make(self.order, self._programs(part))
            self._check_interpreter(part)
            self.changed.append(part.name)

    def _check_interpreter(self, part: SetupPart) -> None:
        """Import the modules that a run needs, because a system library may be missing."""
        self._say(part, "importing the framework's modules")
        query = checks(self.order, self.order.models[0]).interpreters[0]
        found = ask_interpreter(query, environ=self.environ, cache_dir=None)
        optional = self.order.recipe.optional_modules
        broken = [name for name in query.modules if name not in found.modules and name not in optional]
        if found.problem or broken:
            raise BackendUnavailableError(
                f"{query.path} {found.problem or 'cannot import ' + ', '.join(broken)}",
                failure=Failure.ENV,
                evidence=tuple(f"{name}: {found.broken.get(name, 'is not installed')}" for name in broken),
                advice="Install the missing package there (or the missing system library), then run `reel doctor`.",
            )

    def _fetch_weights(self, part: SetupPart, listing: Listing) -> None:
        if self.order.verify:
            self._remove_damaged(part, listing)
        files = missing(part.target, listing)
        if files:
            part.target.mkdir(parents=True, exist_ok=True)
            size = gigabytes(part.todo_bytes or sum(file.size for file in files))
            self._say(part, f"fetching {counted(len(files), 'file')}, {size}, from {self.source.name}")
            meter = self._meter(part, listing.total_bytes - part.todo_bytes, listing.total_bytes)
            fetch(Fetch(self.source, listing, part.target, files), meter)
            self.changed.append(part.name)
        if not missing(part.target, listing):
            remove_partial_files(part.target)

    def _check_weights(self, part: SetupPart) -> None:
        assert part.model is not None
        problems = weights_problems(self.order, part.model)
        if problems:
            raise ModelNotFoundError(
                f"{part.target} is not what {self.order.recipe.name} needs",
                evidence=problems,
                advice="Check --weights-source; `--verify` compares every file with its published checksum.",
            )
        if part.name in self.changed or not part.done:
            self._say(part, "complete")

    def _remove_damaged(self, part: SetupPart, listing: Listing) -> None:
        left = missing(part.target, listing)
        there = [file for file in listing.files if file not in left and file.checksum]
        self._say(part, f"hashing {counted(len(there), 'file')} already there")
        meter = self._meter(part, 0, sum(file.size for file in there))
        hashed = 0

        def on_bytes(count: int) -> None:
            nonlocal hashed
            hashed += count
            meter(hashed)

        for file in there:
            if not is_sound(part.target / file.name, file.checksum, on_bytes):
                self._say(part, f"{file.name} is damaged and will be fetched again")
                remove(part.target, file)

    def _say(self, part: SetupPart, text: str) -> None:
        self.report(SetupEvent(part.name, text))

    def _meter(self, part: SetupPart, begun: int, total: int) -> Callable[[int], None]:
        return lambda count: self.report(SetupEvent(part.name, done=min(begun + count, total), total=total))

    def _programs(self, part: SetupPart) -> Programs:
        return Programs(self.environ, self.lock, lambda line: self._say(part, line))


@contextlib.contextmanager
def _locked(order: SetupOrder) -> Iterator[int]:
    """Lock the folder; child processes inherit the descriptor, and the lock with it."""
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
def _explaining_files(order: SetupOrder) -> Iterator[None]:
    """Turn an error of the file system into a `VideoGenerationError`."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, Path(str(error.filename or order.directory))) from None
