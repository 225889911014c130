"""What the keys of an existing text-to-video ``pipeline_config.yaml`` mean to us: data, nothing else.

Such a file is understood as it is: most of its keys are settings of ours by the same name, some have another name,
and some are only the surrounding pipeline's. How they are read, and what becomes of them, is in `config.settings`.

    >>> ALIASES["default_backend"], "openai_api_key" in PIPELINE_KEYS
    ('generator', True)
"""

from __future__ import annotations

#: Documented names that mean the same as a key of ours.
ALIASES = {"default_backend": "generator", "simulated_gpus": "simulate_gpus"}
#: Sections that stand for a generator of ours.
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
#: Names of `default_backend` that stand for a service on the network, which we never are.
REMOTE_BACKENDS = frozenset({"runway", "runway_ml", "veo3", "google_veo", "minimax", "fal", "fal.ai"})
#: Keys whose presence configures a generator, for ``generator: auto``.
CONFIGURES = {
    "wan2_dir": "wan2.1",
    "i2v_model_dir": "wan2.1",
    "flf2v_model_dir": "wan2.1",
    "t2v_model_dir": "wan2.1",
    "t2v_1_3b_model_dir": "wan2.1",
    "hunyuan_dir": "hunyuan",
    "ckpt_path": "hunyuan",
}
#: The generators of this package.
GENERATORS = ("wan2.1", "hunyuan", "diffusers", "draft")
#: Other spellings of their names.
SPELLINGS = {"wan": "wan2.1", "wan21": "wan2.1", "hunyuan_video": "hunyuan", "hunyuanvideo": "hunyuan"}
