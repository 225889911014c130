"""Writes random weights of true size in Wan2.1's official layout, with the checkout's own classes.

`bench.wan21_gpu` runs it with the framework's interpreter, in the checkout; 46 GB for i2v-14B. Values do not matter for
speed, memory and faults; they are small, so that nothing overflows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch


def drawn(module: torch.nn.Module) -> torch.nn.Module:
    """The same module with small random values everywhere."""
    with torch.no_grad():
        for values in module.state_dict().values():
            if values.is_floating_point():
                values.copy_(torch.randn(values.shape, dtype=torch.float32).mul_(0.02))
    return module


def tokenizer(folder: Path) -> None:
    """A tokenizer of single letters."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)] + [(chr(code), -3.0) for code in range(32, 127)]
    made = Tokenizer(models.Unigram(letters, unk_id=2))
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(folder)


def main(folder: Path) -> None:
    """Write all files that i2v-14B loads."""
    from wan.configs import WAN_CONFIGS
    from wan.modules import clip, t5, vae
    from wan.modules.model import WanModel

    folder.mkdir(parents=True, exist_ok=True)
    config = WAN_CONFIGS["i2v-14B"]
    encoder = t5.umt5_xxl(encoder_only=True, return_tokenizer=False, dtype=torch.bfloat16, device="cpu")
    torch.save(drawn(encoder).state_dict(), folder / "models_t5_umt5-xxl-enc-bf16.pth")
    del encoder
    looker, _ = clip.clip_xlm_roberta_vit_h_14(
        pretrained=False, return_transforms=True, return_tokenizer=False, dtype=torch.float16, device="cpu"
    )
    torch.save(drawn(looker).state_dict(), folder / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth")
    del looker
    decoder = vae.WanVAE_(  # the numbers of vae._video_vae, which itself always loads a file
        dim=96, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
        temperal_downsample=[False, True, True], dropout=0.0,
    )  # fmt: skip
    torch.save(drawn(decoder).state_dict(), folder / "Wan2.1_VAE.pth")
    for name in ("google/umt5-xxl", "xlm-roberta-large"):
        tokenizer(folder / name)
    torch.set_default_dtype(torch.bfloat16)
    model = WanModel(
        model_type="i2v", in_dim=36, dim=config.dim, ffn_dim=config.ffn_dim, freq_dim=config.freq_dim,
        num_heads=config.num_heads, num_layers=config.num_layers,
    )  # fmt: skip
    drawn(model).save_pretrained(folder, max_shard_size="10GB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
