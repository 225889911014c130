"""docs/engine.md against the planner: which card holds which model, word for word."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reelwright.backends.diffusers.decision import CACHE_THRESHOLD
from reelwright.backends.diffusers.models import MODELS
from reelwright.core.host import GIB, Checkpoint
from reelwright.core.request import Size
from tests.backends.test_diffusers import folder, official, picture, planned

PAGE = Path(__file__).parents[1] / "docs" / "engine.md"
CARDS = re.compile(r"^\| model, size \|(.*)\|$", re.MULTILINE)
ROW = re.compile(r"^\| (\S+), (\d+)x(\d+) \|(.*)\|$", re.MULTILINE)


def released(name: str, shape: dict[str, Any], **sizes: float) -> Checkpoint:
    """A folder of diffusers with the shape of the release and gigabytes for its parts."""
    made = folder(name, **shape)
    return replace(made, files={f"{part}/model.safetensors": round(size * 1e9) for part, size in sizes.items()})


_I2V, _HEADS = "WanImageToVideoPipeline", "num_attention_heads"
_T5_GB, _VAE_GB = 11.36, 0.51
#: Two bytes a weight: 12.8 and 8.3 thousand million in the transformers, Llama 3 8B and CLIP, Qwen2.5-VL 7B and SigLIP.
_HUNYUAN = {_HEADS: 24, "num_layers": 20, "num_single_layers": 40}
_HUNYUAN_15 = {_HEADS: 16, "num_layers": 54}
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
    "hunyuanvideo-i2v": released("HunyuanVideoImageToVideoPipeline", _HUNYUAN,
                                 transformer=25.6, text_encoder=16.1, text_encoder_2=0.25, vae=0.99),
    "hunyuanvideo-1.5-i2v": released("HunyuanVideo15ImageToVideoPipeline", _HUNYUAN_15,
                                     transformer=16.7, text_encoder=16.6, text_encoder_2=0.44, image_encoder=0.86,
                                     vae=5.0),
}  # fmt: skip


def rows() -> list[tuple[str, Size, list[str]]]:
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


@pytest.mark.parametrize(("name", "size", "cells"), rows())
def test_the_table_of_placements_is_what_the_planner_says(name: str, size: Size, cells: list[str]) -> None:
    found = CARDS.search(PAGE.read_text("utf-8"))
    assert found is not None
    cards = [int(cell.split()[0]) for cell in found[1].split("|")]
    assert cells == [predicted(name, size, card) for card in cards]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("wan2.1-i2v-14B", "Wan2.1 i2v-14B"),
        ("wan2.2-i2v-A14B", "Wan2.2 A14B"),
        ("hunyuanvideo-i2v", "HunyuanVideo)"),
    ],
)
def test_what_streams_needs_as_much_of_the_host_as_the_page_says(name: str, told: str) -> None:
    found = re.search(rf"(\d+) GB for {re.escape(told)}", " ".join(PAGE.read_text("utf-8").split()))
    assert found is not None
    made = planned(FOLDERS[name], gpus="1x141GiB", placement="group_offload")
    assert made.host_bytes is not None
    assert int(found[1]) == round(made.host_bytes / 1e9)


def test_the_table_of_placements_has_every_size_of_model() -> None:
    assert {name for name, _, _ in rows()} == FOLDERS.keys()


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
