"""Holds the real clip module's own name for flash attention."""

from __future__ import annotations

from .attention import flash_attention

__all__ = ["flash_attention"]
