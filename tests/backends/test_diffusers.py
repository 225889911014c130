"""The resident engine's plans: which model a folder holds, where its weights go, what determines a film."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from reelwright import Settings, doctor, load_settings
from reelwright.backends.diffusers.backend import BACKEND, capabilities, plan
from reelwright.backends.diffusers.models import MODELS, recognise
from reelwright.backends.diffusers.placement import PLACEMENTS, Room, Weights, Work, choose, host_bytes, peaks
from reelwright.backends.shared.job import Job
from reelwright.core.errors import Failure
from reelwright.core.host import GIB, Checkout, Checkpoint, Gpu, Host, Interpreter, simulated_gpus
from reelwright.core.plan import EngineCall, Plan
from reelwright.core.request import Picture, Size, VideoRequest

FOLDER = Path("/models/here")
PYTHON = Path("/env/bin/python")
FULL = Size(1280, 720)
_T5, _CLIP, _VAE = 11_361_920_418, 4_772_359_047, 507_609_880
_OFFICIAL = {"models_t5_umt5-xxl-enc-bf16.pth": _T5, "Wan2.1_VAE.pth": _VAE, "config.json": 300}


def official(kind: str, width: int = 5120) -> Checkpoint:
    files = {
        **_OFFICIAL,
        "diffusion_pytorch_model-00001-of-00001.safetensors": 65_600_000_000 if width > 3000 else 5_680_000_000,
    }
    if kind != "t2v":
        files["models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"] = _CLIP
    heads, layers = (40, 40) if width > 3000 else (12, 30)
    config = {
        "model_type": kind,
        "dim": width,
        "num_heads": heads,
        "num_layers": layers,
        "ffn_dim": 13824 if width > 3000 else 8960,
    }
    return Checkpoint(FOLDER, files=files, config=config)


def folder(name: str, *, two: bool = False, **network: Any) -> Checkpoint:
    index: dict[str, Any] = {"_class_name": name, **network.pop("index", {})}
    files = {"transformer/diffusion_pytorch_model.safetensors": 30_000_000_000, "text_encoder/model.safetensors": _T5,
             "vae/diffusion_pytorch_model.safetensors": _VAE}  # fmt: skip
    if two:
        files["transformer_2/diffusion_pytorch_model.safetensors"] = 30_000_000_000
    shape = {"num_attention_heads": 40, "attention_head_dim": 128, "num_layers": 40, "ffn_dim": 13824, **network}
    return Checkpoint(FOLDER, files=files, configs={"model_index.json": index, "transformer/config.json": shape})


def picture(size: Size = FULL, sha: str = "a" * 64) -> Picture:
    return Picture(Path("/private/first.png"), Path("/home/first.jpg"), size, size, sha)


def planned(
    checkpoint: Checkpoint | None = None,
    *,
    gpus: str = "1x80GiB",
    first: Picture | Literal["photo"] | None = "photo",
    last: Picture | None = None,
    host_gib: float = 256,
    overrides: Any = None,
    checkout: Checkout | None = None,
    beside: Checkpoint | None = None,
    versions: Any = None,
    ask: Any = None,
    prompt: str = "a cat",
    **settings: Any,
) -> Plan:  # fmt: skip
    checkpoint = checkpoint or official("i2v")
    first = picture() if first == "photo" else first
    values: Settings = load_settings(
        environ={}, arguments={"weights": str(FOLDER), "python": str(PYTHON), "state_dir": "/state", **settings}
    )
    modules = {
        "torch": "2.13.0",
        "diffusers": "0.42.1",
        "transformers": "5.23.0",
        "accelerate": "1.15.0",
        "safetensors": "0.8.0",
        "ftfy": "6.3.1",
        **(versions or {}),
    }
    host = Host(
        gpus=simulated_gpus(gpus), simulated=True, memory_available_bytes=round(host_gib * GIB),
        interpreters={PYTHON: Interpreter(PYTHON, modules=modules)}, checkpoints={FOLDER: checkpoint, **({beside.directory: beside} if beside else {})},
        checkouts={checkout.directory: checkout} if checkout else {},
    )  # fmt: skip
    request = VideoRequest(
        prompt=prompt,
        image=first.source if first else None,
        last_image=last.source if last else None,
        **{"seed": 1, **(ask or {})},
    )
    return plan(Job(request, values, host, Path("/out/film.mp4"), first, last, overrides=overrides or {}))


def call(made: Plan) -> EngineCall:
    assert isinstance(made.run, EngineCall), made.errors
    return made.run


def codes(made: Plan) -> set[str]:
    return {finding.code for finding in made.errors}


# --------------------------------------------------------------------------------------------------- recognition

FOLDERS = {
    "wan2.1-i2v-14B": (official("i2v"), folder("WanImageToVideoPipeline", image_dim=1280)),
    "wan2.1-flf2v-14B": (official("flf2v"), folder("WanImageToVideoPipeline", image_dim=1280, pos_embed_seq_len=514)),
    "wan2.1-t2v-14B": (official("t2v"), folder("WanPipeline")),
    "wan2.1-t2v-1.3B": (official("t2v", 1536), folder("WanPipeline", num_attention_heads=12)),
    "wan2.2-i2v-A14B": (folder("WanImageToVideoPipeline", index={"boundary_ratio": 0.9}, two=True),),
    "wan2.2-ti2v-5B": (folder("WanPipeline", index={"expand_timesteps": True}), folder("WanImageToVideoPipeline", index={"expand_timesteps": True})),
    "hunyuanvideo-t2v": (folder("HunyuanVideoPipeline"),),
    "hunyuanvideo-i2v": (folder("HunyuanVideoImageToVideoPipeline"),),
    "hunyuanvideo-1.5-t2v": (folder("HunyuanVideo15Pipeline"),),
    "hunyuanvideo-1.5-i2v": (folder("HunyuanVideo15ImageToVideoPipeline"),),
}  # fmt: skip


def test_every_model_of_the_table_is_recognised_somewhere() -> None:
    assert FOLDERS.keys() == MODELS.keys()


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_tells_which_model_it_holds(name: str) -> None:
    assert [getattr(recognise(checkpoint), "name", None) for checkpoint in FOLDERS[name]] == [name] * len(FOLDERS[name])


@pytest.mark.parametrize("name", FOLDERS)
def test_every_model_gets_a_plan_for_each_of_its_tasks(name: str) -> None:
    model = MODELS[name]
    for checkpoint in FOLDERS[name]:
        for task in model.tasks:
            first = picture() if task != "t2v" else None
            last = picture(sha="b" * 64) if task == "flf2v" else None
            made = planned(checkpoint, gpus="1x141GiB", first=first, last=last)
            assert not made.errors, made.errors
            assert made.task == task
            assert call(made).model["tasks"][task] == model.tasks[task]
            assert made.expected is not None
            assert (made.expected.fps, made.expected.num_frames) == (model.fps, model.frames)


def test_hunyuanvideo_15_makes_720_lines_as_asked_because_its_tokens_are_16_pixels_wide() -> None:
    made = planned(FOLDERS["hunyuanvideo-1.5-t2v"][0], gpus="1x141GiB", first=None, ask={"size": Size(1280, 720)})
    assert made.expected is not None
    assert (made.expected.width, made.expected.height) == (1280, 720)


def test_a_folder_of_something_else_is_refused_with_what_is_known() -> None:
    made = planned(folder("StableDiffusionPipeline"))
    assert codes(made) == {"model.unknown"}
    assert made.run is None


def test_a_folder_that_is_not_whole_is_refused_before_anything_is_loaded() -> None:
    broken = replace(official("i2v"), problems=("models_t5_umt5-xxl-enc-bf16.pth is missing",))
    made = planned(broken)
    assert codes(made) == {"model.incomplete"}


def test_a_text_model_is_not_asked_for_pictures() -> None:
    assert codes(planned(official("t2v"))) == {"model.task"}


def test_no_folder_is_told_with_the_setting_to_set() -> None:
    values = load_settings(environ={}, arguments={"python": str(PYTHON)})
    made = plan(Job(VideoRequest(prompt="x", seed=1), values, Host(gpus=simulated_gpus("1x80GiB")), Path("/out/a.mp4")))
    assert "model.unset" in codes(made)


# ------------------------------------------------------------------------------------------ size, length, defaults


def test_the_size_is_that_of_the_official_script() -> None:
    made = planned(first=picture(Size(832, 480)), ask={"size": Size(832, 480)})
    assert made.expected is not None
    assert (made.expected.width, made.expected.height) == (832, 464)


def test_the_documented_defaults_and_those_of_the_framework() -> None:
    documented, framework = planned().parameters, planned(preset="framework").parameters
    assert (documented["steps"], documented["guidance_scale"]) == (50, 7.5)
    assert (framework["steps"], framework["guidance_scale"]) == (40, 5.0)
    assert documented["flow_shift"] == 5.0
    assert planned(ask={"size": Size(832, 480)}).parameters["flow_shift"] == 3.0


OWN: dict[str, tuple[dict[str, Any], tuple[int, float, float]]] = {  # hyvideo/commons/__init__.py of HunyuanVideo-1.5; wan/configs of Wan2.2; hyvideo/config.py of the I2V
    "wan2.2-i2v-A14B": ({}, (40, 3.5, 5.0)),
    "wan2.2-ti2v-5B": ({}, (50, 5.0, 5.0)),
    "hunyuanvideo-t2v": ({}, (50, 6.0, 7.0)),
    "hunyuanvideo-i2v": ({}, (50, 6.0, 7.0)),
    "hunyuanvideo-1.5-t2v": ({"scheduler/scheduler_config.json": {"shift": 9.0}}, (50, 6.0, 9.0)),
    "hunyuanvideo-1.5-i2v": (
        {"guider/guider_config.json": {"guidance_scale": 1.0}, "scheduler/scheduler_config.json": {"shift": 7.0},
         "transformer/config.json": {"use_meanflow": True}},
        (12, 1.0, 7.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_a_model_that_the_documented_pipeline_does_not_know_has_its_own_defaults(name: str) -> None:
    configs, expected = OWN[name]
    checkpoint = FOLDERS[name][0]
    checkpoint = replace(checkpoint, configs={**checkpoint.configs, **configs})
    first = None if "t2v" in MODELS[name].tasks else picture()
    made = planned(checkpoint, gpus="1x141GiB", first=first).parameters
    assert (made["steps"], made["guidance_scale"], made["flow_shift"]) == expected


def test_the_text_encoder_of_hunyuan_video_counts_whole_and_that_of_wan_as_it_lies_in_memory() -> None:
    large = {"text_encoder/model.safetensors": 16_000_000_000, "text_encoder_2/model.safetensors": 250_000_000}
    found = {}
    for name in ("hunyuanvideo-t2v", "wan2.1-t2v-14B"):
        checkpoint = FOLDERS[name][-1]
        checkpoint = replace(checkpoint, files={**checkpoint.files, **large})
        choice = planned(checkpoint, gpus="1x141GiB", first=None, placement="resident")
        smaller = planned(FOLDERS[name][-1], gpus="1x141GiB", first=None, placement="resident")
        assert choice.gpu_bytes is not None
        assert smaller.gpu_bytes is not None
        found[name] = choice.gpu_bytes - smaller.gpu_bytes
    assert found == {"hunyuanvideo-t2v": 16_250_000_000 - _T5, "wan2.1-t2v-14B": 0}


def test_first_and_last_frame_is_for_81_frames_only() -> None:
    made = planned(official("flf2v"), last=picture(sha="b" * 64), ask={"num_frames": 49})
    assert codes(made) == {"frames.fixed"}


def test_frames_must_be_4n_1() -> None:
    assert codes(planned(ask={"num_frames": 50})) == {"frames.4n1"}


def test_the_official_negative_prompt_is_read_from_the_users_checkout() -> None:
    found = Checkout(Path("/wan"), matches={"all": ("ugly",), "i2v": ("shaky, ",), "flf2v": ("cuts, ",)})
    assert call(planned(wan2_dir="/wan", checkout=found)).options["negative_prompt"] == "shaky, ugly"
    made = planned(official("flf2v"), last=picture(), wan2_dir="/wan", checkout=found)
    assert call(made).options["negative_prompt"] == "cuts, shaky, ugly"
    assert call(planned()).options["negative_prompt"] == ""
    asked = planned(wan2_dir="/wan", checkout=found, ask={"negative_prompt": "mine"})
    assert call(asked).options["negative_prompt"] == "mine"


# ------------------------------------------------------------------------------------------------------ placement

CARDS = [8, 12, 16, 24, 32, 48, 80, 141]
EXPECTED: dict[tuple[str, str], list[str | None]] = {
    ("wan2.1-t2v-1.3B", "832x480"): ["encoders_off", "encoders_off", "encoders_off", *["resident"] * 5],
    ("wan2.1-i2v-14B", "832x480"): ["group_offload", *["group_offload"] * 4, "encoders_off", "resident", "resident"],
    ("wan2.1-i2v-14B", "1280x720"): [None, None, *["group_offload"] * 3, "encoders_off", "resident", "resident"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "size"), EXPECTED)
@pytest.mark.parametrize("card", CARDS)
def test_each_card_gets_the_fastest_placement_that_fits(name: str, size: str, card: int) -> None:
    width, height = map(int, size.split("x"))
    first = None if "t2v" in name else picture(Size(width, height))
    made = planned(FOLDERS[name][0], gpus=f"1x{card}GiB", first=first, ask={"size": Size(width, height)})
    expected = EXPECTED[name, size][CARDS.index(card)]
    assert made.gpu_bytes is not None
    if expected is None:
        assert codes(made) == {"memory.gpu"}
        (error,) = made.errors
        assert "GiB are free" in error.message
        assert made.gpu_bytes > card * GIB * 0.9
    else:
        assert not made.errors, made.errors
        assert made.parameters["placement"] == expected
        assert call(made).model["placements"] == list(PLACEMENTS[PLACEMENTS.index(expected) :])
        assert made.gpu_bytes <= card * GIB


def test_a_slower_placement_is_reported_with_its_peak_by_the_doctor_too() -> None:
    made = planned(gpus="1x24GiB", ask={"size": Size(832, 480)})
    (finding,) = (item for item in made.findings if item.code == "placement")
    assert made.gpu_bytes is not None
    assert f"placement group_offload ({made.gpu_bytes / GIB:.1f} GiB predicted)" in finding.message
    assert "placement" in doctor._REPORTED


def test_a_folder_that_is_not_there_at_all_is_a_setting_to_correct() -> None:
    (error,) = planned(Checkpoint(FOLDER, (f"{FOLDER} is missing",))).errors
    assert "`weights`" in error.fix


def test_weights_in_eight_bits_lie_higher_on_the_same_card() -> None:
    exact, balanced = planned(gpus="1x24GiB"), planned(gpus="1x32GiB", speed="balanced")
    assert (exact.parameters["placement"], balanced.parameters["placement"]) == ("group_offload", "encoders_off")
    assert balanced.host_bytes == planned(gpus="1x141GiB").host_bytes, "they are read in sixteen bits first"


def test_every_rung_needs_no_more_than_the_one_above() -> None:
    weights = Weights(32 * GIB, 11 * GIB, 2 * GIB, GIB // 2, 40)
    for tokens in (1000, 32760, 75600):
        found = list(peaks(weights, Work(tokens, 5120, 1280 * 720)).values())
        assert found == sorted(found, reverse=True)


def test_the_limit_that_was_hit_is_named_and_no_other() -> None:
    """22 GiB of host memory are too little to read a 14B model, however large the card."""
    made = planned(gpus="1x80GiB", host_gib=22)
    (error,) = made.errors
    assert (error.code, error.failure) == ("memory.host", Failure.OOM_HOST)
    assert "22.0 GiB are available" in error.message
    assert "the card is large enough" in error.message
    small = planned(gpus="1x4GiB", host_gib=256)
    assert {item.failure for item in small.errors} == {Failure.OOM_GPU}


@pytest.mark.parametrize(
    ("gpus", "chosen", "placement"),
    [
        ("1x8GiB,1x24GiB", (1,), "group_offload"),
        ("1x24GiB,1x80GiB", (1,), "resident"),
        ("1xRTX4090,1xRTX3090", (0,), "group_offload"),
        ("1xT4,1xRTXA6000", (1,), "encoders_off"),
    ],
)
def test_the_card_is_taken_on_which_the_clip_is_made_soonest(
    gpus: str, chosen: tuple[int, ...], placement: str
) -> None:
    made = planned(gpus=gpus)
    assert (made.gpus, made.parameters["placement"]) == (chosen, placement)


def test_before_ampere_attention_keeps_every_score_and_the_plan_counts_it() -> None:
    old, new = planned(gpus="1xV100-32GiB"), planned(gpus="1x32GiB@8.6")
    assert codes(new) == set()
    assert codes(old) == {"memory.gpu"}


def test_every_rank_reads_the_transformer_for_itself() -> None:
    weights = Weights(28 * GIB, 11 * GIB, 2 * GIB, GIB, 40, 28 * GIB)
    assert host_bytes(weights, "resident", 4) == 4 * host_bytes(weights, "resident")


def test_weights_that_the_host_cannot_hold_stream_from_the_disk() -> None:
    weights, work = Weights(32 * GIB, 11 * GIB, 0, GIB // 2, 40), Work(32760, 5120, 832 * 480)
    assert choose(weights, work, Room(16 * GIB, 256 * GIB)).name == "group_offload"
    assert choose(weights, work, Room(16 * GIB, 40 * GIB)).name == "disk_offload"
    assert host_bytes(weights, "disk_offload") <= 40 * GIB


def test_a_placement_can_be_forced_and_what_worked_last_time_is_the_start() -> None:
    assert planned(placement="group_offload").parameters["placement"] == "group_offload"
    assert planned(overrides={"placement": "encoders_off"}).parameters["placement"] == "encoders_off"
    assert planned(gpus="1x16GiB", overrides={"placement": "resident"}).parameters["placement"] == "group_offload"
    assert not planned(gpus="1x16GiB", overrides={"placement": "resident"}).errors, "a fuller card than last time"
    forced = planned(gpus="1x8GiB", placement="resident")
    assert not forced.errors
    assert "memory.gpu" in {finding.code for finding in forced.findings}


def test_an_unknown_amount_of_free_memory_is_not_a_refusal() -> None:
    weights, work = Weights(32 * GIB, 11 * GIB, 0, GIB // 2, 40), Work(32760, 5120, 832 * 480)
    assert choose(weights, work, Room()).name == "resident"


# ---------------------------------------------------------------------------------------------------------- speed


def test_exact_is_the_default_and_leaves_nothing_out() -> None:
    model = call(planned()).model
    assert model["speed"] == {"preset": "exact", "compile": True, "cache": None, "fp8": False, "lora": []}
    assert model["attention"] == "auto"


@pytest.mark.parametrize(("asked", "given"), [("auto", "auto"), ("flash", "flash"), ("sdpa", "native")])
def test_attention_and_compilation_are_the_users_choice_and_recorded(asked: str, given: str) -> None:
    made = planned(attention=asked, compile=False, versions={"flash_attn": "2.8.3"})
    assert (call(made).model["attention"], call(made).model["speed"]["compile"]) == (given, False)
    assert (made.parameters["attention"], made.parameters["compile"]) == (given, False)


def test_a_cpu_compiles_nothing() -> None:
    assert call(planned(engine_device="cpu")).model["speed"]["compile"] is False


def test_several_cards_compute_the_attention_that_can_be_split() -> None:
    assert call(planned(gpus="2x80GiB", gpu_count=2)).model["attention"] == "native"


def test_balanced_is_a_recorded_choice() -> None:
    made = planned(speed="balanced")
    assert call(made).model["speed"]["fp8"]
    assert made.parameters["speed"] == "balanced"
    assert "speed.balanced" in {finding.code for finding in made.findings}


def test_fast_needs_a_lora_and_brings_its_own_steps() -> None:
    assert codes(planned(speed="fast")) == {"speed.lora"}
    made = planned(speed="fast", lora=["/loras/four.safetensors"])
    assert (made.parameters["steps"], made.parameters["guidance_scale"]) == (4, 1.0)
    assert call(made).model["speed"]["lora"] == [
        {"path": "/loras/four.safetensors", "scale": 1.0, "into": "transformer"}
    ]


def test_a_lora_is_looked_for_beside_its_own_kind_and_a_missing_one_is_named() -> None:
    settings = load_settings(environ={}, arguments={"weights": str(FOLDER), "lora": ["/loras/a.safetensors"]})
    request = VideoRequest(prompt="x", seed=1)
    asked = {item.directory: item.required for item in BACKEND.query(request, settings).checkpoints}
    assert asked[Path("/loras")] == ("a.safetensors",)
    there = Checkpoint(Path("/loras"), files={"a.safetensors": 5}, problems=("/loras/other.part is partial",))
    assert not planned(speed="fast", lora=["/loras/a.safetensors"], beside=there).errors
    gone = Checkpoint(Path("/loras"), ("/loras/a.safetensors is missing",))
    made = planned(speed="fast", lora=["/loras/a.safetensors"], beside=gone)
    assert [finding.message for finding in made.errors] == ["lora: /loras/a.safetensors is missing"]


@pytest.mark.parametrize(
    ("name", "version"), [("diffusers", "0.35.2"), ("transformers", "4.57.3"), ("torch", "2.5.1+cu121")]
)
def test_packages_that_are_too_old_are_named_with_where_they_lie(name: str, version: str) -> None:
    made = planned(versions={name: version})
    assert codes(made) == {"packages.old"}
    assert f"{name} {version} in {PYTHON}" in made.errors[0].message
    assert not planned(versions={name: "git-1a2b"}).errors


def test_a_lora_for_a_second_transformer_needs_a_model_that_has_one() -> None:
    lora = [{"path": "/loras/a.safetensors", "into": "transformer_2"}]
    there = Checkpoint(Path("/loras"), files={"a.safetensors": 5})
    assert codes(planned(speed="fast", lora=lora, beside=there)) == {"lora.into"}


def test_exact_takes_no_lora_and_no_lora_is_a_pickle() -> None:
    assert codes(planned(lora=["/loras/a.safetensors"])) == {"speed.exact"}
    assert codes(planned(speed="fast", lora=["/loras/a.pt"])) == {"lora.format"}


def test_a_model_whose_pipeline_knows_no_cache_gets_none() -> None:
    made = planned(FOLDERS["hunyuanvideo-i2v"][0], speed="balanced", gpus="1x141GiB")
    assert call(made).model["speed"]["cache"] is None


# ------------------------------------------------------------------------------------------------------- identity


def _key(made: Plan) -> str:
    return str(call(made).options["latents_key"])


def test_the_latents_key_does_not_know_how_it_is_computed() -> None:
    assert _key(planned(gpus="1x24GiB")) == _key(planned(gpus="1x141GiB"))
    moved = replace(picture(), path=Path("/private/another/first.png"))
    assert _key(planned(first=moved)) == _key(planned())
    assert _key(planned(codec="av1")) == _key(planned())


@pytest.mark.parametrize(
    "another", [{"gpus": "2x80GiB", "gpu_count": 2}, {"gpus": "3x80GiB", "gpu_count": 3}, {"compile": False}]
)
def test_what_a_clip_of_a_film_is_known_by_does_not_know_how_it_is_computed(another: dict[str, Any]) -> None:
    def shaping(made: Plan) -> dict[str, Any]:
        return {name: value for name, value in made.parameters.items() if name not in BACKEND.execution}

    assert shaping(planned(**another)) == shaping(planned(gpus="1x80GiB"))


CHANGES: dict[str, Any] = {
    "steps": {"ask": {"steps": 30}},
    "guidance": {"ask": {"guidance_scale": 4.0}},
    "shift": {"ask": {"flow_shift": 4.0}},
    "frames": {"ask": {"num_frames": 49}},
    "size": {"ask": {"size": Size(832, 480)}},
    "picture": {"first": picture(sha="c" * 64)},
    "negative": {"ask": {"negative_prompt": "rain"}},
    "speed": {"speed": "balanced"},
    "seed": {"ask": {"seed": 2}},
    "prompt": {"prompt": "a dog"},
    "interpreter": {"versions": {"torch": "2.14.0"}},
    "weights": {"checkpoint": replace(official("i2v"), fingerprint="b" * 64)},
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_latents_key_follows_everything_that_determines_the_film(name: str) -> None:
    assert _key(planned(**CHANGES[name])) != _key(planned())


def test_the_latents_key_follows_the_last_picture() -> None:
    def key(sha: str) -> str:
        return _key(planned(official("flf2v"), last=picture(sha=sha)))

    assert key("c" * 64) == key("c" * 64)
    assert key("c" * 64) != key("d" * 64)


def test_the_latents_key_follows_the_lora_its_scale_and_its_content() -> None:
    def key(fingerprint: str, scale: float = 1.0) -> str:
        lora = {"path": "/loras/style.safetensors", "scale": scale}
        beside = Checkpoint(Path("/loras"), files={"style.safetensors": 1}, fingerprint=fingerprint)
        return _key(planned(lora=[lora], beside=beside, speed="balanced"))

    assert len({key("a"), key("b"), key("a", 0.5), _key(planned(speed="balanced"))}) == 4


def test_the_same_job_gives_the_same_plan() -> None:
    assert planned() == planned()


def test_the_worker_is_told_its_gpus_and_keeps_the_users_values_to_itself() -> None:
    made = planned(gpus="2x80GiB", gpu_count=2, env={"MY_TOKEN": "abc"})
    worker = call(made).worker
    assert worker is not None
    assert worker.argv[0] == str(PYTHON)
    assert worker.argv[-1] == "diffusers"
    assert worker.shown_env["MY_TOKEN"] == "***"
    assert call(made).model["parallel"] == {"ulysses": 2, "ring": 1}


def test_cards_that_cannot_hold_the_transformer_do_not_share_a_clip() -> None:
    assert codes(planned(gpus="2x24GiB", gpu_count=2)) == {"parallel.placement"}
    assert not planned(gpus="2x48GiB", gpu_count=2).errors


def test_several_cards_cannot_use_flash_attn_and_the_plan_says_so() -> None:
    shared: dict[str, Any] = {"gpus": "2x80GiB", "gpu_count": 2, "versions": {"flash_attn": "2.8.3"}}
    made = planned(attention="flash", **shared)
    assert call(made).model["attention"] == "native"
    assert [finding.severity for finding in made.findings if finding.code == "attention.ranks"] == ["warning"]
    assert all(
        finding.code != "attention.ranks"
        for other in (planned(attention="sdpa", **shared), planned(attention="flash", versions=shared["versions"]))
        for finding in other.findings
    )


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, "module.flash_attn"),
        ({"engine_device": "cpu", "versions": {"flash_attn": "2.8.3"}}, "attention.cpu"),
        ({"gpus": "1x80GiB@7.5", "versions": {"flash_attn": "2.8.3"}}, "attention.card"),
        ({"gpus": "1x80GiB@8.0", "versions": {"flash_attn": "2.8.3"}}, None),
        ({"gpus": "1x80GiB@9.0", "versions": {"flash_attn_interface": "3.0"}}, None),
    ],
)
def test_flash_attn_that_cannot_compute_is_refused_before_the_weights_are_read(
    changes: dict[str, Any], code: str | None
) -> None:
    made = codes(planned(attention="flash", compile=False, **changes)) - {"memory.gpu"}
    assert made == ({code} if code else set())


def test_a_model_that_masks_its_attention_cannot_use_flash_attn() -> None:
    made = planned(FOLDERS["hunyuanvideo-i2v"][0], gpus="1x141GiB", attention="flash", versions={"flash_attn": "2.8.3"})
    assert codes(made) == {"attention.model"}


def test_heads_that_the_cards_do_not_divide_need_a_ring_and_its_attention() -> None:
    made = planned(gpus="3x80GiB", gpu_count=3)
    assert call(made).model["parallel"] == {"ulysses": 1, "ring": 3}
    assert call(made).model["attention"] == "_native_flash"
    assert "parallel.ring" in {finding.code for finding in made.findings}


@pytest.mark.parametrize("name", ["hunyuanvideo-i2v", "hunyuanvideo-1.5-i2v"])
def test_a_model_that_diffusers_cannot_split_is_refused_on_several_cards(name: str) -> None:
    """engines.diffusers.collective would refuse it after minutes of loading."""
    made = planned(FOLDERS[name][0], gpus="2x141GiB", gpu_count=2)
    assert "parallel.model" in {finding.code for finding in made.errors}
    assert not planned(FOLDERS[name][0], gpus="1x141GiB").errors


def test_capabilities_are_those_of_the_folder() -> None:
    host = Host(gpus=(Gpu(0, "G", "card", 1, 1),), checkpoints={FOLDER: official("flf2v")})
    found = capabilities(load_settings(environ={}, arguments={"weights": str(FOLDER)}), host).to_json()
    assert (found["supports_first_last_frame"], found["supports_text_to_video"]) == (True, False)
    assert BACKEND.resident


@pytest.mark.parametrize(
    ("asked", "setting", "codec"), [(None, "av1", "av1"), ("h264", "av1", "h264"), ("av1", "h264", "av1")]
)
def test_the_engine_encodes_as_the_request_says_else_as_the_settings_say(
    asked: str | None, setting: str, codec: str
) -> None:
    assert call(planned(ask={"codec": asked}, codec=setting)).options["codec"] == codec
