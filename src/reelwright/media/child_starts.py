"""Counts the programs that this process is starting, so that a descriptor that it closes is closed everywhere.

Between fork and exec a child has a copy of every descriptor, also of those that it does not inherit. A lock file that
another thread closes meanwhile stays locked until the child's program begins. This module starts nothing.

    >>> with starting():
    ...     pass  # subprocess.Popen, which returns when the program has begun
    >>> wait_for_starts()
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

_LIMIT_S = 10.0


class _Starts:
    """The starts of this process that are in progress."""

    def __init__(self) -> None:
        self.begin_again()

    def begin_again(self) -> None:
        """Forget all starts: in a forked process they are those of its parent."""
        self.changed = threading.Condition()
        self.running: set[object] = set()


_starts = _Starts()
os.register_at_fork(after_in_child=_starts.begin_again)


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Count a start inside ``with``."""
    mark = object()
    with _starts.changed:
        _starts.running.add(mark)
    try:
        yield
    finally:
        with _starts.changed:
            _starts.running.discard(mark)
            _starts.changed.notify_all()


def wait_for_starts() -> None:
    """Wait until every program that is being started now has begun; give up after ten seconds."""
    with _starts.changed:
        before = set(_starts.running)
        _starts.changed.wait_for(lambda: not before & _starts.running, _LIMIT_S)
