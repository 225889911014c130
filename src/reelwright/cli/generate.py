"""``reel generate``: one clip, with progress, and the film's path as the last word."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .arguments import add_request_arguments, check_order, note, order_from, printable

if TYPE_CHECKING:
    from ..core.manifest import Result
    from ..runs.order import Order
    from ..sites.cancellation import Cancellation

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser("generate", help="make one clip from a picture and a prompt")
    add_request_arguments(parser)
    parser.set_defaults(run=run, check=check_order)


def run(arguments: argparse.Namespace) -> int:
    """Make the clip."""
    tell(make(order_from(arguments), as_json=arguments.json), as_json=arguments.json)
    return 0


def make(order: Order, *, as_json: bool) -> Result:
    """Carry out an order with progress; also used by ``reel replay``. The result is not told yet: see `tell`."""
    from ..runs.runner import generate
    from ..sites.cancellation import Cancellation
    from .progress import listener
    from .streams import watched

    cancellation = Cancellation()
    with signals(cancellation), listener(as_json=as_json) as listen:
        return generate(order, watched(listen), cancellation)


def tell(result: Result, *, as_json: bool, more: Mapping[str, Any] | None = None) -> None:
    """The last words: the result object (with ``more`` in it) as the last line of JSON, or the film's path."""
    if not result.generative:
        note("note: this is a draft, an animatic made by moving the still picture; no model has generated anything")
    if as_json:
        print(json.dumps({**result.to_json(), **(more or {})}), flush=True)
    else:
        _tell(result)


@contextmanager
def signals(cancellation: Cancellation) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP ask for a clean stop; a second one for an immediate one.

    Not those that our parent told us to ignore: ``nohup reel generate ...`` outlives its terminal.
    """
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, lambda received, _frame: cancellation.request(received))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(result: Result) -> None:
    for warning in result.warnings:
        note(f"warning: {warning}")
    frames = "1 frame" if result.num_frames == 1 else f"{result.num_frames} frames"
    seconds = f"{result.seconds:.2f} s, {frames} at {result.fps:g} fps"
    state = "exists already" if result.skipped else "done"
    note(f"{state}: {result.width}x{result.height}, {seconds}, seed {result.seed}")
    if result.degraded:
        note("quality was lowered to succeed; `reel show` tells what changed")
    print(printable(str(result.output)), file=sys.stdout, flush=True)
