"""How long a clip of Wan2.1 will take before this machine has made one: published figures, scaled by the work."""

from __future__ import annotations

import pytest

from reelwright.backends.wan21 import facts
from reelwright.backends.wan21.variants import FLF2V_14B, I2V_14B, T2V_1_3B, T2V_14B, Variant
from reelwright.core.request import Size

HD, SMALL = Size(1280, 720), Size(832, 480)

#: The published table (assets/comp_effic.png): model, size, steps, GPUs, seconds.
TABLE = [
    (I2V_14B, HD, 40, 1, 1491.6),
    (I2V_14B, HD, 40, 2, 753.9),
    (I2V_14B, HD, 40, 4, 403.9),
    (I2V_14B, HD, 40, 8, 238.8),
    (T2V_14B, HD, 50, 1, 1837.9),
    (T2V_14B, HD, 50, 8, 287.9),
    (T2V_1_3B, SMALL, 50, 1, 261.4),
    (T2V_1_3B, SMALL, 50, 8, 112.3),
]


@pytest.mark.parametrize(("variant", "size", "steps", "ranks", "seconds"), TABLE)
def test_what_was_published_comes_out_as_it_was_published(
    variant: Variant, size: Size, steps: int, ranks: int, seconds: float
) -> None:
    assert facts.published_seconds(variant, size, 81, steps, ranks) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("variant", "size", "frames", "steps", "ranks", "least", "most"),
    [
        # One H100, image-to-video at 480p, 40 steps: 9.77 s a step by diffusers in LightX2V's comparison.
        (I2V_14B, SMALL, 81, 40, 1, 0.9 * 40 * 9.77, 1.15 * 40 * 9.77),
        # Half the frames are less than half the work, for attention grows with the square.
        (I2V_14B, HD, 41, 40, 1, 0.3 * 1491.6, 0.5 * 1491.6),
        (I2V_14B, HD, 81, 20, 1, 745.7, 745.9),
        # No row of its own: as large as image-to-video, with 50 steps.
        (FLF2V_14B, HD, 81, 50, 8, 298.4, 298.6),
        # Between the table's numbers of GPUs, and beyond them.
        (I2V_14B, HD, 81, 40, 5, 320.0, 360.0),
        (I2V_14B, HD, 81, 40, 3, 480.0, 570.0),
        (I2V_14B, HD, 81, 40, 10, 238.7, 238.9),
    ],
)
def test_other_work_is_scaled(
    variant: Variant, size: Size, frames: int, steps: int, ranks: int, least: float, most: float
) -> None:
    assert least < facts.published_seconds(variant, size, frames, steps, ranks) < most


@pytest.mark.parametrize(
    ("size", "linear", "attention"), [(SMALL, 1.07e15, 0.88e15), (HD, 2.48e15, 4.68e15)], ids=["480p", "720p"]
)
def test_the_work_of_a_pass_is_that_of_its_weights_and_its_attention(
    size: Size, linear: float, attention: float
) -> None:
    assert facts.pass_flops(I2V_14B, size, 81) == pytest.approx(linear + attention, rel=0.01)
