"""Analyses each clip as soon as it is made, while others are being made, so that joining is quick.

>>> prefetch = Prefetch(board, planned, store)
>>> prefetch.analyse("opening", clip)
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from ..core.errors import VideoGenerationError
from .planning import Planned
from .store import Clip, Store
from .storyboard import Storyboard


class Prefetch:
    """Analyses the frames of each clip that the film shows; ``planned`` are the film's clips in their order."""

    def __init__(self, board: Storyboard, planned: Sequence[Planned], store: Store) -> None:
        self._board, self._store = board, store
        followers = [*planned[1:], None]
        self._dissolving = {item.segment.id: item.segment.dissolve > 0 for item in planned}
        self._hidden = {
            item.segment.id: self._over(item, after) for item, after in zip(planned, followers, strict=True)
        }

    def analyse(self, name: str, clip: Clip) -> None:
        """Analyse the clip if its packets will be copied. An error is ignored here: joining reports it."""
        finish = self._board.finish
        if self._dissolving[name] or finish.double_fps or finish.upscale > 1:
            return
        from .editing.artifact_cache import ArtifactCache
        from .editing.clip_analysis import VerifiedClip
        from .editing.segments import prefetch

        output = clip.manifest.output or {}
        source = VerifiedClip(clip.video, str(output["sha256"]))
        with contextlib.suppress(VideoGenerationError):
            prefetch(source, int(output["frames"]) - self._hidden[name], ArtifactCache(self._store.cache))

    def _over(self, item: Planned, after: Planned | None) -> int:
        """How many of a clip's last frames the next clip overlaps."""
        if after is None:
            return 0
        chained = after.segment.upstream == item.segment.id
        return after.segment.dissolve or (max(1, self._board.overlap) if chained else 0)
