"""Shows the progress of a run: a live display on a terminal, plain lines in a file, JSON lines for programs.

A clip (`clip_listener`) and a film (`film_listener`) have all three, an installation (`setup_listener`) the first two.
A listener is a function that takes events; several threads may call that of a film.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..core.events import AttemptStarted, Event, Log, Phase, Progress, encode
from ..films import FilmEvent, Joining, SegmentEvent, SegmentState
from .output import cell, note, print_json, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.progress import Progress as Bar
    from rich.table import Table

    from ..installer import SetupEvent

_QUIET = ("preparing", "done")
_LINE_EVERY_S = 10.0


class Lines:
    """Writes lines to standard error: every message, and at most one line of progress in ten seconds."""

    def __init__(self) -> None:
        self._last = -math.inf
        self._phase = ""

    def progress(self, text: str, *, last: bool = False) -> None:
        """Write a line about progress if ten seconds have passed since the one before, or if it is the ``last``."""
        if last or time.monotonic() - self._last >= _LINE_EVERY_S:
            self._last = time.monotonic()
            note(text)

    def clip(self, event: Event) -> None:
        """Write an event of a clip."""
        if isinstance(event, Phase) and event.name not in (*_QUIET, self._phase):
            self._phase = event.name
            note(event.name)
        elif isinstance(event, Progress):
            self.progress(f"{event.phase} {event.step}/{event.total}", last=event.step == event.total)
        elif text := _message(event):
            note(text)

    def film(self, event: FilmEvent) -> None:
        """Write an event of a film."""
        if isinstance(event, SegmentState):
            note(f"{event.segment}: {event.state}" + (f" ({event.detail})" if event.detail else ""))
        elif isinstance(event, Joining):
            if event.step == event.total:
                note(f"joined {event.total} frames")
        elif isinstance(event.event, Progress):
            self.progress(f"{event.segment}: {event.event.phase} {event.event.step}/{event.event.total}")
        elif text := _message(event.event, details=False):
            note(f"{event.segment}: {text}")

    def setup(self, event: SetupEvent) -> None:
        """Write an event of an installation."""
        if event.text:
            note(f"{event.part}: {event.text}")
        else:
            self.progress(f"{event.part}: {event.done / 1e9:.2f} of {event.total / 1e9:.2f} GB")


def _message(event: Event, *, details: bool = True) -> str:
    """The event's text for people, or empty; without ``details`` only for warnings, errors and new attempts."""
    if isinstance(event, Log):
        return f"{event.level}: {event.text}" if event.level != "info" else event.text * details
    if isinstance(event, AttemptStarted) and event.number > 1:
        return f"attempt {event.number} of {event.limit}: {event.reason}"
    return ""


def _terminal() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)


# --------------------------------------------------------------------------------------------------------------- clip


@contextlib.contextmanager
def clip_listener(*, as_json: bool) -> Iterator[Callable[[Event], None]]:
    """The listener for a clip."""
    if as_json:
        yield _print_clip_event
    elif sys.stderr.isatty():
        with _clip_bar() as bar:
            yield _ClipBar(bar)
    else:
        yield Lines().clip


def _print_clip_event(event: Event) -> None:
    if not isinstance(event, Phase) or event.name not in _QUIET:
        print(encode(event), flush=True)


def _clip_bar() -> Bar:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    return Bar(*columns, console=_terminal(), transient=True)


class _ClipBar:
    """Shows phase, step, rate, elapsed time and remaining time in one line."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("preparing", total=None, rate="")
        self._phase = "preparing"

    def __call__(self, event: Event) -> None:
        if isinstance(event, Phase):
            self._turn(event.name)
        elif isinstance(event, Progress):
            self._turn(event.phase)
            speed = self._bar.tasks[0].finished_speed or self._bar.tasks[0].speed
            self._bar.update(self._task, completed=event.step, total=event.total or None, rate=_rate(speed))
        elif text := _message(event):
            self._bar.console.print(printable(text), markup=False)

    def _turn(self, phase: str) -> None:
        if phase != self._phase:
            self._phase = phase
            self._bar.reset(self._task, total=None, description=phase, rate="")


def _rate(steps_per_s: float | None) -> str:
    """The rate as text: ``2.3/s`` for fast steps, ``68.6 s each`` for slow ones."""
    if not steps_per_s:
        return ""
    return f"{steps_per_s:.1f}/s" if steps_per_s >= 1 else f"{1 / steps_per_s:.1f} s each"


# --------------------------------------------------------------------------------------------------------------- film


@contextlib.contextmanager
def film_listener(*, as_json: bool) -> Iterator[Callable[[FilmEvent], None]]:
    """The listener for a film; several threads may call it."""
    if as_json:
        yield _locked(_print_film_event)
    elif sys.stderr.isatty():
        from rich.live import Live

        with Live(console=_terminal(), refresh_per_second=4, transient=True) as live:
            yield _locked(_FilmTable(live))
    else:
        yield _locked(Lines().film)


def _locked(listen: Callable[[FilmEvent], None]) -> Callable[[FilmEvent], None]:
    lock = threading.Lock()

    def call(event: FilmEvent) -> None:
        with lock:
            listen(event)

    return call


def _print_film_event(event: FilmEvent) -> None:
    if isinstance(event, SegmentEvent):
        print_json({**json.loads(encode(event.event)), "segment": event.segment})
    else:
        print_json({"event": type(event).__name__, **asdict(event)})


@dataclass
class _ClipRow:
    state: str = "waiting"
    detail: str = ""
    phase: str = ""
    step: int = 0
    total: int = 0
    began: float = 0.0

    @property
    def remaining(self) -> str:
        if not self.step or not self.total:
            return ""
        seconds = (time.monotonic() - self.began) / self.step * (self.total - self.step)
        return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


class _FilmTable:
    """Shows a table with a row for each clip."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._rows: dict[str, _ClipRow] = {}
        self._joining = ""

    def __call__(self, event: FilmEvent) -> None:
        if isinstance(event, Joining):
            self._joining = f"joining {event.step}/{event.total}"
        else:
            self._take(self._rows.setdefault(event.segment, _ClipRow()), event)
        self._live.update(self._drawn())

    def _take(self, row: _ClipRow, event: SegmentState | SegmentEvent) -> None:
        if isinstance(event, SegmentState):
            row.state, row.detail = event.state, event.detail
        elif isinstance(event.event, Phase):
            row.phase, row.step, row.total, row.began = event.event.name, 0, 0, time.monotonic()
        elif isinstance(event.event, Progress):
            row.phase, row.step, row.total = event.event.phase, event.event.step, event.event.total
        elif isinstance(event.event, AttemptStarted) and event.event.number > 1:
            row.detail = f"attempt {event.event.number}: {event.event.reason}"
        elif isinstance(event.event, Log) and event.event.level != "info":
            self._live.console.print(cell(f"{event.segment}: {event.event.text}"))

    def _drawn(self) -> Table:
        from rich.table import Table

        table = Table("clip", "state", "step", "ETA", "", box=None, title=self._joining or None)
        colours = {"failed": "red", "blocked": "red", "rendered": "green", "stored": "green", "rendering": "bold"}
        for name, row in self._rows.items():
            active = row.state == "rendering"
            step = f"{row.phase} {row.step}/{row.total}" if row.total else row.phase
            state = cell(row.state, colours.get(row.state, ""))
            table.add_row(cell(name), state, step * active, row.remaining * active, cell(row.detail))
        return table


# -------------------------------------------------------------------------------------------------------------- setup


@contextlib.contextmanager
def setup_listener() -> Iterator[Callable[[SetupEvent], None]]:
    """The listener for an installation; it writes to standard error only."""
    if not sys.stderr.isatty():
        yield Lines().setup
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=_terminal()) as bar:
        tasks: dict[tuple[str, int], Any] = {}

        def show(event: SetupEvent) -> None:
            if event.text:
                bar.console.print(printable(f"{event.part}: {event.text}"), markup=False)
            elif (event.part, event.total) not in tasks:
                task = bar.add_task(event.part, total=event.total, completed=event.done)
                tasks[event.part, event.total] = task
            else:
                bar.update(tasks[event.part, event.total], completed=event.done)

        yield show
