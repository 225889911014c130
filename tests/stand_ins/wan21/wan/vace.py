"""Imitates the editing pipeline, of which only the name and the size matter here."""

from __future__ import annotations

from .text2video import WanT2V


class WanVace(WanT2V):
    """The same as text to video."""
