"""Tests how clips that run side by side share the GPUs."""

from __future__ import annotations

import pytest

from reelwright.core.host import GIB, simulated_gpus
from reelwright.sites.places import gpu_places


@pytest.mark.parametrize(
    ("gpus", "total", "parallel", "expected"),
    [
        ("8x80GiB", None, None, ((0, 1, 2, 3, 4, 5, 6, 7),)),
        ("8x80GiB", 8, 2, ((0, 1, 2, 3), (4, 5, 6, 7))),
        ("8x80GiB", 4, 4, ((0,), (1,), (2,), (3,))),
        ("3x80GiB", None, 2, ((0,), (1,))),
        ("2x80GiB", None, 4, ((0,), (1,))),
        ("0x0", None, None, ((),)),
        ("0x0", 8, 2, ((), ())),
        # Cards of one kind are in one group, in any order of their numbers.
        ("1x24GiB,2x80GiB,1x24GiB", None, 2, ((0, 3), (1, 2))),
        # If no kind has enough cards, the groups follow the numbers.
        ("1x24GiB,1x80GiB", None, 1, ((0, 1),)),
    ],
)
def test_gpus_are_shared_in_groups_of_equal_cards(
    gpus: str, total: int | None, parallel: int | None, expected: tuple[tuple[int, ...], ...]
) -> None:
    places = gpu_places(simulated_gpus(gpus), total=total, parallel=parallel)
    assert tuple(place.gpus for place in places) == expected


@pytest.mark.parametrize(("needed_gib", "expected"), [(40, ((1,), (2,))), (20, ((0,), (1,))), (100, ((0,), (1,)))])
def test_cards_that_cannot_hold_a_clip_are_left_out_while_others_can(
    needed_gib: int, expected: tuple[tuple[int, ...], ...]
) -> None:
    places = gpu_places(simulated_gpus("1x24GiB,2x80GiB"), total=2, parallel=2, needs_bytes=needed_gib * GIB)
    assert tuple(place.gpus for place in places) == expected
