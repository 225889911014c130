"""Draws the corner label of a draft on frames for the encoder, never on a frame from which another segment continues.

>>> labelled = Label(Size(1280, 720)).drawn(frame)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ...core.request import Size

TEXT = "DRAFT - animatic preview, not AI generated"
_SHORTER = ("DRAFT - not AI generated", "DRAFT")  # where the sentence would fill most of the width
_BACKDROP = 0.55


class Label:
    """White text on a translucent dark plate in the lower left corner, rendered once."""

    def __init__(self, size: Size) -> None:
        height = max(10, round(min(size) / 36))
        fitting = (text for text in (TEXT, *_SHORTER) if _text_width(text, height) < size.width * 0.66)
        text = next(fitting, _SHORTER[-1])
        plate = _plate(text, height)
        margin = max(2, round(min(size) / 45))
        tall, wide = min(plate.shape[0], size.height), min(plate.shape[1], size.width)
        top, left = max(0, size.height - margin - tall), min(margin, size.width - wide)
        self._place = (slice(top, top + tall), slice(left, left + wide))
        text_alpha, plate_alpha = plate[:tall, :wide, :1], plate[:tall, :wide, 1:]
        self._keep = (1 - plate_alpha * _BACKDROP) * (1 - text_alpha)
        self._add = 255.0 * 0.96 * text_alpha + 0.5

    def drawn(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A labelled copy of an RGB frame; the frame stays clean, because a next segment may continue from it."""
        copy = frame.copy()
        copy[self._place] = (copy[self._place] * self._keep + self._add).astype(np.uint8)
        return copy


def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=height)  # a scalable font inside Pillow: the same on every machine


def _text_width(text: str, height: int) -> float:
    return float(_font(height).getlength(text))


def _plate(text: str, height: int) -> NDArray[np.float32]:
    """Two layers, text and plate, as opacity; drawn at twice the size for clean edges."""
    font = _font(2 * height)
    left, top, right, bottom = font.getbbox(text)
    pad_x, pad_y = round(1.3 * height), round(0.9 * height)
    size = (round(right - left) + 2 * pad_x, round(bottom - top) + 2 * pad_y)
    size = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    letters, plate = Image.new("L", size), Image.new("L", size)
    ImageDraw.Draw(letters).text((pad_x - left, pad_y - top), text, fill=255, font=font)
    ImageDraw.Draw(plate).rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), radius=0.5 * height, fill=255)
    half = (size[0] // 2, size[1] // 2)
    layers = [np.asarray(layer.resize(half, Image.Resampling.BOX), np.float32) / 255 for layer in (letters, plate)]
    return np.stack(layers, axis=-1)
