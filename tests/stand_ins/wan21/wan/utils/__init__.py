"""Holds saving and argument types, under their official names."""

from __future__ import annotations
