"""Plans every model of every generator for a simulated card, before anything is set up, as if all were installed.

It uses the plans and checks of a real run, with imagined folders and simulated cards, so that the comparison cannot
disagree with a later run.

    >>> import reelwright
    >>> rows = compare("1x24GiB", reelwright.load_settings(environ={}))
    >>> {row.generator for row in rows} >= {"wan2.1", "hunyuan", "diffusers"}
    True
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import backends
from ..backends import GENERATORS, Backend
from ..backends.shared.assumed import AssumedModel
from ..backends.shared.job import Job
from ..config.settings import Settings
from ..core.errors import Failure
from ..core.host import simulated_gpus, simulated_memory
from ..core.plan import Plan
from ..core.request import Picture, Size, VideoRequest
from ..policy import preflight

#: The sizes to try, the default first.
SIZES = (Size(1280, 720), Size(832, 480))


@dataclass(frozen=True)
class ComparedModel:
    """One model on the simulated cards.

    Attributes:
        generator, model: The generator, and its model.
        fits: Whether it would run.
        size, frames: The largest of `SIZES` that fits, else the smaller one, and the length of a clip.
        gpus: How many of the cards it would use.
        gpu_bytes: Predicted peak of each card's memory.
        host_bytes: Predicted peak of the host's memory.
        seconds: An estimate of a clip's time, where published figures give one.
        source: The source of that estimate, or why there is none.
        problem: Why it does not fit.
        note: How it fits, where that costs time.
        setup: How to set it up.
    """

    generator: str
    model: str
    fits: bool
    size: Size
    frames: int | None
    gpus: int
    gpu_bytes: int | None
    host_bytes: int | None
    seconds: float | None
    source: str
    problem: str
    note: str
    setup: str

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return {**self.__dict__, "size": str(self.size)}


def compare(gpus: str, settings: Settings) -> tuple[ComparedModel, ...]:
    """A row for each model of each generator that needs a GPU; those that fit come first.

    Raises:
        ConfigurationError: ``gpus`` does not describe cards.
    """
    loaded = [backends.load_backend(name) for name in GENERATORS]
    rows = [
        _row(backend, assumed_model, gpus, settings) for backend in loaded for assumed_model in backend.assumed_models()
    ]
    return tuple(sorted(rows, key=lambda row: not row.fits))


def _row(backend: Backend, assumed_model: AssumedModel, gpus: str, settings: Settings) -> ComparedModel:
    sizes = (SIZES[0], SIZES[1]) if settings.size is None else (None,)
    tried = [(size, *_planned(backend, assumed_model, gpus, settings, size)) for size in sizes]
    size, plan, problem = next((item for item in tried if not item[2]), tried[-1])
    wanted = plan.parameters.get("size") or size or SIZES[0]
    published = plan.published
    notes = [item.message for item in plan.findings if item.code in ("gpu.tight", "size.super_resolution")]
    notes += [item.message.rpartition(": ")[2] for item in plan.findings if item.code == "placement"]
    return ComparedModel(
        generator=backend.name,
        model=assumed_model.model,
        fits=not problem,
        size=wanted if isinstance(wanted, Size) else size or SIZES[0],
        frames=plan.expected.num_frames if plan.expected else None,
        gpus=max(1, len(plan.gpus)),
        gpu_bytes=plan.gpu_bytes,
        host_bytes=plan.host_bytes,
        seconds=published.seconds if published else None,
        source=published.source if published else "no published figure; measured here after the first clip",
        problem=problem,
        note="; ".join(notes),
        setup=assumed_model.setup,
    )


def _planned(
    backend: Backend, assumed_model: AssumedModel, gpus: str, settings: Settings, size: Size | None
) -> tuple[Plan, str]:
    """The plan and the message of its first error, memory errors first; empty if it fits."""
    picture = Path("imagined.png")
    request = VideoRequest(
        prompt="any",
        image=None if assumed_model.task == "t2v" else picture,
        last_image=picture if assumed_model.task == "flf2v" else None,
        generator=backend.name,
        size=size,
        seed=0,
    )
    wide = size or Size(1280, 720)
    taken = Picture(picture, picture, wide, wide, "0" * 64)
    own = settings.for_generator(backend.name).evolve(**assumed_model.settings)
    host_bytes = simulated_memory(settings.simulate_memory) if settings.simulate_memory else None
    host = replace(
        assumed_model.host,
        gpus=simulated_gpus(gpus),
        simulated=True,
        memory_total_bytes=host_bytes,
        memory_available_bytes=host_bytes,
    )
    first, last = taken if request.image else None, taken if request.last_image else None
    job = Job(request, own, host, Path("/imagined/film.mp4"), first, last)
    plan = backend.plan(job)
    found = (*plan.findings, *preflight.findings(plan, host))
    errors = [item for item in found if item.severity == "error"]
    memory = [item for item in errors if item.failure in (Failure.OOM_GPU, Failure.OOM_HOST)]
    return plan.evolve(findings=found), (memory or errors)[0].message if errors else ""
