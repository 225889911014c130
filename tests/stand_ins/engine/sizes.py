"""Computes the video sizes that hyvideo's data_utils allow; tests/real_hunyuan compares it with the real code.

>>> buckets(640, 16)[0]
(1280, 320)
"""

from __future__ import annotations


def buckets(base: int, step: int, ratio: float = 4.0) -> list[tuple[int, int]]:
    """Pairs of sides of about ``base`` squared pixels at most, the first from the longest to the shortest."""
    patches = round((base / step) ** 2)
    found = []
    for first in range(patches, 0, -1):
        # The second side grows as far as the area allows; every pair on the way counts.
        most, before = patches // first, (patches // (first + 1) if first < patches else 1)
        for second in range(max(1, before), most + 1):
            if max(first, second) / min(first, second) <= ratio:
                found.append((first * step, second * step))
    return found
