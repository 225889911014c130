"""Examining and verifying videos, and their exact first and last frames."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.logging
import numpy as np
import pytest

from reelwright.core.errors import OutputError
from reelwright.core.plan import ExpectedVideo
from reelwright.core.request import Size
from reelwright.media.decoding import decoding
from reelwright.media.video import examine, first_frame, last_frame
from reelwright.media.video_facts import Tally, VideoFacts
from reelwright.media.writer import write_metadata
from tests.media.clips import (
    FOREIGN,
    PROMISE,
    SMALL,
    a_clip,
    a_foreign_clip,
    a_picture,
    cut,
    number_in,
    patched,
    turned,
    verify,
)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A video by Reelwright's writer, nine frames."""
    return a_clip(tmp_path / "clip.mp4")


@pytest.fixture(scope="module")
def foreign_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video without a checksum, with enough coded data that damage lands in the middle of pictures."""
    return a_foreign_clip(tmp_path_factory.mktemp("foreign") / "foreign.mp4", 12, size=Size(320, 192))


def test_p10_a_video_without_its_index_is_refused(tmp_path: Path) -> None:
    film = a_foreign_clip(tmp_path / "tail.mp4", movflags="")
    broken = cut(film, 0.97)
    with pytest.raises(OutputError) as caught:
        verify(broken, PROMISE)
    assert "cut off" in caught.value.evidence[0]


def test_p10_a_writer_that_died_before_the_index_is_recognised(clip: Path) -> None:
    def until_index(data: bytearray) -> bytearray:
        start = data.index(b"moov") - 4
        length = int.from_bytes(data[start : start + 4])
        return data[:start] + data[start + length :]

    assert examine(patched(clip, until_index)).problems[0].startswith("its index (moov) is missing")


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 0.999])
def test_p11_a_video_cut_behind_its_index_is_refused(foreign_clip: Path, share: float) -> None:
    facts = examine(cut(foreign_clip, share))
    assert any("cut off" in problem for problem in facts.problems)
    if share <= 0.9:
        assert any("declares 12 frames" in problem for problem in facts.problems)


def test_p12_a_video_with_a_frame_too_few_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        verify(a_clip(tmp_path / "short.mp4", 8), PROMISE)
    assert caught.value.evidence == ("it has 8 frames instead of 9",)


@pytest.mark.parametrize(
    ("change", "evidence"),
    [
        ({"width": 98}, "it is 96x64 instead of 98x64"),
        ({"height": 62}, "it is 96x64 instead of 96x62"),
        ({"num_frames": 10}, "it has 9 frames instead of 10"),
        ({"fps": 24.0}, "it runs at 16 fps instead of 24"),
        ({"fps": 15.9}, "it runs at 16 fps instead of 15.9"),
    ],
)
def test_p12_every_broken_promise_is_named(clip: Path, change: dict[str, Any], evidence: str) -> None:
    with pytest.raises(OutputError) as caught:
        verify(clip, replace(PROMISE, **change))
    assert caught.value.evidence == (evidence,)


def test_p12_text_named_mp4_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("Traceback (most recent call last):\n" * 50)
    assert "cannot be opened" in examine(tmp_path / "text.mp4").problems[0]


def test_p12_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert examine(tmp_path / "empty.mp4").problems == ("it is empty",)


def test_p12_a_black_video_is_only_warned_about(tmp_path: Path) -> None:
    black = a_clip(tmp_path / "black.mp4", pictures=[np.zeros((64, 96, 3), np.uint8)] * 9)
    facts = verify(black, PROMISE)
    assert (facts.is_black, facts.warnings, facts.problems) == (True, ("every frame is black",), ())


def test_a_dark_video_is_not_black(tmp_path: Path) -> None:
    dark = np.zeros((64, 96, 3), np.uint8)
    dark[20:40, 30:60] = 40
    assert not examine(a_clip(tmp_path / "dark.mp4", pictures=[dark] * 3)).is_black


@pytest.mark.parametrize(("level", "luma"), [(0, 0.0), (128, 0.5), (255, 1.0)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "yuvj420p", "bgr0"])
def test_brightness_is_measured_in_every_format(tmp_path: Path, level: int, luma: float, pix_fmt: str) -> None:
    flat = np.full((64, 96, 3), level, np.uint8)
    path = tmp_path / "flat.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1" if pix_fmt == "bgr0" else "libx264", 16)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
        container.mux(stream.encode(av.VideoFrame.from_ndarray(flat, format="rgb24")))
        container.mux(stream.encode(None))
    assert examine(path).mean_luma == pytest.approx(luma, abs=0.01)


def test_the_hash_of_the_frames_ignores_the_container(clip: Path, tmp_path: Path) -> None:
    write_metadata(clip, tmp_path / "other.mp4", {"title": "other"})
    one, other = examine(clip), examine(tmp_path / "other.mp4")
    assert one.sha256 != other.sha256
    assert one.frames_sha256 == other.frames_sha256 != ""


def test_the_hash_of_the_frames_sees_order_and_size(tmp_path: Path) -> None:
    def hashed(width: int, *levels: int) -> str:
        flat = [np.full((96 * 64 // width, width, 3), level, np.uint8) for level in levels]
        film = a_clip(tmp_path / "flat.mp4", size=Size(width, 96 * 64 // width), pictures=flat)
        return examine(film).frames_sha256

    assert len({hashed(96, 50, 200), hashed(96, 200, 50), hashed(64, 50, 200)}) == 3


def test_the_hash_of_the_frames_does_not_depend_on_padding() -> None:
    hashes = []
    for padding in (0, 255):
        frame = av.VideoFrame(98, 66, "yuv420p")
        frame.pts, frame.time_base = 0, Fraction(1, 16)
        for plane in frame.planes:
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
            rows[:], rows[:, : plane.width] = padding, 77
            assert plane.line_size > plane.width
        tally = Tally(hash_frames=True)
        tally.add(frame)
        hashes.append(tally.measured(None)["frames_sha256"])
    assert hashes[0] == hashes[1]


def test_frames_need_not_be_hashed(clip: Path) -> None:
    tally = Tally(hash_frames=False)
    with decoding(clip) as video:
        for frame in video.frames():
            tally.add(frame)
    assert tally.measured(None)["frames_sha256"] == ""


def test_uneven_timing_breaks_the_promise(tmp_path: Path) -> None:
    film = a_foreign_clip(tmp_path / "vfr.mp4", times=(0, 1, 2, 3, 5, 6, 7, 8, 9), options={"bf": "0"})
    facts = examine(film)
    assert (facts.constant_rate, facts.problems) == (False, ())
    assert "its frames are not evenly spaced in time" in facts.differences(PROMISE)


def test_a_coarse_clock_is_even_enough(tmp_path: Path) -> None:
    film = a_foreign_clip(tmp_path / "ms.mkv")  # Matroska counts in milliseconds: 62, 63, 62, 63
    assert verify(film, PROMISE).constant_rate


@pytest.mark.parametrize(
    ("times", "problem"),
    [
        ((0, 2, 1), "frame 2 does not rise"),
        ((0, 1, 1), "frame 2 does not rise"),
        ((0, None, 2), "frame 1 has no timestamp"),
    ],
)
def test_timestamps_must_rise(times: tuple[int | None, ...], problem: str) -> None:
    tally = Tally(hash_frames=False)
    for time in times:
        frame = av.VideoFrame.from_ndarray(a_picture(0), format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = time, Fraction(1, 16)
        tally.add(frame)
    assert problem in tally.problems[0]


def test_a_video_that_changes_its_size_is_reported() -> None:
    tally = Tally(hash_frames=True)
    for time, size in enumerate((SMALL, Size(64, 64))):
        frame = av.VideoFrame.from_ndarray(a_picture(0, size), format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = time, Fraction(1, 16)
        tally.add(frame)
    assert "frame 1 is (64, 64" in tally.problems[0]


def test_a_turned_video_shows_its_turned_size_and_is_refused(clip: Path) -> None:
    facts = examine(turned(clip))
    assert (facts.width, facts.height, facts.problems) == (64, 96, ())
    assert facts.rotation in (90, 270)
    assert any("turn it by" in line for line in facts.differences(ExpectedVideo(64, 96, 9, 16.0)))


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4", "ffv1", "libvpx-vp9"])
def test_videos_of_other_makers_are_examined(tmp_path: Path, codec: str, capfd: pytest.CaptureFixture[str]) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    facts = examine(a_foreign_clip(tmp_path / "other.mkv", codec=codec, options=options))
    assert (facts.num_frames, facts.problems) == (9, ())
    capfd.readouterr()


def test_facts_survive_json(clip: Path) -> None:
    facts = examine(clip)
    data = json.loads(json.dumps(facts.to_json()))
    assert data["frames"] == 9
    assert VideoFacts.from_json(data) == facts


def test_facts_of_a_newer_version_are_understood() -> None:
    assert VideoFacts.from_json({"frames": 3, "problems": ["x"], "new": 1}) == VideoFacts(num_frames=3, problems=("x",))


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_first_and_last_frame_are_exact(tmp_path: Path, kind: str) -> None:
    film = a_foreign_clip(tmp_path / "film.mp4", **FOREIGN[kind])
    assert (number_in(first_frame(film)), number_in(last_frame(film))) == (0, 8)


@pytest.mark.parametrize("frames", [17, 33, 81])
def test_the_last_frame_is_exact_at_the_lengths_that_models_make(tmp_path: Path, frames: int) -> None:
    film = a_foreign_clip(tmp_path / "film.mp4", frames, options={"bf": "3", "preset": "medium"})
    assert number_in(last_frame(film)) == frames - 1


def test_a_frame_of_a_turned_video_is_upright(clip: Path) -> None:
    upright = first_frame(turned(clip))
    assert upright.shape == (96, 64, 3)
    # The file says: a quarter turn clockwise. The strip of blocks at the top comes to lie at the right.
    np.testing.assert_array_equal(upright, np.rot90(first_frame(clip), -1))


def test_an_untagged_video_is_read_as_its_maker_meant_it(tmp_path: Path) -> None:
    flat = np.full((64, 96, 3), (200, 60, 40), np.uint8)
    path = tmp_path / "untagged.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 16, {"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(flat, format="rgb24")))
        container.mux(stream.encode(None))
    assert np.abs(first_frame(path).astype(int) - flat).max() <= 4


@pytest.mark.parametrize("read", [first_frame, last_frame])
def test_a_file_that_is_no_video_has_no_frames(tmp_path: Path, read: object) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(OutputError) as caught:
        read(tmp_path / "text.mp4")  # type: ignore[operator]
    assert caught.value.evidence


def test_the_last_frame_of_a_cut_video_is_not_guessed(foreign_clip: Path) -> None:
    with pytest.raises(OutputError, match="undamaged"):
        last_frame(cut(foreign_clip, 0.7))
