"""Holds the real model's own name for xfuser's attention between GPUs."""

from __future__ import annotations

from typing import Any

from wan.stand_in.frameworks import needs

needs("xfuser.core.distributed")
_xfuser = needs("xfuser.core.long_ctx_attention")
xFuserLongContextAttention: Any = _xfuser.xFuserLongContextAttention if _xfuser else None
