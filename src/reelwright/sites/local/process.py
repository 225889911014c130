"""Runs a framework's script under the shim; no process of it is left when `run_script` returns.

The shim (`launchers.shim`) ends the complete process tree. `child` starts the shim and makes sure of the end, and
`attempt_monitor` decides when to stop. If the shim itself is killed, the runner does its work: it is a subreaper
during the run. `dead_runs` ends the processes that a dead runner left behind.

    >>> evidence = run_script(plan, work, emit, cancellation)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...core.events import Phase
from ...core.plan import Command, Plan
from ...policy import Evidence
from .. import Emit
from ..cancellation import Cancellation
from .attempt_monitor import AttemptMonitor
from .bounded_run import run_bounded
from .child import ChildProgram, make_sure, program_of, start, subreaping
from .execution import LocalWork, PhaseClock, RunningAttempt
from .probes.host import take_disk

_WRITER_CHECK_S = 30.0


def run_script(plan: Plan, work: LocalWork, emit: Emit, cancellation: Cancellation) -> Evidence:
    """Run a `Command`; `execution` describes the state after the return."""
    command = plan.run
    assert isinstance(command, Command)
    program = program_of(command, work.environ)
    if command.ranks > 1:  # otherwise torchrun leaves a folder for its logs in TMPDIR after each run
        program = replace(program, env={**program.env, "PET_LOG_DIR": str(work.folder / "torchrun")})
    attempt = RunningAttempt(command, work, PhaseClock(emit), cancellation)
    with subreaping():
        return _supervised(program, attempt, gpus=bool(plan.gpus))


def _supervised(program: ChildProgram, attempt: RunningAttempt, *, gpus: bool) -> Evidence:
    work = attempt.work
    attempt.phases(Phase("starting"))
    work.video.unlink(missing_ok=True)  # a file from before the start cannot be the command's (row P14)
    try:
        child = start(program, work, work.stop_grace_s)
    except OSError as error:
        return attempt.not_started(error.errno)
    monitor = AttemptMonitor(child, attempt)
    try:
        with monitor.sampling(gpus=gpus):
            while not child.over:
                monitor.wait()
    finally:
        make_sure(child, work.stop_grace_s)
        monitor.close()
        child.close()
    evidence = monitor.evidence()
    return evidence if evidence.start_errno is not None else _with_output(evidence, monitor, program.env)


def _with_output(evidence: Evidence, monitor: AttemptMonitor, env: Mapping[str, str]) -> Evidence:
    """The evidence, with whether the script wrote a video, and why it may have written none."""
    command, work = monitor.attempt.command, monitor.attempt.work
    if evidence.kill_reason is None:  # a failed script may have written a complete video too (row P13)
        _collect(command, work.video, monitor.output)
    exists = work.video.exists()
    return replace(
        evidence,
        disk_free_bytes=take_disk(work.folder).free_bytes,
        output_exists=exists,
        writer_problem=writer_problem(command, env) if evidence.ran_to_end and not exists else None,
    )


def _collect(command: Command, video: Path, output: str | None) -> None:
    """Move the video from the name that the framework chose to the attempt's own name."""
    if command.collects is None or not command.collects.is_dir():
        return
    videos = sorted(command.collects.rglob("*.mp4"))
    named = [path for path in videos if output and path.name == Path(output).name]
    chosen = named or videos
    if len(chosen) == 1:
        chosen[0].replace(video)


def writer_problem(command: Command, env: Mapping[str, str]) -> str | None:
    """Why the framework's interpreter cannot write a video; ``None`` if it can or the command has no check."""
    if command.writer_check is None:
        return None
    argv = [command.argv[0], "-c", command.writer_check]
    try:  # from /, because -c looks for modules in the current folder first
        done = run_bounded(argv, deadline_s=_WRITER_CHECK_S, env=env, cwd="/")
    except OSError as error:
        return f"its video writer cannot be checked: {error}"
    if done.given_up:
        return f"its video writer cannot be checked: {done.given_up}"
    if done.status == 0:
        return None
    return f"its video writer (imageio-ffmpeg) does not work: {done.last_line[:300]}"
