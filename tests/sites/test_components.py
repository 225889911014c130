"""Tests that a folder in diffusers' layout has every component that its index names, complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.host import Checkpoint, CheckpointQuery
from reelwright.sites.local.probes.checkpoints import look_at_checkpoint
from tests.stand_ins.checkpoints import write_safetensors

INDEX: dict[str, Any] = {
    "_class_name": "WanPipeline", "_diffusers_version": "0.42.1", "boundary_ratio": None,
    "transformer": ["diffusers", "WanTransformer3DModel"], "vae": ["diffusers", "AutoencoderKLWan"],
    "text_encoder": ["transformers", "UMT5EncoderModel"], "tokenizer": ["transformers", "T5TokenizerFast"],
    "scheduler": ["diffusers", "UniPCMultistepScheduler"], "image_encoder": [None, None],
}  # fmt: skip


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "Wan2.1-T2V-Diffusers"
    for name in ("transformer", "vae", "text_encoder", "tokenizer", "scheduler"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text('{"num_layers": 2}')
    for name in ("transformer", "vae", "text_encoder"):
        write_safetensors(folder / name / "model.safetensors", {"w": 8})
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    return folder


def look(folder: Path) -> Checkpoint:
    official = CheckpointQuery(folder, required=("config.json",), config="config.json")
    names = ("model_index.json", "transformer/config.json", "nothing/config.json")
    return look_at_checkpoint(CheckpointQuery(folder, configs=names, components=True, otherwise=official))


def test_a_complete_folder_has_no_problem_and_reports_its_configurations(weights: Path) -> None:
    found = look(weights)
    assert found.problems == ()
    assert found.configs == {"model_index.json": INDEX, "transformer/config.json": {"num_layers": 2}}
    assert found.files["transformer/model.safetensors"] > 0


def test_without_an_index_it_is_looked_at_as_an_official_folder(weights: Path) -> None:
    (weights / "model_index.json").unlink()
    assert look(weights).problems[0] == f"{weights}/config.json is missing"


@pytest.mark.parametrize("name", ["transformer", "vae", "text_encoder", "tokenizer"])
def test_m01_a_component_that_is_missing_is_named(weights: Path, name: str) -> None:
    for file in (weights / name).iterdir():
        file.unlink()
    assert look(weights).problems[0] == f"{weights}/{name} is empty"
    (weights / name).rmdir()
    assert all(name in problem for problem in look(weights).problems)


@pytest.mark.parametrize("name", ["transformer", "vae", "text_encoder"])
def test_m01_weights_that_are_only_a_pickle_are_not_accepted(weights: Path, name: str) -> None:
    file = weights / name / "model.safetensors"
    file.rename(file.with_name("pytorch_model.bin"))
    (problem,) = look(weights).problems
    assert f"{name}/*.safetensors matches no file" in problem


def test_m01_a_cut_shard_is_named(weights: Path) -> None:
    file = weights / "vae" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    (problem,) = look(weights).problems
    assert "vae/model.safetensors" in problem
