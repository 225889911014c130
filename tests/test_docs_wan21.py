"""The numbers in docs/wan21.md are the ones that the code computes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from reelwright import Settings
from reelwright.backends.shared.job import Job
from reelwright.backends.wan21 import facts, variants
from reelwright.backends.wan21.backend import BACKEND
from reelwright.core.host import GIB, Host, Interpreter
from reelwright.core.request import VideoRequest, parse_size
from reelwright.installer.planning import gigabytes
from reelwright.installer.recipes import WAN21
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "docs" / "wan21.md").read_text("utf-8")
RANKS = (1, 2, 4, 5, 8)
VARIANTS = {"i2v-14B, flf2v-14B": (variants.I2V_14B, variants.FLF2V_14B), "t2v-14B": (variants.T2V_14B,)}
ROWS = re.findall(r"^\| (i2v-14B, flf2v-14B|t2v-14B) (\d+x\d+) \|(.+)\|$", TEXT, re.MULTILINE)


@pytest.mark.parametrize(("tasks", "size", "numbers"), ROWS)
def test_the_memory_table_is_the_prediction(tasks: str, size: str, numbers: str) -> None:
    for variant in VARIANTS[tasks]:
        uses = (
            facts.WanMemory(variant, parse_size(size), 81, ranks, fsdp=ranks > 1, offload=ranks == 1, t5_cpu=False)
            for ranks in RANKS
        )
        assert [f"{facts.peak_gpu_bytes(use) / GIB:.1f}" for use in uses] == [
            text.strip() for text in numbers.split("|")
        ]


def test_the_memory_table_is_there() -> None:
    assert len(ROWS) == 5


@pytest.mark.parametrize("model", WAN21.models, ids=lambda model: model.name)
def test_every_model_of_the_setup_is_in_its_table(model: object) -> None:
    from reelwright.installer import WeightSet

    assert isinstance(model, WeightSet)
    names = " or ".join(f"`{name}`" for name in (model.name, *model.aliases))
    row = f"| {names} | {model.repository} | `{model.key}` | {gigabytes(model.known_bytes)} |"
    assert row in TEXT


def test_every_setting_of_the_table_exists() -> None:
    rows = re.findall(r"^\| (?:`--[^|]*`|) ?\| ((?:`\w+`(?:, )?)+) \|", TEXT, re.MULTILINE)
    keys = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert len(keys) > 12
    assert keys <= set(Settings.model_fields)


def test_every_size_of_the_table_can_be_made() -> None:
    for sizes in (variants.OWN_SIZES, variants.ADDED_SIZES):
        assert f"| {', '.join(map(str, sizes))} |" in TEXT


@pytest.mark.parametrize(("attention", "severity"), [("auto", "warning"), ("sdpa", "info")])
def test_pytorchs_attention_is_warned_of_unless_it_was_asked_for(attention: str, severity: str) -> None:
    python = Path(sys.executable)
    settings = Settings(python=python, attention=attention)  # type: ignore[arg-type]
    host = Host(interpreters={python: Interpreter(python, modules={"torch": "2.9"})})
    plan = BACKEND.plan(Job(VideoRequest(prompt="x", seed=0), settings, host, Path("/films/a.mp4")))
    assert [item.severity for item in plan.findings if item.code == "attention.sdpa"] == [severity]
