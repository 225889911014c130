from __future__ import annotations
import time
import pytest
from tests.wan.conftest import WanMachine


@pytest.mark.parametrize("n", range(3))
def test_scratch(wan: WanMachine, n: int) -> None:
    t = time.monotonic()
    out = wan.run({})
    print("RUN", time.monotonic() - t, out.code, out.manifest.phase_seconds)
    t = time.monotonic()
    wan.check()
    print("CHECK", time.monotonic() - t)
