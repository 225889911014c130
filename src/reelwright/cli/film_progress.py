"""How a film in the making looks: a live table of its clips on a terminal, lines in a file, JSON lines for programs."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ..core.events import AttemptStarted, Log, Phase, Progress, encode
from ..films import FilmEvent, Joining, SegmentEvent, SegmentState
from .arguments import cell, note

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

FilmListener = Callable[[FilmEvent], None]
_LINE_EVERY_S = 10.0


@contextlib.contextmanager
def film_listener(*, as_json: bool) -> Iterator[FilmListener]:
    """The right listener for where stderr and stdout go; may be called from several threads."""
    if as_json:
        yield _locked(_print_json)
    elif sys.stderr.isatty():
        with _table() as listen:
            yield _locked(listen)
    else:
        yield _locked(FilmLines())


def _locked(listen: FilmListener) -> FilmListener:
    lock = threading.Lock()

    def call(event: FilmEvent) -> None:
        with lock:
            listen(event)

    return call


def _print_json(event: FilmEvent) -> None:
    if isinstance(event, SegmentEvent):
        print(json.dumps({**json.loads(encode(event.event)), "segment": event.segment}), flush=True)
    else:
        print(json.dumps({"event": type(event).__name__, **asdict(event)}), flush=True)


class FilmLines:
    """A line for every change of a clip, and at most one of progress per ten seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said = clock()

    def __call__(self, event: FilmEvent) -> None:
        """Say what is worth a line."""
        if isinstance(event, SegmentState):
            note(f"{event.segment}: {event.state}" + (f" ({event.detail})" if event.detail else ""))
        elif isinstance(event, SegmentEvent):
            self._inner(event)
        elif event.step == event.total:
            note(f"joined {event.total} frames")

    def _inner(self, event: SegmentEvent) -> None:
        inner = event.event
        if isinstance(inner, Log) and inner.level != "info":
            note(f"{event.segment}: {inner.level}: {inner.text}")
        elif isinstance(inner, AttemptStarted) and inner.number > 1:
            note(f"{event.segment}: attempt {inner.number} of {inner.limit}: {inner.reason}")
        elif isinstance(inner, Progress) and self._clock() - self._said >= _LINE_EVERY_S:
            self._said = self._clock()
            note(f"{event.segment}: {inner.phase} {inner.step}/{inner.total}")


@dataclass
class _Line:
    state: str = "waiting"
    detail: str = ""
    phase: str = ""
    step: int = 0
    total: int = 0
    began: float = 0.0


@contextlib.contextmanager
def _table() -> Iterator[FilmListener]:
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True, highlight=False), refresh_per_second=4, transient=True) as live:
        yield _TableListener(live)


class _TableListener:
    def __init__(self, live: Live) -> None:
        self._live = live
        self._lines: dict[str, _Line] = {}
        self._joining = ""

    def __call__(self, event: FilmEvent) -> None:
        if isinstance(event, Joining):
            self._joining = f"joining {event.step}/{event.total}"
        else:
            self._take(self._lines.setdefault(event.segment, _Line()), event)
        self._live.update(self._drawn())

    def _take(self, line: _Line, event: SegmentState | SegmentEvent) -> None:
        if isinstance(event, SegmentState):
            line.state, line.detail = event.state, event.detail
        elif isinstance(event.event, Phase):
            line.phase, line.step, line.total, line.began = event.event.name, 0, 0, time.monotonic()
        elif isinstance(event.event, Progress):
            line.phase, line.step, line.total = event.event.phase, event.event.step, event.event.total
        elif isinstance(event.event, AttemptStarted) and event.event.number > 1:
            line.detail = f"attempt {event.event.number}: {event.event.reason}"
        elif isinstance(event.event, Log) and event.event.level != "info":
            self._live.console.print(cell(f"{event.segment}: {event.event.text}"))

    def _drawn(self) -> Table:
        from rich.table import Table

        table = Table("clip", "state", "step", "ETA", "", box=None, title=self._joining or None)
        colours = {"failed": "red", "blocked": "red", "rendered": "green", "stored": "green", "rendering": "bold"}
        for name, line in self._lines.items():
            active = line.state == "rendering"
            step = f"{line.phase} {line.step}/{line.total}" if line.total else line.phase
            state = cell(line.state, colours.get(line.state, ""))
            table.add_row(cell(name), state, step if active else "", _eta(line) if active else "", cell(line.detail))
        return table


def _eta(line: _Line) -> str:
    if not line.step or not line.total:
        return ""
    seconds = (time.monotonic() - line.began) / line.step * (line.total - line.step)
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
