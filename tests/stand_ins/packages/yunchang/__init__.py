"""Stands in for yunchang, with which xfuser computes attention between GPUs."""

from __future__ import annotations

__version__ = "0.6.3"
