"""Times the loop of an official Wan2.1 checkout's own generate.py, on random weights with ready encodings.

`bench.engine_gpu` runs it by path, with an interpreter that can import the checkout; it prints one line of JSON.
``WanI2V.generate`` is unmodified. Text, picture and VAE are ready values, so only the denoising is timed, as the
difference between two lengths. The checkout requires flash-attn; without it, Reelwright's launcher gives the checkout
PyTorch's attention.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_LAUNCHER = Path(__file__).parents[1] / "src" / "reelwright" / "launchers" / "wan21.py"


class Ready:
    """A replacement for the encoder, CLIP and the VAE that returns its value."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.model = self

    def __call__(self, *_: Any) -> list[Any]:
        return [self.value]

    def visual(self, _pictures: Any) -> Any:
        return self.value

    def encode(self, _pictures: Any) -> list[Any]:
        return [self.value]

    def decode(self, latents: Any) -> list[Any]:
        return list(latents)

    def to(self, _device: Any) -> Ready:
        return self

    def cpu(self) -> Ready:
        return self


def give_attention(attention: Any, model: Any) -> None:
    """Use PyTorch's attention if flash-attn is missing."""
    if attention.FLASH_ATTN_2_AVAILABLE or attention.FLASH_ATTN_3_AVAILABLE:
        return
    spec = importlib.util.spec_from_file_location("launcher", _LAUNCHER)
    assert spec is not None
    assert spec.loader is not None
    launcher = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(launcher)
    model.flash_attention = attention.flash_attention = launcher.flash_attention_of(torch)


def an_instance(sizes: Mapping[str, Any], clip: Mapping[str, int], device: str) -> Any:
    """A ``WanI2V`` that has read no file."""
    from wan.image2video import WanI2V
    from wan.modules import attention, model

    give_attention(attention, model)
    heads = sizes["num_attention_heads"]
    wan = object.__new__(WanI2V)
    wan.device, wan.param_dtype, wan.num_train_timesteps = torch.device(device), torch.bfloat16, 1000
    wan.vae_stride, wan.patch_size, wan.sp_size, wan.rank, wan.t5_cpu = (4, 8, 8), (1, 2, 2), 1, 0, False
    wan.sample_neg_prompt = "dull"
    with torch.device(device):
        network = model.WanModel(
            model_type="i2v", in_dim=36, dim=heads * sizes["attention_head_dim"], num_heads=heads,
            ffn_dim=sizes["ffn_dim"], num_layers=sizes["num_layers"], text_dim=sizes["text_dim"],
            freq_dim=sizes["freq_dim"],
        )  # fmt: skip
        wan.text_encoder = Ready(torch.randn(20, sizes["text_dim"]))
        wan.clip = Ready(torch.randn(1, 257, 1280))
        frames = (clip["frames"] - 1) // 4 + 1
        wan.vae = Ready(torch.randn(16, frames, clip["height"] // 8, clip["width"] // 8))
    wan.model = network.eval().requires_grad_(False)  # float32, as the official weights are; autocast rounds
    return wan


def main(checkout: str, asked: str) -> None:
    """Print seconds of a step, and the peak of the GPU's memory in bytes."""
    from PIL import Image

    sys.path.insert(0, checkout)
    values = json.loads(asked)
    clip, device = values["clip"], values["device"]
    wan = an_instance(values["sizes"], clip, device)
    picture = Image.new("RGB", (clip["width"], clip["height"]))
    seconds = []
    for steps in (1, 1, clip["steps"]):
        started = time.perf_counter()
        wan.generate(
            "a cat", picture, clip["width"] * clip["height"], clip["frames"], sampling_steps=steps, seed=1,
            offload_model=False,
        )  # fmt: skip
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() if device.startswith("cuda") else None
    print(json.dumps({"step": (seconds[2] - seconds[1]) / (clip["steps"] - 1), "peak": peak}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
