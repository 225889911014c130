"""Defines the backend of the stand-in; the JSON under STAND_IN in the settings' ``env`` adds options and faults."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from reelwright import Settings
from reelwright.backends import Backend, ClipRules
from reelwright.backends.shared.capabilities import Capabilities
from reelwright.backends.shared.job import Job
from reelwright.core.host import Host, HostQuery
from reelwright.core.plan import Command, EngineCall, ExpectedVideo, Plan
from reelwright.core.request import Size, VideoRequest

ROOT = Path(__file__).parents[3]
LAUNCHER = ROOT / "src" / "reelwright" / "launchers" / "resident.py"
ENGINE = "tests.stand_ins.resident.engine:ENGINE"


def plan(job: Job) -> Plan:
    request, extra = job.request, json.loads(job.settings.env.get("STAND_IN", "{}"))
    size, frames = request.size or Size(64, 48), request.num_frames or 5
    parameters = {"size": size, "num_frames": frames, "fps": 16.0, "steps": request.steps or 3, "seed": request.seed}
    options: dict[str, Any] = {
        "prompt": request.prompt,
        "image": str(job.first.path) if job.first else None,
        "width": size.width,
        "height": size.height,
        "num_frames": frames,
        "steps": parameters["steps"],
        "seed": request.seed,
        **extra.get("options", {}),
    }
    python = job.settings.python or Path(sys.executable)
    script = Command(("/bin/sh", "-c", str(extra.get("script"))), ROOT)
    quiet = job.settings.progress_timeout or 30.0
    return Plan(
        generator="resident",
        task=request.task,
        generative=True,
        run=script
        if "script" in extra
        else EngineCall(
            extra.get("engine", ENGINE),
            options,
            {"name": extra.get("model", "one"), "notes": options.get("notes")},
            Command(
                argv=(str(python), *extra.get("program", [str(LAUNCHER), extra.get("engine", ENGINE)])),
                cwd=ROOT,
                env={"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **_variables(job)},
                env_names=("PATH", "HOME", "TMPDIR"),
                quiet_limits_s={"": quiet},
            ),
        ),
        expected=ExpectedVideo(size.width, size.height, frames, 16.0),
        parameters=parameters,
        gpu_bytes=extra.get("gpu_bytes"),
        gpus=_gpus(job),
    )


def _variables(job: Job) -> dict[str, str]:
    return {name: value for name, value in job.settings.env.items() if name != "STAND_IN"}


def _gpus(job: Job) -> tuple[int, ...]:
    avoided = job.overrides.get("avoid_gpus", ())
    able = sorted(job.host.gpus or (), key=lambda gpu: (gpu.index in avoided, gpu.index))
    return tuple(gpu.index for gpu in able)[:1] if job.settings.gpus is None else job.settings.gpus


def query(request: VideoRequest, settings: Settings) -> HostQuery:
    del request
    return HostQuery(gpus=settings.simulate_gpus is not None)


def capabilities(settings: Settings, host: Host) -> Capabilities:
    del settings, host
    return Capabilities(("t2v", "i2v"), 60.0)


BACKEND = Backend(
    name="resident",
    title="A stand-in for an engine that stays warm",
    generative=True,
    requires_gpu=False,
    query=query,
    plan=plan,
    capabilities=capabilities,
    clip=ClipRules(fps=16.0, max_frames=81),
    execution=frozenset(),
)
