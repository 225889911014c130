"""Owns the workers that stay warm, and reserves them for one run at a time.

A film has one owner, and so has a Python process; only an owner holds workers. Each set of GPUs has one reservation at
a time. Runs that wait are served in the order of arrival.

    >>> with Workers() as workers, workers.turn((), Cancellation()) as turn:
    ...     turn.worker is None  # nothing is warm yet
    True
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...core.host import Gpu
from .. import Closing
from ..cancellation import Cancellation

if TYPE_CHECKING:
    from .worker import Worker

#: The name used instead of a GPU's UUID for a worker on the CPU.
_NO_GPU = "cpu"
_LOOK_S = 0.1


class WorkerReservation(Closing):
    """The right to use the worker of some GPUs until `close`; ``worker`` is the warm one, or ``None``."""

    def __init__(self, workers: Workers, gpus: frozenset[str]) -> None:
        self.gpus = gpus
        self.worker: Worker | None = None
        self.when_kept: Callable[[], None] = lambda: None
        self._workers = workers

    def keep(self, worker: Worker) -> None:
        """Keep this worker warm for the next runs; from now on only its shim holds its GPUs."""
        self.worker = worker
        self._workers.keep(self.gpus, worker)
        self.when_kept()

    def end_worker(self) -> None:
        """End the worker and every process that it started."""
        worker, self.worker = self.worker, None
        if worker is not None:
            self._workers.forget(self.gpus)
            worker.end()

    def close(self) -> None:
        """Give the worker to the next run; a second call does nothing."""
        self._workers.leave(self)


class Workers(Closing):
    """The owner of warm workers. Any thread may call its methods; `close` ends every worker."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._warm: dict[frozenset[str], Worker] = {}
        #: Reservations in use and waiting, in the order of arrival.
        self._turns: list[WorkerReservation] = []
        self._ending: list[frozenset[str]] = []
        self._reaping = contextlib.ExitStack()
        self._reaps = False
        self._process = os.getpid()

    def turn(self, gpus: Sequence[str], cancellation: Cancellation) -> WorkerReservation:
        """Wait for the worker of these GPUs (UUIDs; none: the CPU), and end idle workers that hold a part of them.

        Raises:
            Cancelled: a stop was requested.
        """
        mine = WorkerReservation(self, frozenset(gpus or [_NO_GPU]))
        with self._changed:
            self._turns.append(mine)
            try:
                while self._must_wait(mine):
                    self._changed.wait(
                        _LOOK_S
                    )  # the end of another turn wakes it; otherwise it looks for a request to stop
                    cancellation.check()
            except BaseException:
                self._turns.remove(mine)
                self._changed.notify_all()
                raise
            mine.worker = self._warm.get(mine.gpus)
            idle = self._taken([held for held in self._warm if held != mine.gpus and held & mine.gpus])
        self._end(idle)
        if mine.worker is not None and not mine.worker.alive:
            mine.end_worker()
        return mine

    def as_if_idle(self, gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
        """The GPUs, with the memory of this owner's warm workers counted as free: a plan for them gets that memory."""
        with self._changed:
            ours = {uuid: worker for held, worker in self._warm.items() for uuid in held}
        return tuple(_given_back(gpu, ours[gpu.uuid]) if gpu.uuid in ours else gpu for gpu in gpus)

    @property
    def gpus(self) -> frozenset[str]:
        """UUIDs of the GPUs that warm workers hold."""
        with self._changed:
            return frozenset(uuid for held in self._warm for uuid in held)

    def _must_wait(self, mine: WorkerReservation) -> bool:
        before = self._turns[: self._turns.index(mine)]
        return any(gpus & mine.gpus for gpus in (*(turn.gpus for turn in before), *self._ending))

    def release_idle(self, gpus: Sequence[str] | None = None) -> None:
        """End the idle workers; with ``gpus`` only those that hold one of these GPUs."""
        with self._changed:
            busy = [turn.gpus for turn in self._turns]
            wanted = [held for held in self._warm if gpus is None or held & frozenset(gpus)]
            idle = self._taken([held for held in wanted if not any(held & other for other in busy)])
        self._end(idle)

    def _taken(self, keys: Sequence[frozenset[str]]) -> dict[frozenset[str], Worker]:
        """Remove workers from the warm ones to end them; their GPUs stay reserved until the workers have ended."""
        self._ending += keys
        return {held: self._warm.pop(held) for held in keys}

    def _end(self, workers: Mapping[frozenset[str], Worker]) -> None:
        for held, worker in workers.items():
            try:
                worker.end()
            finally:
                with self._changed:
                    self._ending.remove(held)
                    self._changed.notify_all()

    def keep(self, gpus: frozenset[str], worker: Worker) -> None:
        """Note a warm worker. For `WorkerReservation` only."""
        with self._changed:
            if not self._reaps:  # if a shim is killed, the processes that it supervised become this process's children
                from .child import subreaping  # imported where used: a plan starts no worker

                self._reaping.enter_context(subreaping())
                self._reaps = True
            self._warm[gpus] = worker

    def forget(self, gpus: frozenset[str]) -> None:
        """Remove the worker of these GPUs from the warm ones. For `WorkerReservation` only."""
        with self._changed:
            self._warm.pop(gpus, None)

    def leave(self, turn: WorkerReservation) -> None:
        """End a turn. For `WorkerReservation` only."""
        with self._changed:
            if turn in self._turns:
                self._turns.remove(turn)
                self._changed.notify_all()

    def close(self) -> None:
        """End every worker and free their memory and leases. The owner may be used again."""
        if os.getpid() != self._process:  # after a fork the workers belong to the parent
            return
        with self._changed:
            warm = self._taken(list(self._warm))
        self._end(warm)
        with self._changed:
            self._reaps = False
            self._reaping.close()


def _given_back(gpu: Gpu, worker: Worker) -> Gpu:
    """The GPU without the worker's processes; entirely free if the driver does not say which process uses what."""
    from ...launchers import shim

    pids = {*shim.descendants(worker.child.process.pid)}
    held = [process.used_bytes for process in gpu.processes if process.pid in pids]
    known = [size for size in held if size is not None]
    if gpu.free_bytes is None or len(known) < max(1, len(held)):
        return replace(gpu, free_bytes=gpu.total_bytes)
    return replace(gpu, free_bytes=gpu.free_bytes + sum(known))
