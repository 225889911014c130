"""Watching one attempt as it runs: the shim's pipes, the log, progress, the deadlines, and what was seen at the end.

For `process` only, which starts and ends things; here nothing is started but the question to a film writer. Logs
stream to a bounded file and are never held. All limits are on a monotonic clock.

    >>> watch = Watch(watched, PhaseClock(emit), cancellation)
    >>> watch.until_ended(child)  # doctest: +SKIP
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.events import Event, Log, Phase, Progress
from ...core.plan import Command
from ...policy import Evidence, KillReason
from ...policy.progress import LogReader
from ..cancellation import Cancellation
from .child import CHUNK, SHIM_MARGIN_S, Child
from .execution import AttemptFiles, PhaseClock
from .log_file import BoundedLog, Masker
from .probes.memory import shared_memory

_DRAIN_S = 2.0
_DEFAULT_QUIET_S = 1800.0
_WRITER_CHECK_S = 30.0


@dataclass(frozen=True)
class Watched:
    """A command as it is started: its environment and files, and the limits that hold for it."""

    command: Command
    env: Mapping[str, str]
    files: AttemptFiles
    timeout_s: float | None = None
    grace_s: float = 10.0
    clock: Callable[[], float] = time.monotonic


class Watch:
    """One attempt as it runs: pumps the log, follows progress, keeps the deadlines."""

    def __init__(self, watched: Watched, phases: PhaseClock, cancellation: Cancellation) -> None:
        command, files = watched.command, watched.files
        self._watched, self._command, self._files = watched, command, files
        self._phases, self._cancellation = phases, cancellation
        self._clock = watched.clock
        texts = [word.partition("=")[2] for word in command.argv if "\n" in word]
        self._reader = LogReader(command.dialect, texts)
        self._log = BoundedLog(files.log, files.log_limit_bytes)
        self._masker = Masker(command.secrets)
        self._started = self._alive_at = self._clock()
        self._reason: KillReason | None = None
        self._hurried = False
        self._ask_deadline = float("inf")
        self._output: str | None = None
        self._log_open = True

    def until_ended(self, child: Child) -> None:
        """Return once the shim has told the end (or has died), with the log read."""
        while child.ended is None:
            waiting: list[Any] = [child.status, self._cancellation, *([child.log] if self._log_open else [])]
            if self._reason and self._cancellation.requested:
                waiting.remove(self._cancellation)  # it stays readable
            ready, _, _ = select.select(waiting, [], [], min(1.0, max(0.05, self._next_deadline())))
            if child.log in ready:
                self._pump(child)
            if child.status in ready and not child.read_status():
                return  # the shim was killed
            self._judge(child)
        self._drain(child)

    def _next_deadline(self) -> float:
        now = self._clock()
        quiet = self._alive_at + self._quiet_limit() - now
        wall = self._started + (self._watched.timeout_s or float("inf")) - now
        return min(quiet, wall, self._ask_deadline - now)

    def _quiet_limit(self) -> float:
        limits = self._command.quiet_limits_s
        return limits.get(self._reader.phase, limits.get("", _DEFAULT_QUIET_S))

    def _judge(self, child: Child) -> None:
        """Ask the shim to end it, once per reason; a second cancellation hurries."""
        now = self._clock()
        if self._reason is None:
            timeout = self._watched.timeout_s
            if self._cancellation.requested:
                self._stop(child, "cancelled")
                self._phases(Log("stopping; ask once more to kill the generator at once", "warning"))
            elif timeout is not None and now - self._started > timeout:
                self._stop(child, "timeout")
            elif now - self._alive_at > self._quiet_limit():
                self._stop(child, "hang")
        elif self._cancellation.now and not self._hurried:
            self._hurried = True
            child.ask(b"K")
        elif now > self._ask_deadline:
            child.process.kill()  # it does not answer; what it supervised is ended by the mark

    def _stop(self, child: Child, reason: KillReason) -> None:
        self._reason = reason
        child.ask(b"K" if self._cancellation.now else b"T")
        self._ask_deadline = self._clock() + self._watched.grace_s + SHIM_MARGIN_S

    # --- the log

    def _pump(self, child: Child) -> bool:
        try:
            data = os.read(child.log, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._log_open = False
            return False
        phase = self._reader.phase
        self._take(self._masker.feed(data))
        if phase != "denoising":  # there, only a step is progress; elsewhere any word is a sign of life
            self._alive_at = self._clock()
        return True

    def _take(self, data: bytes) -> None:
        self._log.write(data)
        for event in self._reader.feed(data):
            self._note(event)

    def _note(self, event: Event) -> None:
        if isinstance(event, Phase | Progress):
            self._alive_at = self._clock()
        elif hasattr(event, "path"):
            self._output = event.path
        self._phases(event)

    def _drain(self, child: Child) -> None:
        """What is still in the pipe; not until its end, for a stranger may have inherited it (row P18)."""
        deadline = time.monotonic() + _DRAIN_S
        while self._log_open and time.monotonic() < deadline:
            ready, _, _ = select.select([child.log], [], [], 0.05)
            if not ready or not self._pump(child):
                break

    def close(self) -> None:
        """Join the log; may be called twice."""
        self._take(self._masker.close())
        for event in self._reader.close():
            self._note(event)
        self._log.close()

    # --- the end

    def evidence(self, child: Child, kills: int | None, metrics: Mapping[str, Any]) -> Evidence:
        """Everything that was seen."""
        ended = child.ended or {"status": None, "signal": signal.SIGKILL, "leftovers": 0, "unkillable": []}
        if "errno" in ended:
            return Evidence(start_errno=ended["errno"], phase_seconds=self._phases.stop())
        reader, success = self._reader, ended["status"] == 0 and self._reason is None
        if self._reason is None:  # also of a failed program: its film may be whole (row P13)
            self._collect()
        exists, shm = self._files.video.exists(), shared_memory()
        return Evidence(
            exit_status=ended["status"],
            signal_number=ended["signal"],
            kill_reason=self._reason,
            phase=reader.phase,
            step=reader.step,
            total_steps=reader.total,
            tail=tuple(reader.tail),
            exceptions=tuple(reader.exceptions),
            rank_errors=reader.rank_errors,
            oom_kills=kills,
            disk_free_bytes=_free_bytes(self._files.folder),
            shm_free_bytes=shm.available_bytes,
            shm_total_bytes=shm.total_bytes,
            writer_problem=self._writer_problem() if success and not exists else None,
            output_exists=exists,
            leftovers=ended["leftovers"],
            unkillable=tuple(ended["unkillable"]),
            wall_s=self._clock() - self._started,
            phase_seconds=self._phases.stop(),
            log_path=str(self._files.log),
            metrics=metrics,
        )

    def _collect(self) -> None:
        """Bring the film that the framework named itself to the attempt's own name."""
        folder = self._command.collects
        if folder is None or not folder.is_dir():
            return
        films = sorted(folder.rglob("*.mp4"))
        named = [film for film in films if self._output and film.name == Path(self._output).name]
        chosen = named or films
        if len(chosen) == 1:
            chosen[0].replace(self._files.video)

    def _writer_problem(self) -> str | None:
        """Whether the framework's interpreter can write a film at all."""
        check = self._command.writer_check
        if check is None:
            return None
        argv = [self._command.argv[0], "-c", check]
        try:
            done = subprocess.run(
                argv,
                capture_output=True,
                timeout=_WRITER_CHECK_S,
                check=False,
                stdin=subprocess.DEVNULL,
                cwd="/",  # with -c, modules in the current folder come before the interpreter's own
                env=dict(self._watched.env),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"its film writer cannot be asked: {error}"
        if done.returncode == 0:
            return None
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return f"its film writer (imageio-ffmpeg) does not work: {' '.join(last)[:300]}"


def _free_bytes(folder: Path) -> int | None:
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
