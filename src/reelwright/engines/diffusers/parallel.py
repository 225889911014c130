"""Computes one clip on several GPUs: the worker is rank 0 and starts the other ranks.

    ranks = Ranks.start(model)          # the others load while rank 0 does
    ranks.join(pipeline)                # after `speed.apply` and placement
    with ranks.clip():                  # in here, all ranks compute every call of a transformer
        ...
    ranks.close()

If a rank dies or raises, all ranks end. Rank 0's collective fails with the connection (gloo), or is aborted (NCCL does
not notice a death), and `clip` raises the error of the rank that failed first. If rank 0 cannot be freed, its process
ends, with the reason in its log: an attempt may fail, but it must not hang. Encoders, VAE, scheduler and all output
stay on rank 0. `collective` splits the work.

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
from . import collective, follower
from .blocks import transformers
from .rank_process import RankProcess
from .step_cache import current_pass

#: Seconds that rank 0 may take to leave a collective after another rank failed; then its process ends.
GRACE_S = 10.0
_JOIN_S = 3600.0  # the others read the same weights from the same disk
_ANSWER_S = 600.0


class Ranks:
    """The other ranks of this worker."""

    FOLLOWER = "reelwright.engines.diffusers.follower:FOLLOWER"

    def __init__(self, rank: collective.Rank, folder: Path, processes: Sequence[RankProcess]) -> None:
        self._rank = rank
        self._folder = folder
        self._processes = list(processes)
        self._shared: list[collective.SharedTransformer] = []
        self._inside = threading.Event()  # rank 0 is in a call that only ends with the others
        self._closed = False

    @classmethod
    def start(cls, model: Mapping[str, Any], program: Sequence[str] | None = None, engine: str = FOLLOWER) -> Ranks:
        """Start ranks 1 and up; they begin to load. ``program`` takes an engine's name and two pipes."""
        count = int(model["ranks"])
        folder = Path(tempfile.mkdtemp(prefix="reelwright-ranks-"))
        store = str(folder / "store")
        started: list[RankProcess] = []
        ranks = cls(collective.Rank(0, count, store, model), folder, started)
        try:
            for rank in range(1, count):
                process = RankProcess([*(program or default_program()), engine], rank, ranks._failed)
                ranks._processes.append(process)
                process.send(Load({"rank": rank, "ranks": count, "store": store, "model": dict(model)}))
        except BaseException:  # a rank that cannot start leaves the others without a group
            ranks.close()
            raise
        return ranks

    @property
    def closed(self) -> bool:
        """Whether the other ranks have ended: the model must be loaded again before the next clip."""
        return self._closed

    def join(self, pipeline: Any) -> None:
        """Share the pipeline's transformers with the others, as soon as they are ready.

        Raises:
            ConfigurationError: the model cannot be split this way.
            AttemptError: a rank failed.
        """
        shareable = transformers(pipeline)
        try:
            collective.check(self._rank, shareable)
            for process in self._processes:
                process.wait_for(lambda answer: isinstance(answer, Log) and answer.text == follower.READY, _JOIN_S)
            self._inside.set()
            with self._together():
                collective.join(self._rank)
                self._shared = [collective.share(transformer, self._rank) for transformer in shareable]
                for process in self._processes:
                    process.wait_for(lambda answer: isinstance(answer, Loaded), _ANSWER_S)
            self._inside.clear()
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def clip(self) -> Iterator[None]:
        """Share every call of the transformers until the end of the block.

        Raises:
            AttemptError: another rank failed. The ranks are then closed, as after any error inside a call.
        """
        self._raise_if_failed()
        for process in self._processes:
            process.send(Generate({}, ""))
        hooks = [hook for index, shared in enumerate(self._shared) for hook in self._send_calls(index, shared)]
        try:
            with self._together():
                yield
                self._end_clip()
        except BaseException:
            if self._inside.is_set():
                self.close()
            elif not self._closed:  # between two steps (of a cancelled clip, say) the others stay for the next clip
                try:
                    self._end_clip()
                except Exception:  # noqa: BLE001 -- the first error is raised; without the others there is no next clip
                    self.close()
            raise
        finally:
            for hook in hooks:
                hook.remove()

    def _send_calls(self, index: int, shared: collective.SharedTransformer) -> list[Any]:
        """Hooks of a transformer that send each call before it is computed."""

        def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            shared.fit(kwargs["hidden_states"].shape)
            self._inside.set()
            collective.send(collective.TransformerCall(index, current_pass(module), args, kwargs))

        def after(_module: Any, _args: Any, _output: Any) -> None:
            self._inside.clear()

        module = shared.transformer
        return [module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)]

    def _end_clip(self) -> None:
        """End the clip, and wait until every rank confirms it."""
        self._inside.set()
        collective.send(None)
        for process in self._processes:
            process.wait_for(lambda answer: isinstance(answer, Saved), _ANSWER_S)
        self._inside.clear()

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        """Raise the failed rank's own error in place of the error that it caused here."""
        try:
            yield
        except Cancelled:
            raise
        except (RuntimeError, VideoGenerationError) as error:
            failed = self._first_failure(GRACE_S if _may_be_a_lost_rank(error) else 0.0)
            if failed is None:
                raise
            self.close()
            raise failed from error

    def _first_failure(self, within_s: float) -> VideoGenerationError | None:
        """The error of the rank that failed first; it may arrive a moment after its connection was lost."""
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
        """Free rank 0 if it waits for the lost rank. The thread that reads that rank's answers calls this."""
        if not self._inside.is_set() or self._closed:
            return
        if self._rank.device.startswith("cuda"):
            _abort_collectives()
        end = time.monotonic() + GRACE_S
        while time.monotonic() < end:
            if not self._inside.is_set() or self._closed:
                return
            time.sleep(0.05)
        sys.stderr.write(f"reelwright: rank 0 cannot be freed after a rank failed: {error}\n")
        sys.stderr.flush()
        os._exit(Failure.NCCL.exit_status)

    def close(self) -> None:
        """End the other ranks. Calling it twice is harmless."""
        self._closed = True
        self._inside.clear()
        for process in self._processes:
            process.end()
        for shared in self._shared:
            collective.unshare(shared)
        self._shared = []
        with contextlib.suppress(Exception):  # a broken group may refuse; the next group is a new one
            collective.leave()
        shutil.rmtree(self._folder, ignore_errors=True)


def default_program() -> list[str]:
    """The worker's own program: this interpreter and ``launchers/resident.py``."""
    return [sys.executable, str(Path(__file__).parents[2] / "launchers" / "resident.py")]


def _may_be_a_lost_rank(error: BaseException) -> bool:
    """Whether a rank may be lost: torch names a lost connection or a timeout only in the message."""
    words = ("gloo", "nccl", "connection", "timed out", "peer")
    return any(word in str(error).lower() for word in words)


def _abort_collectives() -> None:
    import torch

    with contextlib.suppress(Exception):  # the process ends anyway
        torch.distributed.distributed_c10d._abort_process_group()
