"""What `reel probe` says of any file: as people call things, and as a player plays it."""

from __future__ import annotations

import json
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pillow_heif
import pytest
from PIL import Image

from reelwright.cli import main
from reelwright.core.plan import ExpectedVideo
from reelwright.media.video import examine, first_frame, last_frame
from tests.media.clips import SMALL, a_foreign_clip, a_picture, cut, number_in, numbers_in, trimmed


def _probed(capsys: pytest.CaptureFixture[str], path: Path, *more: str) -> tuple[int, str]:
    status = main(["probe", str(path), *more])
    return int(status or 0), capsys.readouterr().out


@pytest.mark.parametrize(("first", "until"), [(5, None), (1, None), (0, 12), (5, 12)])
@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "2", "preset": "medium"}])
def test_a_video_that_was_trimmed_without_encoding_is_complete(
    tmp_path: Path, first: int, until: int | None, options: dict[str, str]
) -> None:
    film = trimmed(a_foreign_clip(tmp_path / "a.mp4", 20, options={"g": "50", **options}), first, until=until)
    facts = examine(film)
    assert facts.problems == ()
    played = numbers_in(film)
    assert facts.num_frames == len(played)
    assert played[0] == first
    assert number_in(first_frame(film)) == played[0]
    assert number_in(last_frame(film)) == played[-1]


def test_a_trimmed_video_that_was_cut_off_is_not_complete(tmp_path: Path) -> None:
    film = trimmed(a_foreign_clip(tmp_path / "a.mp4", 20, options={"g": "50"}), 5)
    assert examine(cut(film, 0.98)).problems


def test_a_video_that_lost_frames_has_no_edit_list_as_an_excuse(tmp_path: Path) -> None:
    film = a_foreign_clip(tmp_path / "a.mp4", 12, options={"bf": "0", "g": "1"})
    data = bytearray(film.read_bytes())
    place = data.index(b"stsz") + 16
    data[place : place + 4] = (len(data) * 2).to_bytes(4)
    film.write_bytes(data)
    assert examine(film).problems


def test_what_an_edit_list_hides_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = trimmed(a_foreign_clip(tmp_path / "a.mp4", 20, options={"g": "50", "bf": "0"}), 5)
    status, text = _probed(capsys, film)
    assert status == 0
    assert "trimmed: an edit list hides 5 more stored frames" in text
    assert text.endswith("ok: decoded completely\n")


KINDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a.mp4": ({}, "MP4", "H.264 (AVC)"),
    "a.mov": ({}, "QuickTime", "H.264 (AVC)"),
    "a.mkv": ({"codec": "libvpx-vp9"}, "Matroska", "VP9"),
    "a.webm": ({"codec": "libvpx-vp9"}, "WebM", "VP9"),
    "a.m4v": ({"file_format": "mp4"}, "MP4", "H.264 (AVC)"),
    "a.3gp": ({"file_format": "3gp"}, "3GP", "H.264 (AVC)"),
    "a.y4m": ({"codec": "rawvideo", "file_format": "yuv4mpegpipe"}, "YUV4MPEG2 (Y4M)", "uncompressed"),
    "a.ivf": ({"codec": "libvpx"}, "IVF", "VP8"),
    "a.avi": ({"codec": "mpeg4"}, "AVI", "MPEG-4 Part 2 (DivX, Xvid)"),
    "a.ts": ({}, "MPEG-TS", "H.264 (AVC)"),
    "a.flv": ({"codec": "flv1"}, "Flash Video (FLV)", "Sorenson Spark (H.263)"),
    "a.gif": ({"codec": "gif", "pix_fmt": "rgb8"}, "animated GIF", "GIF"),
    "a.wmv": ({"codec": "wmv2"}, "Windows Media (ASF, WMV)", "Windows Media Video 8"),
    "av1.mp4": ({"codec": "libsvtav1"}, "MP4", "AV1"),
}


@pytest.mark.parametrize("name", KINDS)
def test_containers_and_codecs_have_the_names_that_people_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    made, container, codec = KINDS[name]
    status, text = _probed(capsys, a_foreign_clip(tmp_path / name, **made))
    assert status == 0
    assert f"container: {container}\n" in text
    assert f"codec: {codec}\n" in text
    assert "num_frames" not in text
    assert "frames: 9\n" in text


@pytest.mark.parametrize("fps", [Fraction(16), Fraction(30), Fraction(30000, 1001), Fraction(60000, 1001)])
@pytest.mark.parametrize("name", ["a.mkv", "a.flv"])
def test_a_clock_of_milliseconds_does_not_change_the_rate(tmp_path: Path, name: str, fps: Fraction) -> None:
    facts = examine(a_foreign_clip(tmp_path / name, 10, fps=fps))
    assert facts.fps == pytest.approx(float(fps), rel=1e-4)


def test_frames_that_really_come_at_another_rate_are_measured(tmp_path: Path) -> None:
    film = a_foreign_clip(tmp_path / "a.mkv", 10, times=[0, 1, 2, 3, 5, 6, 7, 8, 10, 11])
    assert examine(film).fps == pytest.approx(16 * 9 / 11, rel=1e-3)


WHOLE: dict[str, dict[str, Any]] = {
    "fragments.mp4": {"options": {"g": "4", "bf": "0"}, "movflags": "frag_keyframe"},
    "b-frames.avi": {"options": {"bf": "2"}},
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_video_that_players_show_whole_is_complete(tmp_path: Path, name: str) -> None:
    facts = examine(a_foreign_clip(tmp_path / name, 12, **WHOLE[name]))
    assert (facts.problems, facts.num_frames, facts.constant_rate) == ((), 12, True)
    assert facts.fps == pytest.approx(16)


def test_a_cut_video_is_not_called_trimmed(tmp_path: Path) -> None:
    film = cut(a_foreign_clip(tmp_path / "a.avi", 12, codec="mpeg4"), 0.8)
    facts = examine(film)
    assert (bool(facts.problems), facts.trimmed) == (True, 0)


@pytest.mark.parametrize(
    ("matrix", "turned"), [((0, 1, -1, 0), 270), ((-1, 0, 0, -1), 180), ((0.7, 0.7, -0.7, 0.7), 0)]
)
def test_only_quarter_turns_are_turns(tmp_path: Path, matrix: tuple[float, ...], turned: int) -> None:
    film = a_foreign_clip(tmp_path / "a.mp4", 2)
    data = film.read_bytes()
    place = data.index(b"tkhd") + 44
    a, b, c, d = (round(part * 65536) for part in matrix)
    film.write_bytes(data[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[place + 36 :])
    facts = examine(film)
    assert facts.rotation == turned
    assert (facts.width, facts.height) == ((64, 96) if turned == 270 else (96, 64))


def test_pixels_that_are_not_square_are_reported_with_the_size_that_players_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = tmp_path / "wide.mp4"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("libx264", 16)
        stream.width, stream.height, stream.pix_fmt = SMALL.width, SMALL.height, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(a_picture(0), format="rgb24")))
        container.mux(stream.encode(None))
    assert "pixel_aspect: 4:3 (SAR): players show 128x64" in _probed(capsys, film)[1]
    facts = examine(film)
    assert (facts.width, facts.height, facts.shown) == (96, 64, (128, 64))
    promise = ExpectedVideo(96, 64, 1, 16.0)
    assert "its pixels are not square (4:3): players show 128x64" in facts.differences(promise)


NO_VIDEOS = {
    "notes.txt": (b"To do: rent a lens.\n" * 9, "it looks like plain text"),
    "clip.mp4": (b"<!doctype html><title>404</title>", "it looks like a web page"),
    "empty.mp4": (b"", "it is empty"),
    "song.zip": (b"PK\x03\x04" + bytes(60), "it looks like a ZIP archive"),
    "raw.h264": (b"\0\0\0\1\x67" + bytes(60), "it looks like raw H.264 video without a container (put it into one: "),
    "song.mp3": (b"ID3\4" + bytes(60), "it looks like an MP3 file, which is sound"),
    "song.wav": (b"RIFF....WAVEfmt " + bytes(60), "it looks like a WAV file, which is sound"),
    "game.tga": (b"\0\0\2" + bytes(60), "it looks like a cursor or a Targa (TGA) picture"),
    "noise.mp4": (b"\x93\x00\xfe\x17" * 90, "its first bytes match no known format"),
}


@pytest.mark.parametrize("name", NO_VIDEOS)
def test_a_file_that_is_no_video_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    content, words = NO_VIDEOS[name]
    (tmp_path / name).write_bytes(content)
    status, text = _probed(capsys, tmp_path / name)
    assert status == 25
    assert text.startswith(f"{tmp_path / name} is not a video: {words}")
    assert text.count("\n") == 1


def test_a_picture_is_called_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    assert _probed(capsys, tmp_path / "a.png")[1].endswith("is not a video: it is a PNG picture\n")


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_a_picture_in_a_videos_container_is_called_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    pillow_heif.register_heif_opener()
    Image.new("RGB", (64, 64)).save(tmp_path / "a", kind)
    name = {"HEIF": "a HEIC", "AVIF": "an AVIF"}[kind]
    assert _probed(capsys, tmp_path / "a")[1].endswith(f"is not a video: it is {name} picture\n")


def test_the_json_of_no_video_names_its_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("text")
    status, text = _probed(capsys, tmp_path / "a.txt", "--json")
    assert status == 25
    assert json.loads(text)["problems"]
