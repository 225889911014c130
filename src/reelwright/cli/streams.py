"""Standard output and error as they may be: closed, full, without a reader, standing still, or ASCII only.

A failing output stream never stops a run. `prepare` makes both streams safe to write any text to. Inside
`forgiving` a stream that fails is silent from then on, and a terminal that takes no text (Ctrl-S, a hung window) holds
nothing up: a generation goes on, and Ctrl-C ends it. `watched` lets the run's manifest note what was lost. Commands that
only print are not forgiven: what they print is all that they do.
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
    r"""``\uXXXX``, in pairs beyond the first plane: readable, and valid inside a JSON string."""
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = (units[place : place + 2].hex() for place in range(0, len(units), 2))
    return "".join(f"\\u{unit}" for unit in pairs), error.end


def prepare() -> None:
    """Give the process three open standard descriptors, and let both streams write any text.

    A descriptor that was closed would be taken by the next file that is opened, and a child's output would go there.
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

    Text that it does not take now is kept, at most `_MAX_KEPT` bytes of whole lines, and written before the next text.
    """

    def __init__(self, stream: TextIO) -> None:
        # A description of its own: O_NONBLOCK on the stream's would also hold for the shell.
        self._fd = os.open(f"/proc/self/fd/{stream.fileno()}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        self._kept = b""
        self._lock = threading.RLock()

    def write(self, data: bytes = b"") -> None:
        """Write what the terminal takes at once, and keep the rest."""
        with self._lock:
            self._kept += data
            with contextlib.suppress(BlockingIOError):
                while self._kept:
                    self._kept = self._kept[os.write(self._fd, self._kept[:4096]) :]
            if len(self._kept) > _MAX_KEPT:
                self._kept = self._kept[-_MAX_KEPT:].partition(b"\n")[2]

    def close(self, patience_s: float | None) -> None:
        """Wait until the terminal has taken everything, or for some seconds, or until Ctrl-C."""
        with contextlib.suppress(OSError, KeyboardInterrupt):
            self.write()
            while self._kept and select.select([], [self._fd], [], patience_s)[1]:
                self.write()
        os.close(self._fd)


class _Forgiving:
    """A text stream whose failures are kept instead of raised."""

    def __init__(self, stream: TextIO, name: str, terminal: _Terminal | None) -> None:
        self._stream, self._name, self._terminal = stream, name, terminal
        self.lost = ""

    def write(self, text: str) -> int:
        """Write, until the first failure."""
        if self._terminal:
            self._try(self._terminal.write, text.encode(self._stream.encoding, self._stream.errors or "strict"))
        else:
            self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush, until the first failure."""
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
            with contextlib.suppress(OSError, ValueError):  # also what Python still holds for it, at its own end
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Patience:
    """How long `forgiving` waits at its end for a terminal that takes no text; ``None``: until it does, or Ctrl-C."""

    seconds: float | None = None


@contextlib.contextmanager
def forgiving() -> Iterator[Patience]:
    """Inside, a stream that cannot be written is silent from then on, and a terminal holds nothing up."""
    before, patience = (sys.stdout, sys.stderr), Patience()
    terminals: dict[int, _Terminal] = {}  # by device: one order for what both streams write to it
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
    """The terminal that a stream writes to; ``None`` if it writes elsewhere, or if the terminal cannot be opened again."""
    with contextlib.suppress(OSError, ValueError):
        if stream.isatty():
            stream.flush()
            device = os.fstat(stream.fileno()).st_rdev
            return known.get(device) or known.setdefault(device, _Terminal(stream))
    return None


def watched(listen: Callable[[EventT], None]) -> Callable[[EventT], None]:
    """A listener that also says when what it writes is lost."""

    def call(event: EventT) -> None:
        listen(event)
        lost = [text for text in (getattr(stream, "lost", "") for stream in (sys.stdout, sys.stderr)) if text]
        if lost:
            raise ReportLost("; ".join(lost))

    return call
