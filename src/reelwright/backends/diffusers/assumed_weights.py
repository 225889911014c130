"""A folder of each model as it is published: what a plan needs to know of weights that are not on this machine.

Sizes of the official Wan2.1 files are those of its repositories; the others follow from the parameters in two bytes each,
and for the text encoders from `backends.hunyuan.facts`' sources. Only for advice: a real plan reads the real folder.

    >>> nominal("wan2.1-i2v-14B").config["dim"]
    5120
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...core.host import Checkpoint
from ..shared.wan import CLIP_FILE, T5_BYTES, T5_FILE, VAE_FILE
from .models import INDEX, TRANSFORMER

FOLDER = Path("the published weights")
_SHARD = "diffusion_pytorch_model.safetensors"
_WAN_14B = {"dim": 5120, "num_heads": 40, "num_layers": 40, "ffn_dim": 13824}
_WAN_1_3B = {"dim": 1536, "num_heads": 12, "num_layers": 30, "ffn_dim": 8960}
_WAN: Mapping[str, tuple[Mapping[str, object], int]] = {
    "wan2.1-t2v-1.3B": ({**_WAN_1_3B, "model_type": "t2v"}, 5_680_000_000),
    "wan2.1-t2v-14B": ({**_WAN_14B, "model_type": "t2v"}, 57_200_000_000),
    "wan2.1-i2v-14B": ({**_WAN_14B, "model_type": "i2v"}, 65_600_000_000),
    "wan2.1-flf2v-14B": ({**_WAN_14B, "model_type": "flf2v"}, 65_600_000_000),
}
_HUNYUAN_NETWORK = {"num_attention_heads": 24, "attention_head_dim": 128, "num_layers": 20, "num_single_layers": 40}
_HUNYUAN_15_NETWORK = {"num_attention_heads": 16, "attention_head_dim": 128, "num_layers": 54}
_HUNYUAN_FILES = {"transformer": 25_640_000_000, "text_encoder": 15_250_000_000, "vae": 986_000_000}
_HUNYUAN_15_FILES = {"transformer": 16_660_000_000, "text_encoder": 14_500_000_000, "vae": 2_500_000_000}
_DIFFUSERS: Mapping[str, tuple[str, Mapping[str, object], Mapping[str, int]]] = {
    "hunyuanvideo-t2v": ("HunyuanVideoPipeline", _HUNYUAN_NETWORK, _HUNYUAN_FILES),
    "hunyuanvideo-i2v": ("HunyuanVideoImageToVideoPipeline", _HUNYUAN_NETWORK, _HUNYUAN_FILES),
    "hunyuanvideo-1.5-t2v": ("HunyuanVideo15Pipeline", _HUNYUAN_15_NETWORK, _HUNYUAN_15_FILES),
    "hunyuanvideo-1.5-i2v": ("HunyuanVideo15ImageToVideoPipeline", _HUNYUAN_15_NETWORK, _HUNYUAN_15_FILES),
}


def nominal(name: str) -> Checkpoint | None:
    """The published folder of a model of `models.MODELS`; ``None`` for one that is not in these tables."""
    if name in _WAN:
        config, size = _WAN[name]
        pictures = {CLIP_FILE: 4_770_000_000} if config["model_type"] in ("i2v", "flf2v") else {}
        files = {_SHARD: size, T5_FILE: T5_BYTES, VAE_FILE: 508_000_000, **pictures}
        return Checkpoint(FOLDER, files=files, config=config)
    if name in _DIFFUSERS:
        pipeline, network, sizes = _DIFFUSERS[name]
        configs = {INDEX: {"_class_name": pipeline}, TRANSFORMER: network}
        return Checkpoint(
            FOLDER, files={f"{part}/model.safetensors": size for part, size in sizes.items()}, configs=configs
        )
    return None
