"""The option that writes the golden texts anew: ``make golden``. Somebody else reads the difference."""

from __future__ import annotations

import pytest

from tests.wan21.conftest import wan, wan_parts

__all__ = ["wan", "wan_parts"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden-rewrite", action="store_true", help="write the golden texts instead of comparing")
