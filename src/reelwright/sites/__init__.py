"""Where a plan runs. `local` is this machine; other sites implement the same contract."""

from __future__ import annotations

#: The lossless last frame of a clip lies beside it under this name.
LAST_FRAME = "last.png"
