"""Holds `pipeline` and, in every copy, the modules of tests/stand_ins/engine; it is not in the official layout."""

from __future__ import annotations
