"""`reel plan --simulate-gpus` where nothing is set up compares every model for these cards."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from reelwright import load_settings
from reelwright.backends.diffusers.models import MODELS
from reelwright.core.errors import ConfigurationError
from reelwright.doctor.card_comparison import ComparedModel, compare

Reel = Callable[..., subprocess.CompletedProcess[str]]
GIB = 2**30


def rows(gpus: str, **arguments: object) -> dict[str, ComparedModel]:
    found = compare(gpus, load_settings(environ={}, arguments=arguments))
    assert len({row.model for row in found}) == len(found)
    return {row.model: row for row in found}


def test_every_model_of_every_generator_is_compared() -> None:
    found = rows("1x24GiB")
    assert {name.partition(" ")[0] for name in found} >= set(MODELS) | {
        "Wan2.1",
        "HunyuanVideo",
        "HunyuanVideo-I2V",
        "HunyuanVideo-1.5",
    }
    assert {row.generator for row in found.values()} == {"wan2.1", "hunyuan", "diffusers"}
    for row in found.values():
        assert bool(row.problem) != row.fits
        assert row.setup
        assert row.source
        assert row.gpu_bytes


def test_what_fits_on_a_card_of_24_gib_is_known_to_fit_and_what_does_not_says_why() -> None:
    found = rows("1x24GiB")
    small = found["Wan2.1 t2v-1.3B"]
    assert (small.fits, str(small.size), small.setup) == (True, "832x480", "reel setup wan2.1 --models t2v-1.3b")
    assert small.seconds is not None
    assert "RTX 4090" in small.source
    large = found["Wan2.1 i2v-14B"]
    assert not large.fits
    assert "GiB are needed" in large.problem
    engine = found["wan2.1-i2v-14B i2v"]
    assert engine.fits
    assert engine.gpu_bytes is not None
    assert engine.gpu_bytes < 24 * GIB
    assert "group_offload" in engine.note


def test_a_larger_card_makes_more_and_a_smaller_one_less() -> None:
    fitting = [sum(row.fits for row in rows(gpus).values()) for gpus in ("1x4GiB", "1x12GiB", "1x24GiB", "1x80GiB")]
    assert fitting == sorted(fitting)
    assert fitting[0] < fitting[-1] == len(rows("1x80GiB"))


def test_the_size_that_is_set_is_the_one_that_is_compared() -> None:
    for row in rows("1x80GiB", size="832x480").values():
        assert (row.size.width, 440 <= row.size.height <= 480) == (832, True)


def test_what_describes_no_cards_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        compare("many", load_settings(environ={}))


def test_the_plan_of_an_unconfigured_machine_is_the_comparison(reel: Reel, photo: Path) -> None:
    text, data = (reel("plan", photo, "x", "--simulate-gpus", "1x24GiB", *form) for form in ((), ("--json",)))
    assert (text.returncode, data.returncode) == (0, 0)
    compared = json.loads(data.stdout)
    assert compared["simulate_gpus"] == "1x24GiB"
    for row in compared["comparison"]:
        assert f"{row['generator']}: {row['model']}: " in text.stdout
    assert "reel setup wan2.1 --models t2v-1.3b" in text.stdout
    assert "draft" in text.stdout


@pytest.mark.parametrize("more", [("--generator", "draft"), ("--set", "generator=draft")])
def test_a_generator_that_is_named_gets_its_plan(reel: Reel, photo: Path, more: tuple[str, ...]) -> None:
    done = reel("plan", photo, "x", "--simulate-gpus", "1x24GiB", "--json", *more)
    assert json.loads(done.stdout)["generator"] == "draft"
