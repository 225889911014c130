"""Attention between GPUs: nothing computed, but flash-attn is needed unless another kernel is asked for."""

from __future__ import annotations

import importlib
from typing import Any

from yunchang.kernels import AttnType


class xFuserLongContextAttention:
    """The real class's one option that matters here; since xfuser 0.4.1."""

    def __init__(self, scatter_idx: int = 2, gather_idx: int = 1, *, attn_type: AttnType = AttnType.FA) -> None:
        self.attn_type = attn_type

    def __call__(self, *_tensors: Any, **_options: Any) -> None:
        """Raises ImportError where flash-attn is needed and not there."""
        if self.attn_type is AttnType.FA:
            importlib.import_module("flash_attn")
