"""Looking at each clip as soon as it is made, while others are being made: then joining them takes no time.

>>> ahead = Prefetch(board, planned, store)
>>> ahead.look("opening", clip)
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from ..core.errors import VideoGenerationError
from .planning import Planned
from .store import Clip, Store
from .storyboard import Storyboard


class Prefetch:
    """Knows how much of each clip the film will show; ``planned`` are the film's clips in their order."""

    def __init__(self, board: Storyboard, planned: Sequence[Planned], store: Store) -> None:
        self._board, self._store = board, store
        followers = [*planned[1:], None]
        self._dissolving = {item.segment.id: item.segment.dissolve > 0 for item in planned}
        self._hidden = {
            item.segment.id: self._over(item, after) for item, after in zip(planned, followers, strict=True)
        }

    def look(self, name: str, clip: Clip) -> None:
        """See the clip as the film will, if its packets are to be taken; what is wrong with it is told by joining."""
        finish = self._board.finish
        if self._dissolving[name] or finish.double_fps or finish.upscale > 1:
            return
        from .editing.artifact_cache import ArtifactCache
        from .editing.clip_analysis import Source
        from .editing.segments import prefetch

        output = clip.manifest.output or {}
        source = Source(clip.video, str(output["sha256"]))
        with contextlib.suppress(VideoGenerationError):
            prefetch(source, int(output["frames"]) - self._hidden[name], ArtifactCache(self._store.pieces))

    def _over(self, item: Planned, after: Planned | None) -> int:
        """How many of a clip's last frames lie under the next one."""
        if after is None:
            return 0
        chained = after.segment.upstream == item.segment.id
        return after.segment.dissolve or (max(1, self._board.overlap) if chained else 0)
