"""A stand-in for yunchang, which xfuser computes its attention between GPUs with."""

from __future__ import annotations

__version__ = "0.6.3"
