"""Plans of Wan2.1 without a machine: a checkout, weights, an interpreter and GPUs as values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reelwright.backends import load_backend
from reelwright.backends.diffusers.models import MODELS, published_folder
from reelwright.backends.settings import settings_from_mapping
from reelwright.backends.shared.assumed import WEIGHTS as FOLDER
from reelwright.backends.shared.job import Job
from reelwright.backends.wan21.backend import FILES
from reelwright.cli.arguments import parse_gpus
from reelwright.core.host import Checkout, Checkpoint, Gpu, Host, Interpreter, simulated_gpus, simulated_memory
from reelwright.core.plan import Finding, Plan
from reelwright.core.request import Picture, Size, VideoRequest, parse_size
from reelwright.policy import fitting, preflight

BACKEND = load_backend("wan2.1")
CHECKOUT, PYTHON = Path("/opt/wan"), Path("/opt/venv/bin/python")
WEIGHTS = {
    "i2v_model_dir": {"model_type": "i2v", "num_heads": 40, "dim": 5120},
    "flf2v_model_dir": {"model_type": "flf2v", "num_heads": 40, "dim": 5120},
    "t2v_model_dir": {"model_type": "t2v", "num_heads": 40, "dim": 5120},
    "t2v_1_3b_model_dir": {"model_type": "t2v", "num_heads": 12, "dim": 1536},
}
WHOLE = Interpreter(PYTHON, python_version="3.10.14", cuda_version="12.4", cuda_devices=8)


@dataclass(frozen=True)
class World:
    """What the probes would have found."""

    gpus: str | tuple[Gpu, ...] = "8x80GiB"
    memory: str | None = None
    model: str = "i2v-14B"
    absent: tuple[str, ...] = ()
    interpreter: Interpreter = WHOLE
    modules: Mapping[str, str] = field(default_factory=dict)
    matches: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    driver: tuple[str, tuple[int, int]] | None = None

    def job(self, overrides: Mapping[str, Any] | None = None, **ask: Any) -> Job:
        values = {name: f"/models/{name}" for name in WEIGHTS}
        chosen = {**values, "wan2_dir": str(CHECKOUT), "python": str(PYTHON), "model": self.model, **self.settings}
        settings = settings_from_mapping(chosen, generator="wan2.1")
        picture = Picture(Path("/in.png"), Path("cat.png"), Size(1280, 720), Size(1280, 720), "0" * 64)
        images = {"i2v-14B": 1, "flf2v-14B": 2}.get(self.model, 0)
        first, last = (picture if images > place else None for place in (0, 1))
        sources = {"image": first and first.source, "last_image": last and last.source}
        request = VideoRequest(prompt="a cat", seed=7, **{**sources, **ask})
        return Job(
            request,
            settings,
            self._host(request, settings),
            Path("/out/film.mp4"),
            first,
            last,
            overrides=overrides or {},
        )

    def _host(self, request: VideoRequest, settings: Any) -> Host:
        query = BACKEND.query(request, settings)
        named = dict.fromkeys(query.interpreters[0].modules, "1.0") | {"torch": "2.4.0+cu124", "transformers": "4.50"}
        modules = {name: version for name, version in {**named, **self.modules}.items() if name not in self.absent}
        memory = simulated_memory(self.memory) if self.memory else None
        configs = {Path(f"/models/{name}"): config for name, config in WEIGHTS.items()}
        return Host(
            gpus=simulated_gpus(self.gpus) if isinstance(self.gpus, str) else self.gpus,
            simulated=self.driver is None,
            driver_version=self.driver[0] if self.driver else None,
            driver_cuda=self.driver[1] if self.driver else None,
            memory_total_bytes=memory,
            memory_available_bytes=memory,
            interpreters={PYTHON: replace(self.interpreter, modules=modules)},
            checkouts={CHECKOUT: Checkout(CHECKOUT, files=frozenset(FILES), matches=self.matches)},
            checkpoints={
                item.directory: Checkpoint(item.directory, config=configs[item.directory]) for item in query.checkpoints
            },
        )

    def plan(self, overrides: Mapping[str, Any] | None = None, **ask: Any) -> Plan:
        """The plan with everything that `reel plan` would say of the machine."""
        job = self.job(overrides, **ask)
        plan = BACKEND.plan(job)
        found = (*plan.findings, *preflight.findings(plan, job.host))
        return plan.evolve(findings=fitting.advised(found, BACKEND, job))


def followed(world: World, way: str, ask: Mapping[str, Any]) -> Plan:
    """The plan of somebody who does what a way of `policy.fitting` says, word by word."""
    if match := re.match(r"with the resident engine on GPU \d+: --generator diffusers(?: --gpus (\S+))? \(", way):
        return _with_the_engine(world.job(**ask), parse_gpus(match[1]) if match[1] else {})
    chosen: dict[str, Any] = {}
    for option, value in re.findall(r"(--\w+) (\S+)", way):
        values: dict[str, Callable[[str], dict[str, Any]]] = {
            "--gpus": parse_gpus,
            "--size": lambda text: {"size": text},
            "--frames": lambda text: {"num_frames": int(text)},
        }
        chosen |= values[option](value)
    keys = {"gpus": None, "gpu_count": None} if "gpus" in chosen or "card" in way else {}
    settings = {**world.settings, **keys, "gpus": chosen.pop("gpus", keys.get("gpus", world.settings.get("gpus")))}
    settings = {name: value for name, value in settings.items() if value is not None}
    cards = re.search(r"on (\S+) cards? of (\d+) GiB", way)
    memory = re.search(r"with (\d+ GiB) of host memory", way)
    size = parse_size(chosen.pop("size")) if "size" in chosen else None
    return replace(
        world,
        gpus=f"{cards[1].replace('one', '1')}x{cards[2]}GiB" if cards else world.gpus,
        memory=memory[1].replace(" ", "") if memory else world.memory,
        settings=settings,
    ).plan(**{**ask, **chosen, **({"size": size} if size else {})})


def _with_the_engine(job: Job[Any], gpus: Mapping[str, Any]) -> Plan:
    """The resident engine's plan on the published weights; only what concerns memory and cards can be wrong here."""
    task = {"flf2v": "flf2v-14B", "i2v": "i2v-14B"}.get(job.request.task, job.settings.model)
    engine, weights = load_backend("diffusers"), published_folder(MODELS[f"wan2.1-{task}"], FOLDER)
    assert weights is not None
    fixed = (
        {"gpus": job.settings.gpus, "gpu_count": job.settings.gpu_count} if not gpus else {"gpu_count": None, **gpus}
    )
    settings = job.settings.evolve(weights=FOLDER, **fixed)
    job = job.evolve(settings=settings, host=replace(job.host, checkpoints={FOLDER: weights}))
    plan = engine.plan(job)
    found = (*plan.findings, *preflight.findings(plan, job.host))
    return plan.evolve(findings=[item for item in found if not item.code.startswith(("module", "packages", "torch"))])


def finding(plan: Plan, code: str) -> Finding:
    """The one finding of a code."""
    (found,) = {item.message: item for item in plan.findings if item.code == code}.values()
    return found


def codes(plan: Plan) -> set[str]:
    """The codes of what forbids the run."""
    return {item.code for item in plan.errors}
