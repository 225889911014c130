"""What a machine learns of the resident engine: where it ended when the prediction was too low, and only that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.backends.test_diffusers import FOLDER, PYTHON, official, picture

from reelwright.backends.diffusers import plan
from reelwright.history import remember_success, starting_overrides
from reelwright.host import GIB, Host, Interpreter, simulated_gpus
from reelwright.plan import Job, Plan
from reelwright.policy import Evidence
from reelwright.request import VideoRequest
from reelwright.settings import load_settings

MODULES = {
    "torch": "2.13",
    "diffusers": "0.42",
    "transformers": "5.1",
    "accelerate": "1",
    "safetensors": "1",
    "ftfy": "6",
}


class Machine:
    """Plans as `preparation` makes them: what was asked, and with what was learnt."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def run(self, card_gib: float, ended_on: str | None = None, **values: Any) -> str:
        """One run on a card with so much free; returns where it began."""
        host = self._host(card_gib)
        asked = self._plan(host, {}, values)
        began = self._plan(host, starting_overrides(self.state, asked, host), values)
        assert not began.errors, began.errors
        facts = {"placement": ended_on or began.parameters["placement"], "peak_bytes": 30 * GIB}
        remember_success(self.state, asked, began, host, Evidence(facts=facts))
        return str(began.parameters["placement"])

    def _host(self, card_gib: float) -> Host:
        (card,) = simulated_gpus("1x80GiB")
        free = type(card)(card.index, card.uuid, card.name, card.total_bytes, round(card_gib * GIB))
        interpreters = {PYTHON: Interpreter(PYTHON, modules=MODULES)}
        return Host(gpus=(free,), interpreters=interpreters, checkpoints={FOLDER: official("i2v")})

    def _plan(self, host: Host, overrides: dict[str, Any], values: dict[str, Any]) -> Plan:
        arguments = {"weights": str(FOLDER), "python": str(PYTHON), **values}
        settings = load_settings(environ={}, arguments=arguments)
        first = picture()
        request = VideoRequest(prompt="a cat", image=first.source, seed=1)
        return plan(Job(request, settings, host, Path("/out/film.mp4"), first, overrides=overrides))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_placement_that_was_too_much_is_not_tried_again(machine: Machine) -> None:
    assert machine.run(80, ended_on="encoders_off") == "resident"
    assert machine.run(80) == "encoders_off"
    assert machine.run(80) == "encoders_off", "and it stays learnt after a run that began there"


def test_a_fuller_card_than_last_time_gets_a_lower_placement_and_no_refusal(machine: Machine) -> None:
    assert machine.run(80) == "resident"
    assert machine.run(24) == "group_offload"


def test_a_card_that_is_free_again_is_used_again(machine: Machine) -> None:
    assert machine.run(24) == "group_offload"
    assert machine.run(80) == "resident"


def test_what_was_learnt_of_other_weights_or_another_speed_does_not_count(machine: Machine) -> None:
    machine.run(80, ended_on="group_offload")
    assert machine.run(80, speed="balanced") == "resident"
    assert machine.run(80) == "group_offload"
