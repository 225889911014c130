"""Estimates the cost of the real film from a draft's storyboard, in sentences.

A time is from this machine if it has made such a clip. Otherwise it is a published time of another machine, and the
sentence says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..core.errors import VideoGenerationError
from ..core.plan import counted, in_words
from ..sites import Site
from .planning import Planned, Planner
from .render import FilmOrder, rules
from .timeline import segments

#: How the codes of findings about the storyboard begin, which hold on every machine.
_ASKED = ("frames.", "size.", "fps.", "steps.", "task.", "image.")


def estimate(order: FilmOrder, folder: Path, site: Site) -> list[str]:
    """The sentences for a draft of a film that names another generator; otherwise none."""
    if not order.draft:
        return []
    planner = Planner(order.settings, folder, site)
    try:
        real = planner.plan(segments(order.board, lambda name: rules(name, order.settings)))
    except VideoGenerationError as error:
        return [f"the real film cannot be estimated: {error.message}"]
    if all(item.backend.name == "draft" for item in real):
        return []
    return [_size(real), *times(real), *_problems(real)]


def _problems(real: Sequence[Planned]) -> Iterator[str]:
    """Each mistake of the storyboard, and one sentence on what this machine lacks: another one may make the film."""
    found = {finding.message: finding.code for item in real for finding in item.plan.errors}
    asked = [text for text, code in found.items() if code.startswith(_ASKED)]
    yield from (f"for the real film this must change: {text}" for text in asked)
    lacking = [text for text in found if text not in asked]
    if lacking:
        more = f", and {len(lacking) - 1} more (`reel storyboard check` lists all)" if len(lacking) > 1 else ""
        yield f"it cannot be made on this machine now: {lacking[0]}{more}"


def _size(real: Sequence[Planned]) -> str:
    memory = max((item.plan.gpu_bytes or 0 for item in real), default=0)
    names = ", ".join(dict.fromkeys(item.backend.name for item in real))
    room = f", about {memory / 2**30:.0f} GiB of memory on each GPU" if memory else ""
    return f"the real film by {names}: {counted(len(real), 'clip')}{room}"


def times(real: Sequence[Planned]) -> Iterator[str]:
    """One sentence for each source of times. All times are for clips made one after the other."""
    found: dict[str, list[float]] = {}
    unknown = 0
    for item in real:
        measured, published = item.plan.seconds, item.plan.published
        if measured is not None:
            known = "estimated" if item.plan.program is None else "from this machine's history"
            found.setdefault(known, []).append(measured)
        elif published is not None:
            found.setdefault(published.source, []).append(published.seconds)
        else:
            unknown += 1
    for source, seconds in found.items():
        which = "clip after clip" if len(seconds) == len(real) else f"{len(seconds)} of the clips"
        yield f"{which}: about {in_words(sum(seconds))} ({source})"
    if unknown:
        yield f"{unknown} of the clips: their time is not known, this machine has not made such a clip"
