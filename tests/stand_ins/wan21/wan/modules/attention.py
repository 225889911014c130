"""Flash attention under its official name: nothing computed, but there, absent or broken."""

from __future__ import annotations

from typing import Any

from wan.stand_in.frameworks import needs

# As in the real file only an absent package is forgiven; a broken build raises ImportError right here.
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
    """The real function's choice of a build, without the tensors.

    Raises:
        AssertionError: no usable build; without a message.
    """
    if version in (None, 3) and FLASH_ATTN_3_AVAILABLE:
        return
    assert FLASH_ATTN_2_AVAILABLE


def attention(*tensors: Any, **options: Any) -> None:
    """The other official name, which falls back by itself but is not what the model calls."""
    if FLASH_ATTN_2_AVAILABLE or FLASH_ATTN_3_AVAILABLE:
        flash_attention(*tensors, **options)
