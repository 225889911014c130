"""Runs a framework's command under the shim: watched, bounded, and gone when `ProcessExecutor.run` returns.

The shim (`launchers.shim`) ends the whole tree; this module starts it and makes sure of the end. In between, `watch`
reads its status and the command's log and decides when to stop. If the shim itself is killed, the runner (a subreaper
meanwhile) does its work. What dead runners left is the business of `dead_runs`.

    >>> evidence = ProcessExecutor(timeout_s=3600).run(plan, files, emit, cancellation)  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from ..launchers import shim
from ..machine.gpus import GpuWatch
from ..machine.memory import oom_kills
from ..machine.monitor import Sampler
from ..plan import Command, Plan
from ..policy import Evidence
from ..protocol import Phase
from . import AttemptFiles, Cancellation, Emit, PhaseClock
from .dead_runs import end_marked, run_mark
from .watch import CHUNK, SHIM_MARGIN_S, Child, Watch, Watched


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
        env = self._environment(command)
        if command.ranks > 1:  # else torchrun leaves a folder for its logs in TMPDIR, one per run
            env["PET_LOG_DIR"] = str(files.folder / "torchrun")
        watched = Watched(command, env, files, self._timeout_s, self._grace_s, self._clock)
        with subreaping():
            return self._supervised(plan, watched, PhaseClock(emit), cancellation)

    def _supervised(self, plan: Plan, watched: Watched, phases: PhaseClock, cancellation: Cancellation) -> Evidence:
        phases(Phase("starting"))
        watched.files.video.unlink(missing_ok=True)  # what is there before the start cannot be the command's (row P14)
        kills_before = oom_kills()
        try:
            child = self._start(watched)
        except OSError as error:
            return Evidence(start_errno=error.errno, phase_seconds=phases.stop())
        watch = Watch(watched, phases, cancellation)
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

    def _environment(self, command: Command) -> dict[str, str]:
        """What the command sees: its own variables over the allowed ones of the runner's environment."""
        allowed = {name: value for name, value in self._environ.items() if _passed(name, command.env_names)}
        return {**allowed, **command.env}

    # --- starting

    def _start(self, watched: Watched) -> Child:
        command, files = watched.command, watched.files
        mark = run_mark(files.run_id)
        spec = {
            "argv": list(command.argv),
            "cwd": str(command.cwd),
            "env": {**watched.env, shim.MARK: mark},
            "mark": mark,
            "grace_s": self._grace_s,
        }
        with contextlib.ExitStack() as undo:  # whatever happens here: the end of the control pipe ends the shim
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
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # the shim died at once; its status pipe tells
                process.stdin.write(json.dumps(spec).encode("utf-8", "surrogateescape"))
                process.stdin.close()
            os.set_blocking(log, False)
            os.set_blocking(status, False)
            undo.pop_all()
        for fd in (control_read, status_write, log_write):
            os.close(fd)
        return Child(process, mark, control, status, log, fds=[control, status, log])

    @contextlib.contextmanager
    def _sampled(self, plan: Plan, child: Child) -> Iterator[Sampler]:
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

    def _make_sure(self, child: Child) -> None:
        """Nothing is left when this returns, also when the shim was killed or an exception passes through."""
        if child.process.poll() is None and child.ended is None:
            child.ask(b"T")
            deadline = time.monotonic() + self._grace_s + SHIM_MARGIN_S
            while child.ended is None and time.monotonic() < deadline and child.read_status():
                select.select([child.status], [], [], 0.2)
                with contextlib.suppress(OSError):
                    os.read(child.log, CHUNK)
        unkillable = (child.ended or {}).get("unkillable")
        if unkillable:  # the shim stays and holds the lease; it is collected whenever it ends
            threading.Thread(target=child.process.wait, name="stuck shim", daemon=True).start()
            return
        if child.ended is None:
            child.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(SHIM_MARGIN_S)
        if child.ended is None:
            end_marked(child.mark)


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
