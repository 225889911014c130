"""Writing videos: every known trap has a real file here."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import av.logging
import numpy as np
import pytest

from reelwright.core.errors import (
    BackendUnavailableError,
    ConfigurationError,
    Failure,
    OutputError,
    VideoGenerationError,
)
from reelwright.core.plan import ExpectedVideo
from reelwright.core.request import Size
from reelwright.media.video import examine, first_frame
from reelwright.media.writer import Encoding, VideoWriter, size_problem
from tests.media.clips import (
    PROMISE,
    SMALL,
    a_clip,
    a_picture,
    file_size_limit,
    numbers_in,
    open_files,
    verify,
)

PATCHES = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
    (0, 255, 255),
    (255, 255, 255),
    (0, 0, 0),
    (200, 120, 40),
)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A video by Reelwright's writer, nine frames."""
    return a_clip(tmp_path / "clip.mp4")


def test_a_written_video_keeps_its_promise(clip: Path) -> None:
    assert verify(clip, PROMISE).problems == ()


def test_a_written_video_is_h264_yuv420p_tagged_bt709(clip: Path) -> None:
    facts = examine(clip)
    tags = {"space": "bt709", "primaries": "bt709", "transfer": "bt709", "range": "tv"}
    assert (facts.codec, facts.pix_fmt, facts.colour) == ("h264", "yuv420p", tags)


def test_the_index_lies_before_the_pictures(clip: Path) -> None:
    data = clip.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_every_frame_arrives_once_and_in_order(tmp_path: Path) -> None:
    assert numbers_in(a_clip(tmp_path / "long.mp4", 40)) == list(range(40))


def test_the_last_stored_packet_is_the_last_frame_shown(tmp_path: Path) -> None:
    with av.open(str(a_clip(tmp_path / "long.mp4", 33))) as container:
        times = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    assert times == sorted(times)


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_colours_come_back_as_they_were(tmp_path: Path, codec: Literal["h264", "av1"]) -> None:
    patches = np.zeros((64, 32 * len(PATCHES), 3), np.uint8)
    for index, colour in enumerate(PATCHES):
        patches[:, 32 * index : 32 * (index + 1)] = colour
    size = Size(patches.shape[1], 64)
    encoding = Encoding(codec=codec, crf=4)
    film = a_clip(tmp_path / "patches.mp4", size=size, encoding=encoding, pictures=[patches])
    centres = first_frame(film)[32, 16::32].astype(int)
    assert np.abs(centres - np.array(PATCHES)).max() <= 6, centres  # BT.601 by mistake: 20 and more


def test_an_array_may_be_used_again_after_write(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "reused.mp4", SMALL, 16, Encoding(), {}) as film:
        canvas = np.empty((64, 96, 3), np.uint8)
        for number in range(20):
            canvas[:] = a_picture(number)
            film.write(canvas)
            canvas[:] = 0
    assert numbers_in(tmp_path / "reused.mp4") == list(range(20))


def test_a_view_that_is_not_contiguous_is_written_right(tmp_path: Path) -> None:
    mirrored = a_clip(tmp_path / "view.mp4", pictures=[a_picture(5)[:, ::-1].copy()[:, ::-1], a_picture(6)])
    assert numbers_in(mirrored) == [5, 6]


def test_the_same_pictures_give_the_same_bytes(tmp_path: Path) -> None:
    assert examine(a_clip(tmp_path / "a.mp4")).sha256 == examine(a_clip(tmp_path / "b.mp4")).sha256


@pytest.mark.parametrize("fps", [16, 24.0, Fraction(24000, 1001), 29.97, 7.5])
def test_any_frame_rate_is_kept(tmp_path: Path, fps: float | Fraction) -> None:
    facts = examine(a_clip(tmp_path / "rate.mp4", fps=fps))
    assert facts.fps == pytest.approx(float(fps), rel=1e-5)
    assert facts.constant_rate


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_a_video_lasts_as_long_as_its_frames(tmp_path: Path, frames: int) -> None:
    with av.open(str(a_clip(tmp_path / "short.mp4", frames))) as container:
        assert container.duration == pytest.approx(frames / 16 * av.time_base, abs=1001)  # the file counts in ms


def test_a_video_of_one_frame_is_verified(tmp_path: Path) -> None:
    assert verify(a_clip(tmp_path / "one.mp4", 1), ExpectedVideo(96, 64, 1, 16.0)).seconds == 1 / 16


def test_tags_of_any_language_and_length_come_back(tmp_path: Path) -> None:
    tags = {
        "title": "Ein Kätzchen 🐈",
        "reelwright": json.dumps({"prompt": "海" * 1000}),
        "any key": "x=y;\\z\n2",
    }
    facts = examine(a_clip(tmp_path / "tags.mp4", metadata=tags))
    assert {key: facts.metadata[key] for key in tags} == tags


def test_av1_is_written_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own: the encoder looks once a process how much it shall say."""
    monkeypatch.delenv("SVT_LOG", raising=False)  # another test's writer has left it in the environment of this process
    script = "import sys, pathlib, clips; clips.a_clip(pathlib.Path(sys.argv[1]), encoding=clips.Encoding(codec='av1'))"
    argv = [sys.executable, "-c", script, str(tmp_path / "av1.mp4")]
    done = subprocess.run(argv, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert verify(tmp_path / "av1.mp4", PROMISE).codec == "av1"


@pytest.mark.parametrize("size", [Size(95, 64), Size(96, 63), Size(0, 64)])
def test_a_size_that_cannot_be_encoded_is_refused_before_any_file(tmp_path: Path, size: Size) -> None:
    with pytest.raises(ConfigurationError, match="even"):
        VideoWriter(tmp_path / "odd.mp4", size, 16, Encoding(), {})
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("size", "codec", "why"),
    [
        (Size(16384, 16128), "h264", ""),
        (Size(16384, 16384), "h264", "libav takes about"),
        (Size(16256, 16256), "h264", "libav takes about"),
        (Size(16386, 64), "h264", "the limit of h264"),
        (Size(16384, 8704), "av1", ""),
        (Size(8704, 8706), "av1", "the limit of av1"),
    ],
)
def test_a_size_beyond_the_encoders_limits_is_known_before(size: Size, codec: Literal["h264", "av1"], why: str) -> None:
    found = size_problem(size, codec)
    assert why in found
    assert bool(found) == bool(why)


@pytest.mark.parametrize(
    "picture", [np.zeros((64, 98, 3), np.uint8), np.zeros((64, 96, 3)), np.zeros((64, 96), np.uint8)]
)
def test_a_picture_of_another_shape_is_refused(tmp_path: Path, picture: np.ndarray) -> None:
    with (
        pytest.raises(ValueError, match="a frame must be"),
        VideoWriter(tmp_path / "x.mp4", SMALL, 16, Encoding(), {}) as film,
    ):
        film.write(picture)


def test_an_unknown_preset_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(VideoGenerationError):
        VideoWriter(tmp_path / "x.mp4", SMALL, 16, Encoding(preset="warp"), {})
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("limit", [1, 20_000, 80_000])
def test_d01_a_full_disk_is_reported_and_the_partial_video_removed(tmp_path: Path, limit: int) -> None:
    size, files = Size(320, 192), open_files()
    with file_size_limit(limit), pytest.raises(BackendUnavailableError) as caught:
        a_clip(tmp_path / "full.mp4", 30, size=size)
    assert caught.value.failure is Failure.DISK
    assert not any(tmp_path.iterdir())
    assert open_files() - files == set()


def test_d01_a_disk_that_fills_while_the_index_is_moved_is_reported(tmp_path: Path) -> None:
    whole = a_clip(tmp_path / "whole.mp4", 30).stat().st_size
    with file_size_limit(whole - 64), pytest.raises(BackendUnavailableError) as caught:
        a_clip(tmp_path / "full.mp4", 30)
    assert caught.value.failure is Failure.DISK
    assert not (tmp_path / "full.mp4").exists()


def test_a_missing_folder_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(VideoGenerationError, match="cannot be written: No such file"):
        VideoWriter(tmp_path / "nowhere" / "x.mp4", SMALL, 16, Encoding(), {})


def test_an_exception_of_the_caller_leaves_no_file_no_thread_and_nothing_open(tmp_path: Path) -> None:
    def interrupted_pictures() -> Iterator[np.ndarray]:
        yield a_picture(0)
        raise KeyboardInterrupt

    files, threads = open_files(), set(threading.enumerate())  # what an earlier test left may end meanwhile
    with pytest.raises(KeyboardInterrupt):
        a_clip(tmp_path / "x.mp4", pictures=interrupted_pictures())
    assert not any(tmp_path.iterdir())
    assert open_files() - files == set()
    assert set(threading.enumerate()) - threads == set()


def test_a_video_without_a_frame_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="without a single frame"):
        VideoWriter(tmp_path / "empty.mp4", SMALL, 16, Encoding(), {}).close()
    assert not any(tmp_path.iterdir())


def test_abort_and_close_after_close_change_nothing(tmp_path: Path) -> None:
    film = VideoWriter(tmp_path / "x.mp4", SMALL, 16, Encoding(), {})
    film.write(a_picture(3))
    for end in (film.close, film.close, film.abort):
        end()
    assert numbers_in(tmp_path / "x.mp4") == [3]


def test_writing_after_the_end_is_refused(tmp_path: Path) -> None:
    film = VideoWriter(tmp_path / "x.mp4", SMALL, 16, Encoding(), {})
    film.abort()
    film.abort()
    with pytest.raises(ValueError, match="closed"):
        film.write(a_picture(0))


def test_a_name_with_a_colon_and_spaces_is_a_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    film = a_clip(Path("http: it's a; film\n.mp4"))
    assert verify(film, PROMISE).num_frames == 9
