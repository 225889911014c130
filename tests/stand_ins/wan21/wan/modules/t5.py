"""The text encoder's one habit that shows: importing it asks CUDA for the current device."""

from __future__ import annotations

from wan.stand_in.frameworks import current_device

DEVICE = current_device()
