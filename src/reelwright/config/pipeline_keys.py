"""Maps the keys of an existing text-to-video ``pipeline_config.yaml`` to Reelwright's settings.

Such a file works unchanged: most of its keys are settings of the same name, some have another name, and some belong
only to the surrounding pipeline. The flat mapping of `create_video_generator` is read in the same way.

    >>> ALIASES["default_backend"], "openai_api_key" in PIPELINE_KEYS
    ('generator', True)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: Documented names of settings that have another name here.
ALIASES = {"default_backend": "generator", "simulated_gpus": "simulate_gpus"}
#: Top-level sections that hold the settings of one generator, with that generator.
NESTED = {"hunyuan_video": "hunyuan"}
#: Keys of an existing pipeline_config.yaml that only the surrounding pipeline uses.
PIPELINE_KEYS = frozenset((
    "task", "prompt", "generation_mode", "runway_ml", "google_veo", "minimax", "fal", "remote_api_settings",
    "image_generation_model", "reference_images_dir", "image_size", "auto_generate_initial", "single_keyframe_mode",
    "keyframe_position", "gemini_api_key", "openai_api_key", "openai_base_url", "stability_api_key",
    "image_router_api_key", "image_router_token", "prompt_enhancement_model", "keyframe_prompt_model",
    "video_aspect_ratio", "segment_duration_seconds", "initial_image", "default_video_generation_backend", "i2i_mode",
    "motion_amount", "framepack_dir",
))  # fmt: skip
#: Values of `default_backend` that name a network service. Reelwright has no generator for these.
REMOTE_BACKENDS = frozenset({"runway", "runway_ml", "veo3", "google_veo", "minimax", "fal", "fal.ai"})
#: Other spellings of the generators' names.
SPELLINGS = {"wan": "wan2.1", "wan21": "wan2.1", "hunyuan_video": "hunyuan", "hunyuanvideo": "hunyuan"}


def understood(values: Mapping[str, Any], origin: Callable[[str], str]) -> tuple[dict[str, Any], list[str], list[str]]:
    """The values under the names of settings, notes about keys that are left out, and contradictions.

    Args:
        values: A settings file or a flat mapping.
        origin: Where a key is set, for messages.
    """
    kept: dict[str, Any] = {}
    notes: list[str] = []
    wrong: list[str] = []
    for key, value in values.items():
        name = ALIASES.get(key, key)
        where = origin(name)
        if key in NESTED and isinstance(value, Mapping):
            kept["generators"] = {**_mapping(kept.get("generators")), NESTED[key]: dict(value)}
        elif key in PIPELINE_KEYS:
            notes.append(f"{where}: {key} belongs to the surrounding pipeline and is not used")
        elif name == "generator" and isinstance(value, str) and value in REMOTE_BACKENDS:
            notes.append(f"{where}: {key} names a remote service; a local generator is used")
        elif name in kept and name != "generators" and value is not None and value != kept[name]:
            wrong.append(f"{where}: {key} and another key mean the same ({name}) and have different values")
        elif name == "generators" and isinstance(value, Mapping):
            kept[name] = {**_mapping(kept.get(name)), **value}
        elif value is not None:
            kept[name] = value
    return kept, notes, wrong


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
