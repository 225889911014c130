"""A contact sheet: one PNG with evenly spaced frames of a film, the first and the last always among them.

For: seeing a film at a glance, and in a bug report. Not for: judging whether it is whole (`video.verify`); a
damaged film gets a sheet of what can be decoded.

    >>> contact_sheet(Path("clip.mp4"), Path("clip.sheet.png"), columns=3, count=9)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..core.errors import OutputError
from .decoding import decoding, pixel_aspect, to_rgb
from .video_facts import quarter_turns
from .writer import explained

_TILE_AREA = 400 * 225  # of every tile, whatever its shape
_FULL_ROWS = 60  # of a film's sheet; more of them are smaller
_GAP, _MARGIN, _CAPTION, _TITLE = 12, 24, 26, 40
_PAPER, _INK, _FAINT = (24, 25, 28), (236, 236, 232), (150, 152, 158)


def contact_sheet(path: Path, target_png: Path, *, columns: int = 4, count: int = 12) -> None:
    """Draw up to `count` frames of the film into one PNG, replacing it.

    Raises:
        OutputError: no frame can be decoded.
    """
    times = [time for _, time in _timed_frames(path)]
    if not times:
        with decoding(path) as film:
            raise OutputError(f"{path} has no frames to show", evidence=film.problems)
    wanted = spread(len(times), count)
    wide = _pixel_width(path)
    tiles = [(n, times[n], _tile(frame, wide)) for n, (frame, _) in enumerate(_timed_frames(path)) if n in wanted]
    step = (times[-1] - times[0]) / max(1, len(times) - 1)
    title = f"{path.name}    {len(times)} frames, {step * len(times):.2f} s"
    _replace(_drawn(tiles, min(columns, len(tiles)), title), target_png)


class Row(Protocol):
    """What is shown of a clip (`glance.ClipAnalysis`)."""

    @property
    def tiles(self) -> Sequence[NDArray[np.uint8]]: ...


def film_sheet(rows: Sequence[tuple[str, Row]], target_png: Path) -> None:
    """A row of small pictures per clip of a film, each row with its name, replacing the file.

    Pictures are taken from one clip at a time, and are smaller in a film of many clips: a sheet of hundreds of rows
    needs no more memory than one of sixty.
    """
    share = math.sqrt(min(1.0, _FULL_ROWS / len(rows)))
    width, height = (max(2, round(side * share)) for side in _largest(rows[0][1].tiles))
    caption, gap = max(11, round(_CAPTION * share)), max(2, round(_GAP * share))
    columns = max(len(row.tiles) for _, row in rows[:1])
    size = (2 * _MARGIN + columns * (width + gap), 2 * _MARGIN + len(rows) * (caption + height + gap))
    sheet = Image.new("RGB", size, _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(max(8, round(15 * share)))
    for number, (name, row) in enumerate(rows):
        y = _MARGIN + number * (caption + height + gap)
        pen.text((_MARGIN, y), name, fill=_INK, font=font)
        for column, tile in enumerate(row.tiles):
            picture = Image.fromarray(tile)
            picture.thumbnail((width, height))
            sheet.paste(picture, (_MARGIN + column * (width + gap), y + caption))
    _replace(sheet, target_png)


def _largest(tiles: Sequence[NDArray[np.uint8]]) -> tuple[int, int]:
    return max(tile.shape[1] for tile in tiles), max(tile.shape[0] for tile in tiles)


def _replace(sheet: Image.Image, target_png: Path) -> None:
    part = target_png.with_name(f".{target_png.name}.part")
    with explained(target_png):
        try:
            sheet.save(part, format="PNG", compress_level=1)  # a quarter of the time, a sixth larger
            part.replace(target_png)
        finally:
            part.unlink(missing_ok=True)


def spread(total: int, count: int) -> tuple[int, ...]:
    """Up to `count` of the numbers below `total`, evenly spaced, with the first and the last among them."""
    count = min(count, total)
    if count <= 1:
        return (0,) * count
    return tuple(round(index * (total - 1) / (count - 1)) for index in range(count))


def _timed_frames(path: Path) -> Iterator[tuple[VideoFrame, float]]:
    with decoding(path) as film:
        for frame in film.frames():
            yield frame, float(frame.time or 0.0)


def _pixel_width(path: Path) -> float:
    """`decoding.pixel_aspect` of a film, as far as a sheet can follow it."""
    with decoding(path) as film:
        return min(4.0, max(0.25, float(pixel_aspect(film.stream)))) if film.stream else 1.0


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
