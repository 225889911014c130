"""Every planned command is given to the parsers and checks of the official checkouts; heavy packages are replaced.

What the real code would render (size, frames, steps, folders, the film's name) is what the plan promised.
"""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reelwright.backends.hunyuan import facts
from reelwright.backends.hunyuan.commands import LAUNCHER
from reelwright.core.plan import Plan
from reelwright.core.request import Size
from tests.hunyuan.planning import MEMBERS, command_of
from tests.real_hunyuan.conftest import VARIABLES, Bench, checkout_of, drive
from tests.stand_ins.checkout import make_hunyuan_checkout

pytestmark = pytest.mark.real
WIDE = Size(1280, 720)
CJK = "一只橘猫在阳光下慢慢转过头来看着镜头" * 12
PICTURES = (Size(1024, 768), WIDE, Size(768, 1024), Size(1080, 1080), Size(2000, 500), Size(480, 832))


def assert_kept(plan: Plan, outcome: tuple[int, Any, str]) -> Any:
    """What the real code made is what the plan promised."""
    status, seen, text = outcome
    assert status == 0, text[-3000:]
    assert plan.expected is not None
    assert (seen["width"], seen["height"]) == (plan.expected.width, plan.expected.height)
    assert seen["frames"] == plan.expected.num_frames
    assert seen["steps"][0] == plan.parameters.get("steps", plan.parameters.get("fixed_steps"))
    return seen


@pytest.mark.parametrize("member", VARIABLES)
def test_the_stand_ins_parser_is_the_real_one(member: str, tmp_path: Path) -> None:
    stand_in = make_hunyuan_checkout(tmp_path / "checkout", member)
    found = [drive("parser", place / MEMBERS[member].script, "--help") for place in (checkout_of(member), stand_in)]
    real, own = ({action[0][0]: action for action in seen} for _, seen, _ in found)
    assert real == own
    assert len(real) > 30


@pytest.mark.parametrize("member", VARIABLES)
def test_our_options_and_flags_are_in_the_real_parser_with_their_kinds(member: str) -> None:
    _, actions, text = drive("parser", checkout_of(member) / MEMBERS[member].script)
    assert actions, text
    real = {flag: action for action in actions for flag in action[0]}
    assert set(MEMBERS[member].flags) <= set(real)
    dashes = "-" if member != "1.5" else "_"
    for name, option in MEMBERS[member].options.items():
        _, kind, _, choices, nargs, _, _ = real[f"--{name.replace('_', dashes)}"]
        known = {"flag": (None, 0), "switch": ("str_to_bool", "?"), "int": ("int", None), "float": ("float", None)}
        assert (kind, nargs) == known.get(option.kind, ("str", None)), name
        assert choices is None or set(option.choices) <= set(choices), name
    for name in MEMBERS[member].parameters:
        assert f"--{name.replace('_', dashes)}" in real


@pytest.mark.parametrize("member", ["t2v"])
@pytest.mark.parametrize("size", ["1280x720", "720x1280", "960x544", "1100x700", "320x192"])
def test_hunyuanvideo_makes_the_promised_film(bench: Bench, size: str) -> None:
    plan = bench.plan(bench.world(settings={"size": size, "gpu_count": 1}), num_frames=65, steps=30)
    seen = assert_kept(plan, bench.carry_out(plan))
    assert (seen["guidance"], seen["cfg"], seen["fps"], seen["prompt"]) == (6.0, 1.0, 24, "a cat")
    assert Path(seen["film"]).parent == bench.folder / "attempt-1"
    assert all(Path(folder).is_relative_to(bench.weights) for folder in seen["folders"])


@pytest.mark.parametrize("member", ["i2v"])
@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("size", ["1280x720", "960x540", "640x360"])
def test_hunyuanvideo_i2v_makes_the_promised_film(bench: Bench, picture: Size, size: str) -> None:
    plan = bench.plan(bench.world(settings={"size": size, "gpu_count": 1}), picture)
    seen = assert_kept(plan, bench.carry_out(plan))
    assert seen["guidance"] == 6.0
    used = [folder for folder in seen["folders"] if not folder.endswith("/text_encoder")]
    assert all(Path(folder).is_dir() for folder in used)


@pytest.mark.parametrize("member", ["1.5"])
@pytest.mark.parametrize("picture", [None, *PICTURES])
@pytest.mark.parametrize(("size", "enlarge"), [("832x480", False), ("1280x720", True), ("1920x1080", "auto")])
def test_one_point_five_makes_the_promised_film(bench: Bench, picture: Size | None, size: str, enlarge: object) -> None:
    plan = bench.plan(bench.world(settings={"size": size, "super_resolution": enlarge, "gpu_count": 1}), picture)
    seen = assert_kept(plan, bench.carry_out(plan))
    assert seen["steps"][1:] == ([6] if size == "1280x720" else [8] if enlarge == "auto" else [])
    assert all(Path(folder).is_dir() for folder in seen["folders"])


@pytest.mark.parametrize("member", ["t2v", "i2v"])
@pytest.mark.parametrize("count", range(2, 9))
def test_the_degrees_of_several_gpus_pass_the_real_checks_and_refused_ones_fail_there(bench: Bench, count: int) -> None:
    picture = WIDE if bench.member == "i2v" else None
    plan = bench.plan(bench.world(settings={"gpu_count": count}), picture)
    if plan.run is not None:
        assert_kept(plan, bench.carry_out(plan))
        return
    single = bench.plan(bench.world(settings={"gpu_count": 1}), picture)
    command = command_of(single)
    forced = single.evolve(run=replace(command, ranks=count))
    status, _, text = bench.carry_out(forced, f"--ulysses-degree={count}", "--ring-degree=1")
    assert status == 1
    assert "Cannot split video sequence" in text or "ALLOW_RESIZE_FOR_SP=1" in text


@pytest.mark.parametrize("member", ["1.5"])
@pytest.mark.parametrize("count", [2, 4, 8])
def test_several_gpus_of_one_point_five_pass_the_real_checks(bench: Bench, count: int) -> None:
    plan = bench.plan(bench.world(settings={"gpu_count": count}))
    assert_kept(plan, bench.carry_out(plan))


@pytest.mark.parametrize(
    ("member", "options"),
    [
        ("t2v", {"cfg_scale": 2.0, "neg_prompt": "--blur", "precision": "fp16", "reproduce": True, "video_size": [544, 960]}),
        ("i2v", {"i2v_stability": True, "use_lora": False, "lora_scale": 0.5, "linear_schedule_end": 20}),
        ("1.5", {"use_sageattn": True, "overlap_group_offloading": False, "cache_type": "teacache", "dtype": "fp32"}),
        ("1.5", {"cfg_distilled": True, "sr": True}),
        ("1.5", {"enable_step_distill": True}),
    ],
)  # fmt: skip
def test_the_options_of_the_file_pass_the_real_parser(bench: Bench, options: dict[str, Any]) -> None:
    distilled = bench.member == "1.5" and "dtype" not in options
    size = {"size": "832x480"} if distilled and "sr" not in options else {}
    picture = None if bench.member == "t2v" else WIDE
    plan = bench.plan(bench.world(options=options, settings={"gpu_count": 1, **size}), picture)
    assert_kept(plan, bench.carry_out(plan))


@pytest.mark.parametrize("member", VARIABLES)
@pytest.mark.parametrize("prompt", ["--seed=9", "-5 degrees", "a\nb 'c' \"d\" $(e) 🎬", "../../etc/passwd"])
def test_n01_every_prompt_arrives_and_its_name_can_be_written(bench: Bench, prompt: str) -> None:
    picture = None if bench.member == "t2v" else WIDE
    plan = bench.plan(bench.world(settings={"gpu_count": 1}), picture, prompt=prompt)
    seen = assert_kept(plan, bench.carry_out(plan))
    assert seen.get("prompt", prompt) == prompt


@pytest.mark.parametrize("member", ["t2v", "i2v"])
def test_a_long_chinese_prompt_breaks_the_real_save_unless_our_launcher_stands_before_it(bench: Bench) -> None:
    picture = None if bench.member == "t2v" else WIDE
    plan = bench.plan(bench.world(settings={"gpu_count": 1}), picture, prompt=CJK)
    assert str(LAUNCHER) in command_of(plan).argv
    status, _, text = bench.carry_out(plan)
    assert status == 1
    assert "File name too long" in text
    command = command_of(plan)
    at = command.argv.index(str(LAUNCHER))
    script = checkout_of(bench.member) / command.argv[at + 1]
    status, seen, text = drive("launch", LAUNCHER, str(script), *command.argv[at + 2 :], environ=command.env)
    assert status == 0, text[-3000:]
    (film,) = (bench.folder / "attempt-1").iterdir()
    assert len(film.name.encode()) <= 255
    assert film.suffix == ".mp4"
    assert len(Path(seen["film"]).name.encode()) <= 255


# ---------------------------------------------------------------------------------------------- formulas of the sizes


def real_functions(path: Path, *names: str) -> dict[str, Any]:
    """Functions and classes of an official file, without importing it."""
    tree = ast.parse(path.read_text("utf-8"))
    tree.body = [node for node in tree.body if getattr(node, "name", None) in names]
    scope: dict[str, Any] = {"np": np}
    exec(compile(tree, str(path), "exec"), scope)
    return scope


def pictures() -> list[Size]:
    sides = (64, 300, 480, 512, 720, 768, 831, 832, 1024, 1080, 1280, 1920, 4000)
    return [Size(width, height) for width in sides for height in sides]


@pytest.mark.parametrize("resolution", facts.HVI_BASE)
def test_the_buckets_of_hunyuanvideo_i2v_are_the_real_ones(resolution: str) -> None:
    path = checkout_of("i2v") / "hyvideo" / "utils" / "data_utils.py"
    real = real_functions(path, "generate_crop_size_list", "get_closest_ratio")
    base = facts.HVI_BASE[resolution]
    pairs = real["generate_crop_size_list"](base, 32)
    ratios = np.array([round(float(h) / float(w), 5) for h, w in pairs])
    for picture in pictures():
        height, width = real["get_closest_ratio"](picture.height, picture.width, ratios, pairs)[0]
        assert facts.bucket(base, 32, picture, cropped=True) == Size(width, height), picture


@pytest.mark.parametrize("resolution", facts.SUPER)
def test_the_buckets_and_the_enlargement_of_one_point_five_are_the_real_ones(resolution: str) -> None:
    folder = checkout_of("1.5") / "hyvideo"
    real = real_functions(folder / "utils" / "data_utils.py", "generate_crop_size_list", "get_closest_ratio")
    maps = real_functions(folder / "pipelines" / "hunyuan_video_sr_pipeline.py", "BucketMap")
    maps["generate_crop_size_list"] = real["generate_crop_size_list"]
    base, large = facts.HV15_BASE[resolution], facts.SUPER[resolution][0]
    enlarged = maps["BucketMap"](base, facts.HV15_BASE[large], 16, 16)
    pairs = real["generate_crop_size_list"](base, 16)
    ratios = np.array([round(float(h) / float(w), 5) for h, w in pairs])
    for picture in pictures():
        height, width = real["get_closest_ratio"](picture.height, picture.width, ratios, pairs)[0]
        size = facts.bucket(base, 16, picture)
        assert size == Size(width, height), picture
        assert facts.enlarged(size, large) == Size(*enlarged((size.width, size.height))), picture


def test_the_tables_of_weights_of_one_point_five_are_the_real_ones() -> None:
    from reelwright.backends.hunyuan.members import VERSIONS

    path = checkout_of("1.5") / "hyvideo" / "commons" / "__init__.py"
    tables = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Dict)
        and node.targets[0].id.startswith(("PIPELINE", "SR_", "TRANSFORMER"))
    }  # fmt: skip
    assert set(tables["PIPELINE_CONFIGS"]) == VERSIONS
    for version in VERSIONS:
        enlarging = tables["TRANSFORMER_VERSION_TO_SR_VERSION"][version]
        large, steps = facts.SUPER[version.partition("_")[0]]
        assert (enlarging, tables["SR_PIPELINE_CONFIGS"][enlarging]["num_inference_steps"]) == (
            f"{large}_sr_distilled",
            steps,
        )
