"""Tiny random weights in HunyuanVideo's layout, made by the real code itself. Run in the checkout by its interpreter.

$ cd HunyuanVideo && python .../make_weights.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, ".")

import torch
from hyvideo.config import parse_args
from hyvideo.modules import load_model
from hyvideo.vae.autoencoder_kl_causal_3d import AutoencoderKLCausal3D
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, LlamaConfig, LlamaModel, PreTrainedTokenizerFast
from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 16,
    "down_block_types": ["DownEncoderBlockCausal3D"] * 4,
    "up_block_types": ["UpDecoderBlockCausal3D"] * 4,
    "block_out_channels": [8] * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "act_fn": "silu",
    "sample_size": 64,
    "sample_tsize": 64,
    "scaling_factor": 0.476986,
    "time_compression_ratio": 4,
    "spatial_compression_ratio": 8,
    "mid_block_add_attention": True,
}


def make_language_model(folder):
    """As wide as --text-states-dim, and a tokenizer of bytes."""
    vocabulary = {letter: number for number, letter in enumerate([*bytes_to_unicode().values(), "<pad>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>").save_pretrained(folder)
    heads = {"num_attention_heads": 32, "num_key_value_heads": 1, "num_hidden_layers": 3}
    config = LlamaConfig(vocab_size=len(vocabulary), hidden_size=4096, intermediate_size=16, **heads)
    LlamaModel(config).half().save_pretrained(folder)


def make_clip(folder):
    """As wide as --text-states-dim-2."""
    folder.mkdir(parents=True)
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1}
    sizes = {"hidden_size": 768, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 8}
    CLIPTextModel(CLIPTextConfig(vocab_size=len(words), **sizes, **ends)).save_pretrained(folder)


def make_model(folder):
    """The transformer and the VAE."""
    for part in ("transformers", "vae"):
        (folder / part).mkdir(parents=True)
    (folder / "vae" / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKLCausal3D", **VAE}))
    torch.save(AutoencoderKLCausal3D(**VAE).state_dict(), folder / "vae" / "pytorch_model.pt")
    sys.argv = ["sample_video.py"]
    places = {"device": "cpu", "dtype": torch.float32}
    model = load_model(parse_args(), in_channels=16, out_channels=16, factor_kwargs=places)
    torch.save({"module": model.state_dict()}, folder / "transformers" / "mp_rank_00_model_states.pt")


if __name__ == "__main__":
    torch.manual_seed(0)
    root = Path(sys.argv[1])
    make_language_model(root / "text_encoder")
    make_clip(root / "text_encoder_2")
    make_model(root / "hunyuan-video-t2v-720p")
