"""Tests that a wrong folder of weights is named as what it is, with the fix, in one sentence."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelwright import Settings
from reelwright.backends import load_backend
from reelwright.backends.shared.launch import checkpoint_findings
from reelwright.core.errors import Failure
from reelwright.core.plan import Finding
from reelwright.core.request import VideoRequest
from reelwright.sites.local.probes.checkpoints import look_at_checkpoint
from tests.stand_ins.checkpoints import LFS_POINTER, make_hunyuan_checkpoint, make_wan_checkpoint

COMMIT = "0f" * 20


def tensors(path: Path, dtype: str, *names: str) -> Path:
    """Write a complete safetensors file with two bytes of zeros for each name."""
    header = {
        name: {"dtype": dtype, "shape": [2], "data_offsets": [2 * at, 2 * at + 2]} for at, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(2 * len(names)))
    return path


def model(folder: Path, task: str = "i2v-14B") -> Path:
    return make_wan_checkpoint(folder / "Wan2.1-I2V-14B-720P", task)


def wan22(folder: Path) -> Path:
    """Make Wan2.2-I2V-A14B as on the hub: two experts in folders, and no config.json beside them."""
    path = model(folder)
    for name in ("high_noise_model", "low_noise_model"):
        (path / name).mkdir()
        shutil.copy(path / "config.json", path / name)
        tensors(path / name / "diffusion_pytorch_model-00001-of-00001.safetensors", "BF16", "blocks.0.w")
    for item in [*path.glob("diffusion*"), *path.glob("models_clip*"), path / "config.json"]:
        item.unlink()
    return path


def configured(changes: dict[str, Any], *more: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = model(folder)
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, **changes}))
        for name in more:
            (path / name).touch()
        (path / "Wan2.1_VAE.pth").unlink()
        return path

    return make


def cached(*models: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        hub = folder / "hub"
        for name in models:
            snapshot = hub / f"models--Wan-AI--{name}" / "snapshots" / COMMIT
            make_wan_checkpoint(snapshot, "i2v-14B")
            (snapshot.parents[1] / "refs").mkdir()
            (snapshot.parents[1] / "refs" / "main").write_text(COMMIT)
            (snapshot.parents[1] / "blobs").mkdir()
        return hub

    return make


def below(make: Callable[[Path], Path], name: str) -> Callable[[Path], Path]:
    return lambda folder: make(folder) / name


def shard(dtype: str, *names: str) -> Callable[[Path], Path]:
    """A folder with the official names, and these tensors in its one file."""

    def make(folder: Path) -> Path:
        path = model(folder)
        for item in path.glob("diffusion*"):
            item.unlink()
        tensors(path / "diffusion_pytorch_model.safetensors", dtype, *names)
        return path

    return make


def holding(name: str, data: bytes | tuple[str, ...] = b"") -> Callable[[Path], Path]:
    """A folder with only this file: these bytes, or a safetensors file with these names."""

    def make(folder: Path) -> Path:
        path = folder / "given"
        (path / name).parent.mkdir(parents=True)
        if isinstance(data, bytes):
            (path / name).write_bytes(data)
        else:
            tensors(path / name, "BF16", *data)
        return path

    return make


def modelscope(folder: Path) -> Path:
    model(folder / "modelscope" / "hub" / "models" / "Wan-AI")
    return folder / "modelscope"


def diffusers(folder: Path) -> Path:
    path = folder / "Wan2.1-I2V-14B-720P-Diffusers"
    (path / "transformer").mkdir(parents=True)
    (path / "model_index.json").write_text('{"_class_name": "WanImageToVideoPipeline"}')
    (path / "transformer" / "config.json").write_text('{"_class_name": "WanTransformer3DModel"}')
    tensors(path / "transformer" / "diffusion_pytorch_model-00001-of-00001.safetensors", "F32", "blocks.0.w")
    return path


LORA_KEYS = ("diffusion_model.blocks.0.lora_A.weight", "diffusion_model.blocks.0.lora_B.weight")
ONE = "models--Wan-AI--Wan2.1-I2V-14B-720P"
#: Name -> the maker of the folder, the code, and words of the message and of the fix.
OTHERS: dict[str, tuple[Callable[[Path], Path], str, str, str]] = {
    "Wan2.2 with two experts": (wan22, "family", "Wan2.2, not Wan2.1", "weights of Wan2.1"),
    "one expert of Wan2.2": (below(wan22, "high_noise_model"), "family", "one of its two experts", "Wan2.1"),
    "Wan2.2 5B": (configured({"model_type": "ti2v"}, "Wan2.2_VAE.pth"), "family", "Wan2.2-TI2V-5B", "Wan2.1"),
    "Wan2.2 speech": (configured({"_class_name": "WanModel_S2V"}), "family", "Wan2.2-S2V-14B", "Wan2.1"),
    "Wan2.1 VACE": (configured({"model_type": "vace"}), "family", "Wan2.1-VACE", "another model"),
    "the hub's cache": (cached("Wan2.1-I2V-14B-720P"), "cache", "the hub's cache", f"{ONE}/snapshots/{COMMIT}"),
    "the hub's cache of several": (cached("Wan2.1-I2V-14B-480P", "Wan2.1-I2V-14B-720P"), "cache", "the hub's cache",
                                   "Wan-AI/Wan2.1-I2V-14B-480P: "),
    "above the hub's cache": (lambda folder: cached("Wan2.1-I2V-14B-720P")(folder).parent, "cache", "cache", f"snapshots/{COMMIT}"),
    "a model of the hub's cache": (below(cached("Wan2.1-I2V-14B-720P"), ONE), "cache", "cache", f"snapshots/{COMMIT}"),
    "its snapshots": (below(cached("Wan2.1-I2V-14B-720P"), f"{ONE}/snapshots"), "cache", "cache", f"snapshots/{COMMIT}"),
    "-Diffusers": (diffusers, "layout", "-Diffusers download", "generator: diffusers"),
    "a transformer of -Diffusers": (below(diffusers, "transformer"), "layout", "transformer of a -Diffusers", "without -Diffusers"),
    "fp8": (shard("F8_E4M3", "blocks.0.w"), "fp8", "eight bits (F8_E4M3)", "speed: balanced"),
    "scaled fp8": (shard("BF16", "blocks.0.w", "blocks.0.w.scale_weight", "scaled_fp8"), "fp8", "eight bits", "published"),
    "int8": (shard("I8", "blocks.0.w"), "quantised", "quantised", "published"),
    "ComfyUI under the official name": (shard("BF16", "model.diffusion_model.blocks.0.w"), "comfyui", "ComfyUI", "hub"),
    "LoRA under the official name": (shard("BF16", *LORA_KEYS), "lora", "a LoRA in the place of a model", "`lora`"),
    "LoRA": (holding("style.safetensors", LORA_KEYS), "lora", "a LoRA", "`lora`"),
    "a LoRA file": (below(holding("style.safetensors", LORA_KEYS), "style.safetensors"), "lora", "a LoRA", "`lora`"),
    "kohya LoRA": (holding("x.safetensors", ("lora_unet_blocks_0.lora_down.weight",)), "lora", "a LoRA", "`lora`"),
    "GGUF": (holding("wan2.1-i2v-14b-Q4_K_M.gguf", b"GGUF"), "gguf", "Q4_K_M.gguf", "hub"),
    "a GGUF file": (below(holding("a.gguf", b"GGUF"), "a.gguf"), "gguf", "a.gguf", "hub"),
    "ComfyUI's single file": (holding("wan2.1_i2v_720p_14B_bf16.safetensors", ("blocks.0.w",)), "comfyui", "single file", "hub"),
    "ComfyUI's folders": (holding("split_files/diffusion_models/a.safetensors", ("a",)), "comfyui", "ComfyUI", "hub"),
    "one shard": (below(model, "diffusion_pytorch_model-00001-of-00007.safetensors"), "level", "one file", "Wan2.1-I2V-14B-720P"),
    "one level too high": (lambda folder: model(folder).parent, "level", "one level too high", "Wan2.1-I2V-14B-720P"),
    "one level too deep": (below(model, "xlm-roberta-large"), "level", "only a part of a model", "Wan2.1-I2V-14B-720P"),
    "two levels too deep": (below(model, "google/umt5-xxl"), "level", "only a part of a model", "Wan2.1-I2V-14B-720P"),
    "HunyuanVideo": (lambda folder: make_hunyuan_checkpoint(folder / "ckpts", "t2v"), "family", "HunyuanVideo", "ckpt_path"),
    "HunyuanVideo-1.5": (lambda folder: make_hunyuan_checkpoint(folder / "ckpts", "1.5"), "family", "HunyuanVideo-1.5", "ckpt_path"),
    "LLaVA": (holding("config.json", b'{"model_type": "llava"}'), "family", "LLaVA", "hub"),
    "ModelScope's cache": (modelscope, "level", "4 levels too high", "hub/models/Wan-AI/Wan2.1-I2V-14B-720P"),
    "a checkout": (holding("generate.py", b"import wan"), "source", "source code", "downloaded apart"),
    "something else": (holding("model.onnx", b"x"), "nothing", "holds no file of a model", "official layout of Wan2.1"),
    "an archive": (below(holding("Wan.zip", b"PK"), "Wan.zip"), "archive", "is an archive", "Unpack it"),
    "the VAE alone": (below(model, "Wan2.1_VAE.pth"), "level", "one file of a model", "Set it to the folder"),
    "a loose file": (below(holding("a.pth", b"x"), "a.pth"), "level", "is a file, and a model is a folder", "official layout"),
    "-Diffusers of another model": (holding("model_index.json", b'{"_class_name": "LTXPipeline"}'), "family", "LTXPipeline", "hub"),
    "-Diffusers of Wan2.2": (holding("model_index.json", b'{"_class_name": "WanPipeline", "boundary_ratio": 0.9}'), "layout",
                             "of Wan2.2", "`generator: diffusers`"),
}  # fmt: skip


def findings_for(path: Path, generator: str = "wan2.1", **settings: Any) -> list[Finding]:
    """The findings of a plan for a folder of weights."""
    key = {"wan2.1": "i2v_model_dir", "diffusers": "weights", "hunyuan": "ckpt_path"}[generator]
    request = VideoRequest(prompt="x", image=Path("a.png"))
    given: dict[str, Any] = {key: path, **settings}
    query = load_backend(generator).query(request, Settings(**given))
    return list(checkpoint_findings(look_at_checkpoint(query.checkpoints[0]), key))


@pytest.mark.parametrize("case", OTHERS)
def test_m01_a_folder_of_something_else_is_named_as_what_it_is_in_one_line(tmp_path: Path, case: str) -> None:
    make, code, words, fix = OTHERS[case]
    path = make(tmp_path)
    (finding,) = findings_for(path)
    assert (finding.code, finding.failure) == (f"model.{code}", Failure.MODEL)
    assert finding.message.startswith(f"i2v_model_dir: {path} ")
    assert words in finding.message
    assert fix in finding.fix


@pytest.mark.parametrize("layout", ["official", "diffusers"])
def test_the_configured_model_is_accepted(tmp_path: Path, layout: str) -> None:
    if layout == "official":
        assert findings_for(model(tmp_path)) == []
        assert findings_for(tmp_path / "Wan2.1-I2V-14B-720P", "diffusers") == []
        return
    assert not [item for item in findings_for(diffusers(tmp_path), "diffusers") if item.code != "model.incomplete"]


@pytest.mark.parametrize(
    ("make", "code"), [(wan22, "family"), (cached("a"), "cache"), (holding("README.md", b"x"), "nothing"), (modelscope, "level"), (shard("F8_E5M2", "a"), "fp8"), (holding("a.gguf", b"GGUF"), "gguf")]
)  # fmt: skip
def test_the_engine_names_them_too(tmp_path: Path, make: Callable[[Path], Path], code: str) -> None:
    (finding,) = findings_for(make(tmp_path), "diffusers")
    assert finding.code == f"model.{code}"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (model, "family"),
        (lambda folder: make_hunyuan_checkpoint(folder / "HunyuanVideo" / "ckpts", "t2v").parent, "level"),
        (lambda folder: make_hunyuan_checkpoint(folder / "ckpts", "t2v") / "text_encoder", "level"),
        (diffusers, "layout"),
    ],
)
def test_hunyuans_folder_is_named_too(tmp_path: Path, make: Callable[[Path], Path], code: str) -> None:
    (finding,) = findings_for(make(tmp_path), "hunyuan")
    assert finding.code == f"model.{code}"


PAGE = b"<!DOCTYPE html><html><title>Access denied</title></html>"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("Wan2.1_VAE.pth", PAGE, "is a web page: log in"),
        ("config.json", PAGE, "is a web page"),
        ("diffusion_pytorch_model-00003-of-00007.safetensors", b"  <HTML>", "is a web page"),
        (
            "diffusion_pytorch_model-00003-of-00007.safetensors",
            b'{"error":"Repository not found"}',
            "is a server's refusal",
        ),
        ("models_t5_umt5-xxl-enc-bf16.pth", b"Access to model X is restricted.", "is a server's refusal"),
    ],
)
def test_m02_a_servers_answer_in_place_of_a_file_is_named_in_one_line(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    path = model(tmp_path)
    (path / name).write_bytes(data)
    (finding,) = findings_for(path)
    assert f"{name} {words}" in finding.message
    assert finding.fix.startswith("Delete the damaged files")


@pytest.mark.parametrize("mark", [".incomplete", ".part", ".aria2", ".!qB"])
def test_m02_a_file_that_is_half_downloaded_is_one_line(tmp_path: Path, mark: str) -> None:
    shard = model(tmp_path) / "diffusion_pytorch_model-00003-of-00007.safetensors"
    shard.rename(f"{shard}{mark}")
    (finding,) = findings_for(shard.parent)
    assert f"{shard.name}{mark} marks an unfinished download" in finding.message


def test_a_folder_of_pointers_is_one_line_that_says_how_to_get_the_files(tmp_path: Path) -> None:
    path = model(tmp_path)
    for item in [*path.glob("*.safetensors"), *path.glob("*.pth")]:
        item.write_bytes(LFS_POINTER)
    (finding,) = findings_for(path)
    assert "10 files are Git LFS pointers" in finding.message
    assert "git lfs pull" in finding.message


@pytest.mark.parametrize(("dtype", "warned"), [("F32", False), ("BF16", True), ("F16", True)])
def test_how_the_numbers_are_stored_is_known(tmp_path: Path, dtype: str, warned: bool) -> None:
    query = load_backend("wan2.1").query(
        VideoRequest(prompt="x", image=Path("a")), Settings(i2v_model_dir=shard(dtype, "blocks.0.w")(tmp_path))
    )
    found = look_at_checkpoint(query.checkpoints[0])
    assert (found.kind, found.dtypes, found.dtypes <= {"BF16", "F16"}) == (None, frozenset({dtype}), warned)


def test_rubbish_in_the_place_of_a_config_is_no_crash(tmp_path: Path) -> None:
    path = model(tmp_path)
    (path / "config.json").write_bytes(b"\xff[[[")
    (finding,) = findings_for(path)
    assert "config.json is not valid JSON" in finding.message
