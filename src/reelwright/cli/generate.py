"""Implements ``reel generate``: makes one clip, with progress, and prints the path of its video as the last line."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from .arguments import add_request_arguments, order_from
from .arguments import check_order as check  # noqa: F401 -- part of the contract of a command
from .output import note, print_json, print_lines

if TYPE_CHECKING:
    from ..core.manifest import Result
    from ..runs.order import Order
    from ..sites.cancellation import Cancellation

EventT = TypeVar("EventT")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_request_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the clip."""
    print_result(make_clip(order_from(arguments), as_json=arguments.json), as_json=arguments.json)
    return 0


def make_clip(order: Order, *, as_json: bool) -> Result:
    """Carry out an order with progress; also used by ``reel replay``."""
    from ..runs.runner import generate
    from .progress import clip_listener

    with interruptible(clip_listener(as_json=as_json)) as (listen, cancellation):
        return generate(order, listen, cancellation)


@contextmanager
def interruptible(
    listener: AbstractContextManager[Callable[[EventT], None]],
) -> Iterator[tuple[Callable[[EventT], None], Cancellation]]:
    """The listener, and a cancellation that Ctrl-C, SIGTERM and SIGHUP request; a second signal stops at once.

    Signals that the parent process ignores stay ignored: ``nohup reel generate ...`` outlives its terminal.
    """
    from ..sites.cancellation import Cancellation
    from .streams import watched

    cancellation = Cancellation()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, lambda received, _frame: cancellation.request(received))
    try:
        with listener as listen:
            yield watched(listen), cancellation
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def print_result(result: Result, *, as_json: bool, more: Mapping[str, Any] | None = None) -> None:
    """Print the result: as the last line of JSON, with ``more`` in the object, or as text, the video's path last."""
    from ..core.plan import counted

    if not result.generative:
        kind = (
            "a draft, an animatic made by moving the still picture" if result.generator == "draft" else "not generative"
        )
        note(f"note: this is {kind}; no model has generated anything")
    if as_json:
        print_json({**result.to_json(), **(more or {})})
        return
    for warning in result.warnings:
        note(f"warning: {warning}")
    length = f"{result.seconds:.2f} s, {counted(result.num_frames, 'frame')} at {result.fps:g} fps"
    state = "exists already" if result.skipped else "done"
    note(f"{state}: {result.width}x{result.height}, {length}, seed {result.seed}")
    if result.degraded:
        note("quality was lowered to succeed; `reel show` shows what changed")
    print_lines(str(result.output))
