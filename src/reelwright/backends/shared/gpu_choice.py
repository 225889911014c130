"""The choice of a run's GPUs: the fastest set that fits, among the legal numbers of GPUs. Pure.

A backend gives the legal numbers of GPUs and the needs of a set of cards (`GpuNeeds`). This module compares all sets
that could be best: first by memory, then by whether another run has a card, then by time. A finding says why a larger
set was not taken.

    >>> small, large = (Gpu(n, f"GPU-{n}", "a card", gib * GIB, gib * GIB) for n, gib in enumerate((8, 24)))
    >>> needs = GpuNeeds((1, 2), lambda cards: SetNeeds(gpu_bytes=20 * GIB if len(cards) == 1 else 10 * GIB))
    >>> [gpu.index for gpu in choose_gpus(Host(gpus=(small, large)), needs).gpus]
    [1]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ...config.settings import Settings
from ...core.errors import Failure
from ...core.host import GIB, Gpu, Host, host_too_small
from ...core.plan import Finding
from .job import Job

#: A prediction is an estimate: a run is refused only beyond this share of a card's total memory.
HOPELESS = 1.1
_FITS, _TIGHT, _BUSY, _TOO_SMALL = range(4)


@dataclass(frozen=True)
class SetNeeds:
    """The needs of a run on a set of cards.

    Attributes:
        gpu_bytes: Memory of each card; ``None`` if it is not known.
        host_bytes: Memory of the host.
        seconds: Time on cards of speed 1, only for comparing sets.
        detour: Whether the set is legal but only taken if nothing else fits (ring attention, for example).
        lacks: A message about a package that this set needs and that is not installed; else empty.
    """

    gpu_bytes: int | None = None
    host_bytes: int | None = None
    seconds: float = 1.0
    detour: bool = False
    lacks: str = ""


@dataclass(frozen=True)
class GpuNeeds:
    """A backend's requirements for the GPUs of a run.

    Attributes:
        counts: The legal numbers of GPUs, or the requested one.
        of_set: Returns the needs of a set of cards.
        limit: The reason why no larger number is legal; empty if the user chose the number.
    """

    counts: tuple[int, ...]
    of_set: Callable[[tuple[Gpu, ...]], SetNeeds]
    limit: str = ""


@dataclass(frozen=True)
class GpuChoice:
    """The GPUs to use, and findings about the choice."""

    gpus: tuple[Gpu, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    """A set of cards, its needs, and how well it fits."""

    cards: tuple[Gpu, ...]
    needs: SetNeeds
    tier: int
    avoided: int

    @property
    def order(self) -> tuple[object, ...]:
        """The sort key: the smallest is the best. If nothing fits, the set that comes nearest is first."""
        needs, cards = self.needs, self.cards
        lack = max((needs.gpu_bytes or 0) / (gpu.total_bytes or 1) for gpu in cards) if self.tier == _TOO_SMALL else 0.0
        seconds = needs.seconds / min(gpu.speed for gpu in cards)
        free = -sum(round((gpu.free_bytes or 0) / GIB) for gpu in cards)
        possible = self.tier in (_FITS, _TIGHT)
        return (
            not possible,
            bool(needs.lacks),
            self.avoided,
            self.tier,
            lack,
            needs.detour,
            round(seconds, 6),
            len({gpu.name for gpu in cards}),
            free,
        )


def choose_gpus(
    host: Host, needs: GpuNeeds, *, listed: Sequence[int] | None = None, avoid: Sequence[int] = ()
) -> GpuChoice:
    """Choose the best set of the host's GPUs; of ``listed`` ones (``gpus: [1, 3]``) all, or the requested number.

    GPUs in ``avoid`` failed last time or belong to another run: they are taken only if nothing else fits.
    """
    if not host.gpus:
        text = host.gpu_problem or "there is no GPU that this process may use"
        fix = host.gpu_advice or "Install or repair the NVIDIA driver; `reel doctor` shows what it sees."
        return GpuChoice(
            (), (Finding("gpu.none", "error", text, f"{fix} `--generator draft` needs none.", Failure.ENV),)
        )
    if listed:
        choice, count = _listed(host.gpus, listed), needs.counts[0]
        if count > len(listed):
            text = f"gpu_count is {count}, and `gpus` names {len(listed)}: the named ones are used"
            extra = Finding("gpu.count", "warning", text, "Leave out one of the two, or let them agree.")
            return replace(choice, findings=(*choice.findings, extra))
        if count == len(listed) or choice.findings:
            return choice
        host = replace(host, gpus=choice.gpus)
    assert host.gpus is not None
    possible = [count for count in needs.counts if count <= len(host.gpus)]
    if not possible:
        wanted = min(needs.counts)
        text = f"{wanted} GPUs are requested and {len(host.gpus)} are visible"
        fix = f"Lower gpu_count: --gpus {len(host.gpus)} is the most."
        return GpuChoice((), (Finding("gpu.count", "error", text, fix, Failure.ENV),))
    found = [_candidate(host, needs, cards, avoid) for count in possible for cards in _sets(host.gpus, count, avoid)]
    if not found:
        text = f"{min(possible)} instances of MIG are requested: a process can use only one"
        return GpuChoice((), (Finding("gpu.mig", "error", text, "Use one: --gpus 1.", Failure.ENV),))
    best = min(found, key=lambda candidate: candidate.order)
    cards = tuple(sorted(best.cards, key=lambda gpu: gpu.index))
    return GpuChoice(cards, tuple(_fewer_findings(host.gpus, best, found, needs)))


def _listed(gpus: Sequence[Gpu], listed: Sequence[int]) -> GpuChoice:
    """Exactly these GPUs, if they exist and can be used together; else a finding."""
    available = {gpu.index: gpu for gpu in gpus}
    missing = [index for index in listed if index not in available]
    chosen = tuple(available[index] for index in listed if index in available)
    problem: tuple[str, str, str] | None = None
    instances = [gpu for gpu in gpus if gpu.parent in missing]
    if instances:
        names = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in instances)
        text = f"GPU {instances[0].parent} is in MIG mode: Reelwright uses its instances, each with its own number"
        problem = ("gpu.mig", text, f"Choose one of {names}, for example --gpus {instances[0].index}, with the comma.")
    elif missing:
        text = f"GPU {', '.join(map(str, missing))} does not exist; visible: {', '.join(map(str, available))}"
        problem = (
            "gpu.missing",
            text,
            f"Change `gpus`, for example to --gpus {next(iter(available))}, (with the comma).",
        )
    elif len(set(listed)) < len(listed):
        once = ",".join(map(str, dict.fromkeys(listed)))
        text = f"`gpus` names a GPU twice: {', '.join(map(str, listed))}"
        problem = ("gpu.twice", text, f"Name each once: --gpus {once}{'' if ',' in once else ','}")
    elif len(chosen) > 1 and any(gpu.parent is not None for gpu in chosen):
        one = next(gpu for gpu in chosen if gpu.parent is not None)
        text = f"GPU {one.index} is an instance of MIG: a process can use only one instance, and no other card"
        problem = ("gpu.mig", text, f"Name it alone: --gpus {one.index},")
    if problem:
        return GpuChoice((), (Finding(problem[0], "error", problem[1], problem[2], Failure.ENV),))
    return GpuChoice(chosen)


def _sets(gpus: Sequence[Gpu], count: int, avoid: Sequence[int]) -> Iterator[tuple[Gpu, ...]]:
    """The sets of ``count`` cards that could be best.

    For each amount of free memory, these are the fastest cards that have it, among all cards and among each model.
    """
    usable = [gpu for gpu in gpus if count == 1 or gpu.parent is None]
    names = dict.fromkeys(gpu.name for gpu in usable)
    pools = [usable, *([gpu for gpu in usable if gpu.name == name] for name in names if len(names) > 1)]
    seen: set[tuple[int, ...]] = set()
    for pool in pools:
        for least in sorted({_free_gib(gpu) for gpu in pool}):
            able = [gpu for gpu in pool if _free_gib(gpu) >= least]
            able.sort(key=lambda gpu: (gpu.index in avoid, -gpu.speed, gpu.index))
            cards = tuple(able[:count])
            chosen = tuple(sorted(gpu.index for gpu in cards))
            if len(cards) == count and chosen not in seen:
                seen.add(chosen)
                yield cards


def _free_gib(gpu: Gpu) -> int:
    """Free memory in GiB, rounded; unknown memory counts as enough."""
    return 1 << 20 if gpu.free_bytes is None else round(gpu.free_bytes / GIB)


def _candidate(host: Host, needs: GpuNeeds, cards: tuple[Gpu, ...], avoid: Sequence[int]) -> _Candidate:
    of_set = needs.of_set(cards)
    tier = max(_tier(of_set.gpu_bytes, gpu) for gpu in cards)
    if host_too_small(of_set.host_bytes, host):
        tier = _TOO_SMALL
    return _Candidate(cards, of_set, tier, sum(gpu.index in avoid for gpu in cards))


def _tier(need: int | None, gpu: Gpu) -> int:
    """The tier of a need on a card: it fits free memory, fits nearly, fits memory that others use, or does not fit."""
    if need is None or gpu.total_bytes is None:
        return _FITS
    if need > HOPELESS * gpu.total_bytes:
        return _TOO_SMALL
    if need <= (gpu.total_bytes if gpu.free_bytes is None else gpu.free_bytes):
        return _FITS
    return _TIGHT if need > gpu.total_bytes else _BUSY


def _fewer_findings(
    gpus: Sequence[Gpu], best: _Candidate, found: Iterable[_Candidate], needs: GpuNeeds
) -> Iterator[Finding]:
    """Explain why not all visible GPUs are used, unless the user chose their number."""
    if len(best.cards) == len(gpus) or not needs.limit:
        return
    larger = [candidate for candidate in found if len(candidate.cards) > len(best.cards)]
    larger = [candidate for candidate in larger if not candidate.needs.detour] or larger
    more = min(larger, key=lambda candidate: candidate.order) if larger else None
    numbers = ", ".join(str(gpu.index) for gpu in sorted(best.cards, key=lambda gpu: gpu.index))
    why = needs.limit if more is None else _why_not(more)
    text = f"{len(best.cards)} of {len(gpus)} GPUs are used (GPU {numbers}): {why}"
    yield Finding("gpus.fewer", "info", text, "Choose others with --gpus: a count, or a list such as 0,1.")


def _why_not(more: _Candidate) -> str:
    """The reason why a larger set was not taken."""
    count = len(more.cards)
    if more.tier == _TOO_SMALL:
        return _short_of(more)
    if more.needs.lacks:
        return more.needs.lacks
    if more.avoided:
        return "another run has the others, or they failed last time"
    if more.tier != _FITS:
        return _short_of(more)
    if more.needs.detour:
        return f"{count} could share the clip through ring attention only"
    return f"{count} would not be faster, with the slowest of them among them"


def _short_of(more: _Candidate) -> str:
    """The memory that a larger set lacks."""
    count, need = len(more.cards), more.needs.gpu_bytes or 0
    if not any(_tier(need, gpu) for gpu in more.cards):
        return f"{count} would need {(more.needs.host_bytes or 0) / GIB:.0f} GiB of host memory while loading"
    worst = max(more.cards, key=lambda gpu: (_tier(need, gpu), -(gpu.free_bytes or 0)))
    free = (
        f", of which {worst.free_bytes / GIB:.1f} are free" if worst.free_bytes not in (None, worst.total_bytes) else ""
    )
    have = f"GPU {worst.index} has {(worst.total_bytes or 0) / GIB:.1f}{free}"
    return f"on {count}, each would need {need / GIB:.1f} GiB, and {have}"


def choose_for(
    job: Job,
    of_set: Callable[[tuple[Gpu, ...]], SetNeeds],
    legal: Callable[[int], tuple[int, ...]],
    limit: Callable[[int], str],
) -> tuple[GpuChoice, int]:
    """Choose the GPUs and the number of processes of a script's run; the number is known even without a GPU.

    A requested number is used as it is. Otherwise ``legal`` gives the numbers, up to a largest one, that can share the
    clip, and ``limit`` gives the reason why no more than the last of them can.
    """
    settings, overrides = job.settings, job.overrides
    wanted = overrides.get("gpu_count") or settings.gpu_count or len(settings.gpus or ())
    counts = (int(wanted),) if wanted else legal(gpu_count(settings, job.host))
    chosen_by_user = settings.gpus or settings.gpu_count or "gpu_count" in overrides
    needs = GpuNeeds(counts, of_set, "" if chosen_by_user else limit(counts[-1]))
    avoid = tuple(overrides.get("avoid_gpus", ()))
    choice = choose_gpus(job.host, needs, listed=settings.gpus, avoid=avoid)
    return choice, len(choice.gpus) or len(settings.gpus or ()) or counts[0]


def smallest_free_bytes(gpus: Iterable[Gpu]) -> int | None:
    """The least free memory of these GPUs, in bytes; ``None`` if the driver does not report it."""
    return min((gpu.free_bytes for gpu in gpus if gpu.free_bytes is not None), default=None)


def clips_at_a_time(settings: Settings, host: Host) -> int:
    """The number of clips that the visible GPUs can make at the same time."""
    count = len(host.gpus or ())
    return max(1, count // max(1, min(gpu_count(settings, host), count)))


def gpu_count(settings: Settings, host: Host) -> int:
    """The requested number of GPUs: listed, counted, a share of ``total_gpus``, or all visible ones."""
    if settings.gpus:
        return len(settings.gpus)
    if settings.gpu_count:
        return settings.gpu_count
    if settings.total_gpus:
        return max(1, settings.total_gpus // (settings.parallel_segments or 1))
    return max(1, len(host.gpus or ()))


def gpu_findings(gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """Warn if the chosen GPUs differ."""
    if len({gpu.name for gpu in gpus}) > 1:
        yield Finding(
            "gpus.mixed", "warning", "the GPUs differ: the slowest and smallest decides", "List GPUs of one kind."
        )


def split_degrees(ranks: int, heads: int) -> tuple[int, int]:
    """The ulysses and ring degrees for a number of ranks: the largest ulysses that divides both ranks and heads."""
    ulysses = max(size for size in range(1, ranks + 1) if ranks % size == 0 and heads % size == 0)
    return ulysses, ranks // ulysses
