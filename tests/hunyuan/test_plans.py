"""Plans of each member: the exact command, the promised film, and what is refused before any GPU work."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace
from pathlib import Path

import pytest

from reelwright.backends.hunyuan import facts, members
from reelwright.backends.hunyuan.decision import decide, has_fp8, transformer_file
from reelwright.core.errors import Failure
from reelwright.core.host import GIB, Checkpoint, Gpu
from reelwright.core.request import Size
from tests.hunyuan.planning import (
    BACKEND,
    CHECKOUT,
    MEMBERS,
    OPTIONS,
    OUTPUT,
    PYTHON,
    WEIGHTS,
    World,
    command_of,
    errors_of,
)

WIDE = Size(1280, 720)
PICTURES = {"t2v": None, "i2v": WIDE, "1.5": WIDE, "documented": WIDE}
ROOT = f"--model-base={WEIGHTS}"


def test_the_command_of_hunyuanvideo_has_every_option_that_matters() -> None:
    plan = World("t2v", settings={"gpu_count": 1}).plan()
    command = command_of(plan)
    assert command.argv == (
        str(PYTHON),
        "sample_video.py",
        f"--dit-weight={WEIGHTS}/hunyuan-video-t2v-720p/transformers/mp_rank_00_model_states.pt",
        "--video-size",
        "720",
        "1280",
        ROOT,
        f"--save-path={OUTPUT.parent}",
        "--video-length=129",
        "--infer-steps=50",
        "--embedded-cfg-scale=6.0",
        "--flow-shift=7.0",
        "--flow-reverse",
        "--seed=7",
        "--cfg-scale=1.0",
        "--prompt=a cat",
    )
    assert (command.cwd, command.collects) == (CHECKOUT, OUTPUT.parent)
    assert command.env["MODEL_BASE"] == str(WEIGHTS)
    assert command.env["HF_HUB_OFFLINE"] == "1"
    assert plan.expected is not None
    assert plan.expected.to_json() == {"width": 1280, "height": 720, "frames": 129, "fps": 24.0, "seconds": 5.375}


def test_the_command_of_hunyuanvideo_i2v_turns_its_mode_on_and_names_the_net_of_its_weights() -> None:
    command = command_of(World("i2v", settings={"gpu_count": 1}).plan(WIDE))
    words = set(command.argv)
    assert command.argv[1] == "sample_image2video.py"
    assert {"--i2v-mode", "--i2v-resolution=720p", "--i2v-image-path=/in/first.png", "--flow-shift=17.0"} <= words
    assert {"--model=HYVideo-T/2", "--embedded-cfg-scale=6.0", "--flow-reverse", ROOT} <= words
    assert f"--i2v-dit-weight={WEIGHTS}/hunyuan-video-i2v-720p/transformers/mp_rank_00_model_states.pt" in words
    assert "--video-size" not in words  # ignored in this mode: the picture decides


def test_the_command_of_one_point_five_writes_its_own_file_and_sends_nothing_anywhere() -> None:
    command = command_of(World("1.5", settings={"gpu_count": 1}).plan(WIDE))
    words = set(command.argv)
    assert command.argv[1] == "generate.py"
    assert {f"--model_path={WEIGHTS}", "--resolution=720p", "--sr=false", "--rewrite=false"} <= words
    assert {f"--output_path={OUTPUT}", "--image_path=/in/first.png", "--save_generation_config=false"} <= words
    assert not any(word.startswith(("--aspect_ratio", "--guidance", "--flow")) for word in words)
    assert command.collects is None
    text = set(command_of(World("1.5", settings={"gpu_count": 1}).plan(size=Size(720, 1280))).argv)
    assert "--aspect_ratio=720:1280" in text
    assert not any(word.startswith("--image_path") for word in text)


def test_the_documented_interface_gets_its_documented_options() -> None:
    command = command_of(World("documented").plan(WIDE))
    assert command.argv[1:] == (
        "inference.py",
        f"--cfg-path={OPTIONS}",
        f"--ckpt-path={WEIGHTS}",
        "--source-image=/in/first.png",
        f"--save-path={OUTPUT}",
        "--steps=50",
        "--fps=16",
        "--seed=7",
        "--prompt=a cat",
    )


@pytest.mark.parametrize("name", MEMBERS)
def test_every_option_is_one_word_and_the_prompt_the_last(name: str) -> None:
    command = command_of(World(name, settings={"gpu_count": 1}).plan(PICTURES[name], prompt="--seed=9"))
    assert command.argv[-1] == "--prompt=--seed=9"
    bare = {"--video-size", "--flow-reverse", "--i2v-mode"}
    assert all("=" in word or word in bare for word in command.argv if word.startswith("--"))


# ------------------------------------------------------------------------------------------------------- three roots


@pytest.mark.parametrize(
    ("ckpt_path", "root", "main"),
    [
        (None, CHECKOUT / "ckpts", "ckpts/hunyuan-video-t2v-720p/transformers/mp_rank_00_model_states.pt"),
        (
            "/w/hunyuan-video-t2v-720p/transformers/mp_rank_00_model_states.pt",
            Path("/w"),
            "/w/hunyuan-video-t2v-720p/transformers/mp_rank_00_model_states.pt",
        ),
        ("/elsewhere/mp_rank_00_model_states.pt", CHECKOUT / "ckpts", "/elsewhere/mp_rank_00_model_states.pt"),
    ],
)
def test_the_three_roots_of_the_older_members_agree(ckpt_path: str | None, root: Path, main: str) -> None:
    command = command_of(World("t2v", settings={"ckpt_path": ckpt_path, "gpu_count": 1}).plan())
    assert (command.env["MODEL_BASE"], f"--model-base={root}" in command.argv) == (str(root), True)
    (weight,) = [word for word in command.argv if word.startswith("--dit-weight=")]
    assert weight.endswith(main)


# ------------------------------------------------------------------------------------------------- what a film will be


@pytest.mark.parametrize(
    ("asked", "picture", "made"),
    [
        ("1280x720", Size(1024, 768), Size(1088, 832)),
        ("1280x720", Size(1920, 1080), Size(1248, 704)),
        ("1280x720", Size(768, 1024), Size(832, 1088)),
        ("960x540", Size(1920, 1080), Size(928, 544)),
        ("640x360", Size(1080, 1080), Size(480, 480)),
        ("1280x720", Size(4000, 500), Size(1920, 480)),
    ],
)
def test_the_picture_decides_the_size_of_hunyuanvideo_i2v(asked: str, picture: Size, made: Size) -> None:
    plan = World("i2v", settings={"size": asked, "gpu_count": 1}).plan(picture)
    assert plan.expected is not None
    assert Size(plan.expected.width, plan.expected.height) == made


@pytest.mark.parametrize(
    ("asked", "enlarge", "resolution", "made"),
    [
        ("832x480", "auto", "480p", Size(832, 480)),
        ("1280x720", "auto", "720p", Size(1280, 720)),
        ("1280x720", True, "480p", Size(1280, 720)),
        ("1920x1080", "auto", "720p", Size(1904, 1072)),
        ("720x1280", False, "720p", Size(720, 1280)),
    ],
)
def test_super_resolution_makes_the_size_that_is_requested(
    asked: str, enlarge: object, resolution: str, made: Size
) -> None:
    plan = World("1.5", settings={"size": asked, "super_resolution": enlarge, "gpu_count": 1}).plan()
    words = command_of(plan).argv
    assert plan.expected is not None
    assert f"--resolution={resolution}" in words
    assert Size(plan.expected.width, plan.expected.height) == made
    assert plan.parameters["super_resolution"] == (f"--sr={'true'}" in words)


@pytest.mark.parametrize(("asked", "enlarge"), [("832x480", True), ("1920x1080", False)])
def test_a_size_that_super_resolution_cannot_give_is_refused(asked: str, enlarge: bool) -> None:
    plan = World("1.5", settings={"size": asked, "super_resolution": enlarge}).plan()
    assert plan.run is None
    assert any("super_resolution: auto" in text for text in errors_of(plan))


def test_auto_takes_the_existing_weights() -> None:
    plan = World("1.5", absent=("720p_t2v",), settings={"gpu_count": 1}).plan()
    assert "--resolution=480p" in command_of(plan).argv
    assert plan.errors == ()


@pytest.mark.parametrize("name", ["t2v", "i2v", "1.5"])
def test_seconds_become_4n1_frames_at_24_fps_and_other_counts_are_refused(name: str) -> None:
    plan = World(name).plan(PICTURES[name], seconds=3.0)
    assert plan.expected is not None
    assert plan.expected.num_frames == 73
    wrong = World(name).plan(PICTURES[name], num_frames=120)
    assert wrong.run is None
    assert any("Use 121" in text for text in errors_of(wrong))
    assert any("fps" in text for text in errors_of(World(name).plan(PICTURES[name], fps=16.0)))


@pytest.mark.parametrize(("name", "trained"), [("t2v", 129), ("i2v", 129), ("1.5", 121)])
def test_a_clip_is_as_long_as_it_was_trained_for_unless_max_duration_says_more(name: str, trained: int) -> None:
    assert World(name).plan(PICTURES[name]).parameters["num_frames"] == trained
    (text,) = errors_of(World(name).plan(PICTURES[name], seconds=10.0))
    assert f"at most {trained} frames" in text
    longer = World(name, settings={"max_duration": 10}).plan(PICTURES[name], seconds=10.0)
    assert longer.errors == ()
    assert any(finding.code == "frames.long" for finding in longer.findings)
    shorter = World(name, settings={"max_duration": 2}).plan(PICTURES[name], seconds=3.0)
    assert [finding.code for finding in shorter.errors] == ["frames.too_long"]


# ---------------------------------------------------------------------------------------------------------- tasks


@pytest.mark.parametrize(
    ("name", "picture", "last", "fix"),
    [
        ("t2v", WIDE, False, "HunyuanVideo-I2V (github.com/Tencent-Hunyuan/HunyuanVideo-I2V) or HunyuanVideo-1.5"),
        ("i2v", None, False, "HunyuanVideo-1.5 (github.com/Tencent-Hunyuan/HunyuanVideo-1.5) or HunyuanVideo"),
        ("1.5", WIDE, True, "wan2.1"),
    ],
)
def test_a_task_that_the_checkout_cannot_do_is_refused_with_the_fix(
    name: str, picture: Size | None, last: bool, fix: str
) -> None:
    plan = World(name).plan(picture, last_image=Path("last.png") if last else None)
    (error,) = plan.errors
    assert (plan.run, error.code, error.failure) == (None, "task.unsupported", Failure.INPUT)
    assert fix in error.fix


@pytest.mark.parametrize("name", MEMBERS)
def test_the_member_and_its_abilities_are_reported(name: str) -> None:
    found = [item.message for item in World(name).plan(PICTURES[name]).findings if item.code == "member.found"]
    assert len(found) == 1
    assert MEMBERS[name].title in found[0]


# ------------------------------------------------------------------------------------------------------ several GPUs


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("name", MEMBERS)
def test_one_to_eight_gpus_give_a_legal_plan_or_a_refusal_with_the_nearest_count(name: str, count: int) -> None:
    plan = World(name, settings={"gpu_count": count}).plan(PICTURES[name])
    legal = {"t2v": {1, 2, 3, 4, 5, 8}, "i2v": {1, 2, 3, 4, 6}, "1.5": {1, 2, 4, 8}, "documented": {1}}[name]
    if count not in legal:
        nearest = max(number for number in legal if number < count)
        assert plan.run is None
        assert any(text.endswith(f"Use {nearest}: gpu_count: {nearest}.") for text in errors_of(plan))
        return
    command = command_of(plan)
    assert (command.ranks, len(plan.gpus)) == (count, count)
    assert (f"--nproc_per_node={count}" in command.argv) == (count > 1)
    degrees = [int(word.rpartition("=")[2]) for word in command.argv if re.match(r"--(ulysses|ring)-degree=", word)]
    if name in ("t2v", "i2v") and count > 1:  # never N copies of the whole job on one GPU
        assert degrees[0] * degrees[1] == count
        assert 24 % degrees[0] == 0


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("name", MEMBERS)
def test_detected_gpus_are_used_as_far_as_they_can_share_a_clip(name: str, count: int) -> None:
    plan = World(name, gpus=f"{count}x80GiB").plan(PICTURES[name])
    assert plan.errors == ()
    ranks = command_of(plan).ranks
    assert ranks <= count
    assert (ranks < count) == any(finding.code == "gpus.fewer" for finding in plan.findings)


@pytest.mark.parametrize(("heads", "count", "legal"), [(24, 3, True), (24, 6, True), (16, 3, False), (24, 5, False)])
def test_the_heads_of_one_point_five_are_read_from_its_weights(heads: int, count: int, legal: bool) -> None:
    plan = World("1.5", heads=heads, settings={"gpu_count": count}).plan()
    assert (plan.run is not None) == legal


def test_memory_is_not_lowered_by_more_gpus_because_the_weights_are_replicated() -> None:
    one, four = (World("t2v", settings={"gpu_count": count}).plan() for count in (1, 4))
    assert one.gpu_bytes == four.gpu_bytes
    assert one.gpu_bytes is not None
    assert abs(one.gpu_bytes / 1e9 - 60) < 1  # the published peak


@pytest.mark.parametrize(("name", "transformers"), [("t2v", 4), ("i2v", 1), ("1.5", 4)])
def test_every_rank_reads_the_model_into_host_memory_but_where_the_first_sends_it(name: str, transformers: int) -> None:
    plan = World(name, settings={"gpu_count": 4}).plan(PICTURES[name])
    weights = facts.NEWER if name == "1.5" else facts.OLDER
    assert plan.host_bytes == transformers * weights.transformer + 4 * weights.others


@pytest.mark.parametrize(("name", "size"), [("t2v", "1280x720"), ("i2v", "1280x720")])
def test_one_small_gpu_offloads_by_itself_and_a_large_one_does_not(name: str, size: str) -> None:
    plans = {
        gpu: World(name, gpus=f"1x{gpu}", settings={"size": size}).plan(PICTURES[name]) for gpu in ("40GiB", "80GiB")
    }
    used = {gpu: "--use-cpu-offload" in command_of(plan).argv for gpu, plan in plans.items()}
    assert used == {"40GiB": True, "80GiB": False}
    small = plans["40GiB"].gpu_bytes
    assert small is not None
    assert small < 40 * GIB


def test_a_card_of_unknown_size_counts_as_a_large_one_in_the_prediction() -> None:
    """As in the choice of GPUs: the script may keep all blocks on it."""
    job = World("1.5", gpus="1x80GiB").job(PICTURES["1.5"])
    unknown = job.evolve(host=replace(job.host, gpus=(Gpu(0, "GPU-0", "a card", None, None),)))
    large, small = (World("1.5", gpus=f"1x{gib}GiB").plan(PICTURES["1.5"]).gpu_bytes for gib in (80, 48))
    assert (BACKEND.plan(unknown).gpu_bytes, large != small) == (large, True)


def test_one_point_five_is_predicted_to_fit_the_card_that_its_readme_names() -> None:
    plan = World("1.5", gpus="1x16GiB", settings={"size": "832x480"}).plan()
    assert plan.gpu_bytes is not None
    assert 13e9 < plan.gpu_bytes < 15e9


# ---------------------------------------------------------------------------------------------------------- options


def test_the_options_of_the_file_become_flags_and_parameters() -> None:
    options = {"infer-steps": 30, "--video_size": [544, 960], "cfg_scale": 2.0, "neg_prompt": "blur", "reproduce": True}
    plan = World("t2v", options=options, settings={"gpu_count": 1}).plan()
    words = set(command_of(plan).argv)
    assert {"--infer-steps=30", "544", "960", "--cfg-scale=2.0", "--neg-prompt=blur", "--reproduce"} <= words
    assert (plan.parameters["steps"], plan.parameters["size"]) == (30, Size(960, 544))


def test_a_request_and_a_setting_count_more_than_the_options_file() -> None:
    world = World("t2v", options={"infer_steps": 30, "flow_shift": 5}, settings={"sample_steps": 20, "gpu_count": 1})
    plan = world.plan(flow_shift=9.0)
    assert (plan.parameters["steps"], plan.parameters["flow_shift"]) == (20, 9.0)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("t2v", {"infer_step": 30}, "Did you mean infer_steps?"),
        ("t2v", {"infer_steps": 37.5}, "must be a whole number above 0, not 37.5"),
        ("t2v", {"cfg_scale": "high"}, "must be a number"),
        ("t2v", {"cfg_scale": float("nan")}, "must be a number"),
        ("t2v", {"reproduce": 1}, "must be true or false"),
        ("t2v", {"prompt": "a dog"}, "Give the prompt with the request."),
        ("t2v", {"model_base": "/x"}, "Set ckpt_path."),
        ("t2v", {"seed": 3}, "Set base_seed"),
        ("t2v", {"precision": "int8"}, "must be one of fp32, fp16, bf16"),
        ("t2v", {"latent_channels": 16}, "own check refuses every number"),
        ("i2v", {"use_fp8": True}, "has no option named 'use_fp8'"),
        ("1.5", {"rewrite": True}, "sends the prompt to a server"),
        ("1.5", {"sparse_attn": True, "use_sageattn": True}, "exclude each other"),
        ("1.5", {"enable_step_distill": True, "sr": False}, "no weights named 720p_i2v_step_distilled"),
        ("1.5", {"offloading": False, "group_offloading": True}, "needs offloading"),
        ("t2v", {"use_fp8": True}, "use_fp8 needs the eight-bit weights"),
    ],
)
def test_a_mistake_in_the_options_file_is_refused_with_its_place_and_fix(
    name: str, options: dict[str, object], words: str
) -> None:
    plan = World(name, options=options, settings={"gpu_count": 1}).plan(PICTURES[name])
    assert any(words in text for text in errors_of(plan)), errors_of(plan)


def test_offloading_on_several_gpus_is_refused_before_the_script_does() -> None:
    plan = World("t2v", options={"use_cpu_offload": True}, settings={"gpu_count": 2}).plan()
    assert any("refuses use_cpu_offload on several GPUs" in text for text in errors_of(plan))


def test_eight_bits_are_found_beside_a_main_file_of_another_name() -> None:
    world = World("t2v", options={"use_fp8": True}, settings={"gpu_count": 1, "ckpt_path": "/weights/mine.pt"})
    job = world.job()
    decision = decide(job, MEMBERS["t2v"], job.host.checkouts[CHECKOUT])
    folder = transformer_file(decision).parent
    assert transformer_file(decision) == folder / "mine_fp8.pt"
    found = Checkpoint(folder, files=dict.fromkeys(("mine.pt", "mine_fp8.pt", "mine_fp8_map.pt"), 1))
    host = replace(decision.job.host, checkpoints={**decision.job.host.checkpoints, folder: found})
    assert has_fp8(replace(decision, job=decision.job.evolve(host=host)))
    assert not has_fp8(decision)


def test_eight_bits_take_another_file_and_less_memory() -> None:
    plans = [World("t2v", fp8=True, options={"use_fp8": on}, settings={"gpu_count": 1}).plan() for on in (False, True)]
    words = command_of(plans[1]).argv
    assert "--use-fp8" in words
    assert any(word.endswith("mp_rank_00_model_states_fp8.pt") for word in words)
    assert plans[0].gpu_bytes is not None
    assert plans[1].gpu_bytes is not None
    assert plans[0].gpu_bytes - plans[1].gpu_bytes == 10**10


def test_distilled_weights_keep_their_number_of_steps_whatever_a_retry_wants() -> None:
    world = World("1.5", options={"cfg_distilled": True}, settings={"size": "832x480", "gpu_count": 1})
    plan = world.plan(WIDE, overrides={"steps": 37})
    assert "--num_inference_steps=50" in command_of(plan).argv
    assert "steps" not in plan.parameters  # so that no step of the ladder lowers them
    assert any("distilled to 50 steps" in text for text in errors_of(world.plan(WIDE, steps=30)))


# ----------------------------------------------------------------------------------------------------------- mitigations


def test_every_mitigation_of_every_member_changes_its_command_and_lowers_the_prediction() -> None:
    for name in ("t2v", "i2v", "1.5"):
        world = World(name, gpus="2x80GiB", options={} if name == "1.5" else {"cfg_scale": 2.0}, fp8=True)
        before = world.plan(PICTURES[name])
        assert before.mitigations
        for mitigation in before.mitigations:
            after = world.plan(PICTURES[name], overrides=dict(mitigation.overrides))
            assert command_of(after) != command_of(before), (name, mitigation.name)
            if mitigation.name not in ("expandable_segments",):
                assert (after.gpu_bytes or 0) < (before.gpu_bytes or 0), (name, mitigation.name)


def test_a_mitigation_in_use_is_not_offered_again() -> None:
    world = World("t2v", settings={"gpu_count": 1})
    for mitigation in world.plan().mitigations:
        again = world.plan(overrides=dict(mitigation.overrides))
        assert mitigation not in again.mitigations


# ------------------------------------------------------------------------------------------------- the weights' folders


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("t2v", "hunyuan-video-t2v-720p/transformers"),
        ("t2v", "hunyuan-video-t2v-720p/vae"),
        ("t2v", "text_encoder"),
        ("i2v", "text_encoder_i2v"),
        ("i2v", "text_encoder_2"),
        ("1.5", "720p_i2v"),
        ("1.5", "byt5-small"),
        ("1.5", "checkpoints"),
        ("1.5", "siglip/image_encoder"),
    ],
)
def test_m01_missing_weights_are_named_and_those_of_other_members_are_not(name: str, absent: str) -> None:
    options = {"sr": False} if name == "1.5" else None
    plan = World(name, absent=(f"/{absent}",), options=options, settings={"gpu_count": 1}).plan(PICTURES[name])
    assert [error.failure for error in plan.errors] == [Failure.MODEL]
    assert absent in plan.errors[0].message
    assert plan.run is not None  # the command is shown all the same


def test_a_missing_folder_is_one_finding_and_not_nine() -> None:
    plan = World("1.5", absent=("",), settings={"gpu_count": 1}).plan()
    assert len([error for error in plan.errors if error.failure is Failure.MODEL]) == 1


def test_super_resolution_needs_its_own_weights_only_where_it_is_used() -> None:
    absent = ("720p_sr_distilled", "1080p_sr_distilled")
    assert World("1.5", absent=absent, settings={"gpu_count": 1}).plan().errors == ()
    enlarged = World("1.5", absent=absent, settings={"size": "1920x1080", "gpu_count": 1}).plan()
    assert {error.failure for error in enlarged.errors} == {Failure.MODEL}


# ---------------------------------------------------------------------------------------------------- recognition


def test_the_numbers_of_the_members_fit_together() -> None:
    for member in members.FAMILY:
        assert member.clip_frames % 4 == 1
        assert not set(member.options) & set(members.DECIDED)
        assert not set(member.parameters) & set(members.DECIDED)
    assert dataclasses.replace(members.HV) == members.HV


@pytest.mark.parametrize(("base", "stride"), [(960, 32), (480, 32), (640, 16), (1440, 16)])
def test_every_bucket_is_within_the_area_and_four_to_one(base: int, stride: int) -> None:
    pairs = facts.buckets(base, stride)
    assert len(set(pairs)) == len(pairs)
    assert all(one * other <= base * base and max(one, other) <= 4 * min(one, other) for one, other in pairs)
