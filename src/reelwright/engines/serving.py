"""What runs in a worker: an engine behind two pipes, one request at a time, until nobody asks any more.

Not for starting a worker, watching it or ending it: that is `sites.local.worker`, in another process and often in
another interpreter. Nothing but the standard library, `core.errors` and `core.events` is imported here.

    >>> serve("diffusers", 3, 4)  # doctest: +SKIP
    0

A request that cannot be done is answered by `core.events.Failed`, and the next one is waited for. The end of the pipe of
requests means that the owner is gone: the process ends at once, whatever it is doing.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

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
    decode,
    encode,
)
from . import ResidentEngine, load_engine

#: A longer line is no request: paths and prompts are some kilobytes.
MAX_LINE_BYTES = 4 * 1024 * 1024
_EVIDENCE_LINES = 6
_NO_ENGINE = 3
#: What torch calls it (torch.OutOfMemoryError, torch.cuda.OutOfMemoryError); torch itself is not imported here.
_GPU_MEMORY = "OutOfMemoryError"


def serve(engine: str, read_fd: int, write_fd: int) -> int:
    """Answer the requests that come on ``read_fd`` until `core.events.Unload` or the end; returns the exit status."""
    for fd in (read_fd, write_fd):
        os.set_inheritable(fd, False)  # a process that the engine starts must not keep them open
    channel = Channel(read_fd, write_fd)
    try:
        resident: ResidentEngine = load_engine(engine)
        versions = dict(resident.versions())
    except Exception as error:  # noqa: BLE001 -- a package that cannot be imported may raise anything
        channel.say(failed(error, "starting", otherwise=Failure.ENV))
        return _NO_ENGINE
    channel.say(Hello(VERSION, engine, versions))
    channel.listen()
    while not isinstance(request := channel.next(), Unload):
        channel.say(_answer(resident, request, channel))
    resident.unload()
    return 0


def _answer(engine: ResidentEngine, request: Message | Failed, channel: Channel) -> Answer:
    try:
        channel.check()
        if isinstance(request, Load):
            return Loaded(dict(engine.load(request.model, channel.say, channel.check)))
        if isinstance(request, Generate):
            return engine.generate(request.options, Path(request.folder), channel.say, channel.check)
        if isinstance(request, Failed):
            return request
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is this request's failure and not the worker's
        return failed(error, channel.phase)
    return Failed(Failure.STATE.name, f"{type(request).__name__} is no request")


def failed(error: BaseException, phase: str, *, otherwise: Failure = Failure.FRAMEWORK) -> Failed:
    """What went wrong, as an answer; the whole traceback goes to the log."""
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
    if not str(error):  # a bare assertion: its source line is all there is of it
        lines += [frame.line for frame in traceback.extract_tb(error.__traceback__)[-1:] if frame.line]
    return Failed(failure.name, f"{type(error).__name__}: {error}"[:500], phase, "", tuple(lines))


class Channel:
    """The worker's ends of its pipes. A thread reads, so that `core.events.Cancel` is seen during a computation."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self._requests: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        self._writing = threading.Lock()
        self.phase = ""

    def listen(self) -> None:
        """Begin to take requests."""
        threading.Thread(target=self._take_all, name="requests", daemon=True).start()

    def next(self) -> Message:
        """The next request, waiting for it; what was not one comes as the `core.events.Failed` to answer it with."""
        self.phase = ""
        return self._requests.get()

    def check(self) -> None:
        """Raise `core.errors.Cancelled` if the request that is being done is not wanted any more."""
        if self._cancelled.is_set():
            raise Cancelled(signal_number=signal.SIGINT)

    def say(self, message: Event | Answer) -> None:
        """Write one line; a gone owner ends the process."""
        if isinstance(message, Phase):
            self.phase = message.name
        data = (encode(message) + "\n").encode("ascii")
        with self._writing:
            while data:
                try:
                    data = data[os.write(self._write_fd, data) :]
                except OSError:
                    _leave()

    def _take_all(self) -> None:
        rest, skipping = b"", False
        while chunk := _read(self._read_fd):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if not skipping:
                    self._take(line)
                skipping = False
            if len(rest) > MAX_LINE_BYTES:
                if not skipping:
                    self._put(Failed(Failure.STATE.name, f"a request of more than {MAX_LINE_BYTES:,} bytes"))
                rest, skipping = b"", True
        _leave()

    def _take(self, line: bytes) -> None:
        try:
            request: Any = decode(line.decode("utf-8"))
        except ValueError as error:
            self._put(Failed(Failure.STATE.name, str(error)[:300]))
            return
        if isinstance(request, Cancel):
            self._cancelled.set()
        else:
            self._put(request)

    def _put(self, request: Message) -> None:
        self._cancelled.clear()  # a cancellation belongs to the request that came before it
        self._requests.put(request)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:
        return b""


def _leave() -> None:
    """End now: nobody is there to hear, and the shim ends whatever was started."""
    os._exit(0)
