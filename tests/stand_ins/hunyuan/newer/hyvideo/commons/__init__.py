"""Holds the tables of generations: the transformers, and the super resolution for each of them."""

from __future__ import annotations

#: Name -> (guidance, shift, steps).
PIPELINE_CONFIGS: dict[str, tuple[float, float, int]] = {
    "480p_t2v": (6.0, 5.0, 50),
    "480p_i2v": (6.0, 5.0, 50),
    "720p_t2v": (6.0, 9.0, 50),
    "720p_i2v": (6.0, 7.0, 50),
    "480p_t2v_distilled": (1.0, 5.0, 50),
    "480p_i2v_distilled": (1.0, 5.0, 50),
    "720p_t2v_distilled": (1.0, 9.0, 50),
    "720p_i2v_distilled": (1.0, 7.0, 50),
    "720p_t2v_distilled_sparse": (1.0, 9.0, 50),
    "720p_i2v_distilled_sparse": (1.0, 7.0, 50),
    "480p_i2v_step_distilled": (1.0, 7.0, 12),
}
#: Name -> (shift, steps).
SR_PIPELINE_CONFIGS: dict[str, tuple[float, int]] = {"720p_sr_distilled": (2.0, 6), "1080p_sr_distilled": (2.0, 8)}
SIZES = {"480p": 640, "720p": 960, "1080p": 1440}


def super_version(version: str) -> str:
    """The transformer that enlarges the clips of another one."""
    return "720p_sr_distilled" if version.startswith("480p") else "1080p_sr_distilled"
