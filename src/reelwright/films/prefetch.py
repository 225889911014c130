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
from .timeline import joints


class Prefetch:
    """Analyses the frames of each clip that the film shows; ``planned`` are the film's clips in their order."""

    def __init__(self, board: Storyboard, planned: Sequence[Planned], store: Store) -> None:
        self._store = store
        joined = joints([item.segment for item in planned])
        over = [dissolve or (max(1, board.overlap) if chained else 0) for chained, dissolve in joined]
        copied = not board.finish.double_fps and board.finish.upscale == 1
        # For each clip that is copied, how many of its last frames the next one overlaps.
        self._hidden = {
            item.segment.id: hidden
            for item, hidden in zip(planned, [*over[1:], 0], strict=True)
            if copied and not item.segment.dissolve
        }

    def analyse(self, name: str, clip: Clip) -> None:
        """Analyse the clip if its packets will be copied. An error is ignored here: joining reports it."""
        if name not in self._hidden:
            return
        from .editing.artifact_cache import ArtifactCache
        from .editing.clip_analysis import VerifiedClip, analyse, cached_facts

        output = clip.manifest.output or {}
        source = VerifiedClip(clip.video, str(output["sha256"]))
        cache = ArtifactCache(self._store.cache)
        with contextlib.suppress(VideoGenerationError):
            cached_facts(source, cache)
            analyse(source, int(output["frames"]) - self._hidden[name], cache)
