"""Runs a framework's command under the shim: watched, bounded, and gone when `ProcessExecutor.run` returns.

The shim (`launchers.shim`) ends the whole tree; this module starts it, reads its status and the command's log, and
decides when to stop: cancellation, the wall-clock limit, or too long without progress, all on a monotonic clock. Logs
stream to a bounded file and are never held. If the shim itself is killed, the runner (a subreaper meanwhile) does its
work.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..launchers import shim
from ..machine.gpus import GpuWatch
from ..machine.memory import oom_kills
from ..machine.monitor import Sampler
from ..plan import Command, Plan
from ..policy import Evidence, KillReason
from ..policy.progress import LogReader
from ..protocol import Event, Log, Phase, Progress
from . import AttemptFiles, Cancellation, Emit, PhaseClock
from .logfile import BoundedLog, Masker

_DRAIN_S = 2.0
_SHIM_MARGIN_S = 15.0
_CHUNK = 256 * 1024
_DEFAULT_QUIET_S = 1800.0
_WRITER_CHECK_S = 30.0


@dataclass
class _Child:
    """The running shim and the runner's ends of its pipes."""

    process: subprocess.Popen[bytes]
    mark: str
    control: int
    status: int
    log: int
    pid: int | None = None
    told: bytes = b""
    ended: dict[str, Any] | None = None
    fds: list[int] = field(default_factory=list)

    def close(self) -> None:
        for fd in self.fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.fds = []


class ProcessExecutor:
    """Carries out a `Command`.

    Args:
        timeout_s: Wall-clock limit of one attempt; ``None`` for none.
        grace_s: Seconds between asking the processes to end and killing them.
        environ: The runner's environment, from which the plan's ``env_names`` are passed on.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        timeout_s: float | None = None,
        grace_s: float = 10.0,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout_s = timeout_s
        self._grace_s = grace_s
        self._environ = os.environ if environ is None else environ
        self._clock = clock

    def run(self, plan: Plan, files: AttemptFiles, emit: Emit, cancellation: Cancellation) -> Evidence:
        """See `executors.Executor`."""
        command = plan.run
        assert isinstance(command, Command)
        kills_before = oom_kills()
        with subreaping():
            return self._supervised(plan, command, files, PhaseClock(emit), cancellation, kills_before)

    def _supervised(  # noqa: PLR0913 -- one attempt's whole context, used here only
        self,
        plan: Plan,
        command: Command,
        files: AttemptFiles,
        phases: PhaseClock,
        cancellation: Cancellation,
        kills_before: int | None,
    ) -> Evidence:
        phases(Phase("starting"))
        files.video.unlink(missing_ok=True)  # what is there before the start cannot be the command's (row P14)
        try:
            child = self._start(command, files)
        except OSError as error:
            return Evidence(start_errno=error.errno, phase_seconds=phases.stop())
        watch = _Watch(self, command, files, phases, cancellation)
        try:
            with self._sampled(plan, child) as sampler:
                watch.until_ended(child)
            metrics = sampler.metrics().to_json()
        finally:
            self._make_sure(child)
            watch.close()
            child.close()
        kills = oom_kills()
        happened = kills - kills_before if kills is not None and kills_before is not None else None
        return watch.evidence(child, happened, metrics)

    def environment(self, command: Command) -> dict[str, str]:
        """What the command sees: its own variables over the allowed ones of the runner's environment."""
        allowed = {name: value for name, value in self._environ.items() if _passed(name, command.env_names)}
        return {**allowed, **command.env}

    # --- starting

    def _start(self, command: Command, files: AttemptFiles) -> _Child:
        mark = run_mark(files.run_id)
        spec = {
            "argv": list(command.argv),
            "cwd": str(command.cwd),
            "env": {**self.environment(command), shim.MARK: mark},
            "mark": mark,
            "grace_s": self._grace_s,
        }
        with contextlib.ExitStack() as undo:
            control_read, control = _pipe(undo)
            status, status_write = _pipe(undo)
            log, log_write = _pipe(undo)
            keep = [str(fd) for fd in files.lease_fds]
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", shim.__file__, str(control_read), str(status_write), *keep],
                stdin=subprocess.PIPE,
                stdout=log_write,
                stderr=log_write,
                pass_fds=(control_read, status_write, *files.lease_fds),
                env={},
            )
            undo.pop_all()
        for fd in (control_read, status_write, log_write):
            os.close(fd)
        child = _Child(process, mark, control, status, log, fds=[control, status, log])
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the shim died at once; its status pipe tells
            process.stdin.write(json.dumps(spec).encode("utf-8", "surrogateescape"))
            process.stdin.close()
        os.set_blocking(log, False)
        os.set_blocking(status, False)
        return child

    @contextlib.contextmanager
    def _sampled(self, plan: Plan, child: _Child) -> Iterator[Sampler]:
        """Measure the tree, and the GPUs if there are any."""
        with contextlib.ExitStack() as stack:
            read = (lambda: None) if not plan.gpus else None
            if read is None:
                watch = GpuWatch(self._environ)
                stack.callback(watch.close)
                read = watch.read  # type: ignore[assignment]
            assert read is not None
            with Sampler(root_pid=lambda: child.pid, read_gpus=read) as sampler:
                yield sampler

    # --- ending

    def _make_sure(self, child: _Child) -> None:
        """Nothing is left when this returns, also when the shim was killed or an exception passes through."""
        if child.process.poll() is None and child.ended is None:
            self._ask(child, b"T")
            deadline = time.monotonic() + self._grace_s + _SHIM_MARGIN_S
            while child.ended is None and time.monotonic() < deadline and read_status(child):
                select.select([child.status], [], [], 0.2)
                with contextlib.suppress(OSError):
                    os.read(child.log, _CHUNK)
        unkillable = (child.ended or {}).get("unkillable")
        if unkillable:  # the shim stays and holds the lease; it is collected whenever it ends
            threading.Thread(target=child.process.wait, name="stuck shim", daemon=True).start()
            return
        if child.ended is None:
            child.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(_SHIM_MARGIN_S)
        if child.ended is None:
            end_marked(child.mark)

    @staticmethod
    def _ask(child: _Child, what: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(child.control, what)


class _Watch:
    """One attempt as it runs: pumps the log, follows progress, keeps the deadlines."""

    def __init__(
        self,
        executor: ProcessExecutor,
        command: Command,
        files: AttemptFiles,
        phases: PhaseClock,
        cancellation: Cancellation,
    ) -> None:
        self._executor, self._command, self._files = executor, command, files
        self._phases, self._cancellation = phases, cancellation
        self._clock = executor._clock
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

    def until_ended(self, child: _Child) -> None:
        """Return once the shim has told the end (or has died), with the log read."""
        while child.ended is None:
            waiting: list[Any] = [child.status, self._cancellation, *([child.log] if self._log_open else [])]
            if self._reason == "cancelled":
                waiting.remove(self._cancellation)  # it stays readable
            ready, _, _ = select.select(waiting, [], [], min(1.0, max(0.05, self._next_deadline())))
            if child.log in ready:
                self._pump(child)
            if child.status in ready and not read_status(child):
                return  # the shim was killed
            self._judge(child)
        self._drain(child)

    def _next_deadline(self) -> float:
        now = self._clock()
        quiet = self._alive_at + self._quiet_limit() - now
        wall = self._started + (self._executor._timeout_s or float("inf")) - now
        return min(quiet, wall, self._ask_deadline - now)

    def _quiet_limit(self) -> float:
        limits = self._command.quiet_limits_s
        return limits.get(self._reader.phase, limits.get("", _DEFAULT_QUIET_S))

    def _judge(self, child: _Child) -> None:
        """Ask the shim to end it, once per reason; a second cancellation hurries."""
        now = self._clock()
        if self._reason is None:
            timeout = self._executor._timeout_s
            if self._cancellation.requested:
                self._stop(child, "cancelled")
                self._phases(Log("stopping; ask once more to kill the generator at once", "warning"))
            elif timeout is not None and now - self._started > timeout:
                self._stop(child, "timeout")
            elif now - self._alive_at > self._quiet_limit():
                self._stop(child, "hang")
        elif self._cancellation.now and not self._hurried:
            self._hurried = True
            ProcessExecutor._ask(child, b"K")
        elif now > self._ask_deadline:
            child.process.kill()  # it does not answer; what it supervised is ended by the mark

    def _stop(self, child: _Child, reason: KillReason) -> None:
        self._reason = reason
        ProcessExecutor._ask(child, b"K" if self._cancellation.now else b"T")
        self._ask_deadline = self._clock() + self._executor._grace_s + _SHIM_MARGIN_S

    # --- the log

    def _pump(self, child: _Child) -> bool:
        try:
            data = os.read(child.log, _CHUNK)
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

    def _drain(self, child: _Child) -> None:
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

    def evidence(self, child: _Child, kills: int | None, metrics: Mapping[str, Any]) -> Evidence:
        """Everything that was seen."""
        ended = child.ended or {"status": None, "signal": signal.SIGKILL, "leftovers": 0, "unkillable": []}
        if "errno" in ended:
            return Evidence(start_errno=ended["errno"], phase_seconds=self._phases.stop())
        reader, success = self._reader, ended["status"] == 0 and self._reason is None
        if self._reason is None:  # also of a failed program: its film may be whole (row P13)
            self._collect()
        exists = self._files.video.exists()
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
                env=self._executor.environment(self._command),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"its film writer cannot be asked: {error}"
        if done.returncode == 0:
            return None
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return f"its film writer (imageio-ffmpeg) does not work: {' '.join(last)[:300]}"


@contextlib.contextmanager
def subreaping() -> Iterator[None]:
    """Orphans among our descendants become our children meanwhile; also around runs that go on side by side."""
    before = shim.become_subreaper()
    try:
        yield
    finally:
        shim.become_subreaper(before)


def _pipe(undo: contextlib.ExitStack) -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC)
    undo.callback(os.close, read)
    undo.callback(os.close, write)
    return read, write


def _passed(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _free_bytes(folder: Path) -> int | None:
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def read_status(child: _Child) -> bool:
    """Take what the shim says; false once it is gone."""
    while True:
        try:
            data = os.read(child.status, 65536)
        except BlockingIOError:
            return True
        if not data:
            return False
        *lines, child.told = (child.told + data).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if event["event"] == "started":
                child.pid = event["pid"]
            else:
                child.ended = event
                return True


# ------------------------------------------------------------------------------------------- runs that have died


def run_mark(run_id: str) -> str:
    """The mark of a run's processes: its id and the runner that owns it, by pid and start time."""
    return f"{run_id}:{os.getpid()}:{shim.start_time(os.getpid())}"


def end_marked(mark: str) -> list[int]:
    """End every process that carries the mark, and collect those that have become our children."""
    tree = shim.Tree(-1, mark)
    seen = list(tree.alive())
    unkillable = tree.end(2.0)
    for pid in seen:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return unkillable


def sweep_dead_runs(proc: Path = Path("/proc")) -> tuple[str, ...]:
    """End what runs left behind whose runner and shim were both killed; returns their run ids.

    Only processes of this user that carry a run's mark, whose runner no longer lives (pid and start time), and that
    no living shim supervises.
    """
    dead: dict[str, None] = {}
    for entry in proc.iterdir():
        mark = _mark_of(entry) if entry.name.isdigit() else None
        if mark and not _owner_lives(mark) and not _supervised(int(entry.name)):
            dead.setdefault(mark)
    for mark in dead:
        end_marked(mark)
    return tuple(mark.split(":")[0] for mark in dead)


def _mark_of(entry: Path) -> str | None:
    try:
        variables = (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    prefix = f"{shim.MARK}=".encode()
    found = next((item for item in variables if item.startswith(prefix)), None)
    return found.removeprefix(prefix).decode("utf-8", "replace") if found else None


def _owner_lives(mark: str) -> bool:
    _, _, owner = mark.partition(":")
    pid, _, started = owner.partition(":")
    return not pid.isdigit() or str(shim.start_time(int(pid))) == started


def _supervised(pid: int) -> bool:
    """Whether a living shim is among the ancestors."""
    while pid > 1:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            parent = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return False
        if any(word.endswith(b"launchers/shim.py") for word in words[:4]):
            return True
        pid = parent
    return False
