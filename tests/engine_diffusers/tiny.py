"""Tiny random-weight models of every family, as folders in the -Diffusers layout; some hundred kilobytes each.

The same seed gives the same weights. Sizes are as small as the real classes allow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.engine_diffusers import tiny_hunyuan

WORDS = ["<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz0123456789.,- "]


def tokenizer() -> Any:
    """One token for each character."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(""), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _text_encoder() -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=len(WORDS), d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=4, relative_attention_num_buckets=8,
        dropout_rate=0.0,
    )  # fmt: skip
    return UMT5EncoderModel(config)


def _vae() -> Any:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)


def _transformer(**more: Any) -> Any:
    from diffusers import WanTransformer3DModel

    options: dict[str, Any] = {
        "num_attention_heads": 4, "attention_head_dim": 12, "in_channels": 16, "out_channels": 16, "text_dim": 16,
        "freq_dim": 32, "ffn_dim": 64, "num_layers": 2, "cross_attn_norm": True, "rope_max_seq_len": 64, **more,
    }  # fmt: skip
    return WanTransformer3DModel(**options)


def _eye() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14,
        projection_dim=16,
    )  # fmt: skip
    return CLIPVisionModel(config)


def _unipc(shift: float = 3.0) -> Any:
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


def wan_t2v() -> Any:
    from diffusers import WanPipeline

    return WanPipeline(tokenizer(), _text_encoder(), _vae(), _unipc(), transformer=_transformer())


def _wan_i2v(**transformer: Any) -> Any:
    from diffusers import WanImageToVideoPipeline
    from transformers import CLIPImageProcessor

    seen = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    return WanImageToVideoPipeline(
        tokenizer(), _text_encoder(), _vae(), _unipc(), image_processor=seen, image_encoder=_eye(),
        transformer=_transformer(in_channels=36, image_dim=16, added_kv_proj_dim=48, **transformer),
    )  # fmt: skip


def wan_i2v() -> Any:
    return _wan_i2v()


def wan_flf2v() -> Any:
    return _wan_i2v(pos_embed_seq_len=2 * (1 + 4))


def wan22_i2v() -> Any:
    from diffusers import WanImageToVideoPipeline

    two = [_transformer(in_channels=36) for _ in range(2)]
    return WanImageToVideoPipeline(
        tokenizer(), _text_encoder(), _vae(), _unipc(), transformer=two[0], transformer_2=two[1], boundary_ratio=0.9
    )


def wan22_ti2v() -> Any:
    """One transformer for both tasks; its VAE makes patches of two by two pixels and halves sixteen times."""
    from diffusers import AutoencoderKLWan, WanPipeline

    vae = AutoencoderKLWan(
        base_dim=4, decoder_base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, is_residual=True,
        in_channels=12, out_channels=12, patch_size=2, scale_factor_spatial=16,
        latents_mean=[0.1, -0.2, 0.0, 0.3], latents_std=[1.0, 0.9, 1.1, 1.2],
    )  # fmt: skip
    return WanPipeline(
        tokenizer(), _text_encoder(), vae, _unipc(5.0), expand_timesteps=True,
        transformer=_transformer(in_channels=4, out_channels=4),
    )  # fmt: skip


FAMILIES: Mapping[str, Callable[[], Any]] = {
    "wan2.1-t2v": wan_t2v,
    "wan2.1-i2v": wan_i2v,
    "wan2.1-flf2v": wan_flf2v,
    "wan2.2-i2v-A14B": wan22_i2v,
    "wan2.2-ti2v-5B": wan22_ti2v,
    "hunyuanvideo-t2v": tiny_hunyuan.hunyuan_t2v,
    "hunyuanvideo-i2v": tiny_hunyuan.hunyuan_i2v,
    "hunyuanvideo-i2v-33ch": tiny_hunyuan.hunyuan_i2v_first,
    "hunyuanvideo-1.5-t2v": tiny_hunyuan.hunyuan15_t2v,
    "hunyuanvideo-1.5-i2v": tiny_hunyuan.hunyuan15_i2v,
}
TASKS: Mapping[str, Mapping[str, str]] = {
    "wan2.1-t2v": {"t2v": "WanPipeline"},
    "wan2.1-i2v": {"i2v": "WanImageToVideoPipeline"},
    "wan2.1-flf2v": {"flf2v": "WanImageToVideoPipeline"},
    "wan2.2-i2v-A14B": {"i2v": "WanImageToVideoPipeline", "flf2v": "WanImageToVideoPipeline"},
    "wan2.2-ti2v-5B": {"t2v": "WanPipeline", "i2v": "WanImageToVideoPipeline"},
    "hunyuanvideo-t2v": {"t2v": "HunyuanVideoPipeline"},
    "hunyuanvideo-i2v": {"i2v": "HunyuanVideoImageToVideoPipeline"},
    "hunyuanvideo-i2v-33ch": {"i2v": "HunyuanVideoImageToVideoPipeline"},
    "hunyuanvideo-1.5-t2v": {"t2v": "HunyuanVideo15Pipeline"},
    "hunyuanvideo-1.5-i2v": {"i2v": "HunyuanVideo15ImageToVideoPipeline"},
}


def save(name: str, folder: Path) -> Path:
    """Write a model as the hub would hold it."""
    import torch

    torch.manual_seed(0)
    pipeline = FAMILIES[name]()
    pipeline.save_pretrained(str(folder), safe_serialization=True)
    json.loads((folder / "model_index.json").read_text())  # it is there
    return folder


def model(name: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """What a plan would ask the engine to load."""
    family = "wan" if name.startswith("wan") else "hunyuan15" if "1.5" in name else "hunyuan"
    return {
        "name": name, "family": family, "directory": str(folder), "layout": "diffusers", "tasks": dict(TASKS[name]),
        "dtype": "float32", "device": "cpu", "ranks": 1, "parallel": {"ulysses": 1, "ring": 1}, "attention": "native",
        "placements": ["resident", "encoders_off", "group_offload"], "speed": {"preset": "exact"}, **changes,
    }  # fmt: skip
