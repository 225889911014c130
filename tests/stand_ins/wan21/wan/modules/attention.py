"""Imitates flash attention under its official name: it computes nothing, and is present, absent or broken."""

from __future__ import annotations

from typing import Any

from wan.stand_in.frameworks import needs

# As in the real file, only an absent package is accepted; a broken build raises ImportError here.
try:
    FLASH_ATTN_3_AVAILABLE = needs("flash_attn_interface") is not None
except ModuleNotFoundError:
    FLASH_ATTN_3_AVAILABLE = False

try:
    needs("flash_attn")
    FLASH_ATTN_2_AVAILABLE = True
except ModuleNotFoundError:
    FLASH_ATTN_2_AVAILABLE = False


def flash_attention(*tensors: Any, version: int | None = None, **options: Any) -> None:
    """Choose a build as the real function does, without tensors.

    Raises:
        AssertionError: no build is usable; it has no message.
    """
    if version in (None, 3) and FLASH_ATTN_3_AVAILABLE:
        return
    assert FLASH_ATTN_2_AVAILABLE


def attention(*tensors: Any, **options: Any) -> None:
    """The other official function, which has a fallback; the model does not call it."""
    if FLASH_ATTN_2_AVAILABLE or FLASH_ATTN_3_AVAILABLE:
        flash_attention(*tensors, **options)
