"""Prints a film's clips without making any, for ``reel film --dry-run`` and ``reel film status``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .output import print_json, print_lines

if TYPE_CHECKING:
    from ..films.planning import Planned
    from ..films.preview import ClipPlan, FilmPlan
    from ..films.render import FilmOrder
    from ..films.store import Clip


def show_plan(order: FilmOrder, *, as_json: bool) -> int:
    """Print the film's plan; the exit status is that of the first error finding, 0 without one."""
    from ..films.preview import preview
    from ..sites.local.site import LocalSite

    plan = preview(order, LocalSite())
    if as_json:
        print_json(plan.to_json())
    else:
        print_lines(*_lines(plan))
    return plan.errors[0].finding.failure.exit_status if plan.errors else 0


def _lines(plan: FilmPlan) -> Iterator[str]:
    yield f"film: {plan.output}" + ("" if plan.generative else ", a draft: no model generates anything")
    yield from (f"  {_clip(clip)}" for clip in plan.clips)
    yield f"{len(plan.clips) - len(plan.missing)} of {len(plan.clips)} clips are stored"
    yield from (*plan.times, *plan.policy)
    for item in plan.findings:
        yield f"{item.finding.severity}: {item.message}"
        if item.finding.fix:
            yield f"  fix: {item.finding.fix}"


def _clip(clip: ClipPlan) -> str:
    """One clip as text: ``two: 81 frames by wan2.1, goes on from one: to make, about 25 min, 71.0 GiB on GPU 0``."""
    from ..core.plan import in_words

    plan, segment = clip.planned.plan, clip.planned.segment
    origin = f", continues {segment.upstream}" if segment.upstream else ""
    text = f"{clip.id}: {segment.request.num_frames} frames by {clip.planned.backend.name}{origin}"
    if clip.stored:
        return f"{text}: stored"
    parts = ["to make"]
    seconds = plan.published.seconds if clip.seconds is None and plan.published else clip.seconds
    if seconds is not None:
        parts.append(f"about {in_words(seconds)}")
    if plan.gpu_bytes:
        which = f"GPU {', '.join(map(str, plan.gpus))}" if plan.gpus else "the GPU"
        parts.append(f"{plan.gpu_bytes / 2**30:.1f} GiB on {which}")
    if plan.host_bytes:
        parts.append(f"{plan.host_bytes / 2**30:.1f} GiB of host memory")
    return f"{text}: {', '.join(parts)}"


def show_status(order: FilmOrder, *, as_json: bool) -> int:
    """Print for each clip of a film whether it is stored."""
    from ..films.render import plan_film
    from ..films.store import Store
    from ..sites.local.site import LocalSite

    store = Store(order.output.absolute().parent)
    _, planned = plan_film(order, store, LocalSite())
    rows = [_status(item, store.find(item.key)) for item in planned]
    if as_json:
        print_json(rows)
        return 0
    for row in rows:
        state = "stored" if row["stored"] else "to make"
        print_lines(f"{row['segment']}: {row['frames']} frames by {row['generator']}: {state}")
    print_lines(f"{sum(row['stored'] for row in rows)} of {len(rows)} clips are stored")
    return 0


def _status(item: Planned, clip: Clip | None) -> dict[str, Any]:
    return {
        "segment": item.segment.id,
        "shot": item.segment.shot,
        "generator": item.backend.name,
        "frames": item.segment.request.num_frames,
        "key": item.key,
        "stored": clip is not None,
        "degraded": bool(clip and clip.manifest.degraded),
    }
