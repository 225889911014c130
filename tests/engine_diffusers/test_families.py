"""Every family and task that the resident engine knows makes the planned clip, by one code path.

What is expected comes from diffusers' own pipelines, called as their documentation says, wherever our engine does not
follow an official script instead (`test_official_parity` has those).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.errors import ConfigurationError, ModelNotFoundError
from tests.engine_diffusers import tiny
from tests.engine_diffusers.clips import FRAMES, HEIGHT, STEPS, WIDTH, Engine, asked

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(400)]
pytest.importorskip("torch")
pytest.importorskip("diffusers")

FIRST_RELEASE = "hunyuanvideo-i2v-33ch"
MODELS = [name for name in tiny.FAMILIES if name != FIRST_RELEASE]
TASKS = [(name, task) for name in MODELS for task in tiny.TASKS[name]]
Folders = Callable[[str], Path]


def film_of_diffusers(pipeline: Any, options: dict[str, Any]) -> Any:
    """Frames of the pipeline itself: frames x height x width x 3, whole numbers, cut off as ours."""
    import torch
    from PIL import Image

    call: dict[str, Any] = {
        "prompt": options["prompt"], "negative_prompt": options["negative_prompt"], "num_frames": FRAMES,
        "num_inference_steps": STEPS, "generator": torch.Generator("cpu").manual_seed(options["seed"]),
        "output_type": "pt",
    }  # fmt: skip
    if "1.5" not in options["name"]:
        call["guidance_scale"] = options["guidance_scale"]
    if options["image"]:
        call["image"] = Image.open(options["image"]).convert("RGB")
    if (options["name"], options["task"]) != ("hunyuanvideo-1.5-i2v", "i2v"):
        call |= {"width": WIDTH, "height": HEIGHT}
    frames = pipeline(**call).frames[0]
    return (frames * 255).byte().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(("name", "task"), TASKS)
def test_every_model_makes_the_planned_clip_and_the_same_with_any_placement(
    folder_of: Folders, photo: Path, tmp_path: Path, name: str, task: str
) -> None:
    options = asked(task, photo)
    engine = Engine(tiny.model(name, folder_of(name), dtype="bfloat16"))  # as cards compute it
    assert next(event for event in engine.phases() if event.startswith("loading")) == "loading text encoder"
    saved = engine.clip(options, tmp_path / "first")
    assert (saved.frames, saved.width, saved.height) == (FRAMES, WIDTH, HEIGHT)
    assert engine.phases() == ["encoding", "denoising", "decoding", "saving"]
    assert engine.steps() == [(1, STEPS), (2, STEPS)]
    first = Path(saved.path).read_bytes()
    assert len(first) == FRAMES * WIDTH * HEIGHT * 3
    assert len(set(first)) > 20
    low = Engine(tiny.model(name, folder_of(name), dtype="bfloat16", placements=["group_offload_low"]))
    assert low.film(options, tmp_path / "low") == first


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("hunyuan")])
def test_a_clip_is_the_one_that_diffusers_own_pipeline_makes(
    folder_of: Folders, photo: Path, tmp_path: Path, name: str
) -> None:
    import diffusers
    import numpy as np

    (task, kind), *_ = tiny.TASKS[name].items()
    options = asked(task, photo)
    pipeline = getattr(diffusers, kind).from_pretrained(str(folder_of(name)), local_files_only=True)
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, shift=3.0)
    if "1.5" in name:
        pipeline.guider = pipeline.guider.new(guidance_scale=5.0)
    expected = film_of_diffusers(pipeline, {**options, "name": name})
    ours = np.frombuffer(Engine(tiny.model(name, folder_of(name))).film(options, tmp_path), np.uint8)
    difference = np.abs(ours.reshape(expected.shape).astype(int) - expected.astype(int))
    assert difference.max() <= 1  # (x + 1) / 2 * 255 in two orders


# HunyuanVideo-1.5 encodes its words in one way for both tasks, and slowly: more than a thousand tokens.
@pytest.mark.parametrize("name", [name for name in MODELS if name != "hunyuanvideo-1.5-t2v"])
def test_words_seed_and_guidance_reach_the_clip(folder_of: Folders, photo: Path, tmp_path: Path, name: str) -> None:
    task = next(iter(tiny.TASKS[name]))
    engine = Engine(tiny.model(name, folder_of(name)))
    first = engine.film(asked(task, photo), tmp_path / "1")
    assert engine.film(asked(task, photo, prompt="red dog running"), tmp_path / "2") != first
    assert engine.film(asked(task, photo, flow_shift=9.0), tmp_path / "3") != first
    assert engine.film(asked(task, photo, seed=12), tmp_path / "5") != first
    changed = engine.film(asked(task, photo, guidance_scale=1.0), tmp_path / "4")
    # HunyuanVideo-I2V's weights know no guidance, and its official script makes one pass.
    assert (changed == first) == (name == "hunyuanvideo-i2v")


def test_a_smaller_or_longer_clip_follows_another_without_a_trace(
    folder_of: Folders, photo: Path, tmp_path: Path
) -> None:
    for name in ("hunyuanvideo-1.5-i2v", "wan2.2-ti2v-5B"):
        engine = Engine(tiny.model(name, folder_of(name)))
        first = engine.film(asked("i2v", photo), tmp_path / "1")
        other = engine.clip(asked("i2v", photo, width=96, height=32, num_frames=9), tmp_path / "2")
        assert (other.frames, other.width, other.height) == (9, 96, 32)
        assert engine.film(asked("i2v", photo), tmp_path / "3") == first


def test_the_first_release_of_hunyuan_i2v_is_refused_by_name(folder_of: Folders) -> None:
    with pytest.raises(ModelNotFoundError, match="first release of HunyuanVideo-I2V") as caught:
        Engine(tiny.model(FIRST_RELEASE, folder_of(FIRST_RELEASE)))
    assert "token_replace" in caught.value.advice


# ------------------------------------------------------------------------------------------------------ safe loading


@pytest.fixture
def copy(folder_of: Folders, tmp_path: Path) -> Path:
    """A text-to-video model that may be damaged."""
    return Path(shutil.copytree(folder_of("wan2.1-t2v"), tmp_path / "copy"))


def test_weights_that_are_pickles_are_refused_unread(copy: Path) -> None:
    import torch
    from safetensors.torch import load_file

    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ModelNotFoundError, match="vae") as caught:
        Engine(tiny.model("wan2.1-t2v", copy))
    assert "only safetensors" in caught.value.advice


def test_code_beside_the_weights_is_never_run(copy: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (copy / "transformer" / "mine.py").write_text(f"open({str(ran)!r}, 'w')\nclass Mine: pass\n")
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"transformer": ["mine", "Mine"]}))
    with pytest.raises(ModelNotFoundError, match=r"mine\.Mine"):
        Engine(tiny.model("wan2.1-t2v", copy))
    assert not ran.exists()


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_a_file_that_is_cut_off_is_named(copy: Path, part: str) -> None:
    (weights,) = (copy / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(ModelNotFoundError, match=part):
        Engine(tiny.model("wan2.1-t2v", copy))


@pytest.mark.parametrize("index", ["", "[]", "{", None])
def test_an_invalid_index_is_named(copy: Path, index: str | None) -> None:
    if index is None:
        (copy / "model_index.json").unlink()
    else:
        (copy / "model_index.json").write_text(index)
    with pytest.raises(ModelNotFoundError, match=r"model_index\.json"):
        Engine(tiny.model("wan2.1-t2v", copy))


def test_a_task_that_the_folder_has_no_parts_for_is_refused(folder_of: Folders) -> None:
    with pytest.raises(ModelNotFoundError, match=r"needs .*guider"):
        Engine(tiny.model("wan2.1-t2v", folder_of("wan2.1-t2v"), tasks={"i2v": "HunyuanVideo15ImageToVideoPipeline"}))


def test_a_pipeline_that_diffusers_does_not_have_is_named(folder_of: Folders) -> None:
    with pytest.raises(ConfigurationError, match="WanDreamPipeline"):
        Engine(tiny.model("wan2.1-t2v", folder_of("wan2.1-t2v"), tasks={"t2v": "WanDreamPipeline"}))


def test_a_task_that_was_not_loaded_is_named(folder_of: Folders, photo: Path, tmp_path: Path) -> None:
    engine = Engine(tiny.model("wan2.1-t2v", folder_of("wan2.1-t2v")))
    with pytest.raises(ConfigurationError, match="cannot do i2v; it does t2v"):
        engine.clip(asked("i2v", photo), tmp_path)
