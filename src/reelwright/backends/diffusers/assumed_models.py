"""Every model of the resident engine as if it were set up.

Shapes are those of the transformers' config.json on the hub; sizes of the other components are those of the files there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.host import Checkpoint, Host, Interpreter
from .. import AssumedModel
from ..shared.wan import T5_BYTES
from .choice import MODULES
from .models import INDEX, MODELS, TRANSFORMER, Model

_PYTHON, _WEIGHTS = Path("/imagined/python"), Path("/imagined/weights")
_LARGE = {"num_attention_heads": 40, "attention_head_dim": 128, "num_layers": 40, "ffn_dim": 13824}
_SHAPES: Mapping[str, Mapping[str, Any]] = {
    "wan2.1-t2v-1.3B": {"num_attention_heads": 12, "attention_head_dim": 128, "num_layers": 30, "ffn_dim": 8960},
    "wan2.1-i2v-14B": {**_LARGE, "image_dim": 1280},
    "wan2.1-flf2v-14B": {**_LARGE, "image_dim": 1280, "pos_embed_seq_len": 514},
    "wan2.2-ti2v-5B": {"num_attention_heads": 24, "attention_head_dim": 128, "num_layers": 30, "ffn_dim": 14336},
    "hunyuan": {"num_attention_heads": 24, "attention_head_dim": 128, "num_layers": 20, "num_single_layers": 40},
    "hunyuan15": {"num_attention_heads": 16, "attention_head_dim": 128, "num_layers": 54},
}
_INDEX: Mapping[str, Mapping[str, Any]] = {
    "wan2.2-ti2v-5B": {"expand_timesteps": True},
    "wan2.2-i2v-A14B": {"boundary_ratio": 0.9},
}
#: Bytes in memory of the text encoder, the image encoder and the VAE.
_BESIDE: Mapping[str, tuple[int, int, int]] = {
    "wan": (2 * T5_BYTES, 1_260_000_000, 507_609_880),
    "hunyuan": (16_300_000_000, 0, 985_000_000),
    "hunyuan15": (17_500_000_000, 860_000_000, 2_500_000_000),
}
_ALL = 1 << 50  # the transformer's files: its parameters decide


def assumed_models() -> tuple[AssumedModel, ...]:
    """Each model with each of its tasks."""
    return tuple(_sketch(model, task) for model in MODELS.values() for task in model.tasks)


def _sketch(model: Model, task: Any) -> AssumedModel:
    text, image, vae = _BESIDE[model.family]
    pictures = model.kind in ("i2v", "flf2v") and not model.two_experts
    files = {
        "transformer/x": _ALL,
        "text_encoder/x": text,
        "vae/x": vae,
        **({"image_encoder/x": image} if pictures else {}),
    }
    configs = {
        INDEX: {"_class_name": model.tasks[task], **_INDEX.get(model.name, {})},
        TRANSFORMER: _SHAPES.get(model.name) or _SHAPES.get(model.family) or _LARGE,
    }
    host = Host(
        interpreters={_PYTHON: Interpreter(_PYTHON, modules=dict.fromkeys(MODULES, "99.0"), cuda_version="12.8")},
        checkpoints={_WEIGHTS: Checkpoint(_WEIGHTS, files=files, configs=configs)},
    )
    setup = "download it in diffusers' layout, set weights to it (docs/engine.md)"
    return AssumedModel(f"{model.name} {task}", task, {"weights": _WEIGHTS, "python": _PYTHON}, host, setup)
