"""Joining clips into one film: segments, dissolves, sound, and the proof of the result."""

from __future__ import annotations
