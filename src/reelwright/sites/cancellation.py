"""Defines `Cancellation`: a request to stop that wakes a waiting run."""

from __future__ import annotations

import os
import select
import threading

from ..core.errors import Cancelled


class Cancellation:
    """A request to stop that a signal handler, another thread or a callback may make at any time.

    The first request asks for a clean stop. A second one, or ``now=True``, asks for an immediate stop. ``fileno``
    becomes readable at the first request, so that a waiting ``select`` wakes up. A signal handler may call this class.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._event = threading.Event()
        self.signal_number = 0
        self.now = False

    def request(self, signal_number: int = 2, *, now: bool = False) -> None:
        """Request a stop; the first signal's number is kept for the exit status."""
        if self._event.is_set():
            self.now = True
        self.signal_number = self.signal_number or signal_number
        self.now = self.now or now
        self._event.set()
        try:
            os.write(self._write, b"!")
        except OSError:  # full or closed: the reader is awake already, or gone
            return

    @property
    def requested(self) -> bool:
        """Whether a stop was requested."""
        return self._event.is_set()

    def fileno(self) -> int:
        """A descriptor that becomes readable when a stop is requested."""
        return self._read

    def check(self) -> None:
        """Raise `Cancelled` if a stop was requested."""
        if self.requested:
            raise Cancelled(signal_number=self.signal_number)

    def pause(self, seconds: float) -> None:
        """Wait; a request to stop ends the wait at once and is raised as `Cancelled`."""
        select.select([self._read], [], [], seconds)
        self.check()

    def close(self) -> None:
        """Close the pipe; a second call does nothing. Collecting the object closes it too."""
        fds, self._read, self._write = (self._read, self._write), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    __del__ = close
