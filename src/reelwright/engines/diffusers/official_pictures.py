"""Prepares pictures as the official script does, in the shape that diffusers' pipelines expect.

The official code never crops and never smooths: CLIP sees the full picture stretched to a square, and the first frame
is the picture resized to the clip's size. Both use torch's bicubic filter, which does not average when it shrinks.
diffusers crops to a square for CLIP and resizes with Lanczos; each of these alone would change the clip.

This module reads no files and chooses no sizes.

    >>> MEAN[0], DEVIATION[0]
    (0.48145466, 0.26862954)
"""

from __future__ import annotations

from typing import Any

#: CLIP's, as in the official code (modules/clip.py).
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def pixels(picture: Any) -> Any:
    """A PIL picture as a tensor of 3 x height x width between -1 and 1."""
    import numpy as np
    import torch

    values = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
    return values.contiguous().to(torch.float32).div(255).sub_(0.5).div_(0.5)


def resized(picture: Any, width: int, height: int) -> Any:
    """A PIL picture as the official script resizes it: 1 x 3 x height x width, around -1 to 1."""
    import torch

    return torch.nn.functional.interpolate(pixels(picture)[None], size=(height, width), mode="bicubic")


def clip_processor(side: int) -> Any:
    """The image processor for CLIP, which `WanImageToVideoPipeline` calls as ``image_processor(images=...)``."""
    import torch
    from transformers import BatchFeature

    class OfficialImageProcessor:
        def __init__(self) -> None:
            self.side = side

        def __call__(self, images: Any, return_tensors: str = "pt") -> Any:
            pictures = images if isinstance(images, (list, tuple)) else [images]
            batch = torch.cat([resized(picture, self.side, self.side) for picture in pictures])
            mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
            values = batch.mul_(0.5).add_(0.5).sub_(mean).div_(deviation)
            return BatchFeature({"pixel_values": values}, tensor_type=return_tensors)

    return OfficialImageProcessor()


def video_processor(spatial: int = 8) -> Any:
    """A replacement for a Wan pipeline's ``video_processor``: prepares the first and the last picture officially."""
    from diffusers.video_processor import VideoProcessor

    class OfficialVideoProcessor(VideoProcessor):  # type: ignore[misc]
        def preprocess(self, image: Any, height: int, width: int) -> Any:
            return resized(image, width, height)

    return OfficialVideoProcessor(vae_scale_factor=spatial)
