"""There, because the real code asks for it; computed by PyTorch."""

from __future__ import annotations

__version__ = "2.6.3"
