"""Tests that cards, driver, packages and the checkout's requirements are compared before the GPU starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reelwright.backends.shared.compatibility import RunEnvironment, attention_bytes, findings, flash_attn_problem
from reelwright.core import cards
from reelwright.core.errors import Failure
from reelwright.core.host import GIB, Gpu, Host, simulated_gpus
from reelwright.core.plan import Command, Plan
from reelwright.core.request import Size
from tests.hunyuan.planning import World as Hunyuan
from tests.wan21.planning import WHOLE, World, codes, finding

SMALL: dict[str, Any] = {"size": Size(832, 480), "num_frames": 17}
BUILDS = {
    "2.4 cu121": ("2.4.0+cu121", "12.1", ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")),
    "2.7 cu128": ("2.7.0+cu128", "12.8", ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")),
    "2.11 cu130": ("2.11.0+cu130", "13.0", ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")),
    "from source": ("2.6.0a0", "12.4", ("sm_90a",)),
    "one family": ("2.9.0", "12.9", ("compute_100f",)),
}


def on(card: str, build: str, **more: Any) -> Plan:
    torch, cuda, archs = BUILDS[build]
    interpreter = replace(WHOLE, cuda_version=cuda, cuda_archs=archs)
    return World(card, model="t2v-1.3B", interpreter=interpreter, modules={"torch": torch}, **more).plan(**SMALL)


@pytest.mark.parametrize(
    ("card", "build", "fix"),
    [
        ("1xRTX5090", "2.4 cu121", "torch 2.7 or newer, built for CUDA 12.8"),
        ("2xRTX5090", "2.4 cu121", "torch 2.7 or newer, built for CUDA 12.8"),  # reported once
        ("1xB200", "2.4 cu121", "torch 2.7 or newer, built for CUDA 12.8"),
        ("1xV100-32GiB", "2.7 cu128", "CUDA 12.6 (cu126)"),
        ("1xP40", "2.11 cu130", "CUDA 12.6 (cu126)"),
        ("1xRTX4090", "from source", "official build"),
        ("1xRTX5090", "from source", "cu128"),  # code for sm_90a runs on no newer card
        ("1xRTX5090", "one family", "cu128"),
        ("1x80GiB@3.5", "2.4 cu121", "CUDA 12.6"),
    ],
)
def test_a_card_for_which_torch_has_no_kernels_is_refused_with_the_build_to_install(
    card: str, build: str, fix: str
) -> None:
    error = finding(on(card, build), "torch.arch")
    assert error.failure is Failure.ENV
    assert fix in error.fix
    assert BUILDS[build][0] in error.message
    assert "GPU 0 " in error.message


@pytest.mark.parametrize(
    ("card", "build"),
    [
        ("1xRTX5090", "2.7 cu128"),
        ("1xRTX4090", "2.4 cu121"),  # sm_89 runs the code of sm_86
        ("1xA100", "2.4 cu121"),
        ("1xH100", "from source"),
        ("1x80GiB@12.1", "2.7 cu128"),
        ("1x80GiB@10.3", "one family"),
        ("1x80GiB@13.0", "2.7 cu128"),  # through PTX
    ],
)
def test_a_card_that_torch_was_built_for_is_accepted(card: str, build: str) -> None:
    assert codes(on(card, build)) == set()


@pytest.mark.parametrize("card", ["1xV100-32GiB", "1xRTX2080Ti", "1xT4"])
def test_before_ampere_wan_runs_without_flash_attn_and_says_that_bfloat16_is_slow(card: str) -> None:
    plan = on(card, "2.4 cu121", absent=("flash_attn_interface",))
    assert codes(plan) == set()
    assert plan.parameters["attention"] == "sdpa"
    assert "8.0 (Ampere) or newer" in finding(plan, "attention.sdpa").message
    assert "bfloat16" in finding(plan, "gpu.bf16").message
    assert isinstance(plan.run, Command)
    assert "--attention=sdpa" in plan.run.argv


def test_a_configured_flash_attn_is_refused_on_an_old_card() -> None:
    error = finding(on("1xV100-32GiB", "2.4 cu121", settings={"attention": "flash"}), "attention.card")
    assert (error.severity, error.failure) == ("error", Failure.ENV)
    assert "attention: sdpa" in error.fix


@pytest.mark.parametrize(("card", "attention"), [("1xH100", "flash"), ("1xA100-80GiB", "sdpa"), ("1xRTX5090", "sdpa")])
def test_the_third_flash_attn_is_used_on_hopper_only(card: str, attention: str) -> None:
    build = BUILDS["2.7 cu128"]
    interpreter = replace(WHOLE, cuda_version=build[1], cuda_archs=build[2])
    plan = World(card, model="t2v-1.3B", interpreter=interpreter).plan(**SMALL)  # both generations can be imported
    assert plan.parameters["attention"] == attention


def test_without_the_third_the_second_runs_on_every_card_since_ampere() -> None:
    for card in ("1xA100-80GiB", "1xRTX4090", "1xH100"):
        plan = World(card, model="t2v-1.3B", absent=("flash_attn_interface",)).plan(**SMALL)
        assert plan.parameters["attention"] == "flash"


@pytest.mark.parametrize(("card", "package", "runs"), [
    ("1xV100", "flash_attn", False),
    ("1xT4", "flash_attn", False),
    ("1xRTX3090", "flash_attn", True),
    ("1xRTX5090", "flash_attn", True),
    ("1xH100", "flash_attn_interface", True),
    ("1xRTX3090", "flash_attn_interface", False),
    ("1xB200", "flash_attn_interface", False),
])  # fmt: skip
def test_each_generation_of_flash_attn_has_its_cards(card: str, package: str, runs: bool) -> None:
    assert (flash_attn_problem(simulated_gpus(card)[0], package) is None) is runs


def test_attention_without_a_kernel_needs_what_a_2080_ti_asked_for() -> None:
    (card,) = simulated_gpus("1xRTX2080Ti")
    assert attention_bytes([card], 32760, 12) == pytest.approx(47.98 * GIB, rel=0.001)
    assert attention_bytes(simulated_gpus("1xRTX3090,1xA100"), 32760, 12) == 0
    assert attention_bytes(simulated_gpus("1xRTX3090,1xRTX2080Ti"), 32760, 12) == attention_bytes([card], 32760, 12)


@pytest.mark.parametrize("member", ["t2v", "i2v"])
def test_hunyuan_scripts_that_know_flash_attn_only_are_refused_on_old_cards(member: str) -> None:
    plan = Hunyuan(member, "1xV100-32GiB").plan(picture=Size(1280, 720) if member == "i2v" else None)
    (error,) = [item for item in plan.errors if item.code == "attention.card"]
    assert "8.0 or newer" in error.fix
    assert "attention.card" not in codes(Hunyuan("1.5", "1xV100-32GiB").plan())


# ------------------------------------------------------------------------------------------------------------- driver


@pytest.mark.parametrize(
    ("driver", "build", "refused"),
    [
        (("550.54", (12, 4)), "2.11 cu130", "580 or newer"),
        (("470.82", (11, 4)), "2.4 cu121", "525 or newer"),
        (("550.54", (12, 4)), "2.7 cu128", None),  # minor versions of one major version fit
        (("580.95", (13, 0)), "2.4 cu121", None),
    ],
)
def test_a_driver_that_is_too_old_for_torchs_cuda_is_named_with_the_one_to_install(
    driver: tuple[str, tuple[int, int]], build: str, refused: str | None
) -> None:
    plan = on("1xH100", build, driver=driver)
    assert codes(plan) == ({"torch.driver"} if refused else set())
    if refused:
        error = finding(plan, "torch.driver")
        assert driver[0] in error.message
        assert refused in error.fix


@pytest.mark.parametrize(
    ("gpus", "simulated", "found"),
    [
        (simulated_gpus("1xH100"), False, ["torch.driver"]),
        (simulated_gpus("1xH100"), True, []),  # the driver of this machine is not that of the other one
        ((), False, []),
        ((Gpu(0, "GPU-0", "a card that does not answer", None, None),), False, ["torch.driver"]),
    ],
)
def test_the_driver_is_judged_for_the_cards_that_it_runs(
    gpus: tuple[Gpu, ...], simulated: bool, found: list[str]
) -> None:
    build = BUILDS["2.11 cu130"]
    python = replace(WHOLE, modules={"torch": build[0]}, cuda_version=build[1], cuda_archs=build[2])
    host = Host(gpus=gpus, driver_version="550.54", driver_cuda=(12, 4), simulated=simulated)
    assert [item.code for item in findings(RunEnvironment(python, gpus), host)] == found


# --------------------------------------------------------------------------------------------- packages and requirements

WAN = ("torch>=2.4.0", "transformers>=4.49.0", "numpy>=1.23.5,<2", "opencv-python>=4.9.0.80", "gradio>=5.0.0", "tqdm")
HV = ("transformers==4.39.3", "diffusers==0.30.2", "numpy==1.24.4", "imageio-ffmpeg==0.5.1")


@pytest.mark.parametrize(
    ("lines", "packages", "words"),
    [
        (WAN, {"transformers": "4.40.0"}, ["transformers 4.40.0 (needs >=4.49.0)"]),
        (WAN, {"numpy": "2.1.0"}, ["numpy 2.1.0 (needs <2,>=1.23.5)"]),
        (WAN, {"torch": "2.3.1+cu121", "numpy": "1.26.4"}, ["torch 2.3.1+cu121"]),
        (WAN, {"opencv-python": "4.8.0.1"}, ["opencv-python 4.8.0.1"]),
        (HV, {"transformers": "5.1.0", "diffusers": "0.35.0"}, ["transformers 5.1.0 (needs ==4.39.3)", "diffusers 0.35.0"]),
        (("Transformers == 4.39.3 ; python_version >= '3.9'",), {"transformers": "4.40"}, ["Transformers 4.40"]),
        (("imageio_ffmpeg<0.5",), {"imageio-ffmpeg": "0.6.0"}, ["imageio_ffmpeg 0.6.0"]),
        (WAN, {"transformers": "4.51.3", "numpy": "1.26.4", "gradio": "3.0", "opencv-python": "4.10"}, []),
        (("transformers==4.39.3; python_version < '3.9'",), {"transformers": "5.0"}, []),
        (("-r more.txt", "transformers @ file:///somewhere", "transformers==", "???"), {"transformers": "5.0"}, []),
        (("transformers>=4",), {"transformers": "unknown"}, []),
        (("transformers>=4",), {"transformers": "4.x, our own"}, []),
        (("transformers==4.39.3 --hash=sha256:00",), {"transformers": "5.0"}, ["transformers 5.0"]),
        (("transformers==4.39.3 \\",), {"transformers": "5.0"}, ["transformers 5.0"]),
        (("???", "transformers==4.39.3"), {"transformers": "5.0"}, ["transformers 5.0"]),
        (("transformers>=4.51",), {}, ["transformers 4.50"]),  # the version that the module itself reports
        (("tokenizers<0.20", "accelerate<1", "huggingface_hub<1"),
         {"tokenizers": "0.21", "accelerate": "1.1", "huggingface-hub": "1.2"},
         ["tokenizers 0.21", "accelerate 1.1", "huggingface_hub 1.2"]),
        (("torch>=2.4",), {"torch": "2.6.0a0+git123"}, []),
    ],
)  # fmt: skip
def test_installed_packages_are_compared_with_the_checkouts_own_requirements(
    lines: tuple[str, ...], packages: dict[str, str], words: list[str]
) -> None:
    interpreter = replace(WHOLE, packages=packages)
    plan = World(interpreter=interpreter, matches={"requirements": lines}).plan()
    found = [item for item in plan.findings if item.code == "packages.requirements"]
    assert len(found) == bool(words)
    assert [word for word in words if word not in found[0].message] == []
    assert all("pip install -r requirements.txt" in item.fix for item in found)


@pytest.mark.parametrize(
    ("torch", "numpy", "code"),
    [
        ("2.2.2+cu121", "2.0.1", "packages.numpy"),
        ("2.2.2+cu121", "1.26.4", None),
        ("2.3.0+cu121", "2.0.1", None),
        ("1.13.1", "2.4.6", "packages.numpy"),
        ("2.2.2", "unknown", None),
        ("unknown", "2.0.1", None),
    ],
)
def test_numpy_2_with_a_torch_from_before_it_is_refused(torch: str, numpy: str, code: str | None) -> None:
    plan = World(interpreter=replace(WHOLE, packages={"numpy": numpy}), modules={"torch": torch}).plan()
    assert codes(plan) == ({code} if code else set())
    if code:
        assert "'numpy<2'" in finding(plan, code).fix


@pytest.mark.parametrize(
    ("python", "torch", "requires", "requirements", "severity"),
    [
        ("3.13.1", "2.4.0", (), (), "warning"),
        ("3.12.1", "2.1.0", (), (), "warning"),
        ("3.13.1", "2.6.0", (), (), None),
        ("3.10.14", "2.4.0", (">=3.10,<4.0",), (), None),
        ("3.9.2", "2.4.0", (">=3.10,<4.0",), (), "error"),
        ("3.8.10", "2.4.0", (), (), "error"),
        ("3.8.10", "2.4.0", (">=3.10",), (), "error"),
        ("3.9.18", "2.4.0", (), (), None),
        ("3.14.0", "2.8.0", (), (), "warning"),
        ("3.14.0", "2.9.1+cu128", (), (), None),
        ("3.13.0", "2.5.0", (), (), None),
        ("3.11.9", "1.12.1", (), (), "warning"),
        ("3.13.1", None, (), ("torch<=2.4.1",), "error"),
        ("3.13.1", None, (), ("torch==2.4.0",), "error"),
        ("3.13.1", None, (), ("torch>=2.4.0",), None),
        ("3.10.1", "2.4.0", ("nonsense",), (), None),
    ],
)
def test_the_version_of_python_is_judged(
    python: str, torch: str | None, requires: tuple[str, ...], requirements: tuple[str, ...], severity: str | None
) -> None:
    world = World(
        interpreter=replace(WHOLE, python_version=python),
        modules={"torch": torch} if torch else {},
        absent=() if torch else ("torch",),
        matches={"requires_python": requires, "requirements": requirements},
    )
    found = [item for item in world.plan().findings if item.code == "python.version"]
    assert [item.severity for item in found] == ([severity] if severity else [])
    assert all(python in item.message and item.fix for item in found)


def test_an_interpreter_that_did_not_answer_is_not_judged() -> None:
    packages = {"transformers": "4.40.0"}
    broken = replace(WHOLE, problem="does not exist", packages=packages)
    silent = replace(WHOLE, python_version=None, packages=packages)
    for python, found in ((broken, {"interpreter"}), (silent, set())):
        plan = World(interpreter=python, matches={"requirements": WAN}).plan()
        assert codes(plan) == found
        assert not [item.code for item in plan.findings if item.code.startswith(("packages.", "python."))]


# -------------------------------------------------------------------------------------------------------------- cards


@pytest.mark.parametrize(
    ("name", "faster_than"),
    [
        ("NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA GeForce RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 2080 Ti"),
        ("NVIDIA RTX 6000 Ada Generation", "Quadro RTX 6000"),
        ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-40GB MIG 3g.20gb"),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "NVIDIA A100-SXM4-40GB MIG 1g.5gb"),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb"),
    ],
)
def test_cards_are_ordered_by_their_speed(name: str, faster_than: str) -> None:
    assert cards.speed(name, (8, 0)) > cards.speed(faster_than, (8, 0))


def test_an_unknown_card_has_the_speed_of_its_generation() -> None:
    assert cards.speed("some new card", (9, 0)) > cards.speed("some new card", (12, 0))
    assert cards.speed("some new card", (12, 0)) > cards.speed("some new card", (8, 9))
    assert cards.speed("some new card", (8, 9)) > cards.speed("some new card", (7, 5))
    assert cards.speed("unknown GPU", None) > 0


@pytest.mark.parametrize("card", cards.CARDS, ids=lambda card: card.name)
def test_every_card_is_found_by_its_own_name_and_by_the_drivers(card: cards.Card) -> None:
    assert cards.find(card.name) is cards.find(f"Tesla {card.name}") is card
    assert cards.speed(f"NVIDIA {card.name}", card.capability) == card.tflops


def test_a_version_that_is_not_known_contradicts_nothing() -> None:
    unknown = replace(
        WHOLE, python_version="unknown", cuda_version="git-99", modules={"torch": "git-1", "numpy": "git-2"}
    )
    host = Host(driver_cuda=(12, 4))
    assert not list(findings(RunEnvironment(unknown, simulated_gpus("1xH100"), "Wan2.1"), host))
