"""Runs an engine in this process: the draft generator, and generators in other people's tests.

An engine is cancelled between two frames. A `VideoGenerationError` of the engine becomes evidence; any other exception
is a bug and is raised.

    >>> evidence = run_inline(plan, work, emit, cancellation)  # doctest: +SKIP
"""

from __future__ import annotations

import time

from ...core.errors import VideoGenerationError
from ...core.events import Phase
from ...core.plan import EngineCall, Plan
from ...engines import load_engine
from ...policy import Evidence
from .. import Emit
from ..cancellation import Cancellation
from .execution import LocalWork, PhaseClock, ending


def run_inline(plan: Plan, work: LocalWork, emit: Emit, cancellation: Cancellation) -> Evidence:
    """Run an `EngineCall` in this process; `execution` describes the state after the return."""
    assert isinstance(plan.run, EngineCall)
    started = time.monotonic()
    clock = PhaseClock(emit)
    clock(Phase("starting"))
    error: VideoGenerationError | None = None
    facts = {}
    try:
        engine = load_engine(plan.run.engine)
        facts = dict(engine.generate(plan.run.options, work.video, clock, cancellation.check))
    except VideoGenerationError as caught:
        error = caught
    except BaseException:  # a bug in the engine
        work.video.unlink(missing_ok=True)
        raise
    return Evidence(
        **ending(error),
        phase=clock.phase,
        step=clock.step,
        total_steps=clock.total,
        output_exists=work.video.exists(),
        wall_s=time.monotonic() - started,
        phase_seconds=clock.stop(),
        facts=facts,
    )
