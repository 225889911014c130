"""Tiny random checkpoints in the official Wan2.1 directory layout, made with the real classes. Run inside the checkout with the shim on PYTHONPATH."""

import json, os, sys, torch
from pathlib import Path

out = Path(sys.argv[1])
torch.manual_seed(0)
import wan
from wan.modules import t5, clip, vae
from wan.modules.model import WanModel
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast


def tok(d):
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)] + [(chr(c), -3.0) for c in range(32, 127)]
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.Unigram(vocab, unk_id=2)),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    ).save_pretrained(d)


for task in ("i2v", "flf2v", "t2v"):
    d = out / task
    d.mkdir(parents=True, exist_ok=True)
    torch.save(
        t5.umt5_xxl(encoder_only=True, return_tokenizer=False, dtype=torch.bfloat16, device="cpu").state_dict(),
        d / "models_t5_umt5-xxl-enc-bf16.pth",
    )
    if task != "t2v":
        m, _ = clip.clip_xlm_roberta_vit_h_14(
            pretrained=False, return_transforms=True, return_tokenizer=False, dtype=torch.float16, device="cpu"
        )
        torch.save(m.state_dict(), d / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth")
    v = vae.WanVAE_(
        dim=4,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        attn_scales=[],
        temperal_downsample=[False, True, True],
        dropout=0.0,
    )
    torch.save(v.state_dict(), d / "Wan2.1_VAE.pth")
    tok(d / "google/umt5-xxl")
    if task != "t2v":
        tok(d / "xlm-roberta-large")
    w = WanModel(model_type=task, in_dim=16 if task == "t2v" else 36, dim=480, ffn_dim=256, num_heads=40, num_layers=2)
    # The real class begins with a head of zeros: whatever else were wrong, every film would be the same.
    torch.nn.init.normal_(w.head.head.weight, std=0.05)
    if task == "flf2v":
        torch.nn.init.normal_(w.img_emb.emb_pos, std=0.5)
    w.save_pretrained(d, max_shard_size="6MB")
print("made", sorted(p.name for p in (out / "i2v").iterdir()))
