"""Imitates the text encoder's one visible habit: importing it asks CUDA for the current device."""

from __future__ import annotations

from wan.stand_in.frameworks import current_device

DEVICE = current_device()
