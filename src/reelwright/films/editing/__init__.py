"""Joins clips into one film, with dissolves and sound, and verifies the result."""

from __future__ import annotations
