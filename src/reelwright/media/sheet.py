"""Draws a contact sheet: one PNG with evenly spaced frames of a video, always with the first and the last.

A sheet shows a video in one picture, for example in a bug report. It does not check whether the video is complete
(`verification`); of a damaged video it shows the frames that can be decoded.

    >>> contact_sheet(Path("clip.mp4"), Path("clip.sheet.png"), columns=3, count=9)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..core.errors import OutputError
from ..core.files import replacing
from .decoding import decoding, pixel_aspect, to_rgb
from .video_facts import quarter_turns
from .writer import explained

_TILE_AREA = 400 * 225  # pixels of every tile, in any shape
_FULL_ROWS = 60  # rows of full size in a film's sheet; with more rows, all are smaller
_GAP, _MARGIN, _CAPTION, _TITLE = 12, 24, 26, 40
_PAPER, _INK, _FAINT = (24, 25, 28), (236, 236, 232), (150, 152, 158)


def contact_sheet(path: Path, target_png: Path, *, columns: int = 4, count: int = 12) -> None:
    """Draw up to `count` frames of a video into one PNG, replacing it.

    Raises:
        OutputError: no frame can be decoded.
    """
    with decoding(path) as video:
        times = [float(frame.time or 0.0) for frame in video.frames()]
        if not times or video.stream is None:
            raise OutputError(f"{path} has no frames to show", evidence=video.problems)
        wide = min(4.0, max(0.25, float(pixel_aspect(video.stream))))  # what a sheet can show
    wanted = spread(len(times), count)
    with decoding(path) as video:
        tiles = [(n, times[n], _tile(frame, wide)) for n, frame in enumerate(video.frames()) if n in wanted]
    step = (times[-1] - times[0]) / max(1, len(times) - 1)
    title = f"{path.name}    {len(times)} frames, {step * len(times):.2f} s"
    _replace(_drawn(tiles, min(columns, len(tiles)), title), target_png)


def film_sheet(names: Sequence[str], tiles_of: Callable[[int], Sequence[NDArray[np.uint8]]], target_png: Path) -> None:
    """Draw a row of small pictures per clip of a film, each row with the clip's name, replacing the file.

    ``tiles_of`` loads the pictures of one clip, by its number from 0. One clip is loaded at a time, and pictures are
    smaller in a film of many clips: a sheet of hundreds of rows needs no more memory than one of sixty.
    """
    share = math.sqrt(min(1.0, _FULL_ROWS / len(names)))
    tiles = tiles_of(0)
    sides = max(tile.shape[1] for tile in tiles), max(tile.shape[0] for tile in tiles)
    width, height = (max(2, round(side * share)) for side in sides)
    caption, gap = max(11, round(_CAPTION * share)), max(2, round(_GAP * share))
    size = (2 * _MARGIN + len(tiles) * (width + gap), 2 * _MARGIN + len(names) * (caption + height + gap))
    sheet = Image.new("RGB", size, _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(max(8, round(15 * share)))
    for number, name in enumerate(names):
        y = _MARGIN + number * (caption + height + gap)
        pen.text((_MARGIN, y), name, fill=_INK, font=font)
        for column, tile in enumerate(tiles_of(number)):
            picture = Image.fromarray(tile)
            picture.thumbnail((width, height))
            sheet.paste(picture, (_MARGIN + column * (width + gap), y + caption))
    _replace(sheet, target_png)


def _replace(sheet: Image.Image, target_png: Path) -> None:
    with explained(target_png), replacing(target_png) as unfinished:
        sheet.save(unfinished, format="PNG", compress_level=1)  # a quarter of the time, a sixth larger


def spread(total: int, count: int) -> tuple[int, ...]:
    """Up to `count` of the numbers below `total`, evenly spaced, with the first and the last among them."""
    count = min(count, total)
    if count <= 1:
        return (0,) * count
    return tuple(round(index * (total - 1) / (count - 1)) for index in range(count))


def _tile(frame: VideoFrame, wide: float) -> Image.Image:
    picture = Image.fromarray(to_rgb(frame))
    sides = (picture.width * wide, float(picture.height))
    if quarter_turns(frame) % 2:
        sides = (float(picture.width), picture.height * wide)
    scale = math.sqrt(_TILE_AREA / (sides[0] * sides[1]))
    size = (max(2, round(sides[0] * scale)), max(2, round(sides[1] * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _drawn(tiles: list[tuple[int, float, Image.Image]], columns: int, title: str) -> Image.Image:
    width, height = tiles[0][2].size
    cell_w, cell_h = width + _GAP, height + _CAPTION + _GAP
    rows = math.ceil(len(tiles) / columns)
    size = (columns * cell_w - _GAP + 2 * _MARGIN, rows * cell_h - _GAP + _TITLE + 2 * _MARGIN)
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN - 4), title, fill=_INK, font=ImageFont.load_default(20))
    font = ImageFont.load_default(15)
    for index, (number, time, tile) in enumerate(tiles):
        x = _MARGIN + index % columns * cell_w
        y = _MARGIN + _TITLE + index // columns * cell_h
        sheet.paste(tile, (x, y))
        pen.text((x, y + height + 5), f"frame {number}", fill=_INK, font=font)
        pen.text((x + width, y + height + 5), f"{time:.2f} s", fill=_FAINT, font=font, anchor="ra")
    return sheet
