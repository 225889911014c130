"""Watches one attempt in a child process: its log, its limits, its resource use, and the evidence at the end.

`process` watches a framework's script with it, `worker_session` a worker. It does not start or publish anything.
The log streams to a bounded file and is never held in memory. All limits are on a monotonic clock.

    >>> monitor = AttemptMonitor(child, attempt)  # doctest: +SKIP
    >>> while not child.over:  # doctest: +SKIP
    ...     monitor.wait()
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ...core.events import Event, Log, Output, Phase, Progress
from ...policy import Evidence, KillReason
from ...policy.progress import LogReader
from .child import CHUNK, SHIM_MARGIN_S, Child
from .execution import RunningAttempt
from .log_file import BoundedLog, Masker
from .probes.gpus import GpuWatch
from .probes.memory import oom_kills, shared_memory
from .sampler import Sampler

_DRAIN_S = 2.0
_DEFAULT_QUIET_S = 1800.0
_NEVER = float("inf")


class AttemptMonitor:
    """The watch over one running attempt.

    Args:
        child: The process under its shim.
        attempt: The command that runs, with its work.
        cancel: Asks a worker to stop its request. A worker reports its own progress, so its log is only stored.
            Without ``cancel`` the monitor reads progress from the log.

    Attributes:
        reason: Why Reelwright ended the attempt; ``None`` if it did not.
        output: The path of the video that the log says was written.
    """

    def __init__(self, child: Child, attempt: RunningAttempt, cancel: Callable[[], object] | None = None) -> None:
        command, work = attempt.command, attempt.work
        self.attempt = attempt
        self.reason: KillReason | None = None
        self.output: str | None = None
        self._child, self._cancel = child, cancel
        user_texts = [word.partition("=")[2] for word in command.argv if "\n" in word]
        self._reader = LogReader(command.dialect, user_texts)
        self._place = attempt.phases if cancel else self._reader
        self._log = BoundedLog(work.log, work.log_limit_bytes)
        self._masker = Masker(command.secrets)
        self._log_open = True
        self._active_s = time.monotonic()
        self._end_s = attempt.started_s + (work.timeout_s or _NEVER)
        self._kill_s = self._give_up_s = _NEVER
        self._killed = False
        self._metrics: Mapping[str, Any] = {}

    @contextlib.contextmanager
    def sampling(self, *, gpus: bool) -> Iterator[None]:
        """Measure the use of the processes and, with ``gpus``, of the GPUs inside the ``with`` block."""
        with contextlib.ExitStack() as stack:
            read: Any = lambda: None  # noqa: E731 -- the sampler's own value for a machine without GPUs
            if gpus:
                watch = GpuWatch(self.attempt.work.environ)
                stack.callback(watch.close)
                read = watch.read
            with Sampler(root_pid=lambda: self._child.pid, read_gpus=read) as sampler:
                yield
            self._metrics = sampler.metrics().to_json()

    def wait(self, reading: Sequence[int] = (), writing: Sequence[int] = ()) -> set[Any]:
        """Wait for an event or a limit; returns the descriptors that are ready."""
        child, cancellation = self._child, self.attempt.cancellation
        waiting: list[Any] = [child.status, *reading]
        waiting += [child.log] if self._log_open else []
        if not (self.reason and cancellation.requested):  # a request stays readable forever
            waiting.append(cancellation)
        readable, writable, _ = select.select(waiting, writing, [], min(1.0, max(0.02, self._next_deadline())))
        if child.log in readable:
            self._read_log()
        if child.status in readable:
            child.read_status()
        self._judge()
        return {*readable, *writable}

    # --- limits

    def active(self) -> None:
        """Note progress: the time limit for a hang starts again."""
        self._active_s = time.monotonic()

    def _next_deadline(self) -> float:
        quiet_s = self._active_s + self._quiet_limit()
        return min(self._end_s, quiet_s, self._kill_s, self._give_up_s) - time.monotonic()

    def _quiet_limit(self) -> float:
        limits = self.attempt.command.quiet_limits_s
        return limits.get(self._place.phase, limits.get("", _DEFAULT_QUIET_S))

    def _judge(self) -> None:
        """Ask the child to end when a limit is reached; kill it after a second cancellation or after the grace."""
        now = time.monotonic()
        if self.reason is None:
            self.reason = self._limit_reached(now)
            if self.reason is not None:
                self._stop(now)
        elif not self._killed and (self.attempt.cancellation.now or now > self._kill_s):
            self._kill(now)
        if now > self._give_up_s:
            self._child.process.kill()  # the shim does not answer; `child.make_sure` ends what it supervised

    def _limit_reached(self, now: float) -> KillReason | None:
        if self.attempt.cancellation.requested:
            return "cancelled"
        if now > self._end_s:
            return "timeout"
        return "hang" if now - self._active_s > self._quiet_limit() else None

    def _stop(self, now: float) -> None:
        grace_s = self.attempt.work.stop_grace_s
        if self.attempt.cancellation.now or (self._cancel and self.reason != "cancelled"):
            self._kill(now)
        elif self._cancel:
            self._cancel()
            self._kill_s = now + grace_s
        else:
            self._child.ask(b"T")
            self._give_up_s = now + grace_s + SHIM_MARGIN_S
        if self.reason == "cancelled" and not self._cancel:
            self.attempt.phases(Log("stopping; a second interrupt kills the generator at once", "warning"))

    def _kill(self, now: float) -> None:
        self._killed, self._kill_s = True, _NEVER
        self._child.ask(b"K")
        self._give_up_s = min(self._give_up_s, now + self.attempt.work.stop_grace_s + SHIM_MARGIN_S)

    # --- the log

    def _read_log(self) -> bool:
        try:
            data = os.read(self._child.log, CHUNK)
        except BlockingIOError:
            return False
        self._log_open = bool(data)
        phase = self._place.phase
        self._take(self._masker.feed(data))
        if data and phase != "denoising":  # while denoising only a step counts as progress
            self.active()
        return self._log_open

    def _take(self, data: bytes) -> None:
        self._log.write(data)
        self._note(self._reader.feed(data))

    def _note(self, events: Sequence[Event]) -> None:
        for event in () if self._cancel else events:
            if isinstance(event, Phase | Progress):
                self.active()
            elif isinstance(event, Output):
                self.output = event.path
            self.attempt.phases(event)

    def close(self) -> None:
        """Read the rest of the pipe and finish the log. Call it before the child's pipes are closed."""
        deadline = time.monotonic() + _DRAIN_S  # another process may have inherited the pipe (row P18)
        while self._log_open and time.monotonic() < deadline and self._read_log():
            continue
        self._take(self._masker.close())
        self._note(self._reader.close())
        self._log.close()

    # --- the end

    def evidence(self) -> Evidence:
        """The evidence about how the child ended."""
        attempt, reader, place = self.attempt, self._reader, self._place
        ended = self._child.ended or {"status": None, "signal": signal.SIGKILL}
        if "errno" in ended:
            return attempt.not_started(ended["errno"])
        kills, shm = oom_kills(), shared_memory()
        return Evidence(
            exit_status=ended["status"],
            signal_number=ended["signal"],
            kill_reason=self.reason,
            phase=place.phase,
            step=place.step,
            total_steps=place.total,
            tail=tuple(reader.tail),
            exceptions=tuple(reader.exceptions),
            rank_errors=reader.rank_errors,
            oom_kills=None if kills is None or attempt.kills_before is None else kills - attempt.kills_before,
            shm_free_bytes=shm.available_bytes,
            shm_total_bytes=shm.total_bytes,
            leftovers=ended.get("leftovers", 0),
            unkillable=tuple(ended.get("unkillable", ())),
            wall_s=attempt.wall_s,
            phase_seconds=attempt.phases.stop(),
            metrics=self._metrics,
        )
