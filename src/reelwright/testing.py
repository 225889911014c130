"""A generator for other people's tests: it needs no GPU, takes milliseconds and always gives the same bytes.

It is a real backend that makes a real clip, only small: 64x36 and 9 frames by default. `scripted` makes it fail as a GPU
generator would, once per attempt, so that a caller's error handling can be tested.

    from reelwright.testing import backend, scripted
    with scripted("OOM_GPU", None):      # the first attempt fails, the second succeeds
        ...

Register it in your project's entry points under ``reelwright.backends``. Your own generator may start from it:
``replace(backend, name="mine", settings=MySettings, plan=plan)``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .backends import Backend
from .backends.shared.capabilities import Capabilities
from .backends.shared.job import Job
from .config.settings import Settings
from .core.errors import Failure, error_for
from .core.events import Event, Phase, Progress
from .core.host import Host
from .core.plan import EngineCall, ExpectedVideo, Mitigation, Plan
from .core.request import Size

_FPS = 16.0
_SCRIPT: list[str | None] = []


@contextlib.contextmanager
def scripted(*failures: str | None) -> Iterator[None]:
    """Inside the block, attempt n of any run ends with the n-th failure code; ``None`` or a missing one is success."""
    before = list(_SCRIPT)
    _SCRIPT[:] = failures
    try:
        yield
    finally:
        _SCRIPT[:] = before


def _plan(job: Job) -> Plan:
    request = job.request
    size = request.size or Size(64, 36)
    frames = request.num_frames or round((request.seconds or 9 / _FPS) * _FPS)
    parameters = {
        "size": size,
        "num_frames": frames,
        "fps": _FPS,
        "steps": request.steps or 4,
        "guidance_scale": 5.0 if request.guidance_scale is None else request.guidance_scale,
        "seed": request.seed or 0,
        **job.overrides,
    }
    options = {
        "width": size.width,
        "height": size.height,
        "frames": frames,
        "fps": _FPS,
        "seed": parameters["seed"],
        "steps": parameters["steps"],
    }
    return Plan(
        generator="testing",
        task=request.task,
        generative=False,
        run=EngineCall("reelwright.testing:ENGINE", options),
        expected=ExpectedVideo(size.width, size.height, frames, _FPS),
        parameters=parameters,
        mitigations=(Mitigation("offload", {"offload_model": True}, "time", "pretends to save memory"),),
    )


def _capabilities(settings: Settings, host: Host) -> Capabilities:
    del settings, host
    return Capabilities(("t2v", "i2v"), 60.0, ("any even size",))


class _Engine:
    """Paints a colour derived from the seed, with a bar that moves by one pixel per frame."""

    def generate(
        self, options: Mapping[str, Any], output: Path, emit: Callable[[Event], None], check: Callable[[], None]
    ) -> Mapping[str, Any]:
        import numpy as np

        from .media.writer import Encoding, VideoWriter

        failure = _SCRIPT.pop(0) if _SCRIPT else None
        emit(Phase("denoising"))
        for step in range(1, options["steps"] + 1):
            check()
            emit(Progress("denoising", step, options["steps"]))
            if failure and step == 2:
                raise error_for(Failure[failure], f"scripted {failure}")
        size, frames = Size(options["width"], options["height"]), options["frames"]
        colour = np.array([options["seed"] * 37 % 200 + 30, 120, 90], np.uint8)
        with VideoWriter(output, size, options["fps"], Encoding(), {}) as writer:
            for index in range(frames):
                check()
                picture = np.broadcast_to(colour, (size.height, size.width, 3)).copy()
                picture[:, index % size.width] = 255
                writer.write(picture)
        return {"scripted": failure}


ENGINE = _Engine()
backend = Backend(
    name="testing",
    title="Deterministic generator for tests",
    generative=False,
    requires_gpu=False,
    plan=_plan,
    capabilities=_capabilities,
)
