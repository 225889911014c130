"""How a running generation looks: a bar on a terminal, plain lines in a file, JSON lines for programs."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..core.events import AttemptStarted, Event, Log, Phase, Progress, encode
from .arguments import note, printable

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

Listener = Callable[[Event], None]
_QUIET = ("preparing", "done")
_LINE_EVERY_S = 10.0


@contextlib.contextmanager
def listener(*, as_json: bool) -> Iterator[Listener]:
    """The right listener for where stderr and stdout go."""
    if as_json:
        yield _print_json
    elif sys.stderr.isatty():
        with _bar() as listen:
            yield listen
    else:
        yield PlainLines()


def _print_json(event: Event) -> None:
    if not isinstance(event, Phase) or event.name not in _QUIET:
        print(encode(event), flush=True)


class PlainLines:
    """One line per phase, and at most one per ten seconds of progress."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said = 0.0
        self._phase = ""

    def __call__(self, event: Event) -> None:
        """Say what is worth a line."""
        if isinstance(event, Phase) and event.name not in (*_QUIET, self._phase):
            self._phase = event.name
            note(event.name)
        elif isinstance(event, Progress):
            now = self._clock()
            if now - self._said >= _LINE_EVERY_S or event.step == event.total:
                self._said = now
                note(f"{event.phase} {event.step}/{event.total}")
        else:
            _say(event, note)


def _say(event: Event, write: Callable[[str], Any]) -> None:
    if isinstance(event, Log):
        write(f"{event.level}: {event.text}" if event.level != "info" else event.text)
    elif isinstance(event, AttemptStarted) and event.number > 1:
        write(f"attempt {event.number} of {event.limit}: {event.reason}")


@contextlib.contextmanager
def _bar() -> Iterator[Listener]:
    """A rich bar with phase, step, rate, elapsed time and ETA on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    progress = RichProgress(*columns, console=console, transient=True)
    with progress:
        yield _BarListener(progress)


class _BarListener:
    def __init__(self, progress: RichProgress) -> None:
        self._progress = progress
        self._task = progress.add_task("preparing", total=None, rate="")
        self._phase = "preparing"

    def __call__(self, event: Event) -> None:
        if isinstance(event, Phase):
            self._turn(event.name)
        elif isinstance(event, Progress):
            self._turn(event.phase)
            speed = self._progress.tasks[0].finished_speed or self._progress.tasks[0].speed
            self._progress.update(self._task, completed=event.step, total=event.total or None, rate=rate_text(speed))
        else:
            _say(event, lambda text: self._progress.console.print(printable(text), markup=False))

    def _turn(self, phase: str) -> None:
        if phase != self._phase:
            self._phase = phase
            self._progress.reset(self._task, total=None, description=phase, rate="")


def rate_text(steps_per_s: float | None) -> str:
    """``2.3/s`` for fast units, ``68.6 s each`` for slow ones."""
    if not steps_per_s:
        return ""
    return f"{steps_per_s:.1f}/s" if steps_per_s >= 1 else f"{1 / steps_per_s:.1f} s each"
