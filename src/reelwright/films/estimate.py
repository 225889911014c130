"""What the film of a draft's storyboard would take by the generator that it names, in sentences for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import VideoGenerationError
from .planning import Planned, Planner
from .render import FilmOrder, rules
from .timeline import segments


def estimate(order: FilmOrder, folder: Path) -> list[str]:
    """For a draft of a film that names another generator; else nothing."""
    if not order.draft:
        return []
    planner = Planner(order.settings, folder, order.environ)
    try:
        real = planner.plan(segments(order.board, lambda name: rules(name, order.settings)))
    except VideoGenerationError as error:
        return [f"the real film cannot be estimated: {error.message}"]
    if all(item.backend.name == "draft" for item in real):
        return []
    return _estimated(real)


def _estimated(real: Sequence[Planned]) -> list[str]:
    seconds = [item.plan.seconds for item in real]
    known = [value for value in seconds if value is not None]
    memory = max((item.plan.gpu_bytes or 0 for item in real), default=0)
    names = ", ".join(dict.fromkeys(item.backend.name for item in real))
    lines = [f"the real film by {names}: {len(real)} clips"]
    if memory:
        lines[0] += f", about {memory / 2**30:.0f} GiB of GPU memory each"
    if len(known) == len(seconds):
        lines.append(f"about {sum(known) / 3600:.1f} h on one place, from this machine's history")
    else:
        lines.append("its time is not known yet: this machine has not made such a clip")
    problems = dict.fromkeys(finding.message for item in real for finding in item.plan.errors)
    lines += [f"it could not be made here now: {text}" for text in problems]
    return lines
