"""Defines the smallest generator: one file that makes Reelwright plan, run, verify and publish clips of plain colour.

Copy it to `src/reelwright/backends/toy/__init__.py` and add one line to the registry in
`src/reelwright/backends/__init__.py`; tests/test_contributing.py does exactly that. In your own package, register
`BACKEND` under the entry point `reelwright.backends` instead. A real framework returns a `Command` where this one
returns an `EngineCall`.
"""

from __future__ import annotations

from reelwright.backends import Backend
from reelwright.backends.shared.capabilities import Capabilities
from reelwright.backends.shared.job import Job
from reelwright.config.settings import Settings
from reelwright.core.host import Host
from reelwright.core.plan import EngineCall, ExpectedVideo, Plan
from reelwright.core.request import Size

FPS = 16.0


def plan(job: Job) -> Plan:
    """The call to run, and the video that it promises. Pure: the same job always gives the same plan."""
    size = job.request.size or Size(64, 36)
    frames = job.request.num_frames or 9
    seed = job.request.seed or 0
    options = {"width": size.width, "height": size.height, "frames": frames, "fps": FPS, "seed": seed, "steps": 4}
    return Plan(
        generator="toy",
        task=job.request.task,
        generative=False,
        run=EngineCall("reelwright.testing:ENGINE", options),
        expected=ExpectedVideo(size.width, size.height, frames, FPS),
        parameters={"size": size, "num_frames": frames, "fps": FPS, "seed": seed},
    )


def capabilities(settings: Settings, host: Host) -> Capabilities:
    """The tasks and limits that `get_capabilities` reports."""
    del settings, host
    return Capabilities(("t2v", "i2v"), max_duration=10.0)


BACKEND = Backend(
    name="toy",
    title="Plain colours, to show how a generator is added",
    generative=False,
    requires_gpu=False,
    plan=plan,
    capabilities=capabilities,
)
