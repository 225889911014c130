"""Imitates text to video, as seen from outside."""

from __future__ import annotations

from .stand_in.film import Film
from .stand_in.pipeline import Pipeline, Sampling


class WanT2V(Pipeline):
    """The size is the requested one; a number of frames that is not 4n+1 is rounded down silently."""

    def generate(self, size: tuple[int, int], sampling: Sampling) -> Film | None:
        """The clip, on rank 0."""
        return self.sample(size, sampling, None)
