r"""The reader of a framework's growing log: it finds phases, steps, and the lines that explain a failure.

A `LogReader` takes the merged bytes of all ranks and gives events. Its memory is bounded for any output. It keeps the
evidence of a failure (exceptions, torchrun's summary, the last lines) apart, so that a flood of lines does not push it
out; `diagnosis` judges it. It drops the user's own text, because a prompt may contain anything.

    >>> reader = LogReader(Dialect(totals=(50,)))
    >>> reader.feed(b"\r  2%|2         | 1/50 [00:09<07:21, 9.0s/it]")
    [Phase(name='denoising'), Progress(phase='denoising', step=1, total=50)]
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator

from ..core.events import PHASES, Event, Output, Phase, Progress
from ..core.plan import Dialect
from . import ExceptionSeen, RankError

MAX_LINE_BYTES = 64 * 1024
MAX_TAIL_LINES = 400
MAX_TAIL_CHARACTERS = 1000
MAX_EXCEPTIONS = 16
_BREAK = re.compile(rb"[\r\n]+")
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: A tqdm bar without a description, from its first character: loader bars have a description before the percent sign.
_BAR = re.compile(r"^\s*\d+%\|[^|]*\| (\d+)/(\d+) \[[^]]*\]?")
_RANK = re.compile(r"^\[(?:rank|default)(\d+)\]:\s?")
_TRACEBACK = "Traceback (most recent call last):"
#: ``torch.OutOfMemoryError: CUDA out of memory`` or a bare ``AssertionError``, at the start of a line.
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(?::\s|$)")
#: Lines that end the message of the exception before them.
_NOT_A_MESSAGE = re.compile(
    r"During handling of the above exception|The above exception was the direct cause|\S+:\d+: \w*Warning: "
    r"|[WEIF]\d{4} \d\d:\d\d:\d\d|\[\d{4}-\d\d-\d\d |\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\[[WEIF]\d{4} "
    r"|\S+:\d+:\d+ \[\d+\] NCCL"
)
#: Lines that Python prints before a traceback that does not end the program.
_ASIDE = ("Exception ignored ", "Error in atexit._run_exitfuncs:", "--- Logging error ---")
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
_MAX_MESSAGE_LINES = 40
_MAX_MESSAGE_CHARACTERS = 4000
_SAMPLING_AND_AFTER = frozenset(PHASES[PHASES.index("rendering") :])
_SUMMARY = re.compile(r"^\s+(rank|exitcode)\s*: (-?\d+)")


class LogReader:
    """Reads the log of one attempt.

    Args:
        dialect: The format of this framework's log.
        user_texts: The user's texts. A line of the log that equals one of their lines (except the first) is ignored.
    """

    def __init__(self, dialect: Dialect, user_texts: Iterable[str] = ()) -> None:
        self._phases = [(re.compile(pattern), name) for pattern, name in dialect.phases]
        self._output = re.compile(dialect.output) if dialect.output else None
        self._user_patterns = [re.compile(pattern) for pattern in dialect.user_text]
        self._user_lines = {
            _clean(line).strip() for text in user_texts for line in text.splitlines()[1:] if line.strip()
        }
        self._bars, self._totals = dialect.bars, dialect.totals
        self._bar = 0
        self._rest = b""
        self._skipping = False
        self._entered: set[str] = set()
        self._tracebacks: dict[int | None, list[str]] = {}
        self._messages: dict[int | None, _Message] = {}
        self._chained: set[int | None] = set()
        self._aside: set[int | None] = set()
        self._record = re.compile(dialect.record) if dialect.record else None
        self._summary = _Summary()
        self.phase = "starting"
        self.step = 0
        self.total = dialect.totals[0] if dialect.totals else 0
        self.tail: deque[str] = deque(maxlen=MAX_TAIL_LINES)
        self._closed: list[ExceptionSeen] = []

    @property
    def exceptions(self) -> list[ExceptionSeen]:
        """The exceptions of the tracebacks so far, each with its complete message, in order of appearance."""
        return [*self._closed, *(message.seen() for message in self._messages.values())][:MAX_EXCEPTIONS]

    @property
    def rank_errors(self) -> tuple[RankError, ...]:
        """The errors in torchrun's summary, the first observed failure first."""
        return self._summary.errors()

    def feed(self, data: bytes) -> list[Event]:
        """Read the next bytes and return their events."""
        *lines, rest = _BREAK.split(self._rest + data)
        events = [event for line in lines for event in self._complete(line)]
        if b"%|" in rest and rest.rstrip().endswith(b"]") and not self._skipping:
            # tqdm writes the line break before its bar; waiting for the next break would be a step late.
            events += self._read(rest)
            rest = b""
        if len(rest) > MAX_LINE_BYTES:  # an endless line: keep its beginning, drop the rest
            if not self._skipping:
                events += self._read(rest[:MAX_LINE_BYTES])
            self._skipping, rest = True, b""
        self._rest = rest
        return events

    def close(self) -> list[Event]:
        """Read the rest after the end of the log, and return its events."""
        rest, self._rest = self._rest, b""
        return list(self._complete(rest))

    def _complete(self, line: bytes) -> Iterable[Event]:
        if self._skipping:
            self._skipping = False
            return ()
        return self._read(line) if line else ()

    def _read(self, raw: bytes) -> list[Event]:
        line = _clean(raw[:MAX_LINE_BYTES].decode("utf-8", "replace"))
        if not line.strip() or self._is_users(line):
            return []
        bar = _BAR.match(line) if "%|" in line else None
        if bar is None:
            return self._read_words(line)
        for rank in list(self._messages):
            self._end_message(rank)
        # tqdm leaves its line open: another rank's next line, even a traceback, follows the bar in the same line.
        return [*self._advance(int(bar[1]), int(bar[2])), *self._read_words(line[bar.end() :])]

    def _read_words(self, line: str) -> list[Event]:
        if not line.strip() or self._is_users(line):
            return []
        self.tail.append(line[:MAX_TAIL_CHARACTERS])
        self._collect(line)
        return list(self._enter(line))

    def _is_users(self, line: str) -> bool:
        return line.strip() in self._user_lines or any(pattern.match(line) for pattern in self._user_patterns)

    # --- progress

    def _enter(self, line: str) -> Iterator[Event]:
        for pattern, phase in self._phases:
            if pattern.match(line):
                yield from self._enter_phase(phase)
                break
        if self._output:
            found = self._output.match(line)
            if found:
                yield Output(found[1])

    def _enter_phase(self, phase: str) -> Iterator[Event]:
        """Enter a phase once; a slower rank does not lead back to an earlier phase.

        After the first bar, a rank that is still loading or encoding does not lead back either: before the first
        collective the ranks do not wait for each other.
        """
        if phase in self._entered:
            return
        self._entered.add(phase)
        if self.phase in _SAMPLING_AND_AFTER and phase not in _SAMPLING_AND_AFTER:
            return
        self.phase = phase
        if phase in self._bars[self._bar + 1 :]:  # a line named it: its bar may count to the same number
            self._bar, self.step = self._bars.index(phase, self._bar + 1), 0
        yield Phase(phase)

    def _advance(self, step: int, total: int) -> Iterator[Event]:
        """Read a bar of any rank: the furthest rank counts; a bar of another length belongs to something else."""
        wanted = self._totals[self._bar] if self._bar < len(self._totals) else 0
        if wanted and total != wanted:
            following = self._bar + 1
            if following >= len(self._bars) or (self._totals[following] or total) != total:
                return
            self._bar, self.step = following, 0
        phase = self._bars[self._bar]
        yield from self._enter_phase(phase)
        if step > self.step or self.total != total:
            self.step, self.total = max(step, 0), total
            yield Progress(phase, step, total)
        if step >= total and self.phase == phase and self._bar == len(self._bars) - 1:
            # The decoder is silent: it begins when the last step of the last bar is done.
            yield from self._enter_phase("decoding")

    # --- evidence

    def _collect(self, line: str) -> None:
        found = _RANK.match(line)
        rank = int(found[1]) if found else None
        text = line[found.end() :] if found else line
        self._summary.read(text)
        if text.startswith((_TRACEBACK, *_ASIDE)):
            self._end_message(rank)
        if text.startswith(_TRACEBACK):
            self._tracebacks[rank] = []
        elif rank in self._tracebacks:
            self._in_traceback(rank, text)
        elif rank in self._messages and not self._continue(rank, text):
            self._end_message(rank)
        if text.startswith(_CHAINED):
            self._chained.add(rank)
        if text.startswith(_ASIDE):
            self._aside.add(rank)

    def _in_traceback(self, rank: int | None, text: str) -> None:
        frames = self._tracebacks[rank]
        if text.startswith(" "):
            frames.append(text)
            del frames[:-12]
        elif _EXCEPTION.match(text):
            del self._tracebacks[rank]
            if rank in self._aside:
                self._aside.discard(rank)
                return
            self._messages[rank] = _Message(text, "\n".join(frames), rank, rank in self._chained)
            self._chained.discard(rank)

    def _continue(self, rank: int | None, text: str) -> bool:
        """Add a line to the message of the exception before it; false if the line does not belong to it."""
        if _NOT_A_MESSAGE.match(text) or (self._record and self._record.match(text)):
            return False
        return self._messages[rank].add(text)

    def _end_message(self, rank: int | None) -> None:
        message = self._messages.pop(rank, None)
        if message is not None and len(self._closed) < MAX_EXCEPTIONS:
            self._closed.append(message.seen())


class _Message:
    """An exception whose message may continue on the next line."""

    def __init__(self, text: str, where: str, rank: int | None, chained: bool) -> None:
        self._lines, self._where, self._rank, self._chained = [text[:2000]], where, rank, chained

    def add(self, text: str) -> bool:
        """Add one more line; false if the message already has too many."""
        if len(self._lines) >= _MAX_MESSAGE_LINES:
            return False
        self._lines.append(text[:MAX_TAIL_CHARACTERS])
        return True

    def seen(self) -> ExceptionSeen:
        """The exception so far."""
        text = "\n".join(self._lines)[:_MAX_MESSAGE_CHARACTERS]
        return ExceptionSeen(text, self._where, self._rank, self._chained)


class _Summary:
    """The errors in torchrun's summary: ``Root Cause (first observed failure)`` and the other failures before it."""

    def __init__(self) -> None:
        self._inside = False
        self._root = False
        self._rank: int | None = None
        self._found: list[tuple[bool, RankError]] = []

    def read(self, text: str) -> None:
        if text.startswith(("Failures:", "Root Cause (first observed failure):")):
            self._inside, self._root = True, text.startswith("Root")
        elif self._inside and (field := _SUMMARY.match(text)):
            if field[1] == "rank":
                self._rank = int(field[2])
            elif self._rank is not None:
                self._found.append((self._root, RankError(self._rank, exit_status=int(field[2]))))
                self._rank = None

    def errors(self) -> tuple[RankError, ...]:
        return tuple(error for _, error in sorted(self._found, key=lambda item: not item[0]))


def _clean(line: str) -> str:
    """Text without escape sequences and control characters: a log must not drive a terminal."""
    if "\x1b" in line:
        line = _ANSI.sub("", line)
    return _CONTROL.sub("", line).rstrip()
