"""One clip over several GPUs: the worker is rank 0 and starts the others, which end with it or with an error.

    ranks = Ranks.start(model)          # the others load while rank 0 does
    ranks.join(pipeline)                # after `speed.apply` and placement
    with ranks.clip():                  # every call of a transformer in here is computed by all
        ...
    ranks.close()

A rank that dies or raises ends all: rank 0's own collective fails when the connection does (gloo), or is aborted
(NCCL notices no death by itself), and `clip` raises the error of the rank that failed first. If rank 0 cannot be
freed, its process ends, with the reason in its log: an attempt may fail, it may not hang. Encoders, VAE, scheduler
and everything a person sees stay on rank 0. This module splits nothing itself: see `collective`.

    >>> Ranks.FOLLOWER
    'reelwright.engines.diffusers.follower:FOLLOWER'
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import AttemptError, Cancelled, Failure, VideoGenerationError
from ...core.events import Generate, Load, Loaded, Log, Saved
from . import collective, follower, speed
from .rank_process import RankProcess

#: Seconds that rank 0 may need to leave a collective after another rank failed, before it is made to.
GRACE_S = 10.0
_JOIN_S = 3600.0  # the others read the same weights from the same disk
_ANSWER_S = 600.0


class Ranks:
    """The other ranks of this worker."""

    FOLLOWER = "reelwright.engines.diffusers.follower:FOLLOWER"

    def __init__(self, place: collective.Place, folder: Path, processes: Sequence[RankProcess]) -> None:
        self._place = place
        self._folder = folder
        self._processes = list(processes)
        self._shared: list[collective.Shared] = []
        self._inside = threading.Event()  # rank 0 is in a call that it cannot leave alone
        self._closed = False

    @classmethod
    def start(cls, model: Mapping[str, Any], program: Sequence[str] | None = None, engine: str = FOLLOWER) -> Ranks:
        """Start ranks 1 and up; they begin to load. ``program`` takes an engine's name and two pipes."""
        count = int(model["ranks"])
        folder = Path(tempfile.mkdtemp(prefix="reelwright-ranks-"))
        store = str(folder / "store")
        started: list[RankProcess] = []
        ranks = cls(collective.Place(0, count, store, model), folder, started)
        for rank in range(1, count):
            process = RankProcess([*(program or default_program()), engine], rank, ranks._failed)
            ranks._processes.append(process)
            process.send(Load({"rank": rank, "ranks": count, "store": store, "model": dict(model)}))
        return ranks

    @property
    def closed(self) -> bool:
        """Whether the other ranks have ended: the model must be loaded again before the next clip."""
        return self._closed

    def join(self, pipeline: Any) -> None:
        """Share the pipeline's transformers with the others, as soon as they are ready.

        Raises:
            ConfigurationError: the model cannot be split so.
            AttemptError: a rank failed.
        """
        there = speed.transformers(pipeline)
        try:
            collective.check(self._place, there)
            for process in self._processes:
                process.wait_for(lambda said: isinstance(said, Log) and said.text == follower.READY, _JOIN_S)
            self._inside.set()
            with self._together():
                collective.join(self._place)
                self._shared = [collective.share(transformer, self._place) for transformer in there]
                for process in self._processes:
                    process.wait_for(lambda said: isinstance(said, Loaded), _ANSWER_S)
            self._inside.clear()
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def clip(self) -> Iterator[None]:
        """Share every call of the transformers until the end of the block.

        Raises:
            AttemptError: another rank failed; these ranks are closed then, as after any error inside a call.
        """
        self._raise_if_failed()
        for process in self._processes:
            process.send(Generate({}, ""))
        hooks = [hook for index, shared in enumerate(self._shared) for hook in self._watched(index, shared)]
        try:
            with self._together():
                yield
                self._over()
        except BaseException:
            if self._inside.is_set():
                self.close()
            elif not self._closed:
                self._over_after_error()
            raise
        finally:
            for hook in hooks:
                hook.remove()

    def _watched(self, index: int, shared: collective.Shared) -> list[Any]:
        """Hooks of a transformer: before each call it is sent, after it all are free again."""

        def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            shared.fit(kwargs["hidden_states"].shape)
            self._inside.set()
            collective.send(collective.Call(index, speed.current_pass(module), args, kwargs))

        def after(_module: Any, _args: Any, _output: Any) -> None:
            self._inside.clear()

        module = shared.transformer
        return [module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)]

    def _over(self) -> None:
        """Say that the clip is over, and hear that all were with us to the end."""
        self._inside.set()
        collective.send(None)
        for process in self._processes:
            process.wait_for(lambda said: isinstance(said, Saved), _ANSWER_S)
        self._inside.clear()

    def _over_after_error(self) -> None:
        """Free the others between two steps (a cancelled clip, say): they stay for the next one."""
        try:
            self._over()
        except Exception:  # noqa: BLE001 -- the first error is the one to tell; without the others there is no next clip
            self.close()

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        """Turn an error that another rank caused into that rank's own."""
        try:
            yield
        except Cancelled:
            raise
        except (RuntimeError, VideoGenerationError) as error:
            failed = self._first_failure(GRACE_S if _looks_like_a_lost_rank(error) else 0.0)
            if failed is None:
                raise
            self.close()
            raise failed from error

    def _first_failure(self, within_s: float) -> VideoGenerationError | None:
        """The error of the rank that failed; it may be told a moment after its connection was lost."""
        end = time.monotonic() + within_s
        while True:
            found = [process.failure for process in self._processes if process.failure is not None]
            if found or time.monotonic() >= end:
                return min(found, key=lambda item: item[0])[1] if found else None
            self._processes[0].wait_a_moment()

    def _raise_if_failed(self) -> None:
        if self._closed:
            raise AttemptError("the other ranks of this worker have ended", failure=Failure.CRASH)
        failed = self._first_failure(0.0)
        if failed is not None:
            self.close()
            raise failed

    def _failed(self, error: VideoGenerationError) -> None:
        """A rank is lost: see that rank 0 does not wait for it (called from the thread that listens to it)."""
        if not self._inside.is_set() or self._closed:
            return
        if self._place.device.startswith("cuda"):
            _abort_collectives()
        if not _cleared_within(self._inside, GRACE_S, lambda: self._closed):
            sys.stderr.write(f"reelwright: rank 0 cannot be freed after a rank failed: {error}\n")
            sys.stderr.flush()
            os._exit(Failure.NCCL.exit_status)

    def close(self) -> None:
        """End the other ranks; harmless when they have ended."""
        self._closed = True
        self._inside.clear()
        for process in self._processes:
            process.end()
        for shared in self._shared:
            collective.unshare(shared)
        self._shared = []
        with contextlib.suppress(Exception):  # a broken group may refuse to be left; the next one is a new one
            collective.leave()
        shutil.rmtree(self._folder, ignore_errors=True)


def default_program() -> list[str]:
    """The worker's own program: this interpreter and ``launchers/resident.py``."""
    return [sys.executable, str(Path(__file__).parents[2] / "launchers" / "resident.py")]


def _looks_like_a_lost_rank(error: BaseException) -> bool:
    """torch tells a lost connection and a timeout by words only."""
    words = ("gloo", "nccl", "connection", "timed out", "peer")
    return any(word in str(error).lower() for word in words)


def _abort_collectives() -> None:
    import torch

    with contextlib.suppress(Exception):  # what cannot be aborted is ended with the process
        torch.distributed.distributed_c10d._abort_process_group()


def _cleared_within(event: threading.Event, seconds: float, done: Any) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not event.is_set() or done():
            return True
        time.sleep(0.05)
    return False
