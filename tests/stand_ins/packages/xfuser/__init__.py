"""Stands in for xfuser: the modules that Wan2.1 imports for sequence parallelism."""

from __future__ import annotations

__version__ = "0.4.4"
