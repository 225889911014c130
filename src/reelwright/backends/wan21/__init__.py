"""Wan2.1 through its official generate.py. `backend` holds the record and the plan; importing this package imports no more."""

from __future__ import annotations
