"""The process of one other rank: its pipes, what it said, and how it ended. Only `parallel` uses it.

>>> ended_with(-9)
'was ended by SIGKILL'
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from ...core.errors import AttemptError, Failure, VideoGenerationError, error_for
from ...core.events import Failed, Message, Request, decode, encode

_END_S = 5.0


class Process:
    """Rank ``rank``; ``lost`` is called from its own thread when it fails while it is wanted."""

    def __init__(self, argv: Sequence[str], rank: int, lost: Callable[[VideoGenerationError], None]) -> None:
        self._rank = rank
        self._lost = lost
        self._changed = threading.Condition()
        self._said: list[Message] = []
        self._failure: tuple[float, VideoGenerationError] | None = None
        self._wanted = True
        hears, self._requests = os.pipe()
        self._answers, speaks = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*argv, str(hears), str(speaks)], stdin=subprocess.DEVNULL, pass_fds=(hears, speaks)
            )
        finally:
            os.close(hears)
            os.close(speaks)
        self._thread = threading.Thread(target=self._listen, daemon=True, name=f"rank {rank}")
        self._thread.start()

    @property
    def failure(self) -> tuple[float, VideoGenerationError] | None:
        """When and how it failed."""
        with self._changed:
            return self._failure

    def say(self, request: Request) -> None:
        """Send a request; a rank that is gone is noticed by its answers, not here."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._requests, encode(request).encode() + b"\n")

    def wait_for(self, wanted: Callable[[Message], bool], seconds: float) -> None:
        """Wait for an answer, and forget it.

        Raises:
            VideoGenerationError: the rank failed instead, or said nothing in time.
        """
        end = time.monotonic() + seconds
        with self._changed:
            while True:
                if any(wanted(said) for said in self._said):
                    self._said = [said for said in self._said if not wanted(said)]
                    return
                if self._failure is not None:
                    raise self._failure[1]
                if not self._changed.wait(end - time.monotonic()):
                    raise AttemptError(f"rank {self._rank} said nothing for {seconds:g} s", failure=Failure.HANG)

    def wait_a_moment(self) -> None:
        """Wait for any news, at most a moment."""
        with self._changed:
            self._changed.wait(0.05)

    def end(self) -> None:
        """End it: by the end of its pipe first, which it obeys at once."""
        with self._changed:
            if not self._wanted:
                return
            self._wanted = False
        os.close(self._requests)
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if threading.current_thread() is not self._thread:
            self._thread.join(_END_S)

    def _listen(self) -> None:
        with os.fdopen(self._answers, "r", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    said = decode(line)
                except ValueError:
                    continue
                if isinstance(said, Failed):
                    self._fail(self._told(said))
                with self._changed:
                    self._said.append(said)
                    self._changed.notify_all()
        status = self._process.wait()
        self._fail(AttemptError(f"rank {self._rank} {ended_with(status)}", failure=Failure.CRASH))

    def _told(self, said: Failed) -> VideoGenerationError:
        message = f"rank {self._rank}: {said.message}"
        return error_for(Failure[said.failure], message, evidence=tuple(said.evidence), advice=said.advice)

    def _fail(self, error: VideoGenerationError) -> None:
        with self._changed:
            if self._failure is not None or not self._wanted:
                return
            self._failure = (time.monotonic(), error)
            self._changed.notify_all()
        # A rank that has failed inside a step waits for nobody and can take no other request: its end tells the rest.
        self._process.kill()
        self._lost(error)


def ended_with(status: int) -> str:
    """A process's end in words."""
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"
