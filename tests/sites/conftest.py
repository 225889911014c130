from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import reelwright
from reelwright.core.host import CheckpointQuery
from reelwright.sites.local.probes import gpus

SOURCE = Path(reelwright.__file__).parents[1]
MakeDriver = Callable[..., tuple[str, ...]]
MakeCheckpoint = Callable[..., CheckpointQuery]


@pytest.fixture
def a_driver() -> MakeDriver:
    """Make the command of an NVML program that plays a scenario instead of asking a driver."""

    def make(*cards: Mapping[str, Any], **scenario: Any) -> tuple[str, ...]:
        fake = Path(__file__).with_name("fake_nvml.py")
        text = json.dumps({"gpus": list(cards), **scenario})
        return (sys.executable, "-I", str(fake), gpus.nvml_program()[-1], text)

    return make


@pytest.fixture
def python_environ() -> dict[str, str]:
    """The environment of a child that imports this package."""
    return {**os.environ, "PYTHONPATH": str(SOURCE)}


def _sparse_safetensors(path: Path, tensors: list[tuple[str, int]]) -> None:
    """Write a valid sparse file of true size for (name, bytes) pairs: only the header takes disk space."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, size in tensors:
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def _sparse_pth(path: Path, size: int) -> None:
    """Write a file with a zip archive's first entry and (zip64) directory, and a hole of any size between them."""
    entry = b"PK\x01\x02" + bytes(42)
    start = size - len(entry) - 56 - 20 - 22
    end64 = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, len(entry), start)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, start + len(entry), 1)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.seek(start)
        file.write(entry + end64 + locator + end)


@pytest.fixture
def a_checkpoint(tmp_path: Path) -> MakeCheckpoint:
    """Make a complete folder of weights in the layout of Wan2.1 i2v; returns its query."""

    def make(shards: int = 3, shard_bytes: int = 1000, other_bytes: int = 5000, **query: Any) -> CheckpointQuery:
        folder = tmp_path / "weights"
        folder.mkdir()
        weight_map: dict[str, str] = {}
        for number in range(1, shards + 1):
            name = f"diffusion_pytorch_model-{number:05}-of-{shards:05}.safetensors"
            tensors = [(f"blocks.{number}.{part}", shard_bytes // 100) for part in range(100)]
            _sparse_safetensors(folder / name, tensors)
            weight_map |= {tensor: name for tensor, _ in tensors}
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
        (folder / "config.json").write_text('{"model_type": "i2v", "num_heads": 40}')
        for name in ("Wan2.1_VAE.pth", "models_t5.pth"):
            _sparse_pth(folder / name, other_bytes)
        (folder / "google/umt5-xxl").mkdir(parents=True)
        (folder / "google/umt5-xxl/tokenizer.json").write_text("{}")
        asked: dict[str, Any] = {
            "required": ("Wan2.1_VAE.pth", "models_t5.pth", "config.json", "google/umt5-xxl/"),
            "weights": ("diffusion_pytorch_model*.safetensors",),
            "config": "config.json",
            "foreign": ("model_index.json",),
        }
        return CheckpointQuery(folder, **{**asked, **query})

    return make
