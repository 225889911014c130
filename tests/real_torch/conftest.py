"""The machine with a stand-in Wan2.1 whose interpreter has the real torch, and so the real torchrun."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stand_ins.interpreter import Knobs, make_interpreter
from tests.wan21.conftest import WanMachine, wan, wan_parts

__all__ = ["wan", "wan_parts"]


@pytest.fixture(scope="session")
def torch_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the torch of this environment; everything else that Wan2.1 imports is a stand-in."""
    return make_interpreter(tmp_path_factory.mktemp("torch") / "env", Knobs(real_torch=True))


@pytest.fixture
def two_ranks(wan: WanMachine, torch_python: Path) -> WanMachine:
    """Two ranks on the CPU under the real ``torch.distributed.run``."""
    wan.values |= {"python": str(torch_python), "gpu_count": 2, "stop_grace_s": 3.0}
    return wan
