"""Computes how a picture is placed in a frame of another size: cropped, padded or stretched.

It is pure arithmetic and changes no pixel. Importing it loads only the standard library, because the decoder's
child process imports it.

    >>> place((1000, 1000), (1280, 720), "cover", (0.5, 0.0)).box
    (0.0, 0.0, 1000.0, 562.5)
"""

from __future__ import annotations

import math
from typing import NamedTuple

Sides = tuple[int, int]
_ANCHORS = {
    "center": (0.5, 0.5),
    "top": (0.5, 0.0),
    "bottom": (0.5, 1.0),
    "left": (0.0, 0.5),
    "right": (1.0, 0.5),
}


class PicturePlacement(NamedTuple):
    """The placement of a picture in a frame.

    Attributes:
        box: Part of the picture that is used (left, top, right, bottom), in the picture's pixels.
        inner: Size to which that part is scaled.
        canvas: Size of the frame; the area around ``inner`` is black.
        offset: Position of ``inner`` in the frame.
    """

    box: tuple[float, float, float, float]
    inner: Sides
    canvas: Sides
    offset: Sides

    @property
    def bars_share(self) -> float:
        """Share of the frame that is black bars."""
        return 1 - self.inner[0] * self.inner[1] / (self.canvas[0] * self.canvas[1])

    @property
    def enlargement(self) -> float:
        """The factor by which the picture is enlarged, along the side with the larger factor."""
        left, top, right, bottom = self.box
        return max(self.inner[0] / (right - left), self.inner[1] / (bottom - top))


def place(size: Sides, frame: Sides | None, fit: str, anchor: tuple[float, float]) -> PicturePlacement:
    """The placement of a picture of ``size``; without a frame it keeps its size.

    ``cover`` fills the frame and crops the rest. ``contain`` keeps everything and leaves plain black bars (not a
    blurred copy: a video model keeps black bars still and an editor can cut them off, but a blur starts to move).
    ``stretch`` distorts. The anchor is the part that survives a crop, or the picture's position between bars.
    """
    width, height = size
    if frame is None or frame == size:
        return PicturePlacement((0.0, 0.0, float(width), float(height)), size, size, (0, 0))
    whole = (0.0, 0.0, float(width), float(height))
    if fit == "stretch":
        return PicturePlacement(whole, frame, frame, (0, 0))
    if fit == "contain":
        scale = min(frame[0] / width, frame[1] / height)
        inner = (_side(width * scale, frame[0]), _side(height * scale, frame[1]))
        offset = (round((frame[0] - inner[0]) * anchor[0]), round((frame[1] - inner[1]) * anchor[1]))
        return PicturePlacement(whole, inner, frame, offset)
    scale = max(frame[0] / width, frame[1] / height)
    used = (min(frame[0] / scale, width), min(frame[1] / scale, height))
    left, top = (width - used[0]) * anchor[0], (height - used[1]) * anchor[1]
    box = (left, top, min(left + used[0], float(width)), min(top + used[1], float(height)))
    return PicturePlacement(box, frame, frame, (0, 0))


def _side(length: float, limit: int) -> int:
    return max(1, min(round(length), limit))


def parse_anchor(text: str) -> tuple[float, float]:
    """The part of a picture that survives a crop, as shares of the area to crop: ``center``, ``top``, ... or ``x,y``.

    ``0,0`` keeps the upper left corner, ``1,1`` the lower right one.

    Raises:
        InvalidInputError: the text is no anchor.
    """
    from ..core.errors import InvalidInputError

    if text in _ANCHORS:
        return _ANCHORS[text]
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = math.nan
    if not (0 <= x <= 1 and 0 <= y <= 1):  # NaN is neither
        names = ", ".join(_ANCHORS)
        raise InvalidInputError(f"{text!r} is not an anchor", advice=f"Use {names}, or x,y with both from 0 to 1.")
    return x, y


def cover_crop_share(size: Sides, target: Sides) -> float:
    """Share of the picture (0 to 1) that is cropped away when it covers a frame of size ``target``."""
    have, want = size[0] / size[1], target[0] / target[1]
    return 1 - min(have / want, want / have)
