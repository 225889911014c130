"""Holds the folders of the models: below MODEL_BASE of the environment, even if --model-base differs."""

from __future__ import annotations

import os

from hyvideo.config import is_i2v

MODEL_BASE = os.getenv("MODEL_BASE", "./ckpts")
_MODEL = "hunyuan-video-i2v-720p" if is_i2v() else "hunyuan-video-t2v-720p"
VAE_PATH = {"884-16c-hy": f"{MODEL_BASE}/{_MODEL}/vae"}
TEXT_ENCODER_PATH = {
    "clipL": f"{MODEL_BASE}/text_encoder_2",
    "llm": f"{MODEL_BASE}/text_encoder",
    **({"llm-i2v": f"{MODEL_BASE}/text_encoder_i2v"} if is_i2v() else {}),
}
