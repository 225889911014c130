"""The names of the kernels that can be asked for."""

from __future__ import annotations

from enum import Enum


class AttnType(Enum):
    """Two of the real ones."""

    FA = "fa"
    TORCH = "torch"
