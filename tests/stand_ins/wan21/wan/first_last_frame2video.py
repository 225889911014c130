"""Imitates first and last frame to video, as seen from outside."""

from __future__ import annotations

from PIL import Image

from .image2video import latent_size
from .stand_in.film import Film
from .stand_in.pipeline import Pipeline, Sampling, fixed_mask_problem

# A prober reads the mask's length in the source: the real file still says
#     msk = torch.ones(1, 81, lat_h, lat_w, device=self.device)


class WanFLF2V(Pipeline):
    """The first frame decides the size; only 81 frames work."""

    model_type = "flf2v"
    has_clip = True

    def generate(self, frames: tuple[Image.Image, Image.Image], max_area: int, sampling: Sampling) -> Film | None:
        """The clip, on rank 0.

        Raises:
            RuntimeError: the mask is for another number of frames.
        """
        first, last = frames
        last.load()
        lat_h, lat_w = latent_size(first, max_area, self.config)
        if problem := fixed_mask_problem(sampling.frames):
            self.launch.at("encode")
            raise RuntimeError(problem)
        stride = self.config.vae_stride
        return self.sample((lat_w * stride[2], lat_h * stride[1]), sampling, first)
