"""Handles standard output and error that are closed, full, without a reader, stopped, or ASCII only.

A failing output stream never stops a run. `prepare` makes both streams safe for any text. Inside `forgiving`, a stream
that fails is silent from then on, and a terminal that takes no text (Ctrl-S, a hung window) does not block a run: a
generation goes on, and Ctrl-C ends it. With `watched` the run's manifest notes the loss. Commands that only print still
fail with their stream, because printing is all that they do.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TextIO, TypeVar

from ..core.events import ReportLost

EventT = TypeVar("EventT")
_ESCAPE = "reelwright-escape"
_MAX_KEPT = 64 * 1024


def _escaped(error: UnicodeError) -> tuple[str, int]:
    r"""The escape ``\uXXXX``, two of them beyond the first plane: readable, and valid inside a JSON string."""
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = (units[place : place + 2].hex() for place in range(0, len(units), 2))
    return "".join(f"\\u{unit}" for unit in pairs), error.end


def prepare() -> None:
    """Open missing standard descriptors, and let both streams write any text.

    Otherwise the next opened file would get the number of a closed descriptor, and receive a child's output.
    """
    codecs.register_error(_ESCAPE, _escaped)
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 -- until the process ends
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ESCAPE)


class _Terminal:
    """Writes to a terminal without waiting for it.

    Text that the terminal does not take is kept, at most `_MAX_KEPT` bytes of complete lines, for the next write.
    """

    def __init__(self, stream: TextIO) -> None:
        # A separate open file description: O_NONBLOCK on the stream's own would also apply to the shell.
        self._fd = os.open(f"/proc/self/fd/{stream.fileno()}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        self._kept = b""
        self._lock = threading.RLock()

    def write(self, data: bytes = b"") -> None:
        """Write the bytes that the terminal takes at once, and keep the rest."""
        with self._lock:
            self._kept += data
            with contextlib.suppress(BlockingIOError):
                while self._kept:
                    self._kept = self._kept[os.write(self._fd, self._kept[:4096]) :]
            if len(self._kept) > _MAX_KEPT:
                self._kept = self._kept[-_MAX_KEPT:].partition(b"\n")[2]

    def close(self, patience_s: float | None) -> None:
        """Wait until the terminal has taken everything, until Ctrl-C, or for at most ``patience_s`` between writes."""
        with contextlib.suppress(OSError, KeyboardInterrupt):
            self.write()
            while self._kept and select.select([], [self._fd], [], patience_s)[1]:
                self.write()
        os.close(self._fd)


class _Forgiving:
    """A text stream that notes its first failure instead of raising it."""

    def __init__(self, stream: TextIO, name: str, terminal: _Terminal | None) -> None:
        self._stream, self._name, self._terminal = stream, name, terminal
        self.lost = ""

    def write(self, text: str) -> int:
        """Write; after the first failure do nothing."""
        if self._terminal:
            self._try(self._terminal.write, text.encode(self._stream.encoding, self._stream.errors or "strict"))
        else:
            self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush; after the first failure do nothing."""
        self._try(self._terminal.write if self._terminal else self._stream.flush)

    def _try(self, call: Callable[..., Any], *values: Any) -> None:
        if self.lost:
            return
        try:
            call(*values)
        except (OSError, ValueError) as error:
            gone = isinstance(error, OSError) and error.errno == errno.EPIPE
            reason = "its reader is gone" if gone else getattr(error, "strerror", None) or str(error)
            self.lost = f"{self._name} could not be written: {reason}"
            with contextlib.suppress(OSError, ValueError):  # Python's own flush at its end fails otherwise
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Patience:
    """The seconds that `forgiving` waits at its end for a terminal; ``None``: until it takes the text, or Ctrl-C."""

    seconds: float | None = None


@contextlib.contextmanager
def forgiving() -> Iterator[Patience]:
    """Make a stream that fails silent from then on, and never wait for a terminal, inside ``with``."""
    before, patience = (sys.stdout, sys.stderr), Patience()
    terminals: dict[int, _Terminal] = {}  # by device, to keep the order of what both streams write to it
    for name, title in (("stdout", "standard output"), ("stderr", "standard error")):
        stream = getattr(sys, name)
        setattr(sys, name, _Forgiving(stream, title, _terminal(stream, terminals)))
    try:
        yield patience
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
        for terminal in terminals.values():
            terminal.close(patience.seconds)


def _terminal(stream: TextIO, known: dict[int, _Terminal]) -> _Terminal | None:
    """The terminal of a stream; ``None`` if it writes to something else, or the terminal cannot be opened again."""
    with contextlib.suppress(OSError, ValueError):
        if stream.isatty():
            stream.flush()
            device = os.fstat(stream.fileno()).st_rdev
            return known.get(device) or known.setdefault(device, _Terminal(stream))
    return None


def watched(listen: Callable[[EventT], None]) -> Callable[[EventT], None]:
    """A listener that also raises `ReportLost` when its output is lost."""

    def call(event: EventT) -> None:
        listen(event)
        lost = [text for text in (getattr(stream, "lost", "") for stream in (sys.stdout, sys.stderr)) if text]
        if lost:
            raise ReportLost("; ".join(lost))

    return call
