"""Folders of the official Wan2.1 download as pipelines: every weight in its place, every fault named, nothing twice."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.errors import ModelNotFoundError
from reelwright.engines.diffusers.official import TASKS, load_components, official_scheduler
from tests.engine_diffusers import official_folder as parts

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]


@pytest.fixture(autouse=True)
def _needs_torch() -> None:
    pytest.importorskip("diffusers")


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    return lambda task: parts.build(tmp_path / task, task)


def refused(folder: Path, task: str = "i2v") -> str:
    with pytest.raises(ModelNotFoundError) as caught:
        load_components(folder, task, "float32")
    assert caught.value.advice
    return caught.value.message


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_component_has_every_weight_of_its_file(folder: Callable[[str], Path], task: str, dtype: str) -> None:
    import torch

    phases: list[str] = []
    components = load_components(folder(task), task, dtype, before=phases.append)
    clip = ["loading CLIP"] if TASKS[task] else []
    assert phases == ["loading text encoder", "loading VAE", *clip, "loading transformer"]
    for name in ("transformer", "vae", "text_encoder", *(["image_encoder"] if TASKS[task] else [])):
        model = components[name]
        assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
        assert not model.training
    weights = dict(components["transformer"].named_parameters())
    assert sum(weight.numel() for weight in weights.values()) == sum(
        torch.Size(shape).numel() for shape in parts.transformer(task).values()
    )
    assert weights["blocks.1.attn2.to_q.weight"].dtype == getattr(torch, dtype)
    assert weights["blocks.1.attn2.norm_q.weight"].dtype == torch.float32
    assert components["text_encoder"].dtype == torch.bfloat16
    assert components["vae"].dtype == torch.float32


def test_weights_are_those_of_the_file(folder: Callable[[str], Path]) -> None:
    import torch

    components = load_components(folder("flf2v"), "flf2v", "float32")
    there = dict(components["transformer"].named_parameters())
    weights = parts.random_weights(parts.transformer("flf2v"))
    pairs = {
        "blocks.1.cross_attn.k_img.weight": "blocks.1.attn2.add_k_proj.weight",
        "blocks.0.norm3.bias": "blocks.0.norm2.bias",
        "blocks.0.modulation": "blocks.0.scale_shift_table",
        "img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed",
        "head.head.bias": "proj_out.bias",
    }
    for official, ours in pairs.items():
        assert torch.equal(there[ours], weights[official])
    seen = dict(components["image_encoder"].named_parameters())
    joined = parts.random_weights(parts.clip(), "float16")["visual.transformer.2.attn.to_qkv.weight"].float()
    for third, kind in zip(joined.chunk(3), "qkv", strict=True):
        assert torch.equal(seen[f"encoder.layers.2.self_attn.{kind}_proj.weight"], third)


def test_a_vae_of_the_published_depth_has_the_names_that_diffusers_gives_it() -> None:
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    from reelwright.engines.diffusers.official_encoders import vae_place

    shapes = parts.vae(blocks=2, times=(1, 2, 4, 4))
    theirs = {key: place for place, key in convert_wan_vae_to_diffusers({key: key for key in shapes}).items()}
    assert {key: vae_place(key, 2) for key in shapes} == theirs


def spoil(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the weights in a file."""
    import torch
    from safetensors.torch import load_file, save_file

    if path.suffix == ".pth":
        state = torch.load(path, weights_only=True)
        change(state)
        torch.save(state, path)
    else:
        state = load_file(path)
        change(state)
        save_file(state, path)


FILES = {
    parts.TEXT: "blocks.1.attn.o.weight",
    parts.VAE: "decoder.upsamples.2.resample.1.bias",
    parts.CLIP: "visual.transformer.1.mlp.2.bias",
    parts.SHARD.format(1): sorted(parts.transformer("i2v"))[0],
}


@pytest.mark.parametrize("file", FILES)
def test_a_missing_weight_is_named(folder: Callable[[str], Path], file: str) -> None:
    there, key = folder("i2v"), FILES[file]
    spoil(there / file, lambda state: state.pop(key))
    message = refused(there)
    assert (file if file.endswith(".pth") else str(there)) in message
    assert "1 weights are missing" in message
    assert key.rpartition(".")[2] in message


@pytest.mark.parametrize("file", FILES)
def test_an_unknown_weight_is_named(folder: Callable[[str], Path], file: str) -> None:
    import torch

    there = folder("i2v")
    spoil(there / file, lambda state: state.update({"stray.weight": torch.ones(2)}))
    message = refused(there)
    assert "'stray.weight'" in message
    assert (file if file.endswith(".pth") else str(there)) in message


@pytest.mark.parametrize("file", FILES)
def test_a_weight_of_another_shape_is_named_with_both(folder: Callable[[str], Path], file: str) -> None:
    import torch

    there, key = folder("i2v"), FILES[file]
    spoil(there / file, lambda state: state.update({key: torch.ones(3, 5)}))
    message = refused(there)
    assert key in message
    assert "3x5" in message


@pytest.mark.parametrize("name", [parts.TEXT, parts.VAE, parts.CLIP, parts.SHARD.format(2), "config.json"])
def test_m01_a_missing_file_is_named(folder: Callable[[str], Path], name: str) -> None:
    there = folder("i2v")
    (there / name).unlink()
    assert name in refused(there)


@pytest.mark.parametrize("name", [parts.TEXT, parts.VAE, parts.CLIP, parts.SHARD.format(2)])
def test_m01_a_file_that_is_cut_off_is_named(folder: Callable[[str], Path], name: str) -> None:
    there = folder("i2v")
    (there / name).write_bytes((there / name).read_bytes()[:-400])
    message = refused(there)
    assert name in message
    assert "cut off or damaged" in message


def test_a_folder_without_tokenizer_is_refused(folder: Callable[[str], Path]) -> None:
    there = folder("t2v")
    for path in (there / "google" / "umt5-xxl").iterdir():
        path.unlink()
    assert "umt5-xxl" in refused(there, "t2v")


def test_an_index_that_names_files_elsewhere_is_refused(folder: Callable[[str], Path]) -> None:
    there = folder("t2v")
    index = json.loads((there / parts.INDEX).read_text("utf-8"))
    first = next(iter(index["weight_map"]))
    index["weight_map"][first] = f"../{there.name}/{parts.SHARD.format(1)}"
    (there / parts.INDEX).write_text(json.dumps(index), "utf-8")
    assert "../" in refused(there, "t2v")


@pytest.mark.parametrize(("there", "asked"), [("i2v", "flf2v"), ("t2v", "i2v"), ("flf2v", "t2v")])
def test_m01_a_model_for_another_task_is_refused(folder: Callable[[str], Path], there: str, asked: str) -> None:
    from reelwright.engines.diffusers.official_transformer import load_transformer

    with pytest.raises(ModelNotFoundError, match=f"a model for {there}, not {asked}"):
        load_transformer(folder(there), asked, "float32")


class Malice:
    """What unpickling it would do."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.victim,))


@pytest.mark.parametrize("name", [parts.TEXT, parts.VAE, parts.CLIP])
@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_pickle_that_carries_a_program_is_refused_and_not_run(
    folder: Callable[[str], Path], tmp_path: Path, name: str, form: str
) -> None:
    import torch

    there, victim = folder("i2v"), tmp_path / "was-run"
    evil = {"weight": torch.ones(2), "surprise": Malice(victim)}
    if form == "torch":
        torch.save(evil, there / name)
    else:
        (there / name).write_bytes(pickle.dumps({"surprise": Malice(victim)}, protocol=2))
    assert name in refused(there)
    assert not victim.exists()


def test_a_file_of_something_else_than_weights_is_refused(folder: Callable[[str], Path]) -> None:
    import torch

    there = folder("i2v")
    torch.save([1, 2, 3], there / parts.VAE)
    assert "not a table of weights" in refused(there)


def test_nothing_is_written_and_the_loading_can_be_stopped(folder: Callable[[str], Path]) -> None:
    there = folder("i2v")
    before = {path: path.stat().st_mtime_ns for path in there.rglob("*")}

    def stop(phase: str) -> None:
        if phase == "loading transformer":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_components(there, "i2v", "float32", before=stop)
    load_components(there, "i2v", "bfloat16")
    assert {path: path.stat().st_mtime_ns for path in there.rglob("*")} == before


MEASURE = """
import resource, sys
from pathlib import Path
import torch, accelerate, diffusers, safetensors
from diffusers import WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from reelwright.engines.diffusers.official_transformer import load_transformer
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = load_transformer(Path(sys.argv[1]), "t2v", sys.argv[2])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_weights_are_never_in_memory_twice(tmp_path: Path) -> None:
    parts.write_transformer(tmp_path, parts.transformer("t2v", layers=60, inner=10_000))
    on_disk = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert on_disk > 200e6
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), "bfloat16"], capture_output=True, text=True, check=True
    )
    # Half of it, and the pages of one shard (half of the file) that the kernel may drop at once.
    assert int(done.stdout) < 1.2 * on_disk


@pytest.mark.parametrize(("steps", "shift"), [(3, 5.0), (50, 3.0), (40, 16.0), (4, 1.0)])
def test_the_noise_levels_are_the_official_ones(steps: int, shift: float) -> None:
    scheduler = official_scheduler(shift)
    for _ in range(2):
        scheduler.set_timesteps(steps)
        even = [0.999 * (1 - number / steps) for number in range(steps)]
        shifted = [shift * level / (1 + (shift - 1) * level) for level in even]
        assert scheduler.sigmas.tolist() == pytest.approx([*shifted, 0.0], abs=1e-6)
        assert scheduler.timesteps.tolist() == [int(1000 * level) for level in shifted]


def test_a_scheduler_made_from_its_configuration_stays_official() -> None:
    first = official_scheduler(3.0)
    second = type(first).from_config(first.config, flow_shift=7.0)
    second.set_timesteps(10)
    assert float(second.sigmas[0]) == pytest.approx(7 * 0.999 / (1 + 6 * 0.999))
