"""Latents on disk: complete and of the same key, or they count as missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.events import LatentsSaved
from tests.engine_diffusers import tiny
from tests.engine_diffusers.clips import Engine, asked

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

KEY = "a" * 64


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Latents as the engine leaves them."""
    from reelwright.engines.diffusers import latents

    path = tmp_path / "state" / "latents" / "k.safetensors"
    latents.save(path, torch.arange(64, dtype=torch.float32).reshape(1, 4, 1, 4, 4), KEY)
    return path


@pytest.fixture(scope="module")
def engine(folder_of: Callable[[str], Path]) -> Engine:
    return Engine(tiny.model("wan2.1-t2v", folder_of("wan2.1-t2v")))


def _loaded(path: Path, key: str = KEY) -> Any:
    from reelwright.engines.diffusers import latents

    return latents.load(path, key)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_latents_come_back_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    from reelwright.engines.diffusers import latents

    tensor = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(1)).to(getattr(torch, dtype))
    turned = tensor.transpose(3, 4)  # not contiguous
    latents.save(tmp_path / "k", turned, KEY)
    back = _loaded(tmp_path / "k")
    assert back.dtype == tensor.dtype
    assert torch.equal(back, turned)
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_latents_of_another_key_count_as_missing(kept: Path) -> None:
    assert _loaded(kept, "b" * 64) is None
    assert _loaded(kept) is not None


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 60, 200])
def test_a_file_cut_short_counts_as_missing(kept: Path, length: int) -> None:
    kept.write_bytes(kept.read_bytes()[:length])
    assert _loaded(kept) is None


def test_the_last_byte_counts(kept: Path) -> None:
    kept.write_bytes(kept.read_bytes()[:-1])
    assert _loaded(kept) is None


@pytest.mark.parametrize("data", [b"\xff" * 400, b"\x10" + b"\0" * 7 + b"{not json at all", b"PK\3\4" + b"\0" * 200])
def test_a_foreign_file_counts_as_missing(kept: Path, data: bytes) -> None:
    kept.write_bytes(data)
    assert _loaded(kept) is None


def test_safetensors_without_the_key_or_the_name_count_as_missing(kept: Path) -> None:
    from safetensors.torch import save_file

    save_file({"latents": torch.zeros(2)}, kept)
    assert _loaded(kept) is None
    save_file({"other": torch.zeros(2)}, kept, metadata={"reelwright": f"{KEY} 0"})
    assert _loaded(kept) is None


def test_a_folder_in_their_place_counts_as_missing(kept: Path) -> None:
    kept.unlink()
    kept.mkdir()
    assert _loaded(kept) is None


def test_values_that_were_changed_on_the_disk_are_not_used(kept: Path) -> None:
    data = bytearray(kept.read_bytes())
    data[-2] ^= 0x40
    kept.write_bytes(bytes(data))
    assert _loaded(kept) is None


def test_a_clip_without_whole_latents_is_denoised_and_leaves_whole_ones(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "latents" / "k.safetensors"
    options = asked("t2v", latents=str(path), latents_key=KEY)
    first = engine.film(options, tmp_path / "first")
    assert LatentsSaved(str(path)) in engine.said
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    saved = engine.clip(options, tmp_path / "second")
    assert saved.facts["resumed"] is False
    assert Path(saved.path).read_bytes() == first
    assert path.read_bytes() == whole
    assert engine.clip(options, tmp_path / "third").facts["resumed"] is True
    assert list(path.parent.iterdir()) == [path]


def test_latents_of_another_clip_under_the_same_name_are_replaced(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "k.safetensors"
    engine.clip(asked("t2v", latents=str(path), latents_key="b" * 64, seed=12), tmp_path / "other")
    saved = engine.clip(asked("t2v", latents=str(path), latents_key=KEY), tmp_path / "ours")
    assert saved.facts["resumed"] is False
    assert Path(saved.path).read_bytes() == engine.film(asked("t2v"), tmp_path / "alone")
    assert _loaded(path) is not None


def test_a_place_where_nothing_can_be_written_costs_no_clip(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "k.safetensors"
    film = engine.film(asked("t2v", latents=str(path), latents_key=KEY), tmp_path / "clip")
    assert any("latents" in line and str(path) in line for line in engine.logs())
    assert not [event for event in engine.said if isinstance(event, LatentsSaved)]
    assert film == engine.film(asked("t2v"), tmp_path / "alone")
