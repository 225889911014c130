"""Makes checkpoint folders in the layouts of Wan2.1 and HunyuanVideo: tiny or (Wan) of true size, complete or broken.

The safetensors and zip structures are real, so tests can check headers, indexes and ends without torch; the
tensors are zeros. config.json has the values of wan/configs.

    >>> make_wan_checkpoint(Path("/tmp/i2v"), "i2v-14B", true_size=True)  # doctest: +SKIP
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

T5 = "models_t5_umt5-xxl-enc-bf16.pth"
VAE = "Wan2.1_VAE.pth"
CLIP = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
INDEX = "diffusion_pytorch_model.safetensors.index.json"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a2146" * 8 + b"\nsize 9953601152\n"
_TRUE_BYTES = {T5: 11_361_920_418, VAE: 507_609_880, CLIP: 4_772_359_047}
_TINY_TENSOR = 64  # values
_TOKENIZER = ("special_tokens_map.json", "spiece.model", "tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class _Model:
    config: Mapping[str, Any]
    shards: int
    clip: bool
    true_bytes: int


def _config(model_type: str, in_dim: int, small: bool = False) -> dict[str, Any]:
    sizes = {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30}
    large = {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40}
    return {
        "_class_name": "WanModel",
        "_diffusers_version": "0.30.0",
        **(sizes if small else large),
        "eps": 1e-06,
        "freq_dim": 256,
        "in_dim": in_dim,
        "model_type": model_type,
        "out_dim": 16,
        "text_len": 512,
    }


_MODELS = {
    "i2v-14B": _Model(_config("i2v", 36), 7, True, 65_574_000_000),
    "flf2v-14B": _Model(_config("flf2v", 36), 7, True, 65_575_000_000),
    "t2v-14B": _Model(_config("t2v", 16), 6, False, 57_151_000_000),
    "t2v-1.3B": _Model(_config("t2v", 16, small=True), 1, False, 5_676_000_000),
}


def make_wan_checkpoint(folder: Path, task: str, *, true_size: bool = False) -> Path:
    """Make a complete checkpoint; with ``true_size`` every file has its real length, as a sparse file."""
    model = _MODELS[task]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(model.config, indent=2), "utf-8")
    _write_shards(folder, model, true_size)
    for name in (T5, VAE, *((CLIP,) if model.clip else ())):
        write_archive(folder / name, _TRUE_BYTES[name] if true_size else None)
    for name in ("google/umt5-xxl", *(("xlm-roberta-large",) if model.clip else ())):
        tokenizer = folder / name
        tokenizer.mkdir(parents=True)
        for file in _TOKENIZER:
            (tokenizer / file).write_text("{}", "utf-8")
    return folder


def make_hunyuan_checkpoint(folder: Path, member: str, *, heads: int = 16) -> Path:
    """Make a complete folder of weights for ``t2v``, ``i2v`` or ``1.5``, or the one file for ``documented``."""
    folder.mkdir(parents=True)
    if member == "1.5":
        _write_newer(folder, heads)
    elif member == "documented":
        write_archive(folder / "model.pt")
    else:
        model = folder / f"hunyuan-video-{member}-720p"
        for part in ("transformers", "vae"):
            (model / part).mkdir(parents=True)
        write_archive(model / "transformers" / "mp_rank_00_model_states.pt")
        (model / "vae" / "config.json").write_text("{}", "utf-8")
        write_archive(model / "vae" / "pytorch_model.pt")
        for name in ("text_encoder" if member == "t2v" else "text_encoder_i2v", "text_encoder_2"):
            _write_encoder(folder / name)
    return folder


def _write_newer(folder: Path, heads: int) -> None:
    versions = [f"{size}_{task}" for size in ("480p", "720p") for task in ("t2v", "i2v")]
    enlarging = ["720p_sr_distilled", "1080p_sr_distilled"]
    parts = [f"transformer/{name}" for name in (*versions, "480p_i2v_distilled", "480p_i2v_step_distilled", *enlarging)]
    for part in (*parts, *(f"upsampler/{name}" for name in enlarging), "vae"):
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps({"heads_num": heads}), "utf-8")
        write_safetensors(folder / part / "diffusion_pytorch_model.safetensors", {"x": _TINY_TENSOR})
    for name in ("llm", "byt5-small"):
        _write_encoder(folder / "text_encoder" / name)
    _write_encoder(folder / "vision_encoder" / "siglip" / "image_encoder")
    glyph = folder / "text_encoder" / "Glyph-SDXL-v2"
    files = ("scheduler/scheduler_config.json", "vision_encoder/siglip/feature_extractor/preprocessor_config.json")
    fonts = [glyph / "assets" / name for name in ("color_idx.json", "multilingual_10-lang_idx.json")]
    for path in (*(folder / name for name in files), *fonts):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}", "utf-8")
    (glyph / "checkpoints").mkdir()
    write_archive(glyph / "checkpoints" / "byt5_model.pt")


def _write_encoder(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer_config.json"):
        (folder / name).write_text("{}", "utf-8")
    write_safetensors(folder / "model.safetensors", {"x": _TINY_TENSOR})


def shards_of(folder: Path) -> list[Path]:
    """The transformer's files, in order."""
    return sorted(folder.glob("diffusion_pytorch_model*.safetensors"))


def write_safetensors(path: Path, tensors: Mapping[str, int]) -> None:
    """Write a sparse file of float32 tensors with the given number of values each."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, count in tensors.items():
        header[name] = {"dtype": "F32", "shape": [count], "data_offsets": [end, end + 4 * count]}
        end += 4 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + end)


def write_archive(path: Path, size: int | None = None) -> None:
    """Write a .pth file as torch.save does (a zip archive); ``size`` stretches it to a sparse file of that length."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("archive/version", b"3\n")
    if size is not None:
        _stretch(path, size)


def _stretch(path: Path, size: int) -> None:
    """Move the zip directory to the end of a hole, with the zip64 records that archives beyond 4 GiB have."""
    data = path.read_bytes()
    start = data.index(b"PK\x01\x02")
    entries, directory = data.count(b"PK\x01\x02"), data[start : data.index(b"PK\x05\x06")]
    at = size - len(directory) - 56 - 20 - 22
    record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries, len(directory), at)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, at + len(directory), 1)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, entries, entries, len(directory), 0xFFFFFFFF, 0)
    with path.open("r+b") as file:
        file.truncate(start)
        file.seek(at)
        file.write(directory + record + locator + end)


def _write_shards(folder: Path, model: _Model, true_size: bool) -> None:
    layers, count = int(model.config["num_layers"]), model.shards
    total = (model.true_bytes if true_size else layers * _TINY_TENSOR * 4) // 4
    names = [f"blocks.{layer}.ffn.0.weight" for layer in range(layers)]
    if count == 1:
        write_safetensors(folder / "diffusion_pytorch_model.safetensors", dict.fromkeys(names, total // layers))
        return
    placed: dict[str, str] = {}
    for number in range(count):
        file = f"diffusion_pytorch_model-{number + 1:05d}-of-{count:05d}.safetensors"
        held = names[number::count]
        write_safetensors(folder / file, dict.fromkeys(held, total // layers))
        placed |= dict.fromkeys(held, file)
    index = {"metadata": {"total_size": total * 4}, "weight_map": dict(sorted(placed.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2), "utf-8")


def _third(folder: Path) -> Path:
    shards = shards_of(folder)
    return shards[min(2, len(shards) - 1)]


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 16)


def _swap_config(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config |= {"model_type": "t2v", "in_dim": 16} if config["in_dim"] == 36 else {"model_type": "i2v", "in_dim": 36}
    path.write_text(json.dumps(config), "utf-8")


def _diffusers_layout(folder: Path) -> None:
    """Replace the files with those of a -Diffusers repository: the most common mistake (Wan2.1#18)."""
    for path in list(folder.iterdir()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    parts = ("transformer", "text_encoder", "vae", "image_encoder", "tokenizer", "scheduler")
    for part in parts:
        (folder / part).mkdir()
    write_safetensors(folder / "transformer" / "diffusion_pytorch_model.safetensors", {"x": _TINY_TENSOR})
    (folder / "model_index.json").write_text('{"_class_name": "WanImageToVideoPipeline"}', "utf-8")


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _as_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a folder", "utf-8")


#: Name -> the function that breaks a complete checkpoint in that way.
BREAKAGES: Mapping[str, Callable[[Path], object]] = {
    "folder missing": shutil.rmtree,
    "folder empty": _empty,
    "folder is a file": _as_file,
    "shard truncated": lambda folder: _cut(_third(folder)),
    "shard is an LFS pointer": lambda folder: _write(_third(folder), LFS_POINTER),
    "shard empty": lambda folder: _write(_third(folder), b""),
    "shard missing": lambda folder: _third(folder).unlink(),
    "shard header bigger than file": lambda folder: _write(_third(folder), struct.pack("<Q", 1 << 20) + b"{}"),
    "shard header impossible": lambda folder: _write(_third(folder), b"\xff" * 7 + b"\x7f{}"),
    "download incomplete": lambda folder: _third(folder).rename(f"{_third(folder)}.incomplete"),
    "download locked": lambda folder: _write(folder / f"{T5}.lock", b""),
    "text encoder truncated": lambda folder: _cut(folder / T5),
    "text encoder is an LFS pointer": lambda folder: _write(folder / T5, LFS_POINTER),
    "text encoder empty": lambda folder: _write(folder / T5, b""),
    "text encoder missing": lambda folder: (folder / T5).unlink(),
    "VAE missing": lambda folder: (folder / VAE).unlink(),
    "tokenizer missing": lambda folder: shutil.rmtree(folder / "google"),
    "config missing": lambda folder: (folder / "config.json").unlink(),
    "index damaged": lambda folder: _write(folder / INDEX, b"{"),
    "model for another task": _swap_config,
    "diffusers layout": _diffusers_layout,
}


def break_checkpoint(folder: Path, way: str) -> None:
    """Break a complete checkpoint in one of the ways of ``BREAKAGES``."""
    BREAKAGES[way](folder)
