"""Renders the frames between a first and a last picture, in one of three ways that `transitions` chooses.

Every passage renders the frame at an eased time between 0 and 1. The two ends are not rendered: the caller shows the
pictures themselves, so they are exact.

    >>> CameraMove(first, last, similarity, Size(1280, 720)).render(0.5)
"""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np

from ...core.request import Size
from .stills import Floats, Matrix, Pixels, Still

_FEATHER = 0.12  # of the height: how softly one picture gives way to the other at its edges
_FLOOR = 1e-4  # where neither picture has content, their mirrored edges are shown
_COARSE = 8
_PUSH = 0.05
_FADE_FROM, _FADE_TO = 0.3, 0.7


class Passage(Protocol):
    """One way from a picture to another."""

    def render(self, time: float) -> Pixels:
        """The frame at 0 < time < 1."""
        ...


class CameraMove:
    """One continuous move of zoom, shift and roll; at each place the picture with more detail wins.

    The pictures may have more pixels than the clip: ``similarity`` is in the clip's pixels.
    """

    def __init__(self, first: Still, last: Still, similarity: Matrix, size: Size) -> None:
        self._pictures = (first, last)
        self._size = size
        self._similarity = similarity
        # A similarity is z -> a z + b in the complex plane; its powers are the moves on the way.
        inverse = cv2.invertAffineTransform(similarity)
        self._a = complex(inverse[0, 0], inverse[1, 0])
        self._b = complex(inverse[0, 2], inverse[1, 2])

    def view(self, time: float) -> Matrix:
        """The matrix from the clip's pixels to those of the first picture."""
        a = self._a**time
        share = (a - 1) / (self._a - 1) if abs(self._a - 1) > 1e-9 else time
        b = self._b * share
        return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag], [0, 0, 1]])

    def render(self, time: float) -> Pixels:
        """See `Passage`."""
        to_first = self.view(time)
        to_last = np.vstack([self._similarity, [0, 0, 1]]) @ to_first
        progress = time * time * (3 - 2 * time)
        layers, weights = [], []
        for picture, matrix, share in zip(self._pictures, (to_first, to_last), (1 - progress, progress), strict=True):
            layers.append(_seen(picture, matrix, self._size))
            weights.append(np.float32(share) * (self._covered(matrix) + np.float32(_FLOOR)))
        return np.asarray(cv2.blendLinear(layers[0], layers[1], weights[0], weights[1]), np.uint8)

    def _covered(self, matrix: Matrix) -> Floats:
        """A picture's weight at each pixel: 1 inside it, falling softly to 0 at its edges."""
        width, height = self._size
        grid = (max(2, width // _COARSE), max(2, height // _COARSE))
        columns, rows = np.meshgrid(
            (np.arange(grid[0]) + 0.5) * width / grid[0] - 0.5,
            (np.arange(grid[1]) + 0.5) * height / grid[1] - 0.5,
        )
        x = matrix[0, 0] * columns + matrix[0, 1] * rows + matrix[0, 2]
        y = matrix[1, 0] * columns + matrix[1, 1] * rows + matrix[1, 2]
        inside = np.minimum(np.minimum(x, width - 1 - x), np.minimum(y, height - 1 - y))
        feather = _FEATHER * height
        return np.asarray(cv2.resize(np.clip(inside / feather, 0, 1).astype(np.float32), self._size), np.float32)


class Morph:
    """Both pictures, moved along the flow towards each other."""

    def __init__(self, first: Still, last: Still, flows: tuple[Floats, Floats]) -> None:
        self._first, self._last = first, last
        self._there, self._back = flows
        height, width = flows[0].shape[:2]
        self._columns = np.arange(width, dtype=np.float32)[None, :]
        self._rows = np.arange(height, dtype=np.float32)[:, None]

    def render(self, time: float) -> Pixels:
        """See `Passage`."""
        one = self._moved(self._first, self._there * np.float32(-time))
        other = self._moved(self._last, self._back * np.float32(time - 1))
        return np.asarray(cv2.addWeighted(one, 1 - time, other, time, 0), np.uint8)

    def _moved(self, picture: Still, shift: Floats) -> Pixels:
        return picture.displaced(self._columns + shift[..., 0], self._rows + shift[..., 1])


class Dissolve:
    """A slow push into the first picture dissolves, in the middle, into the last one settling back."""

    def __init__(self, first: Still, last: Still, size: Size) -> None:
        self._first, self._last = first, last
        self._size = size

    def render(self, time: float) -> Pixels:
        """See `Passage`."""
        x = float(np.clip((time - _FADE_FROM) / (_FADE_TO - _FADE_FROM), 0, 1))
        share = x * x * (3 - 2 * x)
        if share == 0:
            return _seen(self._first, self._closer(time), self._size)
        other = _seen(self._last, self._closer(1 - time), self._size)
        if share == 1:
            return other
        one = _seen(self._first, self._closer(time), self._size)
        return np.asarray(cv2.addWeighted(one, 1 - share, other, share, 0), np.uint8)

    def _closer(self, amount: float) -> Matrix:
        scale = (1 + _PUSH) ** -amount
        x, y = (self._size.width - 1) / 2, (self._size.height - 1) / 2
        return np.array([[scale, 0, x * (1 - scale)], [0, scale, y * (1 - scale)], [0, 0, 1]])


def _seen(picture: Still, matrix: Matrix, size: Size) -> Pixels:
    """A picture of any resolution through a view in the clip's pixels."""
    fx, fy = picture.size[0] / size.width, picture.size[1] / size.height
    return picture.warped(np.array([[fx, 0, (fx - 1) / 2], [0, fy, (fy - 1) / 2], [0, 0, 1]]) @ matrix, size)
