"""Which GPUs a run of the HunyuanVideo family takes: the weights are whole on every card, so one may do where two do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reelwright.backends import load_backend
from reelwright.core.host import GIB, simulated_gpus
from reelwright.core.plan import Plan
from reelwright.core.request import Size
from reelwright.policy import fitting, preflight
from tests.hunyuan.planning import World

PICTURE = Size(1280, 720)


def planned(world: World, **ask: Any) -> Plan:
    """The plan with what `reel plan` would say of the machine's memory."""
    job = world.job(**ask)
    plan = load_backend("hunyuan").plan(job)
    found = (*plan.findings, *preflight.findings(plan, job.host))
    return plan.evolve(findings=fitting.advised(found, load_backend("hunyuan"), job))


@pytest.mark.parametrize(
    ("member", "gpus", "chosen", "offload"),
    [
        ("t2v", "2x24GiB", (0,), True),
        ("t2v", "2x48GiB", (0,), True),
        ("t2v", "1x24GiB,1x8GiB", (0,), True),
        ("t2v", "1x8GiB,1x24GiB", (1,), True),
        ("t2v", "2x80GiB", (0, 1), False),
        ("t2v", "1x80GiB,3x24GiB", (0,), False),
        ("t2v", "2x80GiB,6x24GiB", (0, 1), False),
        ("t2v", "8x24GiB", (0,), True),
        ("t2v", "1xRTX4090,1xRTXA6000", (0,), True),  # both must offload: the faster one
        ("i2v", "2x24GiB", (0,), True),
    ],
)
def test_one_card_that_offloads_is_taken_where_whole_weights_fit_none(
    member: str, gpus: str, chosen: tuple[int, ...], offload: bool
) -> None:
    plan = planned(World(member, gpus), picture=PICTURE if member == "i2v" else None)
    assert (plan.gpus, plan.parameters["use_cpu_offload"], plan.errors) == (chosen, offload, ())


@pytest.mark.parametrize(("gpus", "chosen"), [("2x16GiB", (0, 1)), ("1x16GiB,1x8GiB", (0,)), ("4x24GiB", (0, 1, 2, 3))])
def test_hunyuan_15_offloads_on_any_number_of_cards(gpus: str, chosen: tuple[int, ...]) -> None:
    plan = planned(World("1.5", gpus), size=Size(832, 480))
    assert (plan.gpus, plan.errors) == (chosen, ())


def test_hunyuan_15_does_not_fit_an_old_card_without_a_fused_attention_in_the_script_or_the_engine() -> None:
    plan = planned(World("1.5", "1xV100-32GiB"), size=Size(832, 480))
    assert {item.code for item in plan.errors} == {"gpu.too_small"}
    assert "--generator diffusers" not in plan.errors[0].fix
    assert "of Ampere or a newer architecture" in plan.errors[0].fix


def test_the_plan_says_why_one_of_two_cards_is_taken() -> None:
    (fewer,) = [item.message for item in planned(World("t2v", "2x24GiB")).findings if item.code == "gpus.fewer"]
    assert "1 of 2 GPUs are used (GPU 0): on 2, each would need" in fewer


@pytest.mark.parametrize(
    ("gpus", "settings", "words"),
    [
        ("2x24GiB", {"gpu_count": 2}, ["with --gpus 0, (19"]),
        ("1x12GiB", {}, ["--generator diffusers (the -Diffusers weights", "on one card of 16 GiB"]),
        ("1x16GiB", {}, ["--generator diffusers (the -Diffusers weights"]),
    ],
)
def test_when_nothing_fits_the_plan_says_what_would(gpus: str, settings: dict[str, Any], words: list[str]) -> None:
    size = {"size": Size(960, 544), "num_frames": 49} if gpus == "1x12GiB" else {}
    plan = planned(World("t2v", gpus, settings=settings), **size)
    (error,) = [item for item in plan.errors if item.code == "gpu.too_small"]
    assert [word for word in words if word not in error.fix] == [], error.fix


def test_a_smaller_clip_is_one_without_super_resolution() -> None:
    (error,) = [item for item in planned(World("1.5", "1x12.9GiB"), picture=None).errors if "too_small" in item.code]
    assert "with --size 832x480 --set super_resolution=false" in error.fix


def test_a_card_that_another_program_uses_is_not_taken_for_a_free_one() -> None:
    cards = simulated_gpus("2x24GiB")
    world = World("t2v", "2x24GiB")
    job = world.job()
    host = replace(job.host, gpus=(replace(cards[0], free_bytes=4 * GIB), cards[1]))
    plan = load_backend("hunyuan").plan(job.evolve(host=host))
    assert plan.gpus == (1,)


def test_without_xfuser_one_card_makes_the_clip() -> None:
    job = World("t2v", "8x80GiB").job()
    python = next(iter(job.host.interpreters.values()))
    modules = {name: version for name, version in python.modules.items() if name != "xfuser"}
    host = replace(job.host, interpreters={python.path: replace(python, modules=modules)})
    plan = load_backend("hunyuan").plan(job.evolve(host=host))
    assert (plan.gpus, plan.errors) == ((0,), ())


def test_many_processes_do_not_load_more_than_the_host_holds() -> None:
    job = World("t2v", "8x80GiB").job()
    host = replace(job.host, memory_total_bytes=64 * GIB, memory_available_bytes=60 * GIB)
    plan = load_backend("hunyuan").plan(job.evolve(host=host))
    assert plan.gpus == (0, 1)
    assert preflight.findings(plan, host)[-1].severity == "warning"
