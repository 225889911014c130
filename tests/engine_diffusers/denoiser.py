"""A Wan text-to-video pipeline with a tiny random transformer and nothing else: embeddings in, latents out.

Also imported by the other ranks of `test_parallel`, which are processes of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEADS, DIM_HEAD, LAYERS = 4, 12, 4
MODEL: Mapping[str, Any] = {
    "name": "tiny", "family": "wan", "dtype": "float32", "device": "cpu", "ranks": 1, "attention": "native",
    "parallel": {"ulysses": 1, "ring": 1}, "speed": {"preset": "exact"},
}  # fmt: skip


def a_pipeline(*, dtype: str = "float32", layers: int = LAYERS, seed: int = 0) -> Any:
    """The same weights for the same seed."""
    import torch
    from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

    torch.manual_seed(seed)
    transformer = WanTransformer3DModel(
        num_attention_heads=HEADS, attention_head_dim=DIM_HEAD, in_channels=16, out_channels=16, text_dim=16,
        freq_dim=32, ffn_dim=64, num_layers=layers, cross_attn_norm=True, rope_max_seq_len=64,
    )  # fmt: skip
    for values in transformer.parameters():
        values.data = values.data.to(getattr(torch, dtype))
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    pipeline = WanPipeline(
        tokenizer=None, text_encoder=None, vae=None, scheduler=scheduler, transformer=transformer.eval()
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents(
    pipeline: Any, *, seed: int = 1, steps: int = 4, guidance: float = 5.0, after: Any = None, frames: int = 9
) -> Any:
    """Denoised latents of a clip of 96x64; ``after(step)`` is called after each step."""
    import torch

    words = torch.Generator().manual_seed(7)
    dtype = pipeline.transformer.dtype
    prompt, negative = (torch.randn(1, 16, 16, generator=words).to(dtype) for _ in range(2))

    def callback(_pipeline: Any, step: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if after is not None:
            after(step)
        return values

    return pipeline(
        prompt_embeds=prompt, negative_prompt_embeds=negative, height=64, width=96, num_frames=frames,
        num_inference_steps=steps, guidance_scale=guidance, output_type="latent",
        generator=torch.Generator().manual_seed(seed), callback_on_step_end=callback,
    ).frames  # fmt: skip


def psnr(found: Any, expected: Any) -> float:
    """In decibels, against the range of ``expected``; infinite for the same bits."""
    error = (found.double() - expected.double()).pow(2).mean().sqrt()
    return float("inf") if not error else 20 * math.log10(float(expected.max() - expected.min()) / float(error))


def a_lora(path: Path, pipeline: Any, *, layers: int = LAYERS, rank: int = 2) -> dict[str, Any]:
    """A LoRA file for two matrices of each block; returns its tensors."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for block in range(layers):
        for name in ("attn1.to_q", "ffn.net.0.proj"):
            rows, columns = pipeline.transformer.get_submodule(f"blocks.0.{name}").weight.shape
            key = f"transformer.blocks.{block}.{name}"
            tensors[f"{key}.lora_A.weight"] = torch.randn(rank, columns, generator=generator) * 0.2
            tensors[f"{key}.lora_B.weight"] = torch.randn(rows, rank, generator=generator) * 0.2
    save_file(tensors, path)
    return tensors
