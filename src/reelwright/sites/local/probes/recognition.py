"""Recognises a folder of weights that a setting cannot use: another model, layout, level or precision.

It judges by names, `config.json` and the headers of safetensors files. It runs only for folders with a fault, so that
one cause gives one sentence instead of one for each missing file. Sources: the official repositories of Wan2.1 and
Wan2.2 (Wan-AI on the hub), HunyuanVideo (ckpts/README.md), the cache of huggingface_hub, ComfyUI's repackaged files,
and the keys that LoRA trainers write.

    >>> kind_of(Path("/models/nowhere"), "wan2.1", Files()) is None
    True
"""

from __future__ import annotations

import contextlib
import functools
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
_MANY = 64  # the most folders of one level to look into
_LORA = re.compile(r"lora_(A|B|down|up)\b|\.lora\.|lora_unet|hada_w|\.diff_b$")
_FP8_KEY = re.compile(r"scaled_fp8|scale_weight|weight_scale|scale_input")
_SNAPSHOT = re.compile(r"[0-9a-f]{40}")
#: `_class_name` or `model_type` in an official config.json of a model that no backend runs.
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


class _Disk:
    """Reads files without raising; a file that cannot be read is empty."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def names(self, folder: Path) -> tuple[str, ...]:
        with contextlib.suppress(OSError, ValueError):
            return tuple(self._files.names(folder))
        return ()

    def is_folder(self, path: Path) -> bool:
        return stat.S_ISDIR(self._mode(path))

    def is_file(self, path: Path) -> bool:
        return stat.S_ISREG(self._mode(path))

    def _mode(self, path: Path) -> int:
        with contextlib.suppress(OSError, ValueError):
            return self._files.stat(path).st_mode
        return 0

    def config(self, folder: Path, name: str = "config.json") -> dict[str, Any]:
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(self._read(folder / name, 1 << 20))
            return value if isinstance(value, dict) else {}
        return {}

    def text(self, path: Path) -> str:
        return self._read(path, 4096).decode("utf-8", "replace").strip()

    def header(self, path: Path) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            size = self._files.stat(path).st_size
            with self._files.open(path) as file:
                return header_of(file, size)
        return {}

    def starts(self, path: Path, magic: bytes) -> bool:
        return self._read(path, len(magic)) == magic

    def _read(self, path: Path, size: int) -> bytes:
        with contextlib.suppress(OSError, ValueError), self._files.open(path) as file:
            return file.read(size)
        return b""


def kind_of(directory: Path, layout: str, files: Files) -> Kind | None:
    """The kind of the folder; ``None`` if it looks like the one that the setting needs, or is unknown.

    Args:
        directory: The folder (or file) that a setting names.
        layout: The layout that the setting needs: ``wan2.1``, ``engine`` or ``hunyuan``.
        files: The calls to the disk.
    """
    return _Recognition(directory, layout, _Disk(files)).kind()


def precision_kind(name: str, header: dict[str, Any]) -> Kind | None:
    """The kind of weights that have the published name but not the published numbers; else ``None``."""
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


class _Recognition:
    """A folder or file that a setting names; each method recognises one kind of mistake."""

    def __init__(self, directory: Path, layout: str, disk: _Disk) -> None:
        self.directory, self.layout, self.disk = directory, layout, disk
        self.names = disk.names(directory)

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        return self.disk.config(self.directory)

    def kind(self) -> Kind | None:
        if not self.names:
            return self._lone_file(self.directory) if self.disk.is_file(self.directory) else None
        questions = (
            *(self._cache, self._diffusers, self._wan22, self._hunyuan, self._text_encoder),
            *(self._single_files, self._level, self._source, self._nothing),
        )
        return next((found for question in questions if (found := question()) is not None), None)

    def _cache(self) -> Kind | None:
        """Recognise a cache of huggingface_hub: its files are two or three levels below, under a commit's name."""
        if "hub" in self.names and not set(self.names) & {T5_FILE, "model_index.json"}:
            inside = self._cached(self.directory / "hub")
            if inside:
                return _cache_kind(inside)
        if self.directory.name == "snapshots" and any(_SNAPSHOT.fullmatch(name) for name in self.names):
            return _cache_kind(self._snapshots(self.directory.parent))
        inside = self._snapshots(self.directory) if "snapshots" in self.names else self._cached(self.directory)
        return _cache_kind(inside) if inside else None

    def _cached(self, folder: Path) -> list[Path]:
        models = [name for name in self.disk.names(folder) if name.startswith("models--")][:_MANY]
        found = [path for name in models for path in self._snapshots(folder / name)]
        wanted = [path for path in found if self._is_wanted(path)]
        return wanted or found

    def _snapshots(self, model: Path) -> list[Path]:
        commits = [name for name in self.disk.names(model / "snapshots") if _SNAPSHOT.fullmatch(name)]
        main = self.disk.text(model / "refs" / "main")
        chosen = [main] if main in commits else commits[-1:]
        return [model / "snapshots" / name for name in chosen]

    def _diffusers(self) -> Kind | None:
        pipeline = str(self.disk.config(self.directory, "model_index.json").get("_class_name", "Wan"))
        if not pipeline.startswith(("Wan", "HunyuanVideo")):
            return Kind("family", f"is a -Diffusers download of another model ({pipeline})", _OFFICIAL_FIX)
        if self.layout == "engine":
            return None
        what = "is a -Diffusers download, whose layout the official script cannot read"
        fix = "Download the repository of the same name without -Diffusers, or use it as `weights` with `generator: diffusers`."
        if "model_index.json" in self.names:
            index = self.disk.config(self.directory, "model_index.json")
            if index.get("boundary_ratio") is not None or index.get("expand_timesteps"):
                what, fix = "is a -Diffusers download of Wan2.2", "Use it as `weights` with `generator: diffusers`."
            return Kind("layout", what, fix)
        if re.match(r"(Wan|HunyuanVideo\w*)Transformer3DModel", str(self.config.get("_class_name", ""))):
            return Kind("layout", f"is the transformer of a -Diffusers download ({self.directory.name})", fix)
        return None

    def _wan22(self) -> Kind | None:
        other = next(
            (
                _OTHER_WAN[name]
                for key in ("_class_name", "model_type")
                if (name := str(self.config.get(key))) in _OTHER_WAN
            ),
            None,
        )
        if {"high_noise_model", "low_noise_model"} <= set(self.names):
            other = "Wan2.2-A14B"
        elif "Wan2.2_VAE.pth" in self.names:
            other = other or "Wan2.2-TI2V-5B"
        elif self.directory.name in ("high_noise_model", "low_noise_model"):
            other = "Wan2.2-A14B (one of its two experts)"
        if other is None:
            return None
        if self.layout == "engine" and "Wan2.2" in other:
            what = f"holds {other} in the official layout, which the engine reads for Wan2.1 only"
            return Kind("family", what, "Download the repository of the same name with -Diffusers.")
        if "Wan2.2" not in other:
            return Kind("family", f"holds weights of {other}", "Set it to another model: no generator here runs it.")
        needs = "the resident engine takes it as a -Diffusers download (`weights`, docs/engine.md)"
        return Kind(
            "family", f"holds weights of Wan2.2, not Wan2.1 ({other})", f"Set it to weights of Wan2.1: {needs}."
        )

    def _hunyuan(self) -> Kind | None:
        older = any(name.startswith("hunyuan-video-") for name in self.names)
        newer = {"transformer", "upsampler", "vae"} <= set(self.names) and "model_index.json" not in self.names
        if self.layout != "hunyuan" and (older or newer):
            what = f"holds weights of HunyuanVideo{'-1.5' if newer else ''} in the official layout"
            fix = "Set ckpt_path to it and hunyuan_dir to its checkout, with `generator: hunyuan`."
            return Kind("family", what, fix)
        if self.layout == "hunyuan" and T5_FILE in self.names:
            what = "holds weights of Wan2.1, not of HunyuanVideo"
            return Kind("family", what, "Set i2v_model_dir (or t2v_model_dir) to it.")
        return None

    def _text_encoder(self) -> Kind | None:
        if self.layout != "hunyuan" and str(self.config.get("model_type", "")).startswith("llava"):
            return Kind("family", "holds LLaVA, a language model that only HunyuanVideo uses", _OFFICIAL_FIX)
        return None

    def _single_files(self) -> Kind | None:
        """Recognise files for other programs: GGUF, ComfyUI's one file for each part, LoRA files."""
        if T5_FILE in self.names or any(name.startswith((_SHARD, "hunyuan-video-")) for name in self.names):
            return None
        if {"diffusion_models", "text_encoders"} <= set(self.names) or "split_files" in self.names:
            return Kind("comfyui", "is a collection for ComfyUI (diffusion_models, text_encoders)", _OFFICIAL_FIX)
        files = [name for name in self.names if name.endswith((".gguf", ".safetensors"))]
        if self.directory.name in ("diffusion_models", "unet", "checkpoints") and any(
            name.endswith(".safetensors") for name in files
        ):
            return Kind("comfyui", f"is the folder {self.directory.name} of ComfyUI", _OFFICIAL_FIX)
        if not files or {"config.json", "model_index.json"} & set(self.names):
            return None
        return self._file_kind(self.directory / files[0])

    def _file_kind(self, path: Path) -> Kind | None:
        """The kind of a file that was given in place of a folder, or that is alone in a folder."""
        if path.suffix == ".gguf" or self.disk.starts(path, b"GGUF"):
            return Kind("gguf", f"holds a GGUF file ({path.name}), which is for other programs", _OFFICIAL_FIX)
        if self.disk.starts(path, LFS_MAGIC) or not self.disk.header(path):
            return None
        if path.name.startswith(_SHARD):
            return Kind("level", f"is one file of a model ({path.name})", f"Set it to the folder: {path.parent}")
        found = precision_kind(path.name, self.disk.header(path))
        if found is not None and found.code == "lora":
            return found
        return Kind("comfyui", f"holds a single file ({path.name}), as ComfyUI and others use it", _OFFICIAL_FIX)

    def _level(self) -> Kind | None:
        """Recognise a folder above or below the one that was meant."""
        if self._is_wanted(self.directory):
            return None
        inside, depth = self._inside()
        if inside:
            fix = f"Set it to {' or '.join(str(path) for path in inside[:4])}"
            levels = "one level" if depth == 1 else f"{depth} levels"
            return Kind("level", f"is {levels} too high: it holds the folder of the model", fix)
        for above in self.directory.parents[:2]:
            if self._is_wanted(above):
                what = f"is only a part of a model ({_WANTED[self.layout]} is needed)"
                return Kind("level", what, f"Set it to {above}")
        return None

    def _inside(self) -> tuple[list[Path], int]:
        """The nearest usable folders below, and their depth; ModelScope's cache has four levels above them."""
        level = [self.directory / name for name in self.names]
        for depth in range(1, 5):
            level = [path for path in level[:_MANY] if self.disk.is_folder(path)]
            inside = [path for path in level if self._is_wanted(path)]
            if inside:
                return inside, depth
            level = [path / name for path in level for name in self.disk.names(path)[:_MANY]]
        return [], 0

    def _source(self) -> Kind | None:
        """Recognise a checkout in the place of weights."""
        if {"generate.py", "sample_video.py", "sample_image2video.py"} & set(self.names) and not _has_parts(self.names):
            fix = "Set it to the folder of the weights, which are downloaded apart (`reel setup`)."
            return Kind("source", "is source code, and not weights", fix)
        return None

    def _nothing(self) -> Kind | None:
        """Recognise a folder without any part of a model: one sentence, instead of one for each missing file."""
        # A fresh checkout of HunyuanVideo has such a folder, which the user fills.
        if self.layout == "hunyuan" or _has_parts(self.names):
            return None
        return Kind("nothing", "holds no file of a model", f"Set it to {_WANTED[self.layout]}.")

    def _lone_file(self, path: Path) -> Kind:
        """The kind of a file that was given in place of a folder."""
        found = self._file_kind(path) if path.suffix in (".gguf", ".safetensors") else None
        if found is not None:
            return found
        if path.suffix in (".zip", ".tar", ".gz", ".7z", ".rar"):
            return Kind("archive", "is an archive", "Unpack it, and set it to the folder of the model.")
        if self._is_wanted(path.parent):
            return Kind("level", f"is one file of a model ({path.name})", f"Set it to the folder: {path.parent}")
        return Kind("level", "is a file, and a model is a folder", f"Set it to {_WANTED[self.layout]}.")

    def _is_wanted(self, folder: Path) -> bool:
        names = self.disk.names(folder)
        if self.layout == "hunyuan":
            newer = {"transformer", "vae", "scheduler"} <= set(names)
            return newer or any(name.startswith("hunyuan-video-") for name in names)
        official = T5_FILE in names or ("config.json" in names and _official_shards(names))
        return official or (self.layout == "engine" and "model_index.json" in names)


def _cache_kind(inside: list[Path]) -> Kind:
    if len(inside) == 1:
        return Kind("cache", "is a folder of the hub's cache, and not the model in it", f"Set it to {inside[0]}")
    models = "; ".join(
        f"{path.parents[1].name.removeprefix('models--').replace('--', '/')}: {path}" for path in inside[:8]
    )
    return Kind("cache", "is the hub's cache, and not a model in it", f"Set it to one of these: {models}")


def _has_parts(names: Sequence[str]) -> bool:
    kinds = (_SHARD, "models_", "google", "xlm-roberta", "hunyuan-video-", "text_encoder", "transformer", ".cache")
    return any(name.startswith(kinds) or "VAE" in name or name in ("config.json", "model_index.json") for name in names)


def _official_shards(names: Sequence[str]) -> bool:
    return any(name.startswith(_SHARD) for name in names) and any("VAE" in name or "models_" in name for name in names)
