"""The contact sheet: which frames are on it, and that it is a whole picture."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reelwright.core.errors import OutputError, VideoGenerationError
from reelwright.core.request import Size
from reelwright.media.sheet import contact_sheet, spread
from tests.media.clips import SMALL, a_clip, a_foreign_clip, cut, number_in

TILE = (367, 245)  # of a 96x64 film: the area of 400x225


def numbers_on(sheet: Path, columns: int, count: int) -> list[int]:
    """The frame numbers painted in the tiles, read from the places where tiles must be."""
    with Image.open(sheet) as opened:
        picture = np.asarray(opened.convert("RGB"))
    corners = [(64 + n // columns * (TILE[1] + 38), 24 + n % columns * (TILE[0] + 12)) for n in range(count)]
    return [number_in(picture[y : y + TILE[1], x : x + TILE[0]]) for y, x in corners]


def size_of(sheet: Path) -> tuple[int, int]:
    with Image.open(sheet) as opened:
        opened.load()
        return opened.size


def test_the_sheet_shows_evenly_spaced_frames_from_the_first_to_the_last(tmp_path: Path) -> None:
    contact_sheet(a_clip(tmp_path / "clip.mp4", 81), tmp_path / "sheet.png", columns=3, count=9)
    assert numbers_on(tmp_path / "sheet.png", 3, 9) == [0, 10, 20, 30, 40, 50, 60, 70, 80]


def test_a_short_video_has_every_frame_once(tmp_path: Path) -> None:
    contact_sheet(a_clip(tmp_path / "clip.mp4", 3), tmp_path / "sheet.png", columns=4, count=12)
    assert numbers_on(tmp_path / "sheet.png", 3, 3) == [0, 1, 2]
    assert size_of(tmp_path / "sheet.png")[0] == 2 * 24 + 3 * TILE[0] + 2 * 12


def test_b_frames_and_uneven_timing_do_not_disturb_the_order(tmp_path: Path) -> None:
    film = a_foreign_clip(tmp_path / "f.mp4", times=(0, 1, 2, 3, 7, 8, 12, 13, 20), options={"bf": "3"})
    contact_sheet(film, tmp_path / "sheet.png", columns=5, count=5)
    assert numbers_on(tmp_path / "sheet.png", 5, 5) == [0, 2, 4, 6, 8]


@given(total=st.integers(0, 5000), count=st.integers(1, 60))
def test_a_spread_holds_the_first_and_the_last_and_no_number_twice(total: int, count: int) -> None:
    chosen = spread(total, count)
    assert len(chosen) == min(total, count)
    assert all(after > before for before, after in pairwise(chosen))
    if total and count > 1:
        assert (chosen[0], chosen[-1]) == (0, total - 1)


@pytest.mark.parametrize("size", [Size(64, 96), SMALL, Size(512, 16), Size(16, 512)])
def test_tiles_keep_the_shape_of_the_video(tmp_path: Path, size: Size) -> None:
    contact_sheet(a_clip(tmp_path / "clip.mp4", 2, size=size), tmp_path / "sheet.png", columns=1, count=1)
    width, height = size_of(tmp_path / "sheet.png")
    assert (width - 48) / (height - 48 - 40 - 26) == pytest.approx(size.width / size.height, rel=0.03)


def test_an_older_sheet_is_replaced_and_nothing_else_left(tmp_path: Path) -> None:
    (tmp_path / "sheet.png").write_text("older")
    contact_sheet(a_clip(tmp_path / "clip.mp4", 2), tmp_path / "sheet.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "sheet.png"]
    assert size_of(tmp_path / "sheet.png")[0] > 300


def test_a_damaged_video_gets_a_sheet_of_what_can_be_seen(tmp_path: Path) -> None:
    contact_sheet(cut(a_clip(tmp_path / "clip.mp4", 40), 0.6), tmp_path / "sheet.png", columns=3, count=3)
    assert numbers_on(tmp_path / "sheet.png", 3, 1) == [0]


def test_a_file_without_pictures_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(OutputError) as caught:
        contact_sheet(tmp_path / "text.mp4", tmp_path / "sheet.png")
    assert caught.value.evidence
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize("target", ["nowhere/sheet.png", "folder"])
def test_a_sheet_that_cannot_be_written_is_reported_and_leaves_nothing(tmp_path: Path, target: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(VideoGenerationError, match="cannot be written"):
        contact_sheet(a_clip(tmp_path / "clip.mp4", 1), tmp_path / target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "folder"]


def test_a_name_in_any_script_does_not_disturb(tmp_path: Path) -> None:
    contact_sheet(a_clip(tmp_path / "海\n🎬.mp4", 2), tmp_path / "sheet.png")
    assert size_of(tmp_path / "sheet.png")[0] > 300


def test_pixels_that_are_not_square_are_drawn_as_players_show_them(tmp_path: Path) -> None:
    film = a_foreign_clip(tmp_path / "f.mp4", 1, options={"x264-params": "sar=2/1"})
    contact_sheet(film, tmp_path / "sheet.png")
    assert size_of(tmp_path / "sheet.png")[0] == 2 * 24 + 520
