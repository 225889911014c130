"""What a machine learns of the resident engine: where it ended when the prediction was too low, and only that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reelwright import load_settings
from reelwright.backends.diffusers.backend import plan
from reelwright.backends.shared.job import Job
from reelwright.core.host import GIB, Host, Interpreter, simulated_gpus
from reelwright.core.plan import Plan
from reelwright.core.request import VideoRequest
from reelwright.policy import Evidence
from reelwright.runs.history import Learned, load_entries, remember_success
from tests.backends.test_diffusers import FOLDER, PYTHON, official, picture

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

    def run(self, card_gib: float, ended_on: str | None = None, peak_gib: float = 34, **values: Any) -> str:
        """One run on a card with so much free; returns where it began."""
        asked, began = self.plans(card_gib, **values)
        assert not began.errors, began.errors
        facts = {"placement": ended_on or began.parameters["placement"], "peak_bytes": round(peak_gib * GIB)}
        remember_success(self.state, asked, began, self._host(card_gib), Evidence(facts=facts))
        return str(began.parameters["placement"])

    def plans(self, card_gib: float, **values: Any) -> tuple[Plan, Plan]:
        host = self._host(card_gib)
        asked = self._plan(host, {}, values)
        learnt = Learned(self.state).starting_overrides(asked, host)
        peaks = Learned(self.state).measured_peaks(asked, host)
        return asked, self._plan(host, {**learnt, "measured_peaks": peaks}, values)

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


def test_a_true_peak_takes_the_place_of_the_predicted_one(machine: Machine) -> None:
    assert machine.run(80, peak_gib=40) == "resident"
    predicted, corrected = machine.plans(80)
    assert corrected.gpu_bytes == 41 * GIB  # and what CUDA itself needs
    assert corrected.gpu_bytes != predicted.gpu_bytes
    assert machine.run(44, peak_gib=40) == "resident", "it has been seen to fit"
    assert machine.run(40) == "group_offload"


def test_each_placement_keeps_its_own_peak(machine: Machine) -> None:
    machine.run(80, peak_gib=40)
    machine.run(24, peak_gib=5)
    _, streaming = machine.plans(24)
    (message,) = (finding.message for finding in streaming.findings if finding.code == "placement")
    assert "(6.0 GiB measured here)" in message
    assert machine.plans(80)[1].gpu_bytes == 41 * GIB


def test_a_decode_that_took_all_the_room_there_was_keeps_no_smaller_card_out(machine: Machine) -> None:
    assert machine.run(48, peak_gib=46.5) == "encoders_off"
    assert machine.run(42) == "encoders_off"


@pytest.mark.parametrize("peaks", [None, 3, {"resident": "much"}, {"resident": None}])
def test_damaged_peaks_are_as_if_nothing_were_known(machine: Machine, peaks: object, tmp_path: Path) -> None:
    machine.run(80)
    (key,) = load_entries(machine.state)
    (tmp_path / "learned.json").write_text(json.dumps({"schema": 1, "entries": {key: {"peaks": peaks}}}))
    asked, began = machine.plans(80)
    assert began.gpu_bytes == asked.gpu_bytes
