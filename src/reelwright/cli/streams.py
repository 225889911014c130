"""Standard output and error as they may be: closed, full, without a reader, or able to write ASCII only.

What a command reports never changes what it does. `prepared` makes both streams safe to write any text to. Inside
`forgiving` a stream that fails is silent from then on, so that a generation goes on to its own end; `watched` lets the
run's manifest note the loss. Commands that only print are not forgiven: what they print is all that they do.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO, TypeVar

from ..core.events import ReportLost

Heard = TypeVar("Heard")
_ESCAPE = "reelwright-escape"


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


class _Forgiving:
    """A text stream whose failures are kept instead of raised."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name
        self.lost = ""

    def write(self, text: str) -> int:
        """Write, until the first failure."""
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush, until the first failure."""
        self._try(self._stream.flush)

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


@contextlib.contextmanager
def forgiving() -> Iterator[None]:
    """Inside, a stream that cannot be written is silent from then on."""
    before = sys.stdout, sys.stderr
    sys.stdout = _Forgiving(sys.stdout, "standard output")
    sys.stderr = _Forgiving(sys.stderr, "standard error")
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def watched(listen: Callable[[Heard], None]) -> Callable[[Heard], None]:
    """A listener that also says when what it writes is lost."""

    def call(event: Heard) -> None:
        listen(event)
        lost = [text for text in (getattr(stream, "lost", "") for stream in (sys.stdout, sys.stderr)) if text]
        if lost:
            raise ReportLost("; ".join(lost))

    return call
