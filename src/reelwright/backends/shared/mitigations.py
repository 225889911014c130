"""Memory mitigations that several frameworks share: less fragmentation, and fewer frames.

>>> [item.name for item in fewer_frames(81, (81, 49), lambda frames: frames * 10)]
['frames_49']
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ...core.plan import Mitigation

_WHY = "less memory is lost to fragmentation (Wan2.1#198)"
EXPANDABLE_SEGMENTS = Mitigation("expandable_segments", {"expandable_segments": True}, "nothing", _WHY)


def fewer_frames(frames: int, offered: Iterable[int], tokens: Callable[[int], int]) -> Iterator[Mitigation]:
    """Offer the smaller numbers of frames; a retry uses them only if the user allows it."""
    for fewer in offered:
        if fewer < frames:
            why = f"{fewer} frames have {tokens(fewer):,} tokens instead of {tokens(frames):,}"
            yield Mitigation(f"frames_{fewer}", {"num_frames": fewer}, "frames", why)
