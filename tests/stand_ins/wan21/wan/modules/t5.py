"""The text encoder's one habit that shows: importing it asks CUDA for the current device."""

from __future__ import annotations

from wan.stand_in.frameworks import needs

_torch = needs("torch")
DEVICE = _torch.cuda.current_device() if _torch else 0
