"""`--gpus` and the simulated machine, as people write them."""

from __future__ import annotations

from typing import Any

import pytest

from reelwright import load_settings
from reelwright.cli.arguments import parse_gpus
from reelwright.core.errors import ConfigurationError, InvalidInputError
from reelwright.core.host import GIB, HostQuery, simulated_gpus, simulated_memory
from reelwright.sites.local.probes.host import take_host


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("2", {"gpu_count": 2}),
        ("0,", {"gpus": [0]}),
        ("0,1", {"gpus": [0, 1]}),
        ("3,1", {"gpus": [3, 1]}),
        (" 1 , 2 ", {"gpus": [1, 2]}),
    ],
)
def test_a_number_is_a_count_and_a_comma_makes_a_list(text: str, values: dict[str, Any]) -> None:
    assert parse_gpus(text) == values


@pytest.mark.parametrize(
    ("text", "message", "advice"),
    [
        ("0", "asks for no GPU at all", "--gpus 0, (with a comma) for the card with index 0"),
        ("00", "asks for no GPU at all", "--gpus 0,"),
        ("0-3", "neither a count nor a list", "--gpus 0,1,2,3"),
        ("0 1", "neither a count nor a list", "--gpus 0,1"),
        ("-1", "neither a count nor a list", "--generator draft"),
        ("none", "neither a count nor a list", "--generator draft"),
        ("all", "neither a count nor a list", "Leave out --gpus"),
        ("GPU-aa1", "neither a count nor a list", "`reel doctor` shows"),
        ("MIG-1,MIG-2", "neither a count nor a list", "`reel doctor` shows"),
        ("1,1", "names a GPU twice", "--gpus 1,"),
        ("0,1,0", "names a GPU twice", "--gpus 0,1"),
        ("1.5", "neither a count nor a list", "Write 2 for two cards"),
        ("²", "neither a count nor a list", "Write 2 for two cards"),
        (",", "neither a count nor a list", "Write 2 for two cards"),
        ("a,b", "neither a count nor a list", "Write 2 for two cards"),
    ],
)
def test_every_mistake_in_gpus_is_reported_with_what_to_write(text: str, message: str, advice: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_gpus(text)
    assert message in caught.value.message
    assert advice in caught.value.advice


# -------------------------------------------------------------------------------------------------- simulated machines


@pytest.mark.parametrize(
    ("text", "cards"),
    [
        ("8x80GiB", [(80, (9, 0))] * 8),
        ("2x80GiB,1x24GiB", [(80, (9, 0))] * 2 + [(24, (9, 0))]),
        ("0x0", []),
        ("1xV100-32GiB", [(32, (7, 0))]),
        ("1xV100", [(16, (7, 0))]),
        ("2xRTX4090", [(24, (8, 9))] * 2),
        ("1x RTX 2080 Ti", [(11, (7, 5))]),
        ("1xrtx-5090", [(32, (12, 0))]),
        ("1x4090-48GiB", [(48, (8, 9))]),
        ("1x24GiB@8.6", [(24, (8, 6))]),
        ("1xA100-80GB,1xT4", [(80, (8, 0)), (16, (7, 5))]),
        ("3 X 24 GB", [(24, (9, 0))] * 3),
    ],
)
def test_cards_that_are_not_there_have_a_memory_and_an_architecture(
    text: str, cards: list[tuple[int, tuple[int, int]]]
) -> None:
    assert [((gpu.total_bytes or 0) // GIB, gpu.capability) for gpu in simulated_gpus(text)] == cards
    assert [gpu.index for gpu in simulated_gpus(text)] == list(range(len(cards)))


@pytest.mark.parametrize(
    "text", ["80GiB", "", "x", "1x", "1xNoCard", "1xNoCard-24GiB", "1x24GiB@9", "two x 80", "1x80GiB;2x2"]
)
def test_a_text_that_describes_no_gpus_is_reported_once_with_the_form(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ={}, arguments={"simulate_gpus": text})
    assert caught.value.message.count(repr(text)) == 1
    assert "does not describe GPUs" in caught.value.message
    assert "count x memory" in f"{caught.value.message} {caught.value.advice}"


@pytest.mark.parametrize("text", ["lots", "0", "-1GiB", "64TiB", ""])
def test_a_text_that_is_no_memory_is_reported_with_the_form(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not an amount of memory"):
        load_settings(environ={}, arguments={"simulate_memory": text})


@pytest.mark.parametrize(("text", "gib"), [("64GiB", 64), ("0.5", 0.5), ("24 GB", 24), ("512g", 512)])
def test_memory_is_read_in_gib(text: str, gib: float) -> None:
    assert simulated_memory(text) == gib * GIB


def test_a_simulated_machine_has_the_memory_that_is_said_and_never_this_ones() -> None:
    def memory(simulated: str | None, said: str | None) -> int | None:
        host = take_host(HostQuery(), environ={}, simulated=simulated, simulated_memory=said, state_dir=None)
        assert host.memory_total_bytes == host.memory_available_bytes or said is None
        return host.memory_total_bytes

    said = simulated_memory("61.7")  # which is no machine's
    assert memory("1x80GiB", "61.7") == said
    assert memory("1x80GiB", None) is None
    assert memory(None, "61.7") == said
    assert memory(None, None) not in (None, said)
