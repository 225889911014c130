"""What ``reel film --dry-run`` and ``reel film status`` print: the film's clips, before any of them is made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .arguments import printable

if TYPE_CHECKING:
    from ..films.preview import ClipPlan, FilmPlan
    from ..films.render import FilmOrder


def show_plan(order: FilmOrder, *, as_json: bool) -> int:
    """Print the film's plan; the exit status is that of the first error finding, 0 without one."""
    from ..films.preview import preview
    from ..sites.local.site import LocalSite

    plan = preview(order, LocalSite())
    if as_json:
        print(json.dumps(plan.to_json()))
    else:
        for line in _lines(plan):
            print(printable(line))
    return plan.errors[0].finding.failure.exit_status if plan.errors else 0


def _lines(plan: FilmPlan) -> list[str]:
    lines = [f"film: {plan.output}" + ("" if plan.generative else ", a draft: no model generates anything")]
    lines += [f"  {_clip(clip)}" for clip in plan.clips]
    lines.append(f"{len(plan.clips) - len(plan.missing)} of {len(plan.clips)} clips are stored")
    lines += [*plan.times, *plan.policy]
    for item in plan.findings:
        lines.append(f"{item.finding.severity}: {item.message}")
        if item.finding.fix:
            lines.append(f"  fix: {item.finding.fix}")
    return lines


def _clip(clip: ClipPlan) -> str:
    """One clip, as in ``two: 81 frames by wan2.1, goes on from one: to make, about 25 min, 71.0 GiB on GPU 0``."""
    from ..core.plan import in_words

    plan, segment = clip.planned.plan, clip.planned.segment
    origin = f", goes on from {segment.upstream}" if segment.upstream else ""
    text = f"{clip.id}: {segment.request.num_frames} frames by {clip.planned.backend.name}{origin}"
    if clip.stored:
        return f"{text}: stored"
    parts = ["to make"]
    if clip.seconds is not None:
        parts.append(f"about {in_words(clip.seconds)}")
    elif plan.published:
        parts.append(f"about {in_words(plan.published.seconds)}")
    if plan.gpu_bytes:
        which = f"GPU {', '.join(map(str, plan.gpus))}" if plan.gpus else "the GPU"
        parts.append(f"{plan.gpu_bytes / 2**30:.1f} GiB on {which}")
    if plan.host_bytes:
        parts.append(f"{plan.host_bytes / 2**30:.1f} GiB of host memory")
    return f"{text}: {', '.join(parts)}"


def show_status(order: FilmOrder, *, as_json: bool) -> int:
    """Print which clips of a film are there."""
    from ..films.render import plan_film
    from ..films.store import Store
    from ..sites.local.site import LocalSite

    store = Store(order.output.absolute().parent)
    _, planned = plan_film(order, store, LocalSite())
    rows = [_row(item, store.find(item.key)) for item in planned]
    if as_json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        state = "there" if row["stored"] else "to be made"
        print(printable(f"{row['segment']}: {row['frames']} frames by {row['generator']}: {state}"))
    print(f"{sum(row['stored'] for row in rows)} of {len(rows)} clips are there")
    return 0


def _row(item: Any, clip: Any) -> dict[str, Any]:
    return {
        "segment": item.segment.id,
        "shot": item.segment.shot,
        "generator": item.backend.name,
        "frames": item.segment.request.num_frames,
        "key": item.key,
        "stored": clip is not None,
        "degraded": bool(clip and clip.manifest.degraded),
    }
