"""Runs a framework's command under the shim: watched, bounded, and gone when `ProcessExecutor.run` returns.

The shim (`launchers.shim`) ends the whole tree; this module starts it and makes sure of the end. In between, `watch`
reads its status and the command's log and decides when to stop. If the shim itself is killed, the runner (a subreaper
meanwhile) does its work. What dead runners left is the business of `dead_runs`.

    >>> evidence = ProcessExecutor(timeout_s=3600).run(plan, files, emit, cancellation)  # doctest: +SKIP
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from ...core.events import Phase
from ...core.plan import Command, Plan
from ...policy import Evidence
from ..cancellation import Cancellation
from .attempt_monitor import Watch, Watched
from .child import Start, environment, make_sure, sampled, start, subreaping
from .execution import AttemptFiles, Emit, PhaseClock
from .probes.memory import oom_kills


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
        """See `sites.local.execution.Executor`."""
        command = plan.run
        assert isinstance(command, Command)
        env = environment(command, self._environ)
        if command.ranks > 1:  # else torchrun leaves a folder for its logs in TMPDIR, one per run
            env["PET_LOG_DIR"] = str(files.folder / "torchrun")
        watched = Watched(command, env, files, self._timeout_s, self._grace_s, self._clock)
        with subreaping():
            return self._supervised(plan, watched, PhaseClock(emit), cancellation)

    def _supervised(self, plan: Plan, watched: Watched, phases: PhaseClock, cancellation: Cancellation) -> Evidence:
        command = watched.command
        phases(Phase("starting"))
        watched.files.video.unlink(missing_ok=True)  # what is there before the start cannot be the command's (row P14)
        kills_before = oom_kills()
        try:
            child = start(Start(command.argv, command.cwd, watched.env, watched.files, self._grace_s))
        except OSError as error:
            return Evidence(start_errno=error.errno, phase_seconds=phases.stop())
        watch = Watch(watched, phases, cancellation)
        try:
            with sampled(child, self._environ, gpus=bool(plan.gpus)) as sampler:
                watch.until_ended(child)
            metrics = sampler.metrics().to_json()
        finally:
            make_sure(child, self._grace_s)
            watch.close()
            child.close()
        kills = oom_kills()
        happened = kills - kills_before if kills is not None and kills_before is not None else None
        return watch.evidence(child, happened, metrics)
