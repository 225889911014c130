"""What a folder of weights is when it is not the one that was asked for: another model, layout, level or precision.

Told from names, `config.json` and the headers of safetensors files. It is asked only about folders in which something
is wrong, so that one cause gets one sentence instead of one for each file that is not there. Sources: the official
repositories of Wan2.1 and Wan2.2 (Wan-AI on the hub), HunyuanVideo (ckpts/README.md), the cache of huggingface_hub,
ComfyUI's repackaged files, and the keys that LoRA trainers write.

    >>> kind_of(Path("/models/nowhere"), "wan2.1", Files()) is None
    True
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....backends.shared.wan import T5_FILE
from ....core.host import Kind
from .folders import Files
from .tensor_file import LFS_MAGIC, header_of

_SHARD = "diffusion_pytorch_model"
_MANY = 64  # folders beside or below that are looked into
_LORA = re.compile(r"lora_(A|B|down|up)\b|\.lora\.|lora_unet|hada_w|\.diff_b$")
_FP8_KEY = re.compile(r"scaled_fp8|scale_weight|weight_scale|scale_input")
_SNAPSHOT = re.compile(r"[0-9a-f]{40}")
#: `_class_name` or `model_type` in an official config.json that no Wan2.1 task of ours has.
_OTHER_WAN = {
    "ti2v": "Wan2.2-TI2V-5B",
    "WanModel_S2V": "Wan2.2-S2V-14B",
    "s2v": "Wan2.2-S2V-14B",
    "WanAnimateModel": "Wan2.2-Animate-14B",
    "animate": "Wan2.2-Animate-14B",
    "VaceWanModel": "Wan2.1-VACE",
    "vace": "Wan2.1-VACE",
}
_WANTED = {
    "wan2.1": "a folder in the official layout of Wan2.1 (config.json, shards, models_t5..., Wan2.1_VAE.pth)",
    "engine": "a folder of a model, in the official layout of Wan2.1 or a -Diffusers download",
    "hunyuan": "the folder ckpts as HunyuanVideo's README makes it",
}


class _Look:
    """Reading without a word: what cannot be read is empty."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def names(self, folder: Path) -> tuple[str, ...]:
        try:
            return tuple(self._files.names(folder))
        except (OSError, ValueError):
            return ()

    def is_folder(self, path: Path) -> bool:
        try:
            return stat.S_ISDIR(self._files.stat(path).st_mode)
        except (OSError, ValueError):
            return False

    def is_file(self, path: Path) -> bool:
        try:
            return stat.S_ISREG(self._files.stat(path).st_mode)
        except (OSError, ValueError):
            return False

    def config(self, folder: Path, name: str = "config.json") -> dict[str, Any]:
        found = self._read(folder / name, 1 << 20)
        try:
            value = json.loads(found)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def text(self, path: Path) -> str:
        return self._read(path, 4096).decode("utf-8", "replace").strip()

    def header(self, path: Path) -> dict[str, Any]:
        try:
            size = self._files.stat(path).st_size
            with self._files.open(path) as file:
                return header_of(file, size)
        except (OSError, ValueError):
            return {}

    def _read(self, path: Path, size: int) -> bytes:
        try:
            with self._files.open(path) as file:
                return file.read(size)
        except (OSError, ValueError):
            return b""

    def starts(self, path: Path, magic: bytes) -> bool:
        return self._read(path, len(magic)) == magic


def kind_of(directory: Path, layout: str, files: Files) -> Kind | None:
    """What the folder is; ``None`` where it looks like what was asked for, or like nothing that is known.

    Args:
        directory: The folder (or file) that a setting names.
        layout: What was asked for: ``wan2.1``, ``engine`` or ``hunyuan``.
        files: The calls to the disk.
    """
    look = _Look(files)
    names = look.names(directory)
    if not names:
        return _lone_file(look, directory, layout) if look.is_file(directory) else None
    for question in (_cache, _diffusers, _wan22, _hunyuan, _text_encoder, _single_files, _level, _source, _nothing):
        found = question(look, directory, names, layout)
        if found is not None:
            return found
    return None


def precision_kind(name: str, header: dict[str, Any]) -> Kind | None:
    """Weights whose numbers mean something else than the published ones, under the published name."""
    tensors = {key: item for key, item in header.items() if key != "__metadata__" and isinstance(item, dict)}
    kinds = {str(item.get("dtype")) for item in tensors.values()}
    if any(_LORA.search(key) for key in tensors):
        fix = "Set it to the model itself. A LoRA goes into `lora`, for the resident engine (docs/engine.md)."
        return Kind("lora", f"holds a LoRA in the place of a model ({name})", fix)
    small = sorted(kind for kind in kinds if kind.startswith("F8"))
    if small or any(_FP8_KEY.search(key) for key in tensors):
        what = f"holds weights in eight bits ({', '.join(small) or 'scaled'}) under the official name ({name})"
        fix = "Download the published file. The resident engine makes eight-bit weights itself: `speed: balanced`."
        return Kind("fp8", what, fix)
    if kinds & {"I8", "U8", "I4", "U4", "I32"} and not kinds & {"F32", "F16", "BF16"}:
        return Kind("quantised", f"holds quantised weights ({name})", "Download the published file.")
    if any(key.startswith(("model.diffusion_model.", "diffusion_model.")) for key in tensors):
        return Kind("comfyui", f"holds a file repackaged for ComfyUI under the official name ({name})", _OFFICIAL_FIX)
    return None


_OFFICIAL_FIX = "Download the model's own repository from the hub (Wan-AI/... or tencent/...)."


# --------------------------------------------------------------------------------------------- one question after another


def _cache(look: _Look, directory: Path, names: Sequence[str], layout: str) -> Kind | None:
    """A cache of huggingface_hub has the files two or three levels below, under the name of a commit."""
    if "hub" in names and not set(names) & {T5_FILE, "model_index.json"}:
        inside = _cached(look, directory / "hub", layout)
        if inside:
            return _cache_kind(inside)
    if directory.name == "snapshots" and any(_SNAPSHOT.fullmatch(name) for name in names):
        return _cache_kind(_snapshots(look, directory.parent))
    inside = _snapshots(look, directory) if "snapshots" in names else _cached(look, directory, layout)
    return _cache_kind(inside) if inside else None


def _cached(look: _Look, folder: Path, layout: str) -> list[Path]:
    models = [name for name in look.names(folder) if name.startswith("models--")][:_MANY]
    found = [path for name in models for path in _snapshots(look, folder / name)]
    wanted = [path for path in found if _is_wanted(look, path, layout)]
    return wanted or found


def _snapshots(look: _Look, model: Path) -> list[Path]:
    commits = [name for name in look.names(model / "snapshots") if _SNAPSHOT.fullmatch(name)]
    main = look.text(model / "refs" / "main")
    chosen = [main] if main in commits else commits[-1:]
    return [model / "snapshots" / name for name in chosen]


def _cache_kind(inside: list[Path]) -> Kind:
    if len(inside) == 1:
        return Kind("cache", "is a folder of the hub's cache, and not the model in it", f"Set it to {inside[0]}")
    models = "; ".join(
        f"{path.parents[1].name.removeprefix('models--').replace('--', '/')}: {path}" for path in inside[:8]
    )
    return Kind("cache", "is the hub's cache, and not a model in it", f"Set it to one of these: {models}")


def _diffusers(look: _Look, directory: Path, names: Sequence[str], layout: str) -> Kind | None:
    pipeline = str(look.config(directory, "model_index.json").get("_class_name", "Wan"))
    if not pipeline.startswith(("Wan", "HunyuanVideo")):
        return Kind("family", f"is a -Diffusers download of another model ({pipeline})", _OFFICIAL_FIX)
    if layout == "engine":
        return None
    what = "is a -Diffusers download, whose layout the official script cannot read"
    fix = "Download the repository of the same name without -Diffusers, or use it as `weights` with `generator: diffusers`."
    if "model_index.json" in names:
        index = look.config(directory, "model_index.json")
        if index.get("boundary_ratio") is not None or index.get("expand_timesteps"):
            return Kind(
                "layout", "is a -Diffusers download of Wan2.2", "Use it as `weights` with `generator: diffusers`."
            )
        return Kind("layout", what, fix)
    if re.match(r"(Wan|HunyuanVideo\w*)Transformer3DModel", str(look.config(directory).get("_class_name", ""))):
        return Kind("layout", f"is the transformer of a -Diffusers download ({directory.name})", fix)
    return None


def _wan22(look: _Look, directory: Path, names: Sequence[str], layout: str) -> Kind | None:
    config = look.config(directory)
    other = _OTHER_WAN.get(str(config.get("_class_name"))) or _OTHER_WAN.get(str(config.get("model_type")))
    if {"high_noise_model", "low_noise_model"} <= set(names):
        other = "Wan2.2-A14B"
    elif "Wan2.2_VAE.pth" in names:
        other = other or "Wan2.2-TI2V-5B"
    elif directory.name in ("high_noise_model", "low_noise_model"):
        other = "Wan2.2-A14B (one of its two experts)"
    if other is None:
        return None
    if layout == "engine" and "Wan2.2" in other:
        what = f"holds {other} in the official layout, which the engine reads of Wan2.1 only"
        return Kind("family", what, "Download the repository of the same name with -Diffusers.")
    needs = (
        "the resident engine takes it as a -Diffusers download" if "Wan2.2" in other else "no generator here runs it"
    )
    fix = (
        f"Set it to weights of Wan2.1: {needs} (`weights`, docs/engine.md)."
        if "Wan2.2" in other
        else f"Set it to another model: {needs}."
    )
    family = "Wan2.2, not Wan2.1" if "Wan2.2" in other else "Wan2.1-VACE"
    named = "" if other == family else f" ({other})"
    return Kind("family", f"holds weights of {family}{named}", fix)


def _hunyuan(look: _Look, directory: Path, names: Sequence[str], layout: str) -> Kind | None:
    del look, directory
    older = any(name.startswith("hunyuan-video-") for name in names)
    newer = {"transformer", "upsampler", "vae"} <= set(names) and "model_index.json" not in names
    if layout != "hunyuan" and (older or newer):
        what = f"holds weights of HunyuanVideo{'-1.5' if newer else ''} in the official layout"
        return Kind("family", what, "Set ckpt_path to it and hunyuan_dir to its checkout, with `generator: hunyuan`.")
    if layout == "hunyuan" and T5_FILE in names:
        return Kind(
            "family", "holds weights of Wan2.1, not of HunyuanVideo", "Set i2v_model_dir (or t2v_model_dir) to it."
        )
    return None


def _text_encoder(look: _Look, directory: Path, names: Sequence[str], layout: str) -> Kind | None:
    del names
    if layout != "hunyuan" and str(look.config(directory).get("model_type", "")).startswith("llava"):
        return Kind("family", "holds LLaVA, a language model that only HunyuanVideo uses", _OFFICIAL_FIX)
    return None


def _single_files(look: _Look, directory: Path, names: Sequence[str], layout: str) -> Kind | None:
    """Files for other programs: GGUF, ComfyUI's one file for each part, LoRA files."""
    if T5_FILE in names or any(name.startswith((_SHARD, "hunyuan-video-")) for name in names):
        return None
    del layout
    if {"diffusion_models", "text_encoders"} <= set(names) or "split_files" in names:
        return Kind("comfyui", "is a collection for ComfyUI (diffusion_models, text_encoders)", _OFFICIAL_FIX)
    if directory.name in ("diffusion_models", "unet", "checkpoints") and any(
        name.endswith(".safetensors") for name in names
    ):
        return Kind("comfyui", f"is the folder {directory.name} of ComfyUI", _OFFICIAL_FIX)
    ours = [name for name in names if name.endswith((".gguf", ".safetensors"))]
    return (
        _file_kind(look, directory / ours[0]) if ours and not {"config.json", "model_index.json"} & set(names) else None
    )


def _file_kind(look: _Look, path: Path) -> Kind | None:
    """A file where a folder is needed, or the only thing in a folder."""
    if path.suffix == ".gguf" or look.starts(path, b"GGUF"):
        return Kind("gguf", f"holds a GGUF file ({path.name}), which is for other programs", _OFFICIAL_FIX)
    if look.starts(path, LFS_MAGIC) or not look.header(path):
        return None
    if path.name.startswith(_SHARD):
        return Kind("level", f"is one file of a model ({path.name})", f"Set it to the folder: {path.parent}")
    found = precision_kind(path.name, look.header(path))
    if found is not None and found.code == "lora":
        return found
    return Kind("comfyui", f"holds a single file ({path.name}), as ComfyUI and others use it", _OFFICIAL_FIX)


def _level(look: _Look, directory: Path, names: Sequence[str], layout: str) -> Kind | None:
    """The folder above or below the one that is meant."""
    if _is_wanted(look, directory, layout):
        return None
    inside, depth = _inside(look, directory, names, layout)
    if inside:
        fix = f"Set it to {' or '.join(str(path) for path in inside[:4])}"
        levels = "one level" if depth == 1 else f"{depth} levels"
        return Kind("level", f"is {levels} too high: it holds the folder of the model", fix)
    for above in directory.parents[:2]:
        if _is_wanted(look, above, layout):
            return Kind(
                "level", f"is a part of a model and lies too deep ({_WANTED[layout]} is needed)", f"Set it to {above}"
            )
    return None


def _inside(look: _Look, directory: Path, names: Sequence[str], layout: str) -> tuple[list[Path], int]:
    """The nearest folders below that are what is wanted, and how deep: ModelScope's cache has four levels above them."""
    level = [directory / name for name in names]
    for depth in range(1, 5):
        level = [path for path in level[:_MANY] if look.is_folder(path)]
        inside = [path for path in level if _is_wanted(look, path, layout)]
        if inside:
            return inside, depth
        level = [path / name for path in level for name in look.names(path)[:_MANY]]
    return [], 0


def _source(look: _Look, directory: Path, names: Sequence[str], layout: str) -> Kind | None:
    """A checkout in the place of weights."""
    del look, directory, layout
    if {"generate.py", "sample_video.py", "sample_image2video.py"} & set(names) and not _has_parts(names):
        fix = "Set it to the folder of the weights, which are downloaded apart (`reel setup`)."
        return Kind("source", "is source code, and not weights", fix)
    return None


def _nothing(look: _Look, directory: Path, names: Sequence[str], layout: str) -> Kind | None:
    """A folder without anything of a model: one sentence, instead of one for each file that is not there."""
    del look, directory
    if layout == "hunyuan" or _has_parts(names):  # a fresh checkout of HunyuanVideo has such a folder, to be filled
        return None
    return Kind("nothing", "holds no file of a model", f"Set it to {_WANTED[layout]}.")


def _has_parts(names: Sequence[str]) -> bool:
    kinds = (_SHARD, "models_", "google", "xlm-roberta", "hunyuan-video-", "text_encoder", "transformer", ".cache")
    return any(name.startswith(kinds) or "VAE" in name or name in ("config.json", "model_index.json") for name in names)


def _lone_file(look: _Look, path: Path, layout: str) -> Kind:
    """A file where a folder is needed."""
    found = _file_kind(look, path) if path.suffix in (".gguf", ".safetensors") else None
    if found is not None:
        return found
    if path.suffix in (".zip", ".tar", ".gz", ".7z", ".rar"):
        return Kind("archive", "is an archive", "Unpack it, and set it to the folder of the model.")
    if _is_wanted(look, path.parent, layout):
        return Kind("level", f"is one file of a model ({path.name})", f"Set it to the folder: {path.parent}")
    return Kind("level", "is a file, and a model is a folder", f"Set it to {_WANTED[layout]}.")


def _is_wanted(look: _Look, folder: Path, layout: str) -> bool:
    names = look.names(folder)
    if layout == "hunyuan":
        return any(name.startswith("hunyuan-video-") for name in names) or {"transformer", "vae", "scheduler"} <= set(
            names
        )
    official = T5_FILE in names or ("config.json" in names and _official_shards(names))
    return official or (layout == "engine" and "model_index.json" in names)


def _official_shards(names: Sequence[str]) -> bool:
    return any(name.startswith(_SHARD) for name in names) and any("VAE" in name or "models_" in name for name in names)
