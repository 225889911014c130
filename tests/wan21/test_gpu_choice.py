"""Which GPUs a run of Wan2.1 takes: among the legal numbers and sets the fastest that fits, and why."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from reelwright.backends.wan21 import facts, variants
from reelwright.core.errors import Failure
from reelwright.core.host import GIB, Gpu, GpuProcess, simulated_gpus
from reelwright.core.request import Size
from tests.wan21.planning import World, codes, finding, followed

SMALL: dict[str, Any] = {"size": Size(832, 480)}


def partly_used(text: str, *free: float) -> tuple[Gpu, ...]:
    """Simulated cards, with so many GiB free on each."""
    cards = simulated_gpus(text)
    return tuple(
        replace(gpu, free_bytes=int(gib * GIB), processes=(GpuProcess(7, 1, "game"),))
        for gpu, gib in zip(cards, free, strict=True)
    )


@pytest.mark.parametrize(
    ("model", "gpus", "ask", "chosen"),
    [
        ("t2v-1.3B", "2x12GiB", SMALL, (0,)),
        ("t2v-1.3B", "1x24GiB,1x8GiB", SMALL, (0,)),
        ("t2v-1.3B", "1x8GiB,1x24GiB", SMALL, (1,)),
        ("t2v-1.3B", "2x24GiB,1x8GiB", SMALL, (0, 1)),
        ("t2v-1.3B", "1x8GiB,4x24GiB", SMALL, (1, 2, 3, 4)),
        ("t2v-1.3B", "8x12GiB", SMALL, (0,)),  # 12.2 GiB are published for each of eight
        ("i2v-14B", "1x80GiB,3x24GiB", {}, (0,)),
        ("i2v-14B", "2x80GiB,6x24GiB", {}, (0, 1)),
        ("i2v-14B", "8x48GiB", {}, tuple(range(8))),
        ("i2v-14B", "5x48GiB", {}, (0, 1, 2, 3, 4)),
        ("i2v-14B", "3x48GiB", {}, (0, 1, 2)),  # two heads would need 59.8 GiB each: ring attention
        ("i2v-14B", "3x80GiB", {}, (0, 1)),  # ring attention is no better than two cards where these do
        ("i2v-14B", "1xH100,1xV100-32GiB", {}, (0,)),
        ("i2v-14B", "4xRTXA6000,2xH100", {}, (4, 5)),  # the fast pair, not the six
        ("t2v-1.3B", "1xRTX3060,1xRTX4090", SMALL, (1,)),
        ("t2v-1.3B", "1xT4,1xA100", SMALL, (1,)),
        ("i2v-14B", "1xH100,1xH200", {}, (0, 1)),
        ("i2v-14B", "1xA100-80GiB,1xH100,1xH200", {}, (1, 2)),
        ("i2v-14B", "2xH100,1xH200", {}, (0, 1)),  # as fast as with the larger card, and alike
    ],
)
def test_the_fastest_legal_set_of_gpus_that_fits_is_taken(
    model: str, gpus: str, ask: dict[str, Any], chosen: tuple[int, ...]
) -> None:
    plan = World(gpus, model=model).plan(**ask)
    assert plan.gpus == chosen
    assert codes(plan) == set()


@pytest.mark.parametrize(
    ("free", "chosen"),
    [
        ((24, 24), (0, 1)),
        ((24, 4), (0,)),
        ((11, 24), (1,)),
        ((18.4, 18.4), (0, 1)),
        ((17, 17), (0,)),
    ],
)
def test_cards_that_are_partly_used_count_with_what_is_free(free: tuple[float, ...], chosen: tuple[int, ...]) -> None:
    plan = World(partly_used("2x24GiB", *free), model="t2v-1.3B").plan(**SMALL)
    assert (plan.gpus, codes(plan)) == (chosen, set())


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (((80, 80), (None, None)), (0, 1)),
        (((80, 80), (80, None)), (0, 1)),
        (((80, 5), (80, None), (80, None)), (1, 2)),
    ],
)
def test_a_card_that_does_not_report_its_memory_counts_as_large_enough(
    asked: tuple[tuple[int | None, int | None], ...], chosen: tuple[int, ...]
) -> None:
    cards = tuple(
        Gpu(n, f"GPU-{n}", "NVIDIA A100", total and total * GIB, free and free * GIB, (8, 0))
        for n, (total, free) in enumerate(asked)
    )
    assert World(cards).plan().gpus == chosen


@pytest.mark.parametrize(
    ("world", "ask", "words"),
    [
        (World(partly_used("2x24GiB", 24, 4), model="t2v-1.3B"), SMALL, "GPU 1 has 24.0, of which 4.0 are free"),
        (World("3x80GiB"), {}, "3 could share the clip through ring attention only"),
        (World("8x80GiB", memory="256GiB"), {}, "of host memory while loading"),
    ],
)
def test_the_plan_says_what_prevents_more_gpus(world: World, ask: dict[str, Any], words: str) -> None:
    assert words in finding(world.plan(**ask), "gpus.fewer").message


def test_a_number_of_gpus_that_was_requested_is_not_explained() -> None:
    assert "gpus.fewer" not in {item.code for item in World("4x80GiB", settings={"gpu_count": 1}).plan().findings}


def test_a_card_that_another_run_has_is_left_to_it_where_others_do() -> None:
    plan = World("4x80GiB").plan({"avoid_gpus": (0,)})
    assert plan.gpus == (1, 2)
    assert "another run has" in finding(plan, "gpus.fewer").message
    alone = World("1x80GiB").plan({"avoid_gpus": (0,)})
    assert alone.gpus == (0,)
    tight = World("1x80GiB,1x72GiB").plan({"avoid_gpus": (0,)})
    assert tight.gpus == (1,)
    busy = World(partly_used("2x80GiB", 80, 4)).plan({"avoid_gpus": (0,)})
    assert busy.gpus == (0,)


@pytest.mark.parametrize(
    ("gpus", "model", "words"),
    [
        ("2x12GiB", "t2v-1.3B", "1 of 2 GPUs are used (GPU 0): on 2, each would need 18.1 GiB, and GPU 0 has 12.0"),
        ("1x24GiB,1x8GiB", "t2v-1.3B", "on 2, each would need 18.1 GiB, and GPU 1 has 8.0"),
        ("1x4GiB,1x6GiB", "t2v-1.3B", "1 of 2 GPUs are used (GPU 1)"),  # what comes nearest to fitting
        ("1x48GiB,1x8GiB", "i2v-14B", "1 of 2 GPUs are used (GPU 0)"),
        ("7x80GiB", "i2v-14B", "5 of 7 GPUs are used"),
        ("1xH100,1xV100-32GiB", "t2v-14B", "GPU 1 has 32.0"),
    ],
)
def test_a_plan_says_why_it_takes_fewer_gpus_than_exist(gpus: str, model: str, words: str) -> None:
    plan = World(gpus, model=model).plan(**(SMALL if model == "t2v-1.3B" else {}))
    assert words in finding(plan, "gpus.fewer").message


def test_listed_gpus_are_taken_in_the_order_of_the_list() -> None:
    assert World("4x80GiB", settings={"gpus": [3, 1]}).plan().gpus == (3, 1)


def test_without_xfuser_one_card_is_taken_if_it_fits_and_else_xfuser_is_requested() -> None:
    plan = World("4x80GiB", absent=("xfuser",)).plan()
    assert (plan.gpus, codes(plan)) == ((0,), set())
    assert "xfuser is not installed" in finding(plan, "gpus.fewer").message
    assert codes(World("4x48GiB", absent=("xfuser",)).plan()) == {"module.xfuser"}
    small = World("2x12GiB", model="t2v-1.3B", absent=("xfuser",)).plan(**SMALL)
    assert "on 2, each would need" in finding(small, "gpus.fewer").message  # xfuser would not help


@pytest.mark.parametrize(("model", "memory", "ranks"), [("i2v-14B", "256GiB", 5), ("i2v-14B", "1TiB", 8)])
def test_the_number_of_gpus_respects_the_memory_of_the_host(model: str, memory: str, ranks: int) -> None:
    plan = World("8x80GiB", memory=memory.replace("1TiB", "1024GiB"), model=model).plan()
    assert len(plan.gpus) == ranks
    assert codes(plan) == set()


# ------------------------------------------------------------------------------------------------ what was asked for


@pytest.mark.parametrize(
    ("gpus", "settings", "words"),
    [
        ("2x12GiB", {"gpu_count": 2}, "with --gpus 0, (10.6 GiB each)"),
        ("1x24GiB,1x8GiB", {"gpus": [0, 1]}, "with --gpus 0, (10.6 GiB each)"),
        ("1x24GiB,1x4GiB", {"gpus": [1]}, "with --gpus 0, (10.6 GiB each)"),
    ],
)
def test_an_explicit_choice_is_respected_and_refused_with_one_that_fits(
    gpus: str, settings: dict[str, Any], words: str
) -> None:
    plan = World(gpus, model="t2v-1.3B", settings=settings).plan(**SMALL)
    error = finding(plan, "gpu.too_small")
    assert len(plan.gpus) == len(settings.get("gpus", ())) or settings["gpu_count"]
    assert words in error.fix
    assert error.failure is Failure.OOM_GPU
    assert "more --gpus" not in error.fix


@pytest.mark.parametrize(
    ("settings", "code", "fix"),
    [
        ({"gpus": [0, 0]}, "gpu.twice", "--gpus 0,"),
        ({"gpus": [0, 5]}, "gpu.missing", "--gpus 0,"),
        ({"gpu_count": 5}, "gpu.count", "--gpus 2 is the most"),
        ({"model": "t2v-13B"}, "model.unknown", "Correct `model`"),
    ],
)
def test_impossible_gpus_and_models_are_refused_with_possible_ones(
    settings: dict[str, Any], code: str, fix: str
) -> None:
    plan = World("2x80GiB", settings=settings, model="t2v-14B").plan()
    assert codes(plan) == {code}
    assert fix in finding(plan, code).fix


@pytest.mark.parametrize(
    ("gpus", "model", "ask", "words"),
    [
        (
            "1x24GiB",
            "i2v-14B",
            {},
            ["one card of 80 GiB", "--generator diffusers (about 13 GiB, placement group_offload"],
        ),
        ("1x48GiB", "i2v-14B", {}, ["one card of 80 GiB", "--generator diffusers"]),
        ("2x48GiB", "i2v-14B", {}, ["4 cards of 48 GiB", "on one card of 80 GiB"]),
        ("8x24GiB", "i2v-14B", {}, ["--size 832x480"]),
        ("1x62GiB", "t2v-14B", {}, ["--size 832x480"]),
        ("1x4GiB", "t2v-1.3B", SMALL, ["on one card of 8 GiB"]),
        ("1xV100-32GiB", "t2v-1.3B", SMALL, ["--frames 49", "of Ampere or a newer architecture"]),
        ("1x4GiB", "t2v-14B", {"num_frames": 2001}, ["that Reelwright tried fits"]),
    ],
)
def test_when_nothing_fits_the_plan_says_what_would(
    gpus: str, model: str, ask: dict[str, Any], words: list[str]
) -> None:
    plan = World(gpus, model=model).plan(**ask)
    fix = finding(plan, "gpu.too_small").fix
    assert [word for word in words if word not in fix] == [], fix


@pytest.mark.parametrize(
    ("gpus", "memory", "model", "settings"),
    [
        ("8x24GiB", None, "i2v-14B", {}),
        ("1xV100-32GiB", None, "t2v-1.3B", {}),
        ("1x24GiB", "48GiB", "i2v-14B", {}),
        ("1x24GiB", "16GiB", "t2v-14B", {}),  # neither the card nor the host
        ("2x24GiB,4x10GiB", "96GiB", "t2v-14B", {}),
        ("2xV100-32GiB", "16GiB", "t2v-14B", {"gpu_count": 2}),
        ("2x24GiB", "192GiB", "flf2v-14B", {"gpu_count": 2}),
        ("1xGTX1080Ti,1xL40S", "48GiB", "t2v-14B", {"gpus": [0, 1]}),
        ("7x6GiB", "256GiB", "t2v-14B", {"gpus": [1, 2]}),
        ("8x80GiB", "24GiB", "t2v-1.3B", {"gpus": [0, 1, 2, 3]}),
    ],
)
def test_every_way_that_is_suggested_works_when_it_is_followed(
    gpus: str, memory: str | None, model: str, settings: dict[str, Any]
) -> None:
    world, ask = World(gpus, memory=memory, model=model, settings=settings), SMALL if model == "t2v-1.3B" else {}
    fix = next(item.fix for item in world.plan(**ask).errors)
    ways = fix.partition("It fits ")[2].removesuffix(" Fewer steps do not change memory.").rstrip(".").split("; or ")
    assert ways != [""]
    assert {way: codes(followed(world, way, ask)) for way in ways} == {way: set() for way in ways}


def test_a_number_of_gpus_takes_of_the_listed_ones() -> None:
    plan = World("1x80GiB,1x24GiB,2x80GiB", settings={"gpus": [1, 2, 3], "gpu_count": 1}).plan()
    assert (plan.gpus, codes(plan)) == ((2,), set())
    more = World("4x80GiB", settings={"gpus": [1, 2], "gpu_count": 4}).plan()
    assert (more.gpus, finding(more, "gpu.count").severity) == ((1, 2), "warning")


def test_cards_that_are_too_small_are_one_line_with_the_memory_of_each() -> None:
    error = finding(World("1x24GiB,1x8GiB", settings={"gpu_count": 2}).plan(), "gpu.too_small")
    assert (
        "GPU 0 (simulated 24 GiB) has 24.0 GiB, GPU 1 (simulated 8 GiB) has 8.0 GiB: it would run out" in error.message
    )


@pytest.mark.parametrize("name", ["t2v-1.3B", "T2V-1.3b", "wan2.1-t2v-1.3B"])
def test_a_model_is_known_by_the_name_of_the_script_and_of_the_engine(name: str) -> None:
    plan = World("1x24GiB", model="t2v-1.3B", settings={"model": name}).plan(**SMALL)
    assert "--task=t2v-1.3B" in plan.run.argv  # type: ignore[union-attr]


def test_a_full_card_is_reported_with_the_program_and_with_what_would_fit() -> None:
    plan = World(partly_used("1x24GiB", 5), model="t2v-1.3B").plan(**SMALL)
    error = finding(plan, "gpu.busy")
    assert error.failure is Failure.BUSY
    assert "pid 7 (game" in error.message
    assert "End the other program" in error.fix


# --------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("free", "ranks", "t5_cpu"),
    [(24, 1, False), (11.6, 1, False), (11.5, 1, True), (8.3, 1, True)],
)
def test_the_text_encoder_stays_on_the_cpu_where_it_does_not_fit_the_card(
    free: float, ranks: int, t5_cpu: bool
) -> None:
    plan = World(partly_used("1x24GiB", free), model="t2v-1.3B").plan(**SMALL)
    assert plan.parameters["t5_cpu"] is t5_cpu
    assert codes(plan) == set()
    assert ("--t5_cpu" in plan.run.argv) is t5_cpu  # type: ignore[union-attr]


def test_the_text_encoder_of_several_cards_is_sharded_and_not_on_the_cpu() -> None:
    plan = World("2x24GiB", model="t2v-1.3B").plan(**SMALL)
    assert plan.parameters["t5_cpu"] is False
    assert "--t5_fsdp" in plan.run.argv  # type: ignore[union-attr]


def test_the_small_model_needs_on_one_card_what_is_published() -> None:
    use = facts.WanMemory(variants.T2V_1_3B, Size(832, 480), 81, 1, fsdp=False, offload=True, t5_cpu=True)
    assert facts.peak_gpu_bytes(use) == pytest.approx(8.19 * GIB, rel=0.02)


@pytest.mark.parametrize(
    ("gpus", "memory", "settings", "code"),
    [
        ("8x80GiB", "96GiB", {"gpu_count": 8}, "host.too_small"),
        ("1x80GiB", "12GiB", {}, "host.too_small"),
        ("1x80GiB", "64GiB", {}, None),
        ("1x80GiB", "128GiB", {}, None),
    ],
)
def test_a_run_that_clearly_needs_more_host_memory_than_there_is_is_refused(
    gpus: str, memory: str, settings: dict[str, Any], code: str | None
) -> None:
    plan = World(gpus, memory=memory, settings=settings).plan()
    assert codes(plan) == ({code} if code else set())
    if code:
        error = finding(plan, code)
        assert error.failure is Failure.OOM_HOST
        assert memory.replace("GiB", " GiB") in error.message
        assert "GiB of host memory" in error.fix or "--gpus" in error.fix
        named = re.search(r"with (\d+) GiB of host memory", error.fix)
        assert named is None or int(named[1]) >= (plan.host_bytes or 0) / GIB  # not one that is only not refused


def test_host_memory_that_is_a_little_short_is_a_warning() -> None:
    warning = finding(World("1x80GiB", memory="64GiB").plan(), "host.memory")
    assert warning.severity == "warning"
    assert "64 GiB are available" in warning.message


# ------------------------------------------------------------------------------------------------------------------ MIG


def instances(*gib: int) -> tuple[Gpu, ...]:
    """A whole card, and instances of a second one in MIG mode."""
    card = Gpu(0, "GPU-a", "NVIDIA A100-SXM4-80GB", 80 * GIB, 80 * GIB, (8, 0))
    name = "NVIDIA A100-SXM4-80GB MIG 3g.{}gb"
    made = [
        Gpu(2 + n, f"MIG-{n}", name.format(size), size * GIB, size * GIB, (8, 0), parent=1)
        for n, size in enumerate(gib)
    ]
    return (card, *made)


def test_an_instance_is_chosen_by_its_own_memory_and_never_together_with_another() -> None:
    only = World(instances(10, 20)[1:], model="t2v-1.3B").plan(**SMALL)
    assert (only.gpus, codes(only)) == ((3,), set())
    both = World(instances(40, 40), model="i2v-14B").plan()
    assert both.gpus == (0,)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gpus": [1]}, ["in MIG mode", "2 (NVIDIA", "--gpus 2,"]),
        ({"gpus": [2, 3]}, ["a process can use only one instance", "--gpus 2,"]),
        ({"gpus": [0, 3]}, ["a process can use only one instance", "--gpus 3,"]),
    ],
)
def test_a_choice_that_mig_does_not_allow_is_refused_with_one_that_it_does(
    settings: dict[str, Any], words: list[str]
) -> None:
    plan = World(instances(40, 40), settings=settings).plan()
    error = finding(plan, "gpu.mig")
    assert [word for word in words if word not in f"{error.message} {error.fix}"] == []


def test_several_instances_are_not_made_to_share_a_clip() -> None:
    plan = World(instances(40, 40)[1:], settings={"gpu_count": 2}).plan()
    assert "--gpus 1" in finding(plan, "gpu.mig").fix
