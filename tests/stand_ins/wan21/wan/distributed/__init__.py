"""Exists only to complete the layout: the pipelines import xfuser when they need it."""

from __future__ import annotations
