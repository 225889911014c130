"""Imitates attention between GPUs: it computes nothing, but needs flash-attn unless another kernel is requested."""

from __future__ import annotations

import importlib
from typing import Any

from yunchang.kernels import AttnType


class xFuserLongContextAttention:
    """The class with the one option of the real class that matters here; since xfuser 0.4.1."""

    def __init__(self, scatter_idx: int = 2, gather_idx: int = 1, *, attn_type: AttnType = AttnType.FA) -> None:
        self.attn_type = attn_type

    def __call__(self, *_tensors: Any, **_options: Any) -> None:
        """Raise ImportError if flash-attn is needed and not installed."""
        if self.attn_type is AttnType.FA:
            importlib.import_module("flash_attn")
