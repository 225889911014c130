"""Suggestions for a plan that does not fit: other GPUs, a smaller clip, a larger card, or the resident engine. Pure.

Each suggestion is planned with the same backend and one change. It is named only if that plan fits.

    >>> advised([Finding("size.derived", "info", "nothing about memory")], None, None)[0].fix
    ''
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..backends import Backend, load_backend
from ..backends.shared.assumed import WEIGHTS
from ..backends.shared.job import Job
from ..core.host import GIB, Gpu
from ..core.plan import Finding, Plan
from . import preflight

_MEMORY = ("gpu.too_small", "gpu.tight", "gpu.busy", "memory.gpu", "memory.host", "host.too_small")
_OF_THE_HOST = ("memory.host", "host.too_small")
_IN_THE_WAY = (*_MEMORY, "gpus.split", "gpu.count", "gpu.mig", "parallel.model", "parallel.placement", "attention.card")
#: The memory of cards that are sold, in GiB.
_SOLD = (8, 12, 16, 24, 32, 40, 48, 80, 96, 141, 180)
#: The usual host memory of machines, in bytes and words.
_MORE = tuple(
    (gib * GIB, f"with {gib} GiB of host memory") for gib in (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
)
_AMPERE = (8, 0)
_LONGEST = 3  # suggestions


def advised(found: Iterable[Finding], backend: Backend, job: Job) -> tuple[Finding, ...]:
    """The findings; the fix of each memory error names a change that fits."""
    found = tuple(found)
    short = [finding for finding in found if finding.code in _MEMORY and finding.severity == "error"]
    if not short:
        return found
    other = frozenset(finding.code for finding in found if finding.severity == "error" and finding not in short)
    fix = _fix(_Unfit(backend, job, other), short)
    return tuple(replace(finding, fix=_joined(finding, fix)) if finding in short else finding for finding in found)


def _joined(finding: Finding, fix: str) -> str:
    """The new fix of a finding; for a busy card it adds to the old fix, because the card may also be freed."""
    return f"{finding.fix} {fix}" if finding.code == "gpu.busy" else fix


@dataclass(frozen=True)
class _Unfit:
    """A job that does not fit. A suggestion may keep the ``other`` errors, but may not add new ones."""

    backend: Backend
    job: Job
    other: frozenset[str]

    def again(self, job: Job, overrides: Mapping[str, Any] | None = None) -> Plan | None:
        """The plan of a changed job, if it fits."""
        changed = job.evolve(overrides={**job.overrides, **(overrides or {})})
        plan = self.backend.plan(changed)
        found = (*plan.findings, *preflight.findings(plan, changed.host))
        return None if any(item.severity == "error" and item.code not in self.other for item in found) else plan


def _fix(unfit: _Unfit, short: Sequence[Finding]) -> str:
    of_the_host = any(finding.code in _OF_THE_HOST for finding in short)
    found = [*_other_gpus(unfit), *_smaller(unfit)]
    found += [*(_more_memory(unfit) if of_the_host else ())] or _larger_card(unfit)
    found = [*found[:_LONGEST], *_resident(unfit.backend, unfit.job)]
    steps = " Fewer steps do not change memory."
    if not found:
        return f"No smaller clip, no larger card and no larger memory that Reelwright tried fits.{steps}"
    return f"It fits {'; or '.join(found)}.{steps}"


def _other_gpus(unfit: _Unfit) -> Iterator[str]:
    """Suggest another number or set of the visible GPUs, if the user or a retry fixed one."""
    job, settings = unfit.job, unfit.job.settings
    if not (settings.gpus or settings.gpu_count or settings.total_gpus or "gpu_count" in job.overrides):
        return
    plan = unfit.again(_without(job, "gpu_count"))
    if plan and plan.gpus:
        listed = ",".join(map(str, plan.gpus)) + ("," if len(plan.gpus) == 1 else "")
        yield f"with --gpus {listed} ({(plan.gpu_bytes or 0) / GIB:.1f} GiB each)"


def _smaller(unfit: _Unfit) -> Iterator[str]:
    """Suggest the largest clip that fits: a smaller size, fewer frames, or both."""
    plan = unfit.backend.plan(unfit.job)
    sizes, frames = ([item.overrides for item in plan.mitigations if item.costs == cost] for cost in ("size", "frames"))
    if not plan.mitigations and plan.expected:
        width, height = plan.expected.width, plan.expected.height
        small = "832x480" if width >= height else "480x832"
        sizes = [{"size": small}] if width * height > 832 * 480 else []
        frames = [{"num_frames": count} for count in (49, 33) if count < plan.expected.num_frames]
    for changes in (sizes, frames, [{**size, **count} for size in sizes for count in frames]):
        change = next((change for change in changes if unfit.again(unfit.job, change)), None)
        if change:
            yield f"with {_as_options(change)}"
            return


def _as_options(change: Mapping[str, Any]) -> str:
    """The overrides as options of the command line."""
    options = {"size": "--size", "num_frames": "--frames"}
    words = [f"{options[name]} {value}" for name, value in change.items() if name in options]
    if change.get("super_resolution") is False:
        words.append("--set super_resolution=false")
    return " ".join(words)


def _on(job: Job, cards: tuple[Gpu, ...]) -> Job:
    """The same job on other cards of the same machine."""
    return _without(job, "gpu_count", "avoid_gpus").evolve(host=replace(job.host, gpus=cards, simulated=True))


def _without(job: Job, *overrides: str) -> Job:
    """The same job without a chosen number or set of GPUs, and without these overrides."""
    kept = {name: value for name, value in job.overrides.items() if name not in overrides}
    return job.evolve(settings=job.settings.evolve(gpus=None, gpu_count=None, total_gpus=None), overrides=kept)


def _cards(count: int, gib: float, like: tuple[int, int] | None) -> tuple[Gpu, ...]:
    """Cards with this much memory, of Ampere or a newer architecture."""
    size, capability = round(gib * GIB), max(like, _AMPERE) if like else None
    return tuple(Gpu(place, f"GPU-imagined-{place}", "imagined", size, size, capability) for place in range(count))


def _larger_card(unfit: _Unfit) -> Iterator[str]:
    """Suggest the smallest sold card that fits, and the number of cards like the present ones that fits."""
    here = unfit.job.host.gpus or ()
    largest = max(here, key=lambda gpu: gpu.total_bytes or 0, default=None)
    size, capability = ((largest.total_bytes or 0) / GIB, largest.capability) if largest else (0.0, None)
    old = " of Ampere or a newer architecture" if capability and capability < _AMPERE else ""
    for gib in _SOLD:
        if gib > size + 0.5 or old:
            found = _with_memory(unfit, _on(unfit.job, _cards(1, gib, capability)))
            if found:
                yield f"on one card of {gib} GiB{old}{found[1] and f' {found[1]}'}"
                break
    for count in (2, 4, 8):
        if count > len(here) and not old:
            found = _with_memory(unfit, _on(unfit.job, _cards(count, size, capability)))
            if found and len(found[0].gpus) > 1:
                yield f"on {len(found[0].gpus)} cards of {size:.0f} GiB{found[1] and f' {found[1]}'}"
                break


def _more_memory(unfit: _Unfit) -> Iterator[str]:
    """Suggest the host memory with which the same cards fit."""
    found = _with_memory(unfit, unfit.job)
    if found:
        yield found[1]


def _with_memory(unfit: _Unfit, job: Job) -> tuple[Plan, str] | None:
    """The plan with the present host memory, or with the least that fits, and the words for that memory."""
    plan, total = unfit.again(job), job.host.memory_total_bytes
    if plan or total is None:
        return (plan, "") if plan else None
    for memory, words in ((total, "after other programs release host memory"), *_MORE):
        host = replace(job.host, memory_total_bytes=memory, memory_available_bytes=memory)
        plan = unfit.again(job.evolve(host=host)) if memory >= total else None
        if plan and (
            memory == total or (plan.host_bytes or 0) <= memory
        ):  # advice needs more than a plan that is not refused
            return plan, words
    return None


# ------------------------------------------------------------------------------------------------ the resident engine


def _resident(backend: Backend, job: Job) -> Iterator[str]:
    """Suggest the resident engine, if it makes the same clip here on one card."""
    if backend.name not in ("wan2.1", "hunyuan"):
        return
    from ..backends.diffusers.models import MODELS, published_folder

    model = MODELS[_model_of(backend, job)]
    keys = {"gpus": None, "gpu_count": None, "total_gpus": None, "placement": "auto", "lora": (), "speed": "exact"}
    settings = job.settings.for_generator("diffusers").evolve(weights=WEIGHTS, model=None, engine_device="cuda", **keys)
    host = replace(job.host, checkpoints={WEIGHTS: published_folder(model, WEIGHTS)})
    avoid = {name: value for name, value in job.overrides.items() if name == "avoid_gpus"}
    asked = replace(job.request, steps=None)
    plan = load_backend("diffusers").plan(job.evolve(request=asked, settings=settings, host=host, overrides=avoid))
    if plan.gpus and not any(f.severity == "error" and f.code in _IN_THE_WAY for f in plan.findings):
        index = plan.gpus[0]
        need = (plan.gpu_bytes or 0) / GIB
        own = "" if backend.name == "wan2.1" else "the -Diffusers weights, "
        fixed = job.settings.gpus or job.settings.gpu_count or job.settings.total_gpus
        named = f" --gpus {index}," if fixed else ""
        yield (
            f"with the resident engine on GPU {index}: --generator diffusers{named} ({own}about {need:.0f} GiB, placement "
            f"{plan.parameters['placement']}; docs/engine.md)"
        )


def _model_of(backend: Backend, job: Job) -> str:
    """The resident engine's name for the model that a script would run; it has every model whose memory is known."""
    if backend.name == "wan2.1":
        from ..backends.wan21.decision import variant_of
        from ..backends.wan21.settings import Wan21Settings

        assert isinstance(job.settings, Wan21Settings)
        return f"wan2.1-{variant_of(job.request, job.settings).task}"
    newer = "-1.5" if "1.5" in backend.plan(job).parameters["member"] else ""
    return f"hunyuanvideo{newer}-{job.request.task}"
