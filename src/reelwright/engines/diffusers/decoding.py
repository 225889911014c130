"""Decodes latents to frames: in one piece, in tiles if that does not fit, or on the CPU if tiles do not fit either.

>>> WAYS
('full', 'tiled', 'cpu')
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.errors import OutOfMemoryError
from ...core.events import Log
from .denoising import Callbacks
from .torch_errors import first_line, is_out_of_memory
from .weight_placement import Placement, release_memory

WAYS = ("full", "tiled", "cpu")


def decode(
    pipeline: Any, latents: Any, ways: Sequence[str], placement: Placement, callbacks: Callbacks
) -> tuple[Any, str]:
    """Frames between -1 and 1 (3 x frames x height x width, float32), and the way that worked.

    The first way is tried twice, the second time with the transformers moved away: this keeps the picture, while tiles
    change it a little.

    Raises:
        OutOfMemoryError: every way ran out of memory.
    """
    left = [*ways[:1], *ways]
    while left:
        callbacks.check()
        way = left.pop(0)
        try:
            return _decoded(pipeline, latents, way), way
        except RuntimeError as error:  # torch's OutOfMemoryError is one; cuDNN raises others for the same cause
            if not left:
                raise _error_for(error, way) from error
            reason = first_line(error)[:200]
            callbacks.emit(
                Log(f"decoding ({way}) failed: {reason}; trying again: {left[0]}, with more room", "warning")
            )
        placement.move_denoiser_away()
    raise OutOfMemoryError("no way of decoding is allowed")


def _error_for(error: RuntimeError, way: str) -> Exception:
    if is_out_of_memory(error):
        return OutOfMemoryError(f"decoding ({way}) ran out of memory", evidence=str(error)[:500])
    return error


def _decoded(pipeline: Any, latents: Any, way: str) -> Any:
    import torch

    vae = pipeline.vae
    device = torch.device("cpu") if way == "cpu" else vae.device
    before = vae.device
    tiles = way == "tiled" or (way == "cpu" and before.type != "cpu")
    try:
        if tiles:
            vae.enable_tiling()
        vae.to(device)
        with torch.no_grad():
            video = vae.decode(_unscaled(vae, latents.to(device, vae.dtype)), return_dict=False)[0]
        return video[0].float().cpu()
    finally:
        vae.disable_tiling()
        vae.to(before)
        release_memory()


def _unscaled(vae: Any, latents: Any) -> Any:
    """Undo the scaling of latents: Wan has a mean and a deviation for each channel, the others one factor."""
    import torch

    mean = getattr(vae.config, "latents_mean", None)
    if mean is None:
        return latents / vae.config.scaling_factor
    shape = (1, len(mean), 1, 1, 1)
    deviation = 1.0 / torch.tensor(vae.config.latents_std).view(shape).to(latents.device, latents.dtype)
    return latents / deviation + torch.tensor(mean).view(shape).to(latents.device, latents.dtype)


def write_frames(video: Any, path: Path) -> tuple[int, int, int]:
    """Write RGB bytes frame by frame; returns frames, width and height.

    Values are truncated to whole numbers, not rounded, as in the official scripts.
    """
    _, frames, height, width = video.shape
    with path.open("wb") as file:
        for index in range(frames):
            values = (video[:, index].clamp(-1, 1) + 1) / 2 * 255
            file.write(values.byte().permute(1, 2, 0).contiguous().numpy().tobytes())
    return frames, width, height
