"""Frames of one plain colour: a fault that is reported, and frames that only look like one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from reelwright.media.video import examine
from tests.media.clips import PROMISE, Picture, a_clip, a_picture, verify

BLACK = np.zeros((64, 96, 3), np.uint8)


def _plain(*colour: int) -> Picture:
    return np.full((64, 96, 3), colour, np.uint8)


def _film(path: Path, pictures: Sequence[Picture]) -> tuple[str, ...]:
    return examine(a_clip(path / "film.mp4", pictures=pictures)).warnings


def _frames(count: int) -> list[Picture]:
    return [a_picture(number) for number in range(count)]


FAULTS = {
    "all black": ([BLACK] * 9, "every frame is black"),
    "all black but for noise": ([BLACK + np.uint8(1) + (a_picture(n) // 60) for n in range(9)], "every frame is black"),
    "all green": ([_plain(0, 135, 0)] * 9, "every frame is plain green"),
    "all grey": ([_plain(128, 128, 128)] * 9, "every frame is plain grey"),
    "all white": ([_plain(255, 255, 255)] * 9, "every frame is white"),
    "the first frame right and the rest black": ([*_frames(1), *[BLACK] * 8], "frames 2 to 9 of 9 are black"),
    "half of it black": ([*_frames(5), *[BLACK] * 5], "frames 6 to 10 of 10 are black"),
    "the first half black": ([*[BLACK] * 5, *_frames(5)], "frames 1 to 5 of 10 are black"),
    "black in the middle": ([*_frames(4), *[BLACK] * 3, *_frames(4)], "frames 5 to 7 of 11 are black"),
    "the last frame black": ([*_frames(8), BLACK], "frame 9 of 9 is black"),
    "purple from frame three on": ([*_frames(2), *[_plain(150, 20, 160)] * 7], "frames 3 to 9 of 9 are plain purple"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_p12_plain_frames_that_come_suddenly_are_reported_and_not_refused(tmp_path: Path, fault: str) -> None:
    pictures, words = FAULTS[fault]
    warnings = _film(tmp_path, pictures)
    assert [warning.startswith(words) for warning in warnings] == [True]
    if len(pictures) == 9:
        assert verify(tmp_path / "film.mp4", PROMISE).warnings == warnings


def _faded(steps: Sequence[float]) -> list[Picture]:
    return [(a_picture(number) * share).astype(np.uint8) for number, share in enumerate(steps)]


DARK = (a_picture(0) * 0.12).astype(np.uint8)
TITLE = BLACK.copy()
TITLE[28:36, 20:76] = 230
WHITE, SKY = _plain(255, 255, 255), _plain(110, 160, 220)
ACROSS = np.arange(96)[None, :, None]


def _stars(brightness: int) -> Picture:
    night = BLACK.copy()
    night[[5, 22, 41, 58], [11, 70, 33, 86]] = brightness
    return night


def _line(end: int) -> Picture:
    page = WHITE.copy()
    page[30:32, 10:end] = 0
    return page


def _spot(x: int, ground: Picture) -> Picture:
    picture = ground.copy()
    picture[20:26, x : x + 6] = 20
    return picture


FINE = {
    "a fade to black": _faded([*np.linspace(1, 0, 20), *[0.0] * 6]),
    "a fade from black": _faded([*[0.0] * 6, *np.linspace(0, 1, 20)]),
    "a long fade": _faded([*np.linspace(1, 0, 48), *[0.0] * 10]),
    "a fade out and in": _faded([*np.linspace(1, 0, 12), 0.0, 0.0, *np.linspace(0, 1, 12)]),
    "a dark film": [DARK] * 9,
    "a title on black": [TITLE] * 9,
    "a gradient": [np.tile(np.linspace(0, 60, 96, dtype=np.uint8)[None, :, None], (64, 1, 3))] * 9,
    "stars in the night": [np.roll(_stars(220), number, 1) for number in range(9)],
    "faint stars in the night": [np.roll(_stars(70), number, 1) for number in range(9)],
    "a line drawn on white, and rubbed out": [WHITE, *[_line(end) for end in (20, 60, 90, 60, 20)], WHITE],
    "a bird leaves the sky": [*[_spot(x, SKY) for x in (20, 50, 80)], *[SKY] * 4],
    "a title comes on black": [*[BLACK] * 3, *[TITLE] * 5],
    "a door opens in the dark": [
        np.where(open_ > ACROSS, a_picture(open_), 0).astype(np.uint8) for open_ in range(0, 90, 9)
    ],
    "a flash of lightning": [*_frames(4), WHITE, WHITE, *_frames(4)],
    "a strobe": [BLACK if number % 2 else a_picture(number) for number in range(12)],
    "a cut between two pictures": [*_frames(4), *[a_picture(200)] * 4],
}


@pytest.mark.parametrize("film", FINE)
def test_fades_and_dark_videos_are_not_taken_for_a_fault(tmp_path: Path, film: str) -> None:
    assert _film(tmp_path, FINE[film]) == ()
