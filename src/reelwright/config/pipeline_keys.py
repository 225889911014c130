"""The keys of an existing text-to-video ``pipeline_config.yaml``, as data.

Such a file is understood as it is: most of its keys are settings of the same name, some have another name, and some
belong to the surrounding pipeline only. How they are read is in `config.layers`.

    >>> ALIASES["default_backend"], "openai_api_key" in PIPELINE_KEYS
    ('generator', True)
"""

from __future__ import annotations

#: Documented names of settings that have another name here.
ALIASES = {"default_backend": "generator", "simulated_gpus": "simulate_gpus"}
#: Sections of a file that are sections of a generator.
NESTED = {"hunyuan_video": "hunyuan"}
#: Keys of an existing pipeline_config.yaml that only the surrounding pipeline uses.
PIPELINE_KEYS = frozenset(
    [
        "task",
        "prompt",
        "generation_mode",
        "runway_ml",
        "google_veo",
        "minimax",
        "fal",
        "remote_api_settings",
        "image_generation_model",
        "reference_images_dir",
        "image_size",
        "auto_generate_initial",
        "single_keyframe_mode",
        "keyframe_position",
        "gemini_api_key",
        "openai_api_key",
        "openai_base_url",
        "stability_api_key",
        "image_router_api_key",
        "image_router_token",
        "prompt_enhancement_model",
        "keyframe_prompt_model",
        "video_aspect_ratio",
        "segment_duration_seconds",
        "initial_image",
        "default_video_generation_backend",
        "i2i_mode",
        "motion_amount",
        "framepack_dir",
    ]
)
#: Names of `default_backend` that stand for a service on the network, which no generator here is.
REMOTE_BACKENDS = frozenset({"runway", "runway_ml", "veo3", "google_veo", "minimax", "fal", "fal.ai"})
#: Other spellings of their names.
SPELLINGS = {"wan": "wan2.1", "wan21": "wan2.1", "hunyuan_video": "hunyuan", "hunyuanvideo": "hunyuan"}
