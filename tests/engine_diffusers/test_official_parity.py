"""What the components of an official folder compute: as the official script does, at its precision, in either layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from reelwright.engines.diffusers.official import load_components
from tests.conftest import a_photo
from tests.engine_diffusers import official_folder as parts

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]
PIPELINES = {"i2v": "WanImageToVideoPipeline", "flf2v": "WanImageToVideoPipeline", "t2v": "WanPipeline"}


@pytest.fixture(autouse=True)
def _needs_torch() -> None:
    pytest.importorskip("diffusers")


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    return lambda task: parts.build(tmp_path / task, task)


def difference(one: Any, other: Any) -> float:
    return float((one.float() - other.float()).norm() / other.float().norm())


def inputs(task: str) -> dict[str, Any]:
    """Of a transformer, for two frames of latents."""
    import torch

    generator = torch.Generator().manual_seed(3)
    found = {
        "hidden_states": torch.randn(1, 16 if task == "t2v" else 36, 2, 8, 8, generator=generator),
        "timestep": torch.tensor([914]),
        "encoder_hidden_states": torch.randn(1, 512, parts.WORD, generator=generator).bfloat16(),
    }
    if task != "t2v":
        pictures = 1 if task == "i2v" else 2
        found["encoder_hidden_states_image"] = torch.randn(pictures, 5, parts.EYE, generator=generator)
    return found


def output(transformer: Any, given: Mapping[str, Any], dtype: Any = None) -> Any:
    import torch

    kind = dtype or transformer.dtype
    ready = {name: value.to(kind) if value.is_floating_point() else value for name, value in given.items()}
    with torch.no_grad():
        return transformer(**ready, return_dict=False)[0]


@pytest.mark.parametrize("task", sorted(PIPELINES))
def test_weights_in_halves_compute_nearer_to_float32_than_diffusers_alone(
    folder: Callable[[str], Path], task: str
) -> None:
    import torch
    from diffusers import WanTransformer3DModel

    there, given = folder(task), inputs(task)
    exact = load_components(there, task, "float32")["transformer"]
    ours = load_components(there, task, "bfloat16")["transformer"]
    options = {name: value for name, value in exact.config.items() if not name.startswith("_")}
    plain = WanTransformer3DModel(**options).eval()
    plain.load_state_dict(exact.state_dict())
    for name, weight in plain.named_parameters():
        if not set(plain._keep_in_fp32_modules) & set(name.split(".")):
            weight.data = weight.data.to(torch.bfloat16)
    expected = output(exact, given)
    assert difference(output(exact, given), expected) == 0
    alone = difference(output(plain, given, torch.bfloat16), expected)
    assert difference(output(ours, given), expected) < min(0.8 * alone, 0.01)


def test_what_flows_from_block_to_block_is_float32_and_products_are_not(folder: Callable[[str], Path]) -> None:
    import torch

    transformer = load_components(folder("i2v"), "i2v", "bfloat16")["transformer"]
    seen: dict[str, Any] = {}
    block = transformer.blocks[1]
    block.register_forward_hook(lambda _module, _inputs, value: seen.update(block=value.dtype))
    block.attn1.to_q.register_forward_hook(lambda _module, _inputs, value: seen.update(product=value.dtype))
    block.attn1.norm_q.register_forward_hook(lambda _module, _inputs, value: seen.update(norm=value.dtype))
    transformer.condition_embedder.time_proj.register_forward_hook(
        lambda _module, _inputs, value: seen.update(time=value.dtype)
    )
    assert output(transformer, inputs("i2v")).dtype == torch.float32
    assert seen == {
        "block": torch.float32, "product": torch.bfloat16, "norm": torch.float32, "time": torch.float32,
    }  # fmt: skip


def test_clip_sees_the_whole_picture_without_smoothing() -> None:
    import torch
    from PIL import Image

    from reelwright.engines.diffusers.official_pictures import DEVIATION, MEAN, clip_processor

    picture = Image.new("RGB", (400, 100), (10, 20, 30))
    picture.paste((250, 240, 230), (0, 0, 40, 100))  # what a square from the middle would not have
    seen = clip_processor(28)(images=[picture, picture])["pixel_values"]
    assert tuple(seen.shape) == (2, 3, 28, 28)
    colours = seen[0] * torch.tensor(DEVIATION).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    assert (colours[:, 14, 0] * 255).round().tolist() == pytest.approx([250, 240, 230], abs=1)
    assert (colours[:, 14, 27] * 255).round().tolist() == pytest.approx([10, 20, 30], abs=1)
    lines = Image.new("RGB", (56, 56))
    for column in range(0, 56, 2):
        lines.paste((255, 255, 255), (column, 0, column + 1, 56))
    # Averaging would make grey of black and white lines; so would Pillow's filters.
    assert float(clip_processor(14)(images=lines)["pixel_values"].std(dim=-1).max()) < 0.1
    assert abs(float(clip_processor(14)(images=lines)["pixel_values"].mean())) > 0.05


@pytest.mark.parametrize("colour", [(255, 255, 255), (200, 180, 160), (0, 0, 0)])
def test_the_first_frame_has_the_colours_of_the_picture_however_bright(colour: tuple[int, int, int]) -> None:
    from PIL import Image

    from reelwright.engines.diffusers.official_pictures import video_processor

    seen = video_processor().preprocess(Image.new("RGB", (90, 50), colour), height=32, width=64)
    assert tuple(seen.shape) == (1, 3, 32, 64)
    assert seen[0, :, 5, 5].tolist() == pytest.approx([value / 127.5 - 1 for value in colour], abs=1e-5)


def frames(directory: Path, layout: str, task: str, into: Path) -> bytes:
    """A film of five frames, as bytes."""
    from reelwright.engines.diffusers.engine import DiffusersEngine

    into.mkdir()
    photo = a_photo(into / "photo.png", (90, 60))
    engine = DiffusersEngine()
    model = {
        "name": "tiny", "family": "wan", "directory": str(directory), "layout": layout, "dtype": "bfloat16",
        "tasks": {task: PIPELINES[task]}, "device": "cpu", "ranks": 1, "attention": "native",
        "placements": ["resident"], "speed": {"preset": "exact"},
    }  # fmt: skip
    options = {
        "task": task, "prompt": "a cat, walking", "negative_prompt": "grey", "width": 48, "height": 32,
        "num_frames": 5, "fps": 16, "steps": 2, "guidance_scale": 5.0, "flow_shift": 3.0, "seed": 11,
        "image": str(photo) if task != "t2v" else None, "last_image": str(photo) if task == "flf2v" else None,
        "decode": ["full"],
    }  # fmt: skip
    engine.load(model, lambda _: None, lambda: None)
    engine.generate(options, into, lambda _: None, lambda: None)
    engine.unload()
    return (into / "frames.rgb").read_bytes()


def as_diffusers(components: Mapping[str, Any], folder: Path) -> Path:
    """The same weights in the layout of diffusers."""
    index = {"_class_name": "WanImageToVideoPipeline", "_diffusers_version": "0.42.1"}
    for name, component in components.items():
        if name == "image_processor":
            continue
        library, kind = type(component).__module__.partition(".")[0], type(component).__name__
        if name in ("transformer", "scheduler"):
            library, kind = "diffusers", type(component).__mro__[1].__name__
        component.save_pretrained(folder / name)
        index[name] = [library, kind]  # type: ignore[assignment]
    index["tokenizer"] = ["transformers", "AutoTokenizer"]  # type: ignore[assignment]
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
    return folder


@pytest.mark.parametrize("task", sorted(PIPELINES))
def test_an_official_folder_makes_a_clip_and_the_same_twice(
    folder: Callable[[str], Path], task: str, tmp_path: Path
) -> None:
    there = folder(task)
    first = frames(there, "official", task, tmp_path / "first")
    assert len(first) == 5 * 48 * 32 * 3
    assert len(set(first)) > 20
    assert frames(there, "official", task, tmp_path / "second") == first


def test_either_layout_of_the_same_weights_gives_the_same_clip(folder: Callable[[str], Path], tmp_path: Path) -> None:
    there = folder("i2v")
    other = as_diffusers(load_components(there, "i2v", "float32"), tmp_path / "other")
    official = frames(there, "official", "i2v", tmp_path / "official")
    assert frames(other, "diffusers", "i2v", tmp_path / "diffusers") == official
