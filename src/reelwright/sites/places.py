"""Divides GPUs into groups for clips that run side by side. Pure.

>>> gpu_places((), parallel=2)
(Place(gpus=()), Place(gpus=()))
"""

from __future__ import annotations

from collections.abc import Sequence

from ..core.host import Gpu
from . import Place


def gpu_places(
    gpus: Sequence[Gpu], *, parallel: int | None, total: int | None = None, needs_bytes: int | None = None
) -> tuple[Place, ...]:
    """Divide GPUs among ``parallel`` clips, in equal groups of the same card model.

    Cards with less than ``needs_bytes`` are left out unless all cards are too small. A group mixes models only if no
    model has enough cards. Cards left over stay free. Without GPUs each place is empty.

    Args:
        gpus: The cards to share, in the order in which they are taken.
        parallel: Clips at the same time; ``None``: one.
        total: The most cards to use.
        needs_bytes: Memory that a clip needs on each card.
    """
    able = [gpu for gpu in gpus if not needs_bytes or not gpu.total_bytes or gpu.total_bytes >= needs_bytes]
    usable = (able or list(gpus))[: total or len(gpus)]
    if not usable:
        return tuple(Place() for _ in range(parallel or 1))
    number = min(parallel or 1, len(usable))
    each = len(usable) // number
    alike: dict[tuple[str, int | None], list[int]] = {}
    for gpu in usable:
        alike.setdefault((gpu.name, gpu.total_bytes), []).append(gpu.index)
    groups = [tuple(same[at : at + each]) for same in alike.values() for at in range(0, len(same) - each + 1, each)]
    if len(groups) < number:
        indices = [gpu.index for gpu in usable]
        groups = [tuple(indices[at * each : (at + 1) * each]) for at in range(number)]
    return tuple(Place(group) for group in groups[:number])
