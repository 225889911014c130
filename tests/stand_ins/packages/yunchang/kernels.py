"""Lists the names of the kernels that can be requested."""

from __future__ import annotations

from enum import Enum


class AttnType(Enum):
    """Two of the real kernels."""

    FA = "fa"
    TORCH = "torch"
