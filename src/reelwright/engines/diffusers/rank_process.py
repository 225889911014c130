"""Runs the process of one other rank: its channel, its answers and its end. Only `parallel` uses it.

>>> ending(-9)
'was ended by SIGKILL'
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from ...core.errors import AttemptError, Failure, VideoGenerationError, error_for
from ...core.events import Failed, Message, Request
from ...core.line_channel import channel_to_child

_END_S = 5.0


class RankProcess:
    """Rank ``rank``; ``lost`` is called from its own thread if it fails before `end`."""

    def __init__(self, argv: Sequence[str], rank: int, lost: Callable[[VideoGenerationError], None]) -> None:
        self._rank = rank
        self._lost = lost
        self._changed = threading.Condition()
        self._received: list[Message] = []
        self._failure: tuple[float, VideoGenerationError] | None = None
        self._wanted = True
        with channel_to_child() as (self._channel, fds):
            self._process = subprocess.Popen([*argv, *map(str, fds)], stdin=subprocess.DEVNULL, pass_fds=fds)
        self._thread = threading.Thread(target=self._listen, daemon=True, name=f"rank {rank}")
        self._thread.start()

    @property
    def failure(self) -> tuple[float, VideoGenerationError] | None:
        """When and how it failed."""
        with self._changed:
            return self._failure

    def send(self, request: Request) -> None:
        """Send a request. If the rank has ended, `failure` says so; this method raises nothing."""
        self._channel.send(request)

    def wait_for(self, wanted: Callable[[Message], bool], seconds: float) -> None:
        """Wait for an answer, and drop it.

        Raises:
            VideoGenerationError: the rank failed instead, or did not answer in time.
        """
        end = time.monotonic() + seconds
        with self._changed:
            while True:
                if any(map(wanted, self._received)):
                    self._received = [message for message in self._received if not wanted(message)]
                    return
                if self._failure is not None:
                    raise self._failure[1]
                if not self._changed.wait(end - time.monotonic()):
                    raise AttemptError(f"rank {self._rank} did not answer for {seconds:g} s", failure=Failure.HANG)

    def wait_a_moment(self) -> None:
        """Wait a moment for any message."""
        with self._changed:
            self._changed.wait(0.05)

    def end(self) -> None:
        """End the process: close its pipe and send SIGTERM; SIGKILL follows if it does not end."""
        with self._changed:
            if not self._wanted:
                return
            self._wanted = False
        self._channel.close_sending()
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if threading.current_thread() is not self._thread:
            self._thread.join(_END_S)

    def _listen(self) -> None:
        while (received := self._channel.receive()) is not None:
            for message in received:
                if isinstance(message, ValueError):
                    continue
                if isinstance(message, Failed):
                    self._fail(self._error_for(message))
                with self._changed:
                    self._received.append(message)
                    self._changed.notify_all()
        self._channel.close_receiving()
        status = self._process.wait()
        self._fail(AttemptError(f"rank {self._rank} {ending(status)}", failure=Failure.CRASH))

    def _error_for(self, failed: Failed) -> VideoGenerationError:
        message = f"rank {self._rank}: {failed.message}"
        return error_for(Failure[failed.failure], message, evidence=tuple(failed.evidence), advice=failed.advice)

    def _fail(self, error: VideoGenerationError) -> None:
        with self._changed:
            if self._failure is not None or not self._wanted:
                return
            self._failure = (time.monotonic(), error)
            self._changed.notify_all()
        # A rank that has failed inside a step can take no other request. Its end frees the ranks that wait for it.
        self._process.kill()
        self._lost(error)


def ending(status: int) -> str:
    """A process's end in words."""
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"
