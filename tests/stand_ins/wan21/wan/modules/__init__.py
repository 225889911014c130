"""Holds the modules that a launcher may change, under their official names."""

from __future__ import annotations

from . import attention, clip, model, t5

__all__ = ["attention", "clip", "model", "t5"]
