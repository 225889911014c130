"""Runs a worker: an engine behind two pipes that serves one request at a time until its owner ends.

Its owner (`sites.local.worker`) starts, watches and ends it from another process, often with another interpreter.
This module imports only the standard library, `core.errors`, `core.events` and `core.line_channel`.

    >>> serve("diffusers", 3, 4)  # doctest: +SKIP
    0

A failed request gets the answer `core.events.Failed`, and the worker waits for the next one. The pipe of requests
closes when the owner ends; the worker then ends at once, even during a computation.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path

from ..core.errors import Cancelled, Failure, VideoGenerationError
from ..core.events import (
    VERSION,
    Answer,
    Cancel,
    Event,
    Failed,
    Generate,
    Hello,
    Load,
    Loaded,
    Message,
    Phase,
    Unload,
)
from ..core.line_channel import LineChannel, Received
from . import ResidentEngine, load_engine

_EVIDENCE_LINES = 6
_NO_ENGINE = 3
#: The class's name in torch (torch.OutOfMemoryError, torch.cuda.OutOfMemoryError); this module does not import torch.
_GPU_MEMORY = "OutOfMemoryError"


def serve(engine: str, read_fd: int, write_fd: int) -> int:
    """Answer the requests on ``read_fd`` until `core.events.Unload`; returns the exit status."""
    for fd in (read_fd, write_fd):
        os.set_inheritable(fd, False)  # a process that the engine starts must not keep them open
    owner = Owner(LineChannel(read_fd, write_fd))
    try:
        resident: ResidentEngine = load_engine(engine)
        versions = dict(resident.versions())
    except Exception as error:  # noqa: BLE001 -- a package that cannot be imported may raise anything
        owner.send(failed(error, "starting", otherwise=Failure.ENV))
        return _NO_ENGINE
    owner.send(Hello(VERSION, engine, versions))
    owner.listen()
    while not isinstance(request := owner.next(), Unload):
        owner.send(_answer(resident, request, owner))
    resident.unload()
    return 0


def _answer(engine: ResidentEngine, request: Message | Failed, owner: Owner) -> Answer:
    try:
        owner.check()
        if isinstance(request, Load):
            return Loaded(dict(engine.load(request.model, owner.send, owner.check)))
        if isinstance(request, Generate):
            return engine.generate(request.options, Path(request.folder), owner.send, owner.check)
        if isinstance(request, Failed):
            return request
    except Exception as error:  # noqa: BLE001 -- any exception fails this request and not the worker
        return failed(error, owner.phase)
    return Failed(Failure.STATE.name, f"{type(request).__name__} is not a request")


def failed(error: BaseException, phase: str, *, otherwise: Failure = Failure.FRAMEWORK) -> Failed:
    """The answer for an exception; the complete traceback goes to the log."""
    if isinstance(error, VideoGenerationError):
        return Failed(error.code, error.message, phase, error.advice, error.evidence)
    traceback.print_exception(error, file=sys.stderr)
    sys.stderr.flush()
    names = {kind.__name__ for kind in type(error).__mro__}
    failure = otherwise
    if _GPU_MEMORY in names:
        failure = Failure.OOM_GPU
    elif isinstance(error, MemoryError):
        failure = Failure.OOM_HOST
    lines = "".join(traceback.format_exception_only(error)).strip().splitlines()[:_EVIDENCE_LINES]
    if not str(error):  # a bare assertion: its source line is the only clue
        lines += [frame.line for frame in traceback.extract_tb(error.__traceback__)[-1:] if frame.line]
    return Failed(failure.name, f"{type(error).__name__}: {error}"[:500], phase, "", tuple(lines))


class Owner:
    """The process that this worker serves. A thread receives, so `core.events.Cancel` arrives during a computation."""

    def __init__(self, channel: LineChannel) -> None:
        self._channel = channel
        self._requests: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        self._writing = threading.Lock()
        self.phase = ""

    def listen(self) -> None:
        """Start receiving requests."""
        threading.Thread(target=self._receive_all, name="requests", daemon=True).start()

    def next(self) -> Message:
        """Wait for the next request. A line that is not a request becomes the `core.events.Failed` to answer with."""
        self.phase = ""
        return self._requests.get()

    def check(self) -> None:
        """Raise `core.errors.Cancelled` if the owner has cancelled the current request."""
        if self._cancelled.is_set():
            raise Cancelled(signal_number=signal.SIGINT)

    def send(self, message: Event | Answer) -> None:
        """Send a message; the process ends if the owner has ended."""
        if isinstance(message, Phase):
            self.phase = message.name
        with self._writing:
            if not self._channel.send(message):
                _leave()

    def _receive_all(self) -> None:
        while (received := self._channel.receive()) is not None:
            for message in received:
                self._take(message)
        _leave()

    def _take(self, message: Received) -> None:
        if isinstance(message, Cancel):
            self._cancelled.set()
            return
        self._cancelled.clear()  # a cancellation belongs to the request before it
        if isinstance(message, ValueError):
            message = Failed(Failure.STATE.name, str(message)[:300])
        self._requests.put(message)


def _leave() -> None:
    """End now: the owner receives no more answers, and the shim ends all processes that the engine started."""
    os._exit(0)
