"""Holds the tables of tasks and sizes, with the names, structure and values of the official file.

A launcher adds sizes to the three size tables before generate.py runs, so they are plain dictionaries here
too.

    >>> SIZE_CONFIGS["832*480"]
    (832, 480)
"""

from __future__ import annotations

from typing import Any


class _Dtype(str):
    """A dtype whose text has no quotes, as in torch."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class _Config(dict[str, Any]):
    """A dictionary whose keys are also attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


_BF16, _FP16 = _Dtype("torch.bfloat16"), _Dtype("torch.float16")
_SHARED = {
    "t5_model": "umt5_xxl",
    "t5_dtype": _BF16,
    "text_len": 512,
    "param_dtype": _BF16,
    "num_train_timesteps": 1000,
    "sample_fps": 16,
    "sample_neg_prompt": "过曝，静态，细节模糊不清，字幕",
    "t5_checkpoint": "models_t5_umt5-xxl-enc-bf16.pth",
    "t5_tokenizer": "google/umt5-xxl",
}
_CLIP = {
    "clip_model": "clip_xlm_roberta_vit_h_14",
    "clip_dtype": _FP16,
    "clip_checkpoint": "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
    "clip_tokenizer": "xlm-roberta-large",
}
_VAE = {"vae_checkpoint": "Wan2.1_VAE.pth", "vae_stride": (4, 8, 8), "patch_size": (1, 2, 2)}
_14B = {"dim": 5120, "ffn_dim": 13824, "freq_dim": 256, "num_heads": 40, "num_layers": 40}
_1_3B = {"dim": 1536, "ffn_dim": 8960, "freq_dim": 256, "num_heads": 12, "num_layers": 30}
_BLOCKS = {"window_size": (-1, -1), "qk_norm": True, "cross_attn_norm": True, "eps": 1e-6}


def _config(name: str, *parts: dict[str, Any]) -> _Config:
    config = _Config(__name__=f"Config: Wan {name}")
    for part in (_SHARED, *parts, _BLOCKS):
        config.update(part)
    return config


t2v_14B = _config("T2V 14B", _VAE, _14B)
t2v_1_3B = _config("T2V 1.3B", _VAE, _1_3B)
i2v_14B = _config("I2V 14B", _CLIP, _VAE, _14B)
t2i_14B = _config("T2I 14B", _VAE, _14B)
flf2v_14B = _config("FLF2V 14B", _CLIP, _VAE, _14B)

WAN_CONFIGS = {
    "t2v-14B": t2v_14B,
    "t2v-1.3B": t2v_1_3B,
    "i2v-14B": i2v_14B,
    "t2i-14B": t2i_14B,
    "flf2v-14B": flf2v_14B,
    "vace-1.3B": t2v_1_3B,
    "vace-14B": t2v_14B,
}

SIZE_CONFIGS = {
    "720*1280": (720, 1280),
    "1280*720": (1280, 720),
    "480*832": (480, 832),
    "832*480": (832, 480),
    "1024*1024": (1024, 1024),
}

MAX_AREA_CONFIGS = {
    "720*1280": 720 * 1280,
    "1280*720": 1280 * 720,
    "480*832": 480 * 832,
    "832*480": 832 * 480,
}

_SMALL = ("480*832", "832*480")
_ALL = ("720*1280", "1280*720", *_SMALL)
SUPPORTED_SIZES = {
    "t2v-14B": _ALL,
    "t2v-1.3B": _SMALL,
    "i2v-14B": _ALL,
    "flf2v-14B": _ALL,
    "t2i-14B": tuple(SIZE_CONFIGS.keys()),
    "vace-1.3B": _SMALL,
    "vace-14B": _ALL,
}
