"""Exists only to complete the layout."""

from __future__ import annotations
