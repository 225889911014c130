"""A machine with the real Wan2.1, whose checkout the user named with WAN21_DIR."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, a_photo
from tests.wan21.conftest import WanMachine

ENVIRONMENT = Path(os.environ.get("REAL_ENVIRONMENT", REPOSITORY / ".venv-real"))


@pytest.fixture
def real(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> WanMachine:
    """Two simulated GPUs, of which one is used; nothing is scripted, for the framework is the real one."""
    if "WAN21_DIR" not in os.environ:
        pytest.skip("WAN21_DIR names no checkout of Wan2.1 (make test-real WAN21_DIR=...)")
    (tmp_path / "out").mkdir()
    (tmp_path / "tmp").mkdir()
    models = ENVIRONMENT / "models"
    values = {
        "generator": "wan2.1",
        "wan2_dir": os.environ["WAN21_DIR"],
        "i2v_model_dir": str(models / "i2v"),
        "flf2v_model_dir": str(models / "flf2v"),
        "python": str(ENVIRONMENT / "bin" / "python"),
        "state_dir": str(tmp_path / "state"),
        "simulate_gpus": "2x80GiB",
        "gpu_count": 1,
        "size": "832x480",
        "stop_grace_s": 3.0,
        "log_limit_mb": 1,
    }
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "TMPDIR": str(tmp_path / "tmp"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path_factory.mktemp("inductor")),  # importing Wan makes torch want one
    }
    photo = a_photo(tmp_path / "photo.png", (320, 180))
    return WanMachine(tmp_path, Path(values["wan2_dir"]), photo, values, environ, photo.read_bytes())


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where the shim counts its launches."""
    return tmp_path / "state" / "shim-launches"
