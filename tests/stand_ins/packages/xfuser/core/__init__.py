"""A place in the layout."""

from __future__ import annotations
