"""Tests the frames that a worker leaves: the video has all of them in order, and the last one is passed on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reelwright.core.errors import Cancelled, OutputError
from reelwright.core.events import Saved
from reelwright.media.decoding import decoding, to_rgb
from reelwright.sites import LAST_FRAME
from reelwright.sites.local.worker_frames import encode_frames
from tests.media.clips import SMALL, a_picture, number_in

NUMBERS = (3, 1, 4, 15, 9)


def left(folder: Path, *, frames: int = len(NUMBERS), more: int = 0) -> Saved:
    """The frames that a worker saved, in a file with ``more`` bytes than it reports (or fewer)."""
    path = folder / "frames.rgb"
    content = np.stack([a_picture(number) for number in NUMBERS]).tobytes()
    path.write_bytes(content[:more] if more < 0 else content + b"x" * more)
    return Saved(str(path), frames, SMALL.width, SMALL.height, {})


def encode(saved: Saved, video: Path, check: object = lambda: None) -> None:
    encode_frames(saved, video, 16.0, "h264", {}, check)  # type: ignore[arg-type]


def test_the_video_has_every_frame_in_its_order_and_the_frames_are_deleted(tmp_path: Path) -> None:
    saved = left(tmp_path)
    encode(saved, tmp_path / "film.mp4")
    with decoding(tmp_path / "film.mp4") as film:
        assert [number_in(to_rgb(frame)) for frame in film.frames()] == list(NUMBERS)
    assert not Path(saved.path).exists()


def test_the_picture_handed_on_is_the_last_frame_without_loss(tmp_path: Path) -> None:
    encode(left(tmp_path), tmp_path / "film.mp4")
    with Image.open(tmp_path / LAST_FRAME) as handed_on:
        assert np.array_equal(np.asarray(handed_on), a_picture(NUMBERS[-1]))


@pytest.mark.parametrize(("frames", "more"), [(5, 1), (5, -1), (4, 0), (6, 0), (0, 0)])
def test_frames_of_another_size_than_promised_are_refused(tmp_path: Path, frames: int, more: int) -> None:
    with pytest.raises(OutputError, match="bytes of frames"):
        encode(left(tmp_path, frames=frames, more=more), tmp_path / "film.mp4")
    assert not (tmp_path / LAST_FRAME).exists()


def test_missing_frames_are_refused(tmp_path: Path) -> None:
    saved = left(tmp_path)
    Path(saved.path).unlink()
    with pytest.raises(OutputError, match="wrote 0"):
        encode(saved, tmp_path / "film.mp4")


def test_a_request_to_stop_ends_the_encoding(tmp_path: Path) -> None:
    def stop() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        encode(left(tmp_path), tmp_path / "film.mp4", stop)
    assert not (tmp_path / LAST_FRAME).exists()
