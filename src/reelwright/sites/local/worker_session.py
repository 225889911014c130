"""A conversation with a worker, watched: its answers, its log, the deadlines, and what was seen at the end.

For `resident` only, as `watch` is for `process`. All limits are on a monotonic clock.

    >>> talk.ask(request)  # doctest: +SKIP
    Saved(path='...', frames=81, width=1280, height=720, facts={})
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...core.errors import Cancelled, Failure, VideoGenerationError, error_for
from ...core.events import Answer, Cancel, Failed, Hello, Loaded, Log, Memory, Message, Phase, Progress, Saved
from ...core.plan import Command, Dialect
from ...policy import Evidence, KillReason
from ...policy.diagnosis import described
from ...policy.progress import LogReader
from ..cancellation import Cancellation
from .child import CHUNK, SHIM_MARGIN_S
from .execution import AttemptFiles, PhaseClock
from .log_file import BoundedLog, Masker
from .probes.memory import shared_memory
from .worker import Worker

_ANSWERS = (Hello, Loaded, Saved, Failed)
_DEFAULT_QUIET_S = 1800.0


@dataclass(frozen=True)
class Watching:
    """What is watched for: the program's own limits, those of the attempt, and its files."""

    command: Command
    timeout_s: float | None
    grace_s: float
    files: AttemptFiles


class WorkerSession:
    """One attempt with a worker. ``distrusted`` tells that the worker must not be used again."""

    def __init__(self, worker: Worker, watching: Watching, phases: PhaseClock, cancellation: Cancellation) -> None:
        self.distrusted = False
        self._worker, self._watching = worker, watching
        self._phases, self._cancellation = phases, cancellation
        self._reader = LogReader(Dialect(bars=()))
        self._log = BoundedLog(watching.files.log, watching.files.log_limit_bytes)
        self._masker = Masker(watching.command.secrets)
        self._reason: KillReason | None = None
        self._started = self._alive_at = time.monotonic()
        self._kill_at = self._give_up_at = float("inf")
        self._log_open = self._answers_open = True

    # --- asking

    def ask(self, request: Message | None) -> Answer | None:
        """Send a request and wait for its answer; ``None`` when the worker has ended without one."""
        if request is not None:
            self._worker.tell(request)
        while True:
            try:
                answer = self._heard()
                if answer is not None:
                    return answer
                if self._ended():
                    self._drain()
                    return self._heard()
                self._wait()
            except ValueError as error:
                self.distrusted = True
                return Failed(Failure.FRAMEWORK.name, f"what the worker said is no answer: {error}"[:400])

    def _heard(self) -> Answer | None:
        """The first answer among what was said; events before it are passed on."""
        messages = self._worker.said()
        for place, message in enumerate(messages):
            if isinstance(message, _ANSWERS):
                self._worker.put_back(messages[place + 1 :])
                return self._clean(message) if isinstance(message, Failed) else message
            if isinstance(message, Phase | Progress | Memory | Log) or hasattr(message, "path"):
                self._alive_at = time.monotonic()
                told = replace(message, text=self._masked(message.text)) if isinstance(message, Log) else message
                self._phases(told)  # type: ignore[arg-type] # what is neither answer nor request is an event
        return None

    def _masked(self, text: str) -> str:
        """Without the user's secrets, which an exception may quote."""
        for secret in self._watching.command.secrets:
            text = text.replace(secret, "***")
        return text

    def _clean(self, failed: Failed) -> Failed:
        """Without secrets, and of the class that its words have where the engine itself knows none."""
        evidence = tuple(map(self._masked, failed.evidence))
        failed = replace(failed, message=self._masked(failed.message), evidence=evidence)
        row = described(failed.message) if failed.failure == Failure.FRAMEWORK.name else None
        if row is not None:
            # After a fault of the GPU every further call of this process fails, and ranks that lost each other stay apart.
            self.distrusted |= row.failure in (Failure.CRASH, Failure.NCCL)
            failed = replace(failed, failure=row.failure.name, advice=failed.advice or row.advice)
        return failed

    def _ended(self) -> bool:
        child = self._worker.child
        return child.ended is not None or child.process.poll() is not None

    def _wait(self) -> None:
        """Until something happens or a limit is reached."""
        worker, child = self._worker, self._worker.child
        waiting: list[Any] = [child.status]
        waiting += [worker.answers] if self._answers_open else []
        waiting += [child.log] if self._log_open else []
        waiting += [self._cancellation] if self._reason is None else []
        ready, full, _ = select.select(waiting, worker.full, [], min(1.0, max(0.02, self._next_deadline())))
        if full:
            worker.flush()
        if child.log in ready:
            self._pump()
        if worker.answers in ready:
            self._answers_open = worker.receive()
        if child.status in ready:
            child.read_status()
        self._judge()

    # --- limits

    def _next_deadline(self) -> float:
        now = time.monotonic()
        wall = self._started + (self._watching.timeout_s or float("inf"))
        return min(wall, self._alive_at + self._quiet_limit(), self._kill_at, self._give_up_at) - now

    def _quiet_limit(self) -> float:
        limits = self._watching.command.quiet_limits_s
        return limits.get(self._phases.phase, limits.get("", _DEFAULT_QUIET_S))

    def _judge(self) -> None:
        now, timeout = time.monotonic(), self._watching.timeout_s
        if self._reason is None:
            if self._cancellation.requested:
                self._reason = "cancelled"
                self._kill_at = now + self._watching.grace_s
                self._worker.tell(Cancel())
            elif timeout is not None and now - self._started > timeout:
                self._kill("timeout")
            elif now - self._alive_at > self._quiet_limit():
                self._kill("hang")
        elif self._reason == "cancelled" and (now > self._kill_at or self._cancellation.now):
            self._kill("cancelled")
        if now > self._give_up_at:
            self._worker.child.process.kill()  # the shim does not answer; what it supervised is ended by the mark

    def _kill(self, reason: KillReason) -> None:
        self._reason, self._kill_at = reason, float("inf")
        self._give_up_at = time.monotonic() + self._watching.grace_s + SHIM_MARGIN_S
        self._worker.child.ask(b"K")

    # --- the log

    def _pump(self) -> bool:
        try:
            data = os.read(self._worker.child.log, CHUNK)
        except BlockingIOError:
            return False
        self._log_open = bool(data)
        self._take(self._masker.feed(data))
        if self._phases.phase != "denoising":  # there, only a step is progress; elsewhere any word is a sign of life
            self._alive_at = time.monotonic()
        return bool(data)

    def _take(self, data: bytes) -> None:
        self._log.write(data)
        self._reader.feed(data)

    def _drain(self) -> None:
        """What is still in the pipes of a worker that has ended."""
        answers = self._worker.answers
        while self._answers_open and select.select([answers], [], [], 0)[0]:
            self._answers_open = self._worker.receive()
        while self._log_open and self._pump():
            continue

    def close(self) -> None:
        """Join the log; nothing is asked any more."""
        while self._log_open and not self._ended() and self._pump():
            continue
        self._take(self._masker.close())
        self._reader.close()
        self._log.close()

    # --- the end

    def evidence(self, answer: Answer | None, kills: int | None, metrics: Mapping[str, Any]) -> Evidence:
        """Everything that was seen."""
        error: VideoGenerationError | None = told_error(answer) if isinstance(answer, Failed) else None
        if isinstance(error, Cancelled):
            self._reason = "cancelled"
        ended = self._worker.child.ended or {"status": None, "signal": signal.SIGKILL, "unkillable": []}
        if "errno" in ended:
            return Evidence(start_errno=ended["errno"], phase_seconds=self._phases.stop())
        died, shm = answer is None, shared_memory()
        status = ended.get("status") if died else (error.exit_status if error else 0)
        return Evidence(
            exit_status=status,
            signal_number=ended.get("signal") if died else None,
            kill_reason=self._reason,
            phase=self._phases.phase,
            step=self._phases.step,
            total_steps=self._phases.total,
            tail=tuple(self._reader.tail),
            exceptions=tuple(self._reader.exceptions),
            oom_kills=kills,
            shm_free_bytes=shm.available_bytes,
            shm_total_bytes=shm.total_bytes,
            unkillable=tuple(ended.get("unkillable", ())) if died else (),
            error=error,
            wall_s=time.monotonic() - self._started,
            phase_seconds=self._phases.stop(),
            log_path=str(self._watching.files.log),
            metrics=metrics,
        )


def told_error(failed: Failed) -> VideoGenerationError:
    """The exception of what a worker told."""
    failure = Failure.__members__.get(failed.failure, Failure.FRAMEWORK)
    return error_for(failure, failed.message, evidence=failed.evidence, advice=failed.advice)
