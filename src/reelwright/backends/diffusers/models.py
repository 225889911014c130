"""A table of the resident engine's models, and the code that recognises a folder of weights. A new model is a new row.

A network's numbers (heads, layers, width) come from the folder itself. A row holds the facts that no folder contains:
the pipelines by task, frame rate, length and defaults. Sources: the official repositories (wan/configs of Wan2.1 and
Wan2.2; hyvideo/config.py of HunyuanVideo and HunyuanVideo-I2V; generate.py of HunyuanVideo-1.5) and the pipelines of
diffusers 0.42.1. ``shape`` is the config.json of the published transformer, ``beside`` the sizes of published files.

    >>> recognise(Checkpoint(Path("x"), config={"model_type": "i2v", "dim": 5120})).name
    'wan2.1-i2v-14B'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...core.host import Checkpoint
from ...core.request import Size, Task
from ..shared.wan import CLIP_FRAMES, FPS, PATCH, T5_BYTES, default_shift

Layout = Literal["diffusers", "official"]
INDEX, TRANSFORMER = "model_index.json", "transformer/config.json"
SCHEDULER, GUIDER = "scheduler/scheduler_config.json", "guider/guider_config.json"
#: The files that are read in a folder of diffusers' layout.
CONFIGS = (INDEX, TRANSFORMER, SCHEDULER, GUIDER)
#: The longest sequence of text tokens that Wan's encoder reads.
TEXT_TOKENS = 512


@dataclass(frozen=True)
class Model:
    """One model as the engine runs it.

    Attributes:
        name: Its name in messages and records.
        family: The engine's code for it: ``wan``, ``hunyuan`` or ``hunyuan15``.
        kind: ``model_type`` of the official configuration, for defaults that depend on it.
        tasks: The class of diffusers' pipeline for each task.
        mark: The feature that distinguishes its folder from others of the same class; see `_mark_of`.
        shape: The published configuration of its transformer.
        beside: Bytes in memory of the text encoder, the image encoder and the VAE (four bytes a weight in the last two).
        fps, frames: Frame rate, and the length it was trained for.
        steps, guidance: The official defaults.
        shift: The official flow shift; ``None`` if it depends on the size (`wan.default_shift`).
        side: Pixels per latent in each direction.
        patch: Latents per token in each direction (``patch_size`` of the denoiser).
        parameters: Number of weights of the denoiser, if its configuration does not give it.
        two_experts: Whether it has a second transformer, for low noise.
        fixed_frames: Whether it makes clips of exactly ``frames`` frames only.
        cache: Whether the block cache works with its transformer.
    """

    name: str
    family: str
    kind: str
    tasks: Mapping[Task, str]
    mark: str
    shape: Mapping[str, Any]
    beside: tuple[int, int, int]
    fps: float = FPS
    frames: int = CLIP_FRAMES
    steps: int = 50
    guidance: float = 5.0
    shift: float | None = None
    side: int = 8
    patch: int = PATCH
    parameters: int | None = None
    two_experts: bool = False
    fixed_frames: bool = False
    cache: bool = True

    @property
    def stride(self) -> int:
        """`side` for the functions of `wan`, which count two latents per token."""
        return self.side * self.patch // PATCH

    @property
    def documented(self) -> bool:
        """Whether the documented defaults (50 steps, guidance 7.5) apply to this model."""
        return self.name.startswith("wan2.1")


_T2V, _I2V = "WanPipeline", "WanImageToVideoPipeline"
_LARGE = {"num_attention_heads": 40, "attention_head_dim": 128, "num_layers": 40, "ffn_dim": 13824}
_PICTURES = {**_LARGE, "image_dim": 1280}
_HUNYUAN = {"num_attention_heads": 24, "attention_head_dim": 128, "num_layers": 20, "num_single_layers": 40}
_HUNYUAN_15 = {"num_attention_heads": 16, "attention_head_dim": 128, "num_layers": 54}
_WAN_PARTS = (2 * T5_BYTES, 0, 507_609_880)
_WAN_PARTS_WITH_CLIP = (2 * T5_BYTES, 2_530_000_000, 507_609_880)
_WAN22_PARTS_5B = (2 * T5_BYTES, 0, 2_820_000_000)  # its VAE compresses more and is larger
_HUNYUAN_PARTS = (15_250_000_000, 0, 986_000_000)
_HUNYUAN_15_PARTS = (14_500_000_000, 860_000_000, 5_000_000_000)

MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        Model(
            "wan2.1-t2v-1.3B", "wan", "t2v", {"t2v": _T2V}, "narrow",
            {**_LARGE, "num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}, _WAN_PARTS,
        ),
        Model("wan2.1-t2v-14B", "wan", "t2v", {"t2v": _T2V}, "", _LARGE, _WAN_PARTS),
        Model("wan2.1-i2v-14B", "wan", "i2v", {"i2v": _I2V}, "", _PICTURES, _WAN_PARTS_WITH_CLIP, steps=40),
        Model(
            "wan2.1-flf2v-14B", "wan", "flf2v", {"flf2v": _I2V}, "pos_embed_seq_len",
            {**_PICTURES, "pos_embed_seq_len": 514}, _WAN_PARTS_WITH_CLIP, fixed_frames=True,
        ),
        Model(
            "wan2.2-i2v-A14B", "wan", "i2v", {"i2v": _I2V, "flf2v": _I2V}, "boundary_ratio", _LARGE, _WAN_PARTS,
            steps=40, guidance=3.5, shift=5.0, two_experts=True,
        ),
        Model(
            "wan2.2-ti2v-5B", "wan", "ti2v", {"t2v": _T2V, "i2v": _I2V}, "expand_timesteps",
            {**_LARGE, "num_attention_heads": 24, "num_layers": 30, "ffn_dim": 14336}, _WAN22_PARTS_5B,
            fps=24.0, frames=121, shift=5.0, side=16,
        ),
        Model(
            "hunyuanvideo-t2v", "hunyuan", "t2v", {"t2v": "HunyuanVideoPipeline"}, "", _HUNYUAN, _HUNYUAN_PARTS,
            fps=24.0, frames=129, guidance=6.0, shift=7.0, parameters=12_821_012_544,
        ),
        Model(
            "hunyuanvideo-i2v", "hunyuan", "i2v", {"i2v": "HunyuanVideoImageToVideoPipeline"}, "", _HUNYUAN,
            _HUNYUAN_PARTS, fps=24.0, frames=129, guidance=6.0, shift=7.0, parameters=12_821_012_544, cache=False,
        ),
        Model(
            "hunyuanvideo-1.5-t2v", "hunyuan15", "t2v", {"t2v": "HunyuanVideo15Pipeline"}, "", _HUNYUAN_15,
            (_HUNYUAN_15_PARTS[0], 0, _HUNYUAN_15_PARTS[2]), fps=24.0, frames=121, guidance=6.0, shift=5.0, side=16,
            patch=1, parameters=8_331_000_000,
        ),
        Model(
            "hunyuanvideo-1.5-i2v", "hunyuan15", "i2v", {"i2v": "HunyuanVideo15ImageToVideoPipeline"}, "", _HUNYUAN_15,
            _HUNYUAN_15_PARTS, fps=24.0, frames=121, guidance=6.0, shift=5.0, side=16, patch=1,
            parameters=8_331_000_000,
        ),
    )
}  # fmt: skip
_SMALL_WIDTH = 3000  # between the 1536 of 1.3B and the 5120 of 14B
_ALL = 1 << 50  # more than a transformer can need: its parameters decide


def published_folder(model: Model, directory: Path) -> Checkpoint:
    """The published folder of a model in diffusers' layout, for advice when its weights are not installed."""
    text, image, vae = model.beside
    pictures = {"image_encoder/x": image} if image else {}
    index = {"_class_name": next(iter(model.tasks.values())), **({model.mark: 1} if model.mark else {})}
    return Checkpoint(
        directory,
        files={"transformer/x": _ALL, "text_encoder/x": text, "vae/x": vae, **pictures},
        configs={INDEX: index, TRANSFORMER: model.shape},
    )


def layout_of(checkpoint: Checkpoint) -> Layout:
    """The layout of a folder."""
    return "diffusers" if checkpoint.configs.get(INDEX) else "official"


def recognise(checkpoint: Checkpoint) -> Model | None:
    """The model that a folder holds; ``None`` if it is not in the table."""
    index, network = checkpoint.configs.get(INDEX) or {}, checkpoint.configs.get(TRANSFORMER) or {}
    if not index:
        kind, width = checkpoint.config.get("model_type"), checkpoint.config.get("dim")
        size = "1.3B" if kind == "t2v" and isinstance(width, int) and width < _SMALL_WIDTH else "14B"
        return MODELS.get(f"wan2.1-{kind}-{size}")
    able = {model.mark: model for model in MODELS.values() if index.get("_class_name") in model.tasks.values()}
    mark = _mark_of(index, network)
    return able.get(mark) or (able.get("") if mark == "narrow" else None)


def _mark_of(index: Mapping[str, Any], network: Mapping[str, Any]) -> str:
    """The mark of a folder among models of one class: an entry of one of the two files, or a narrow transformer."""
    if index.get("expand_timesteps"):
        return "expand_timesteps"
    if index.get("boundary_ratio") is not None:
        return "boundary_ratio"
    if network.get("pos_embed_seq_len"):
        return "pos_embed_seq_len"
    width = int(network.get("num_attention_heads", 0)) * int(network.get("attention_head_dim", 0))
    return "narrow" if width < _SMALL_WIDTH else ""


@dataclass(frozen=True)
class Defaults:
    """Steps, guidance and flow shift, used if neither request nor settings set them."""

    steps: int
    guidance: float
    shift: float


def defaults_of(model: Model, checkpoint: Checkpoint, size: Size) -> Defaults:
    """The official defaults; the six releases of HunyuanVideo-1.5 have different ones, stored in their folders.

    Sources: PIPELINE_CONFIGS in hyvideo/commons of the official repository, and diffusers' conversion script. 480p
    shifts by 5, 720p by 9 (text) and 7 (picture). Distilled releases have guidance 1; the step-distilled one (meanflow)
    has 12 steps.
    """
    shift = default_shift(model.kind, size) if model.shift is None else model.shift
    if model.family != "hunyuan15":
        return Defaults(model.steps, model.guidance, shift)
    scheduler, guider, network = (checkpoint.configs.get(name, {}) for name in (SCHEDULER, GUIDER, TRANSFORMER))
    steps = 12 if network.get("use_meanflow") else model.steps
    guidance = _decimal(guider, "guidance_scale", model.guidance)
    return Defaults(steps, guidance, _decimal(scheduler, "shift", shift))


def _decimal(config: Mapping[str, object], name: str, otherwise: float) -> float:
    value = config.get(name)
    return float(value) if isinstance(value, (int, float)) else otherwise


@dataclass(frozen=True)
class Network:
    """The denoiser's shape: heads, layers, width, and parameters of one transformer."""

    heads: int
    layers: int
    width: int
    parameters: int


def network_of(model: Model, checkpoint: Checkpoint) -> Network:
    """Read the network's shape from the folder: from Wan's official config.json, or from the transformer's own."""
    if layout_of(checkpoint) == "official":
        config = checkpoint.config
        heads, layers = _number(config, "num_heads", 40), _number(config, "num_layers", 40)
        width, inner = _number(config, "dim", 5120), _number(config, "ffn_dim", 13824)
        pictures = config.get("model_type") in ("i2v", "flf2v")
    else:
        config = checkpoint.configs.get(TRANSFORMER) or {}
        heads = _number(config, "num_attention_heads", 24)
        layers = _number(config, "num_layers", 40) + _number(config, "num_single_layers", 0)
        width, inner = heads * _number(config, "attention_head_dim", 128), _number(config, "ffn_dim", 13824)
        pictures = bool(config.get("image_dim"))
    counted = layers * (8 * width * width + 2 * width * inner + (2 * width * width if pictures else 0))
    return Network(heads, layers, width, model.parameters or counted)


def _number(config: Mapping[str, object], name: str, otherwise: int) -> int:
    value = config.get(name)
    return int(value) if isinstance(value, (int, float)) else otherwise


def component_bytes(checkpoint: Checkpoint, prefix: str) -> int:
    """Bytes on disk of the files whose names begin with ``prefix``."""
    return sum(size for name, size in checkpoint.files.items() if name.startswith(prefix))
