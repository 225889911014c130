"""Reads and fits the pictures of a draft, and samples them between their pixels.

A still keeps as many pixels as the closest zoom can use, no more: one reduction by area averaging avoids the shimmer of
cv2's point-sampled warps, and a zoom still finds the picture's own detail. Pixels are RGB.

    >>> still = load_still(Path("photo.png"), Size(1280, 720), "cover")
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ...core.errors import InvalidInputError
from ...core.request import Size
from ...media.continuity import decoded_picture

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]
_BORDER = cv2.BORDER_REFLECT_101
_DEPTH_GRID = 4  # a depth map is smooth; it is kept and warped at a quarter of the output's resolution
_DEPTH_BLUR = 0.035  # of the width: with 3 % parallax the displacement then grows by < 0.35 px per px, so never folds


def load_still(path: Path, size: Size, fit: str) -> Pixels:
    """The picture as RGB; ``contain`` and ``stretch`` give it the clip's aspect, ``cover`` changes nothing.

    Raises:
        InvalidInputError: the file cannot be read as a picture any more.
    """
    stored = decoded_picture(path, cv2.IMREAD_COLOR_RGB)
    if stored is None:
        raise InvalidInputError(f"{path} cannot be read", advice="The picture may have been removed or changed.")
    pixels: Pixels = np.asarray(stored, dtype=np.uint8)
    if fit == "contain":
        return _contained(pixels, size)
    if fit == "stretch":
        height, width = pixels.shape[:2]
        scale = max(size.width / width, size.height / height)  # only enlarge here; the one reduction comes later
        factor = max(1.0, min(width / size.width, height / size.height)) if scale <= 1 else 1.0
        return resized(pixels, (round(size.width * factor), round(size.height * factor)))
    return pixels


def resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize with the filter that suits the direction; the same size gives the same array."""
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    smaller = size[0] <= width and size[1] <= height
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC), np.uint8)


def _contained(pixels: Pixels, size: Size) -> Pixels:
    """The complete picture over a blurred, darkened copy that fills the clip's aspect."""
    height, width = pixels.shape[:2]
    aspect = size.width / size.height
    frame = (round(height * aspect), height) if width / height < aspect else (width, round(width / aspect))
    small = (max(16, frame[0] // 16), max(16, frame[1] // 16))
    scale = max(small[0] / width, small[1] / height)
    cover = resized(pixels, (max(small[0], round(width * scale)), max(small[1], round(height * scale))))
    left, top = (cover.shape[1] - small[0]) // 2, (cover.shape[0] - small[1]) // 2
    patch = cover[top : top + small[1], left : left + small[0]]
    blurred = cv2.GaussianBlur(patch, (0, 0), max(1.0, small[0] / 40))
    canvas = cv2.resize((blurred * 0.45).astype(np.uint8), frame, interpolation=cv2.INTER_CUBIC)
    x, y = (frame[0] - width) // 2, (frame[1] - height) // 2
    canvas[y : y + height, x : x + width] = pixels
    return np.asarray(canvas, dtype=np.uint8)


def extended(pixels: Pixels, factor: float) -> Pixels:
    """The picture with mirrored, increasingly blurred surroundings, ``factor`` times as large."""
    height, width = pixels.shape[:2]
    x, y = int(np.ceil(width * (factor - 1) / 2)), int(np.ceil(height * (factor - 1) / 2))
    canvas = cv2.copyMakeBorder(pixels, y, y, x, x, cv2.BORDER_REFLECT_101)
    small = cv2.resize(canvas, None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA)
    soft = cv2.resize(cv2.GaussianBlur(small, (0, 0), 2.0), (canvas.shape[1], canvas.shape[0]))
    keep = np.zeros(canvas.shape[:2], np.float32)
    keep[y : y + height, x : x + width] = 1.0
    feathered = cv2.blur(keep, (2 * max(1, x // 4) + 1, 2 * max(1, y // 4) + 1))
    weight = np.maximum(keep, feathered)[..., None]
    return np.asarray(canvas * weight + soft * (1 - weight), dtype=np.uint8)


class Still:
    """A picture that is sampled many times, anywhere between its pixels.

    It is enlarged to twice its size by cubic interpolation once, and then sampled linearly. That takes 3 ms a frame of
    1280x720, where cubic sampling of three channels takes 13, and looks the same (55 dB apart; both are soft between
    pixels). Whole pixels fall on whole pixels, so the identity is exact. Four channels are faster than three in cv2.
    """

    def __init__(self, pixels: Pixels, *, seen_small: bool = False) -> None:
        """``seen_small`` keeps smaller copies for views that would skip pixels, and so shimmer."""
        self.size = (pixels.shape[1], pixels.shape[0])
        self._levels = [_Level.of(pixels, self.size)]
        while seen_small and min(pixels.shape[:2]) >= 256 and len(self._levels) < 4:
            pixels = resized(pixels, (pixels.shape[1] // 2, pixels.shape[0] // 2))
            self._levels.append(_Level.of(pixels, self.size))

    def warped(self, matrix: Matrix, size: Size) -> Pixels:
        """The output whose pixel ``o`` is the still at ``matrix @ o`` (3x3); the identity is exact."""
        step = float(np.hypot(matrix[0, 0], matrix[1, 0]))
        fine_enough = [level for level in self._levels if step * level.scale <= 2.7]
        level = fine_enough[0] if fine_enough else self._levels[-1]
        full = level.matrix @ matrix
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        if matrix[2, 0] or matrix[2, 1]:
            seen = cv2.warpPerspective(level.pixels, full, size, flags=flags, borderMode=_BORDER)
        else:
            seen = cv2.warpAffine(level.pixels, full[:2], size, flags=flags, borderMode=_BORDER)
        return np.asarray(cv2.cvtColor(seen, cv2.COLOR_RGBA2RGB), np.uint8)

    def displaced(self, x: Floats, y: Floats) -> Pixels:
        """The still sampled at the maps; their arrays are overwritten."""
        x *= 2
        y *= 2
        fine = self._levels[0].pixels
        seen = cv2.remap(fine, x, y, cv2.INTER_LINEAR, borderMode=_BORDER)
        return np.asarray(cv2.cvtColor(seen, cv2.COLOR_RGBA2RGB), np.uint8)


@dataclass(frozen=True)
class _Level:
    """A copy enlarged to twice the size; ``matrix`` maps the still's pixels to the copy's, ``scale`` times as many."""

    pixels: Pixels
    matrix: Matrix
    scale: float

    @classmethod
    def of(cls, pixels: Pixels, still: tuple[int, int]) -> _Level:
        height, width = pixels.shape[:2]
        rgba = cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA)
        half = np.array([[0.5, 0, 0], [0, 0.5, 0]])  # every second pixel is one of the original's
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        enlarged = (2 * width - 1, 2 * height - 1)
        fine = cv2.warpAffine(rgba, half, enlarged, flags=flags, borderMode=_BORDER)
        fx, fy = width / still[0], height / still[1]
        placing = np.array([[fx, 0, (fx - 1) / 2], [0, fy, (fy - 1) / 2], [0, 0, 1]])
        return cls(np.asarray(fine, np.uint8), np.diag([2.0, 2.0, 1.0]) @ placing, 2 * fx)


class Relief:
    """A still with depth: nearer points are displaced more, smoothly, without tearing or folding."""

    def __init__(self, depth: Floats, still: tuple[int, int], origin: tuple[int, int], size: Size) -> None:
        """``depth`` is 0 (far) to 1 (near) for a complete still; the part in view begins at ``origin``. The middle of
        the still is the pivot and does not move."""
        self._size = size
        grid = (max(2, still[0] // _DEPTH_GRID), max(2, still[1] // _DEPTH_GRID))
        fx, fy = grid[0] / still[0], grid[1] / still[1]
        x, y = fx * (origin[0] + 0.5) - 0.5, fy * (origin[1] + 0.5) - 0.5
        self._to_grid = np.array([[fx, 0, x], [0, fy, y], [0, 0, 1.0]])
        smooth = _smoothed(cv2.resize(depth, grid, interpolation=cv2.INTER_AREA))
        centre = smooth[grid[1] // 3 : 2 * grid[1] // 3 + 1, grid[0] // 3 : 2 * grid[0] // 3 + 1]
        self._depth = smooth - float(np.median(centre))
        self._columns = np.arange(size.width, dtype=np.float32)[None, :]
        self._rows = np.arange(size.height, dtype=np.float32)[:, None]

    def maps(self, matrix: Matrix, towards: tuple[float, float], outwards: float) -> tuple[Floats, Floats]:
        """Maps from each pixel of the output to the still. ``towards`` is in pixels of the still for the nearest point,
        ``outwards`` in pixels at the edge of the frame."""
        size = self._size
        small = (size.width // _DEPTH_GRID, size.height // _DEPTH_GRID)
        step = np.array([[size.width / small[0], 0, 0], [0, size.height / small[1], 0], [0, 0, 1.0]])
        step[:2, 2] = (np.diag(step)[:2] - 1) / 2  # centre of a coarse cell, in output pixels
        near = cv2.warpAffine(
            self._depth, (self._to_grid @ matrix @ step)[:2], small, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        across = np.linspace(-1, 1, small[0], dtype=np.float32)[None, :]
        down = np.linspace(-1, 1, small[1], dtype=np.float32)[:, None]
        aspect = size.height / size.width
        by_x = cv2.resize(near * (np.float32(towards[0]) - np.float32(outwards) * across), size)
        by_y = cv2.resize(near * (np.float32(towards[1]) - np.float32(outwards * aspect) * down), size)
        a = matrix.astype(np.float32)
        by_x += a[0, 0] * self._columns + (a[0, 1] * self._rows + a[0, 2])
        by_y += a[1, 0] * self._columns + (a[1, 1] * self._rows + a[1, 2])
        return by_x, by_y


def load_depth(path: Path) -> Floats:
    """A depth picture (8 or 16 bit, bright is near) as 0..1 over its own range.

    Raises:
        InvalidInputError: the file cannot be read.
    """
    stored = decoded_picture(path, cv2.IMREAD_UNCHANGED | cv2.IMREAD_ANYDEPTH)
    if stored is None:
        raise InvalidInputError(f"{path} cannot be read", advice="Give the depth as an 8-bit or 16-bit grey PNG.")
    grey = stored.astype(np.float32)
    if grey.ndim == 3:
        grey = grey[..., :3].mean(axis=2)
    low, high = float(grey.min()), float(grey.max())
    return np.asarray((grey - low) / (high - low) if high > low else np.zeros_like(grey), np.float32)


def placed(depth: Floats, inner: tuple[int, int], still: tuple[int, int]) -> Floats:
    """The depth of a picture in the middle of a larger still, extended beyond its edges."""
    fitted = cv2.resize(depth, inner, interpolation=cv2.INTER_AREA)
    x, y = (still[0] - inner[0]) // 2, (still[1] - inner[1]) // 2
    sides = (y, still[1] - inner[1] - y, x, still[0] - inner[0] - x)
    return np.asarray(cv2.copyMakeBorder(fitted, *sides, cv2.BORDER_REPLICATE), np.float32)


def _smoothed(depth: Floats) -> Floats:
    """Widen a depth map, so that near things keep their edge, and blur it until displacement cannot fold."""
    sigma = max(1.0, _DEPTH_BLUR * depth.shape[1])
    reach = 2 * int(sigma / 2) + 1
    widened = cv2.dilate(depth, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    return np.asarray(cv2.GaussianBlur(widened, (0, 0), sigma), np.float32)
