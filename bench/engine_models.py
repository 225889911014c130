"""Makes models of true size with random weights on the device, for `bench.engine_gpu`.

Values do not matter for the time of a dense step or for memory; they matter for a step cache. Sizes are those of Wan2.1
i2v-14B (wan/configs/wan_i2v_14B.py), or tiny ones to try the script without a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TRUE: Mapping[str, Mapping[str, Any]] = {
    "transformer": {
        "num_attention_heads": 40, "attention_head_dim": 128, "in_channels": 36, "out_channels": 16, "text_dim": 4096,
        "freq_dim": 256, "ffn_dim": 13824, "num_layers": 40, "cross_attn_norm": True, "image_dim": 1280,
        "added_kv_proj_dim": 5120,
    },
    "text": {
        "vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
        "feed_forward_proj": "gated-gelu", "dropout_rate": 0.0,
    },
    "eye": {
        "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
        "image_size": 224, "patch_size": 14,
    },
    "vae": {},
}  # fmt: skip
TINY: Mapping[str, Mapping[str, Any]] = {
    "transformer": {
        "num_attention_heads": 4, "attention_head_dim": 12, "in_channels": 36, "out_channels": 16, "text_dim": 16,
        "freq_dim": 32, "ffn_dim": 64, "num_layers": 3, "cross_attn_norm": True, "image_dim": 16,
        "added_kv_proj_dim": 48, "rope_max_seq_len": 64,
    },
    "text": {"vocab_size": 64, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 4},
    "eye": {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14,
    },
    "vae": {"base_dim": 4, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1},
}  # fmt: skip


def made(build: Any, device: str, dtype: Any, kept: Any = ()) -> Any:
    """A module with small random weights, made on its device; those named in ``kept`` are float32."""
    import torch

    with torch.device("meta"):
        module = build()
    for name, value in module.named_parameters():
        value.data = value.data.to(torch.float32 if any(part in name for part in kept) else dtype)
    buffers = {name: value.dtype for name, value in module.named_buffers()}
    module = module.to_empty(device=device)
    for value in module.parameters():
        value.data.normal_(0.0, 0.02)
    for name, buffer in module.named_buffers():
        _refill(buffer, name, buffers[name])
    return module.eval().requires_grad_(False)


def _refill(buffer: Any, name: str, dtype: Any) -> None:
    """Fill a buffer: positions with consecutive numbers, other floats with random values, the rest with zeros."""
    import torch

    if "position_ids" in name:
        buffer.copy_(torch.arange(buffer.numel(), device=buffer.device).reshape(buffer.shape))
    elif dtype.is_floating_point:
        buffer.uniform_(-1.0, 1.0)
    else:
        buffer.zero_()


def components(sizes: Mapping[str, Mapping[str, Any]], device: str, *, official: bool) -> dict[str, Any]:
    """The components of a WanImageToVideoPipeline; ``official``: with the transformer as the engine loads it."""
    import torch
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
    from tests.engine_diffusers.tiny import tokenizer
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    from reelwright.engines.diffusers.official_precision import compute_officially, transformer_class

    kind: Any = transformer_class() if official else WanTransformer3DModel
    half = torch.bfloat16
    transformer = made(lambda: kind(**sizes["transformer"]), device, half, kind._keep_in_fp32_modules)
    eye = CLIPVisionConfig(**sizes["eye"])
    side = eye.image_size
    return {
        "tokenizer": tokenizer(),
        "text_encoder": made(lambda: UMT5EncoderModel(UMT5Config(**sizes["text"])), device, half),
        "image_encoder": made(lambda: CLIPVisionModel(eye), device, torch.float32),
        "image_processor": CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        "vae": made(lambda: AutoencoderKLWan(**sizes["vae"]), device, torch.float32),
        "scheduler": UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        "transformer": compute_officially(transformer) if official else transformer,
    }


def a_lora(path: Path, sizes: Mapping[str, Any], rank: int = 32) -> Path:
    """Write a LoRA file for every attention of the model, like a step-distilled one; its zeros change nothing."""
    import torch
    from safetensors.torch import save_file

    width = sizes["num_attention_heads"] * sizes["attention_head_dim"]
    tensors = {}
    for block in range(sizes["num_layers"]):
        for name in ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_q"):
            key = f"transformer.blocks.{block}.{name}"
            tensors[f"{key}.lora_A.weight"] = torch.zeros(rank, width, dtype=torch.bfloat16)
            tensors[f"{key}.lora_B.weight"] = torch.zeros(width, rank, dtype=torch.bfloat16)
    save_file(tensors, path)
    return path
