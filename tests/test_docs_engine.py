"""docs/engine.md against the planner: which card holds which model, word for word."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tools import cards

from reelwright.backends.diffusers.decision import CACHE_THRESHOLD
from reelwright.backends.diffusers.models import MODELS
from reelwright.core.host import GIB, Checkpoint
from reelwright.core.request import Size
from tests.backends.test_diffusers import folder, official, picture, planned

PAGE = Path(__file__).parents[1] / "docs" / "engine.md"
ROW = re.compile(r"^\| (\S+), (\d+)x(\d+) \|(.*)\|$", re.MULTILINE)


def released(name: str, shape: dict[str, Any], **sizes: float) -> Checkpoint:
    """A folder of diffusers with the shape of the release and gigabytes for its parts."""
    made = folder(name, **shape)
    return replace(made, files={f"{part}/model.safetensors": round(size * 1e9) for part, size in sizes.items()})


_I2V, _HEADS = "WanImageToVideoPipeline", "num_attention_heads"
_T5_GB, _VAE_GB = 11.36, 0.51
FOLDERS = {
    "wan2.1-t2v-1.3B": official("t2v", 1536),
    "wan2.1-i2v-14B": official("i2v"),
    "wan2.2-ti2v-5B": replace(
        released("WanPipeline", {_HEADS: 24, "num_layers": 30, "ffn_dim": 14336},
                 transformer=20.0, text_encoder=_T5_GB, vae=2.82),
        configs={**(five := folder("WanPipeline", index={"expand_timesteps": True}, num_attention_heads=24,
                                   num_layers=30, ffn_dim=14336)).configs},
    ),
    "wan2.2-i2v-A14B": replace(
        folder(_I2V, index={"boundary_ratio": 0.9}, two=True),
        files={"transformer/a.safetensors": 57_200_000_000, "transformer_2/a.safetensors": 57_200_000_000,
               "text_encoder/a.safetensors": 11_360_000_000, "vae/a.safetensors": 510_000_000},
    ),
}  # fmt: skip


def rows() -> list[tuple[str, Size, list[str]]]:
    """Name, size, and the cells of every card; the last one is the host's memory."""
    return [
        (name, Size(int(width), int(height)), [cell.strip() for cell in cells.split("|")])
        for name, width, height, cells in ROW.findall(PAGE.read_text("utf-8"))
    ]


def predicted(name: str, size: Size, card: int) -> str:
    first = picture(size) if "i2v" in MODELS[name].tasks else None
    made = planned(FOLDERS[name], gpus=f"1x{card}GiB", first=first, ask={"size": size})
    assert {finding.code for finding in made.errors} <= {"memory.gpu"}
    assert made.gpu_bytes is not None
    return "refused" if made.errors else f"{made.parameters['placement']} ({made.gpu_bytes / GIB:.0f})"


@pytest.mark.parametrize(("name", "size", "cells"), [row for row in rows() if row[0] in FOLDERS])
def test_folders_of_the_released_sizes_get_the_plans_of_the_table(name: str, size: Size, cells: list[str]) -> None:
    assert cells[:-1] == [predicted(name, size, card) for card in cards.ENGINE_CARDS]
    made = planned(FOLDERS[name], gpus="1x141GiB", placement="group_offload")
    assert made.host_bytes is not None
    assert cells[-1] == f"{made.host_bytes / GIB:.0f} GiB"


def test_the_table_of_placements_has_every_size_of_model() -> None:
    assert {name for name, _, _ in rows()} == set(cards.ENGINE_MODELS) >= FOLDERS.keys()
    families = {(MODELS[name].family, MODELS[name].two_experts, MODELS[name].side) for name in cards.ENGINE_MODELS}
    assert families == {(model.family, model.two_experts, model.side) for model in MODELS.values()}


def test_every_model_of_the_planner_is_in_the_first_table() -> None:
    text = PAGE.read_text("utf-8").lower().replace(",", "")
    for name in MODELS:
        family, _, kind = name.partition("-")
        assert family in text, name
        assert kind.split("-")[0] in text, name


def test_the_step_cache_is_the_one_that_was_measured() -> None:
    measured = (PAGE.parent / "benchmarks.md").read_text("utf-8")
    assert f"| first-block cache, threshold {CACHE_THRESHOLD} |" in PAGE.read_text("utf-8")
    assert f"| `balanced`: cache {CACHE_THRESHOLD} and eight bits |" in measured
