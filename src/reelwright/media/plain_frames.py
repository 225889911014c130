"""Finds frames of one plain colour where a picture should be: the result when a model's numbers become NaN.

A fade to black, a dark video and a title on black are not faults: they change step by step, or are never quite plain. A
line drawn on white and a door that opens in the dark are not faults either: most of the frame was plain before. A flash
and a strobe are not faults, because they end again. A fault is sudden: one frame shows the picture, and the next one
shows nothing. A fault is a warning and never a refusal.

    >>> Plainness().warnings()
    ()
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from numpy.typing import NDArray

_FLAT = 6 / 255  # the contrast (darkest to brightest pixel) that an encoder leaves in one colour
_SUDDEN = 0.5  # share of the contrast of the frames shortly before or after
_SHORTLY = 8
_SEEN = 0.08  # a picture with less contrast looks like a fade
_ALIKE = 0.75  # share of the neighbouring frame that has the plain colour already
_NEAR = 10  # levels of brightness that count as the same
_FLASH = 3  # most frames of a flash of light
_FLASHES = 3  # most repeated flashes with a warning: a strobe has more


class Plainness:
    """Collects the plain frames of a video while it is decoded."""

    def __init__(self) -> None:
        self._contrast: list[float] = []
        self._colours: list[tuple[int, int, int] | None] = []
        self._last: NDArray[np.uint8] | None = None
        self._alike: dict[int, float] = {}  # frame beside a plain one: the share that has its colour

    def add(self, frame: VideoFrame, contrast: float, luma: NDArray[np.uint8]) -> None:
        """Add the next frame, with its contrast (0 to 1) and its sampled luma."""
        colour = _one_colour(frame) if contrast <= _FLAT else None
        place, last = len(self._colours), self._last
        if last is not None and (colour is None) != (self._colours[-1] is None):
            if colour is None:
                self._alike[place] = _share_of(luma, last)
            else:
                self._alike[place - 1] = max(_share_of(last, luma), self._alike.get(place - 1, 0.0))
        self._contrast.append(contrast)
        self._colours.append(colour)
        self._last = luma.copy()  # the decoder reuses its memory

    def warnings(self) -> tuple[str, ...]:
        """Sentences about frames that a person should check, one for each run of plain frames."""
        found: list[tuple[int, int, str]] = []
        start = 0
        for plain, group in groupby(self._colours, lambda colour: colour is not None):
            end = start + len(list(group))
            colour = self._colours[start]
            if plain and colour is not None and self._is_sudden(start, end):
                found.append((start, end, _name(colour)))
            start = end
        if len(found) > _FLASHES and all(end - start <= _FLASH for start, end, _ in found):
            return ()
        return tuple(
            [_warning(start, end, len(self._colours), name) for start, end, name in found[:3]]
            + ([f"... and {len(found) - 3} more times"] if len(found) > 3 else [])
        )

    def _is_sudden(self, start: int, end: int) -> bool:
        count = len(self._contrast)
        if start == 0 and end == count:
            return True
        if start > 0 and end < count and end - start <= _FLASH and _name(self._colours[start] or (0, 0, 0)) == "white":
            return False
        before = self._contrast[max(0, start - _SHORTLY) : start][::-1]
        after = self._contrast[end : end + _SHORTLY]
        return any(
            side and side[0] > max(_SEEN, _SUDDEN * max(side)) and self._alike.get(beside, 0.0) < _ALIKE
            for side, beside in ((before, start - 1), (after, end))
        )


def _share_of(luma: NDArray[np.uint8], plain: NDArray[np.uint8]) -> float:
    """The share of a frame that has the brightness of a plain one."""
    return float((np.abs(luma - plain.mean()) <= _NEAR).mean())


def _warning(start: int, end: int, count: int, colour: str) -> str:
    what = colour if colour in ("black", "white") else f"plain {colour}"
    if end - start == count:
        return f"every frame is {what}"
    if end - start == 1:
        return f"frame {start + 1} of {count} is {what}, although its neighbours are not"
    return f"frames {start + 1} to {end} of {count} are {what}, and begin or end suddenly"


def _one_colour(frame: VideoFrame) -> tuple[int, int, int] | None:
    """The colour of a frame of one colour; ``None`` for other frames."""
    width, height = max(2, frame.width // 16 * 2), max(2, frame.height // 16 * 2)
    pixels: NDArray[Any] = frame.reformat(width=width, height=height, format="rgb24").to_ndarray().reshape(-1, 3)
    low, high = pixels.min(axis=0).astype(int), pixels.max(axis=0).astype(int)
    if int((high - low).max()) > 3 * 255 * _FLAT:  # one step of chroma is up to two steps of a colour
        return None
    red, green, blue = np.rint(pixels.mean(axis=0)).astype(int)
    return int(red), int(green), int(blue)


def _name(colour: tuple[int, int, int]) -> str:
    low, high = min(colour), max(colour)
    if high <= 16:
        return "black"
    if low >= 240:
        return "white"
    if high - low <= 24:
        return "grey"
    red, green, blue = (part - low > (high - low) / 2 for part in colour)
    names = {
        (True, False, False): "red",
        (False, True, False): "green",
        (False, False, True): "blue",
        (True, True, False): "yellow",
        (True, False, True): "purple",
        (False, True, True): "cyan",
    }
    return names.get((red, green, blue), "grey")
