"""What each model of the resident engine needs: one table, and how a folder of weights tells which it holds.

Numbers of a network (heads, layers, width) are read from the folder itself. What is here is what no folder tells: the
pipelines by task, frame rate, length and defaults. Sources: the official repositories (wan/configs of Wan2.1 and
Wan2.2; hyvideo/config.py of HunyuanVideo and HunyuanVideo-I2V; generate.py of HunyuanVideo-1.5) and the pipelines of
diffusers 0.42.1.

    >>> recognise(Checkpoint(Path("x"), config={"model_type": "i2v", "dim": 5120})).name
    'wan2.1-i2v-14B'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...core.host import Checkpoint
from ...core.request import Size
from ..shared.wan import CLIP_FRAMES, FPS, PATCH, default_shift

Layout = Literal["diffusers", "official"]
_WAN_T2V, _WAN_I2V = "WanPipeline", "WanImageToVideoPipeline"
INDEX, TRANSFORMER = "model_index.json", "transformer/config.json"
SCHEDULER, GUIDER = "scheduler/scheduler_config.json", "guider/guider_config.json"
#: What is read of a folder in diffusers' layout.
CONFIGS = (INDEX, TRANSFORMER, SCHEDULER, GUIDER)
#: The longest sequence of text tokens that Wan's encoder reads.
TEXT_TOKENS = 512


@dataclass(frozen=True)
class Model:
    """One model as the engine runs it.

    Attributes:
        name: For people and records.
        family: How the engine treats it: ``wan``, ``hunyuan`` or ``hunyuan15``.
        kind: ``model_type`` of the official configuration, for defaults that depend on it.
        tasks: Task to the class of diffusers' pipeline.
        fps, frames: Frame rate, and the length it was trained for.
        steps, guidance: The official defaults.
        shift: The official flow shift; ``None``: it depends on the size (`wan.default_shift`).
        side: Pixels of one latent, each way.
        patch: Latents of one token, each way (``patch_size`` of the denoiser).
        parameters: Of the denoiser, where its configuration does not tell.
        two_experts: A second transformer for low noise.
        fixed_frames: Whether only ``frames`` can be made well.
    """

    name: str
    family: str
    kind: str
    tasks: Mapping[str, str]
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
        """`side` as the functions of `wan` take it, which count two latents a token."""
        return self.side * self.patch // PATCH

    @property
    def documented(self) -> bool:
        """Whether the defaults of the documented pipeline (50 steps, guidance 7.5) are meant for this model."""
        return self.name.startswith("wan2.1")


MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        Model("wan2.1-t2v-1.3B", "wan", "t2v", {"t2v": _WAN_T2V}),
        Model("wan2.1-t2v-14B", "wan", "t2v", {"t2v": _WAN_T2V}),
        Model("wan2.1-i2v-14B", "wan", "i2v", {"i2v": _WAN_I2V}, steps=40),
        Model("wan2.1-flf2v-14B", "wan", "flf2v", {"flf2v": _WAN_I2V}, fixed_frames=True),
        Model(
            "wan2.2-i2v-A14B", "wan", "i2v", {"i2v": _WAN_I2V, "flf2v": _WAN_I2V}, steps=40, guidance=3.5, shift=5.0,
            two_experts=True,
        ),
        Model(
            "wan2.2-ti2v-5B", "wan", "ti2v", {"t2v": _WAN_T2V, "i2v": _WAN_I2V}, fps=24.0, frames=121, shift=5.0,
            side=16,
        ),
        Model(
            "hunyuanvideo-t2v", "hunyuan", "t2v", {"t2v": "HunyuanVideoPipeline"}, fps=24.0, frames=129, guidance=6.0,
            shift=7.0, parameters=12_821_012_544,
        ),
        Model(
            "hunyuanvideo-i2v", "hunyuan", "i2v", {"i2v": "HunyuanVideoImageToVideoPipeline"}, fps=24.0, frames=129,
            guidance=6.0, shift=7.0, parameters=12_821_012_544, cache=False,
        ),
        Model(
            "hunyuanvideo-1.5-t2v", "hunyuan15", "t2v", {"t2v": "HunyuanVideo15Pipeline"}, fps=24.0, frames=121,
            guidance=6.0, shift=5.0, side=16, patch=1, parameters=8_331_000_000,
        ),
        Model(
            "hunyuanvideo-1.5-i2v", "hunyuan15", "i2v", {"i2v": "HunyuanVideo15ImageToVideoPipeline"}, fps=24.0,
            frames=121, guidance=6.0, shift=5.0, side=16, patch=1, parameters=8_331_000_000,
        ),
    )
}  # fmt: skip

_BY_CLASS = {
    "HunyuanVideoPipeline": "hunyuanvideo-t2v",
    "HunyuanVideoImageToVideoPipeline": "hunyuanvideo-i2v",
    "HunyuanVideo15Pipeline": "hunyuanvideo-1.5-t2v",
    "HunyuanVideo15ImageToVideoPipeline": "hunyuanvideo-1.5-i2v",
}
_SMALL_WIDTH = 3000  # between the 1536 of 1.3B and the 5120 of 14B


def layout_of(checkpoint: Checkpoint) -> Layout:
    """Which of the two layouts a folder has."""
    return "diffusers" if checkpoint.configs.get(INDEX) else "official"


def recognise(checkpoint: Checkpoint) -> Model | None:
    """The model that a folder holds; ``None`` for one that is not in the table."""
    index = checkpoint.configs.get(INDEX) or {}
    if index:
        network = checkpoint.configs.get(TRANSFORMER) or {}
        return MODELS.get(_of_diffusers(index, network) or "")
    kind, width = checkpoint.config.get("model_type"), checkpoint.config.get("dim")
    size = "1.3B" if kind == "t2v" and isinstance(width, int) and width < _SMALL_WIDTH else "14B"
    return MODELS.get(f"wan2.1-{kind}-{size}")


def _of_diffusers(index: Mapping[str, Any], network: Mapping[str, Any]) -> str | None:
    name = index.get("_class_name")
    if name not in (_WAN_T2V, _WAN_I2V):
        return _BY_CLASS.get(str(name))
    if index.get("expand_timesteps"):
        return "wan2.2-ti2v-5B"
    if index.get("boundary_ratio") is not None:
        return "wan2.2-i2v-A14B" if name == _WAN_I2V else None
    if name == _WAN_I2V:
        return "wan2.1-flf2v-14B" if network.get("pos_embed_seq_len") else "wan2.1-i2v-14B"
    return "wan2.1-t2v-1.3B" if _width(network) < _SMALL_WIDTH else "wan2.1-t2v-14B"


def _width(network: Mapping[str, Any]) -> int:
    return int(network.get("num_attention_heads", 0)) * int(network.get("attention_head_dim", 0))


@dataclass(frozen=True)
class Defaults:
    """Steps, guidance and flow shift where nobody says."""

    steps: int
    guidance: float
    shift: float


def defaults_of(model: Model, checkpoint: Checkpoint, size: Size) -> Defaults:
    """The official ones. HunyuanVideo-1.5 has six releases with values of their own, which their folders tell.

    PIPELINE_CONFIGS in hyvideo/commons of the official repository, and diffusers' conversion script: 480p shifts by
    5, 720p by 9 (text) and 7 (picture); distilled ones have guidance 1, the step-distilled one (meanflow) 12 steps.
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
    """Read from the folder: official Wan's config.json, or the transformer's own."""
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
    """Bytes on disk of the files whose name begins so."""
    return sum(size for name, size in checkpoint.files.items() if name.startswith(prefix))
