from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from reelwright.core.events import Load, Phase, Unload, encode
from reelwright.core.line_channel import MAX_LINE_BYTES, LineBuffer, LineChannel, channel_to_child


@pytest.fixture
def ends() -> Iterator[tuple[LineChannel, LineChannel]]:
    """A channel, and the one of the process at the other end."""
    with channel_to_child() as (ours, fds):
        theirs = LineChannel(*map(os.dup, fds))
    yield ours, theirs
    for channel in (ours, theirs):
        channel.close_sending()
        channel.close_receiving()


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_lines_are_whole_wherever_the_reading_cuts_them(size: int) -> None:
    data, buffer = b"one\n\nthree\nfour", LineBuffer()
    lines = [line for at in range(0, len(data), size) for line in buffer.feed(data[at : at + size])]
    assert lines == [b"one", b"", b"three"]


@pytest.mark.parametrize("end", [b"\n", b"x\n", b"x" * MAX_LINE_BYTES + b"y\n"])
def test_a_line_without_an_end_is_returned_once_and_bounded(end: bytes) -> None:
    buffer = LineBuffer()
    (beginning,) = buffer.feed(b"x" * (MAX_LINE_BYTES + 1))
    assert beginning == b"x" * 200
    assert buffer.feed(b"x" * MAX_LINE_BYTES) == []
    assert buffer.feed(end + b"next\n") == [b"next"]


def test_messages_arrive_in_order_and_garbage_comes_as_its_error(ends: tuple[LineChannel, LineChannel]) -> None:
    ours, theirs = ends
    assert ours.send(Load({"name": "one"}))
    os.write(ours.write_fd, b"no message\n\xff\xfe\n")
    assert ours.send(Unload())
    first, *garbage, last = theirs.receive() or []
    assert (first, last) == (Load({"name": "one"}), Unload())
    assert [isinstance(message, ValueError) for message in garbage] == [True, True]


def test_a_full_pipe_makes_nobody_wait_and_loses_nothing(ends: tuple[LineChannel, LineChannel]) -> None:
    ours, theirs = ends
    ours.set_nonblocking()
    theirs.set_nonblocking()
    sent = [Phase("x" * 50_000 + str(number)) for number in range(10)]
    assert all(ours.send(message) for message in sent)
    assert ours.waiting
    received: list[object] = []
    while len(received) < len(sent):
        received += theirs.receive() or []
        assert ours.flush()
    assert received == sent
    assert theirs.receive() == []


def test_the_end_of_the_other_process_is_seen_on_both_pipes(ends: tuple[LineChannel, LineChannel]) -> None:
    ours, theirs = ends
    os.write(theirs.write_fd, encode(Phase("a")).encode())  # a line that is cut by the end
    theirs.close_sending()
    theirs.close_receiving()
    assert ours.receive() == []
    assert ours.receive() is None
    assert not ours.send(Unload())
    ours.close_receiving()
    assert ours.receive() is None  # what this process has closed itself has ended too
