"""Every task x size x 1 to 8 GPUs x FSDP gives a command that generate.py's own parser and asserts take, or a refusal.

The commands are judged by the stand-in's parser and checks, which `tests/stand_ins_check` holds against the real ones,
under the launcher where the plan uses it; nothing is run.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reelwright import load_settings
from reelwright.backends.shared.job import Job
from reelwright.backends.wan21 import variants
from reelwright.backends.wan21.backend import BACKEND, LAUNCHER
from reelwright.core.errors import Failure
from reelwright.core.host import Host, simulated_gpus
from reelwright.core.plan import Command, Plan
from reelwright.core.request import Picture, Size, VideoRequest
from reelwright.sites.local.probes.host import take_host
from tests.stand_ins.checkout import launches, make_wan_checkout
from tests.wan21.conftest import WanMachine

TASKS = {variant.task: variant for variant in variants.VARIANTS}
SIZES = (*variants.OWN_SIZES, *variants.ADDED_SIZES)
WRONG_SIZES = (Size(1024, 1024), Size(1920, 1080), Size(16, 16))
PICTURE = Picture(Path("/run/first.png"), Path("/a.png"), Size(1280, 720), Size(1280, 720), "0" * 64)
Reel = Callable[..., subprocess.CompletedProcess[str]]

#: Reads [[world, argv], ...], judges each as rank 0 of that world would, prints [error or null, ...].
_JUDGE = """
import contextlib, importlib.util, io, json, sys
from types import SimpleNamespace
source, launcher_path = sys.argv[1:3]
sys.path.insert(0, source)
import generate
from wan import configs
from wan.first_last_frame2video import fixed_mask_problem
from wan.image2video import mask_problem
spec = importlib.util.spec_from_file_location("launcher", launcher_path)
launcher = importlib.util.module_from_spec(spec)
sys.modules["launcher"] = launcher
spec.loader.exec_module(launcher)
kept = {name: dict(getattr(configs, name)) for name in ("SIZE_CONFIGS", "MAX_AREA_CONFIGS", "SUPPORTED_SIZES")}

def judge(world, argv):
    for name, table in kept.items():
        getattr(configs, name).clear()
        getattr(configs, name).update(table)
    if argv[0] == launcher_path:
        order = launcher.parse(argv[1:])
        for size in order.sizes:
            launcher.add_size(configs, size)
        argv = [order.script, *order.arguments]
    sys.argv = argv
    args = generate._parse_args()
    launch = SimpleNamespace(world=world, rank=1, barrier=lambda name: None, plan={})
    generate._join(args, launch)
    kind = args.task.partition("-")[0]
    check = {"flf2v": fixed_mask_problem, "i2v": lambda frames: mask_problem(frames, 60, 104)}.get(kind, lambda _: None)
    return check(args.frame_num) or (None if args.prompt == "a cat" else "another prompt")

answers = []
for world, argv in json.load(sys.stdin):
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            answers.append(judge(world, argv))
    except BaseException as error:
        answers.append(f"{type(error).__name__}: {error} {said.getvalue()[-300:]}")
print(json.dumps(answers))
"""


def judged(cases: Sequence[tuple[int, Sequence[str]]], machines: Machines) -> list[str | None]:
    """What the stand-in's parser and asserts say to each (world size, script with arguments)."""
    argv = [machines.values["python"], "-c", _JUDGE, machines.values["wan2_dir"], str(LAUNCHER)]
    done = subprocess.run(argv, input=json.dumps(cases), capture_output=True, text=True, check=False, env={})
    assert done.returncode == 0, done.stderr
    answers: list[str | None] = json.loads(done.stdout)
    return answers


class Machines:
    """The stand-in machine as it is probed once per task, with any number of GPUs put in afterwards."""

    def __init__(self, parts: Mapping[str, Path], folder: Path) -> None:
        self.values = {
            "wan2_dir": str(make_wan_checkout(folder / "Wan2.1")),
            "python": str(parts["python"]),
            "state_dir": str(folder / "state"),
            "i2v_model_dir": str(parts["i2v"]),
            "flf2v_model_dir": str(parts["flf2v"]),
            "t2v_model_dir": str(parts["t2v"]),
            "t2v_1_3b_model_dir": str(parts["t2v_1_3b"]),
        }
        self._hosts: dict[str, Host] = {}

    def plan(self, task: str, visible: int, ask: dict[str, Any], *, memory: int = 80, **values: Any) -> Plan:
        """What the backend plans for a task on so many GPUs of so many GiB."""
        settings = load_settings(environ={}, arguments={**self.values, "model": task, **values})
        images = {"i2v-14B": 1, "flf2v-14B": 2}.get(task, 0)
        first, last = (PICTURE if images > place else None for place in (0, 1))
        sources: dict[str, Any] = {"image": first and first.source, "last_image": last and last.source}
        request = VideoRequest(prompt="a cat", seed=7, **sources, **ask)
        if task not in self._hosts:
            query = BACKEND.query(request, settings)
            self._hosts[task] = take_host(query, environ={}, simulated="1x80GiB", state_dir=None)
        host = replace(self._hosts[task], gpus=simulated_gpus(f"{visible}x{memory}GiB"))
        return BACKEND.plan(Job(request, settings, host, Path("/run/film.mp4"), first, last))


@pytest.fixture(scope="module")
def machines(wan_parts: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Machines:
    return Machines(wan_parts, tmp_path_factory.mktemp("plans"))


def script_of(plan: Plan) -> tuple[int, list[str]]:
    """The world size, and the script with its arguments as a rank gets them."""
    assert isinstance(plan.run, Command)
    words = list(plan.run.argv)
    if "torch.distributed.run" not in words:
        assert plan.run.ranks == 1
        return 1, words[1:]
    world = next(int(word.partition("=")[2]) for word in words if word.startswith("--nproc_per_node="))
    start = words.index("--max-restarts=0") + 1
    assert (world, words[3:5]) == (plan.run.ranks, ["--standalone", "--local-addr=127.0.0.1"])
    return world, words[start:]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("counted", [True, False], ids=["asked", "detected"])
def test_every_size_on_1_to_8_gpus_with_and_without_fsdp_is_legal_or_refused(
    task: str, counted: bool, machines: Machines
) -> None:
    cases, meant = [], []
    for size, gpus, fsdp in itertools.product((*SIZES, *WRONG_SIZES), range(1, 9), (True, False)):
        count = {"gpu_count": gpus} if counted else {}
        plan = machines.plan(task, 8 if counted else gpus, {"size": size}, chaining_use_fsdp_flags=fsdp, **count)
        if plan.run is None:
            (error,) = plan.errors
            assert (error.code, error.failure) == ("size.unsupported", Failure.CONFIG)
            assert str(TASKS[task].sizes[0]) in error.fix
            assert size in WRONG_SIZES or task == "t2v-1.3B"
            continue
        assert plan.errors == ()
        assert isinstance(plan.run, Command)
        world, script = script_of(plan)
        assert len(plan.gpus) == world
        assert world == gpus if counted else world <= gpus
        assert ("--dit_fsdp" in script) == (fsdp and world > 1)
        assert (script[0] == str(LAUNCHER)) == (size in variants.ADDED_SIZES)
        cases.append((world, script))
        meant.append((size, gpus, fsdp))
    wrong = {what: answer for what, answer in zip(meant, judged(cases, machines), strict=True) if answer}
    assert wrong == {}
    assert len(cases) == {"t2v-1.3B": 2}.get(task, 8) * 16


@pytest.mark.parametrize("task", TASKS)
def test_every_number_of_frames_is_legal_or_refused(task: str, machines: Machines) -> None:
    cases, refused = [], []
    for frames in range(1, 90):
        plan = machines.plan(task, 1, {"num_frames": frames, "size": Size(832, 480)})
        if plan.run is None:
            assert [error.failure for error in plan.errors] == [Failure.CONFIG]
            refused.append(frames)
        else:
            cases.append((1, script_of(plan)[1]))
    assert set(judged(cases, machines)) == {None}
    legal = [81] if task == "flf2v-14B" else list(range(1, 90, 4))
    assert sorted(refused) == [frames for frames in range(1, 90) if frames not in legal]


def test_the_judge_finds_what_the_real_script_refuses(machines: Machines) -> None:
    plan = machines.plan("i2v-14B", 8, {}, gpu_count=3)
    world, script = script_of(plan)
    spoilt = [
        (world + 1, script),
        (1, script),
        (
            world,
            [
                word.replace("--ring_size=3", "--ring_size=1").replace("--ulysses_size=1", "--ulysses_size=3")
                for word in script
            ],
        ),
        (world, [word.replace("1280*720", "1280x720") for word in script]),
        (world, [word.replace("1280*720", "1024*576") for word in script]),
        (world, [word.replace("=50", "=37.5") for word in script]),
        (world, [word.replace("frame_num=81", "frame_num=80") for word in script]),
        (world, [*script, "--negative_prompt=x"]),
    ]
    answers = judged([(world, script), *spoilt], machines)
    assert answers[0] is None
    assert all(answers[1:]), answers


@pytest.mark.parametrize(
    ("task", "gpus", "degrees"),
    [
        ("i2v-14B", 3, (1, 3)),
        ("i2v-14B", 5, (5, 1)),
        ("i2v-14B", 6, (2, 3)),
        ("i2v-14B", 7, (1, 7)),
        ("i2v-14B", 8, (8, 1)),
        ("t2v-1.3B", 5, (1, 5)),
        ("t2v-1.3B", 6, (6, 1)),
        ("t2v-1.3B", 8, (4, 2)),
    ],
)
def test_the_degrees_follow_the_heads(task: str, gpus: int, degrees: tuple[int, int], machines: Machines) -> None:
    parameters = machines.plan(task, 8, {"size": Size(832, 480)}, gpu_count=gpus).parameters
    assert (parameters["ulysses_size"], parameters["ring_size"]) == degrees


@pytest.mark.parametrize(("task", "visible", "used"), [("i2v-14B", 7, 5), ("i2v-14B", 3, 2), ("t2v-1.3B", 8, 6)])
def test_detected_gpus_are_used_as_far_as_ulysses_alone_splits_the_heads(
    task: str, visible: int, used: int, machines: Machines
) -> None:
    plan = machines.plan(task, visible, {"size": Size(832, 480)})
    assert len(plan.gpus) == used
    assert f"{used} of {visible} GPUs are used" in next(f.message for f in plan.findings if f.code == "gpus.fewer")


@pytest.mark.parametrize(("fsdp", "memory", "offload"), [(True, 80, False), (False, 80, True), (False, 100, False)])
def test_several_gpus_offload_only_where_the_whole_weights_would_not_fit(
    fsdp: bool, memory: int, offload: bool, machines: Machines
) -> None:
    plan = machines.plan("i2v-14B", 3, {}, memory=memory, gpu_count=3, chaining_use_fsdp_flags=fsdp)
    assert plan.parameters["offload_model"] is offload
    assert plan.gpu_bytes is not None
    assert plan.gpu_bytes < memory * 1024**3


# ------------------------------------------------------------------------------------------- the same through `reel plan`


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--gpus", "1"), 0),
        (("--gpus", "3", "--set", "chaining_use_fsdp_flags=false"), 0),
        (("--gpus", "1", "--simulate-gpus", "1x24GiB"), 20),
        (("--gpus", "3"), 0),
        (("--gpus", "8", "--size", "1024x576"), 0),
        (("--gpus", "9"), 13),
        (("--size", "1000x1000"), 11),
        (("--frames", "80"), 11),
    ],
)
def test_reel_plan_shows_a_command_or_ends_with_the_class_of_the_refusal(
    wan: WanMachine, reel: Reel, arguments: tuple[str, ...], status: int
) -> None:
    config = wan.config_file(simulate_gpus="8x80GiB", gpu_count=None, size=None)
    done = reel("plan", wan.photo, "a cat", "--config", config, *arguments, "--json", env={**os.environ, **wan.environ})
    assert done.returncode == status, done.stdout
    plan = json.loads(done.stdout)
    assert (plan["command"] is None) == (status == 11)
    if status == 0:
        script = plan["command"]["argv"][-1]
        assert script == "--prompt=a cat"
    else:
        assert next(item for item in plan["findings"] if item["severity"] == "error")["fix"]
    assert launches(wan.checkout) == []
    assert list(wan.output.parent.iterdir()) == []


def test_what_reel_plan_shows_is_what_reel_generate_starts(wan: WanMachine, reel: Reel) -> None:
    words = (wan.photo, "a cat", "-o", wan.output, "--config", wan.config_file(), "--frames", "5", "--seed", "7")
    env = {**os.environ, **wan.environ}
    planned = json.loads(reel("plan", *words, "--gpus", "2", "--json", env=env).stdout)["command"]
    assert reel("generate", *words, "--gpus", "2", env=env).returncode == 0

    def common(argv: Sequence[str]) -> list[str]:
        """Without the run's own folder."""
        return [word.partition(".reelwright-")[0] for word in argv]

    started = wan.published().plan
    assert started is not None
    assert common(started["command"]["argv"]) == common(planned["argv"])
    assert started["command"]["env"] == planned["env"]
    first = launches(wan.checkout)[0]
    assert common(first["argv"]) == common(planned["argv"][planned["argv"].index("generate.py") :])
    assert {name: first["environ"][name] for name in planned["env"]} == planned["env"]
    assert first["cwd"] == planned["cwd"]
    wan.check()


def test_a_plan_for_imagined_gpus_says_so_loudly(wan: WanMachine, reel: Reel) -> None:
    done = reel("plan", wan.photo, "a cat", "--config", wan.config_file(), env={**os.environ, **wan.environ})
    assert "SIMULATED" in done.stdout
