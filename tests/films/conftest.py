"""The machine with a stand-in Wan2.1 serves here as well."""

from __future__ import annotations

from tests.wan.conftest import wan, wan_parts

__all__ = ["wan", "wan_parts"]
