"""Not part of the official layout: `pipeline`, and beside it in every copy the modules of tests/stand_ins/engine."""

from __future__ import annotations
