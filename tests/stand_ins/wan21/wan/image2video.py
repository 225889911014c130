"""Imitates image to video, as seen from outside."""

from __future__ import annotations

import math
from typing import Any

from PIL import Image

from .stand_in.film import Film
from .stand_in.pipeline import Pipeline, Sampling, fixed_mask_problem, mask_problem

# A prober reads the mask's length in the source: the real file says
#     msk = torch.ones(1, F, lat_h, lat_w, device=self.device)
# and, in checkouts before 2025-12-02, 81 in the place of F.
MASK_FRAMES: int | None = None


class WanI2V(Pipeline):
    """The picture's aspect and the requested area decide the size."""

    model_type = "i2v"
    has_clip = True

    def generate(self, img: Image.Image, max_area: int, sampling: Sampling) -> Film | None:
        """The clip, on rank 0.

        Raises:
            RuntimeError: the mask does not fit the number of frames.
        """
        lat_h, lat_w = latent_size(img, max_area, self.config)
        if MASK_FRAMES is None:
            problem = mask_problem(sampling.frames, lat_h, lat_w)
            if problem:
                raise RuntimeError(problem)
        elif problem := fixed_mask_problem(sampling.frames):
            raise RuntimeError(problem)
        stride = self.config.vae_stride
        return self.sample((lat_w * stride[2], lat_h * stride[1]), sampling, img)


def latent_size(picture: Image.Image, max_area: int, config: Any) -> tuple[int, int]:
    """(rows, columns) of the latents, computed in floating point as in the real expression."""
    width, height = picture.size
    aspect, stride, patch = height / width, config.vae_stride, config.patch_size
    lat_h = round(math.sqrt(max_area * aspect) // stride[1] // patch[1] * patch[1])
    lat_w = round(math.sqrt(max_area / aspect) // stride[2] // patch[2] * patch[2])
    return lat_h, lat_w
