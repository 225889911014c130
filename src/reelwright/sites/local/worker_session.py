"""Makes one attempt with a worker: greeting, model, clip, and the worker's answers and failures.

`attempt_monitor` watches the worker meanwhile. `engine_attempt` decides what follows from the answer.

    >>> WorkerSession(worker, attempt).make(call)  # doctest: +SKIP
    Saved(path='...', frames=81, width=1280, height=720, facts={})
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ...core.errors import Failure, VideoGenerationError, error_for
from ...core.events import (
    VERSION,
    Answer,
    Cancel,
    Failed,
    Generate,
    Hello,
    LatentsSaved,
    Load,
    Loaded,
    Log,
    Memory,
    Output,
    Phase,
    Progress,
    Request,
    Saved,
)
from ...core.plan import EngineCall
from ...policy import Evidence
from ...policy.diagnosis import described
from .attempt_monitor import AttemptMonitor
from .execution import RunningAttempt, ending
from .worker import Worker


class WorkerSession:
    """One attempt with a worker.

    Attributes:
        answer: The last answer; ``None`` if the worker ended without one.
        distrusted: Whether the worker must not be used again.
    """

    def __init__(self, worker: Worker, attempt: RunningAttempt) -> None:
        self.answer: Answer | None = None
        self.distrusted = False
        self.monitor = AttemptMonitor(worker.child, attempt, cancel=lambda: worker.channel.send(Cancel()))
        self._worker, self._attempt = worker, attempt

    def make(self, call: EngineCall) -> Answer | None:
        """Request a clip, after the greeting and the model if they are needed; returns the last answer.

        An answer of another kind than expected ends the exchange.
        """
        for request, expected in self._requests(call, self._attempt.work.folder):
            self.answer = answer = self._ask(request)
            if isinstance(answer, Hello) and answer.protocol != VERSION:
                versions = f"version {answer.protocol} of the protocol, not {VERSION}"
                advice = "Install the same reelwright in both interpreters."
                self._distrust(Failure.ENV, f"the worker speaks {versions}", advice)
            elif answer is not None and not isinstance(answer, (expected, Failed)):
                kind = type(answer).__name__
                self._distrust(Failure.FRAMEWORK, f"the worker answered {kind}, not {expected.__name__}")
            if not isinstance(self.answer, expected):
                break
            self._accept(request, self.answer, call)
        return self.answer

    def _requests(self, call: EngineCall, folder: Path) -> Iterator[tuple[Request | None, type[Answer]]]:
        """Each request with the kind of its answer; the worker sends the greeting without a request."""
        worker = self._worker
        if not worker.greeted:
            yield None, Hello
        if call.model and worker.model != call.model:
            worker.model = None  # loading drops the model before, even if it fails
            yield Load(call.model), Loaded
        yield Generate(call.options, str(folder)), Saved

    def _accept(self, request: Request | None, answer: Answer, call: EngineCall) -> None:
        if isinstance(answer, Hello):
            self._worker.greeted, self._worker.versions = True, answer.versions
        if isinstance(request, Load):
            self._worker.model = call.model

    def _distrust(self, failure: Failure, message: str, advice: str = "") -> None:
        self.distrusted = True
        self.answer = Failed(failure.name, message, advice=advice)

    # --- one request

    def _ask(self, request: Request | None) -> Answer | None:
        """Send a request and wait for its answer; ``None`` if the worker ended without one."""
        worker = self._worker
        if request is not None:
            worker.channel.send(request)
        try:
            while (answer := self._next_answer()) is None:
                if worker.child.over:
                    self._receive_rest()
                    return self._next_answer()
                self._wait()
        except ValueError as error:
            self.distrusted = True
            return Failed(Failure.FRAMEWORK.name, f"the worker's answer cannot be read: {error}"[:400])
        return answer

    def _wait(self) -> None:
        worker, channel = self._worker, self._worker.channel
        reading = [] if worker.closed else [channel.read_fd]
        ready = self.monitor.wait(reading, [channel.write_fd] if channel.waiting else [])
        if channel.write_fd in ready:
            channel.flush()
        if channel.read_fd in ready:
            worker.receive()

    def _receive_rest(self) -> None:
        """Read the rest of the pipe of a worker that has ended."""
        worker = self._worker
        while not worker.closed and select.select([worker.channel.read_fd], [], [], 0)[0]:
            worker.receive()

    def _next_answer(self) -> Answer | None:
        """The first answer in the inbox; events before it are passed on. Raises ValueError for an invalid line."""
        inbox = self._worker.inbox
        while inbox:
            message = inbox.popleft()
            if isinstance(message, ValueError):
                raise message
            if isinstance(message, Failed):
                return self._classified(message)
            if isinstance(message, Hello | Loaded | Saved):
                return message
            if isinstance(message, Phase | Progress | Memory | Log | Output | LatentsSaved):
                self.monitor.active()
                clean = replace(message, text=self._masked(message.text)) if isinstance(message, Log) else message
                self._attempt.phases(clean)
        return None

    def _masked(self, text: str) -> str:
        """A text without the user's secrets, which an exception may quote."""
        for secret in self._attempt.command.secrets:
            text = text.replace(secret, "***")
        return text

    def _classified(self, failed: Failed) -> Failed:
        """A failure without secrets; if the engine names no failure class, its message decides the class."""
        evidence = tuple(map(self._masked, failed.evidence))
        failed = replace(failed, message=self._masked(failed.message), evidence=evidence)
        row = described(failed.message) if failed.failure == Failure.FRAMEWORK.name else None
        if row is not None:
            # After a fault of the GPU every further call of the process fails, and ranks never find each other again.
            self.distrusted |= row.failure in (Failure.CRASH, Failure.NCCL)
            failed = replace(failed, failure=row.failure.name, advice=failed.advice or row.advice)
        return failed

    # --- the end

    def evidence(self) -> Evidence:
        """The evidence of the attempt. The worker's end counts only if the worker gave no answer."""
        evidence = self.monitor.evidence()
        if self.answer is None or evidence.start_errno is not None:
            return evidence
        error = _error_for(self.answer) if isinstance(self.answer, Failed) else None
        return replace(
            evidence,
            signal_number=None,
            unkillable=(),
            **ending(error, evidence.kill_reason),
        )


def _error_for(failed: Failed) -> VideoGenerationError:
    """The exception for a worker's failure."""
    failure = Failure.__members__.get(failed.failure, Failure.FRAMEWORK)
    return error_for(failure, failed.message, evidence=failed.evidence, advice=failed.advice)
