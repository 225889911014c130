"""Runs the contract of every site against the local site."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reelwright.sites.local.site import LocalSite
from tests.sites.conformance import SiteContract, World, two_gpus


class TestLocalSite(SiteContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[World]:
        with two_gpus(LocalSite, tmp_path) as made:
            yield made
