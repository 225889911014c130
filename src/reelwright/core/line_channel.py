"""Sends and receives messages of `core.events` between two processes: one line each, over a pair of pipes.

A worker and its runner use it, and so do the ranks of one worker. It does not interpret messages or start processes.
A blocking descriptor makes a call wait; after `set_nonblocking` no call waits.

    >>> buffer = LineBuffer()
    >>> buffer.feed(b"one\\ntw"), buffer.feed(b"o\\n")
    ([b'one'], [b'two'])
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Union

from .events import Message, decode, encode

#: A longer line is not a message: paths and prompts are some kilobytes long.
MAX_LINE_BYTES = 4 * 1024 * 1024
_KEPT_BYTES = 200
_CHUNK_BYTES = 256 * 1024
Received = Union[Message, ValueError]


class LineBuffer:
    """Cuts a stream of bytes into lines. Of a line longer than `MAX_LINE_BYTES` only the beginning is returned."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; returns the lines that they complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines and self._skipping:  # the end of a line whose beginning was returned
            del lines[0]
            self._skipping = False
        if len(self._rest) > MAX_LINE_BYTES:
            lines += [] if self._skipping else [self._rest[:_KEPT_BYTES]]
            self._rest, self._skipping = b"", True
        return lines


class LineChannel:
    """This process's ends of the two pipes. One thread may send while another receives."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd, self.write_fd = read_fd, write_fd
        self._lines = LineBuffer()
        self._unsent = b""

    def set_nonblocking(self) -> None:
        """Make calls return at once: `receive` returns the messages so far, and `flush` sends what the pipe takes."""
        for fd in (self.read_fd, self.write_fd):
            os.set_blocking(fd, False)

    @property
    def waiting(self) -> bool:
        """Whether part of a message still waits for space in the pipe."""
        return bool(self._unsent)

    def send(self, message: Message) -> bool:
        """Send a message; false if the other end is closed."""
        self._unsent += (encode(message) + "\n").encode("ascii")
        return self.flush()

    def flush(self) -> bool:
        """Send more of the waiting bytes; false if the other end is closed."""
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self.write_fd, self._unsent) :]
        except BlockingIOError:
            return True
        except OSError:
            self._unsent = b""
            return False
        return True

    def receive(self) -> list[Received] | None:
        """The next messages, perhaps none; ``None`` at the end. An invalid line is returned as a `ValueError`."""
        try:
            data = os.read(self.read_fd, _CHUNK_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return [_message(line) for line in self._lines.feed(data)] if data else None

    def close_sending(self) -> None:
        """Close the pipe for sending: the other process sees its end. A second call does nothing."""
        fd, self.write_fd = self.write_fd, -1
        if fd >= 0:
            os.close(fd)

    def close_receiving(self) -> None:
        """Close the pipe for receiving. A second call does nothing."""
        fd, self.read_fd = self.read_fd, -1
        if fd >= 0:
            os.close(fd)


def _message(line: bytes) -> Received:
    try:
        return decode(line.decode("utf-8"))
    except ValueError as error:
        return error


def open_pipe(undo: contextlib.ExitStack) -> tuple[int, int]:
    """The read end and the write end of a new pipe, which children do not inherit; ``undo`` closes them."""
    read, write = os.pipe2(os.O_CLOEXEC)
    undo.callback(os.close, read)
    undo.callback(os.close, write)
    return read, write


@contextlib.contextmanager
def channel_to_child() -> Iterator[tuple[LineChannel, tuple[int, int]]]:
    """A channel, and the two descriptors (read, write) to pass to a child that is started inside ``with``.

    The child's two descriptors are closed here at the end; after an exception all four are closed.
    """
    with contextlib.ExitStack() as undo:
        child_reads, write = open_pipe(undo)
        read, child_writes = open_pipe(undo)
        yield LineChannel(read, write), (child_reads, child_writes)
        undo.pop_all()
    os.close(child_reads)
    os.close(child_writes)
