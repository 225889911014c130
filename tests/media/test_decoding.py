"""Files that are no videos, damaged videos, and the decoder's messages about them."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import av.logging
import numpy as np
import pytest

from reelwright.core.errors import OutputError
from reelwright.core.request import Size
from reelwright.media.decoding import decoding
from reelwright.media.video import examine
from tests.media.clips import (
    PROMISE,
    a_clip,
    a_foreign_clip,
    cut,
    patched,
    verify,
    with_flipped_bit,
    with_random_bytes,
)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A video by Reelwright's writer, nine frames."""
    return a_clip(tmp_path / "clip.mp4")


@pytest.fixture(scope="module")
def foreign_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video without a checksum, with enough coded data that damage lands in the middle of pictures."""
    return a_foreign_clip(tmp_path_factory.mktemp("foreign") / "foreign.mp4", 12, size=Size(320, 192))


def test_a_missing_video_is_a_problem_not_an_exception(tmp_path: Path) -> None:
    assert examine(tmp_path / "none.mp4").problems == ("it cannot be read: No such file or directory",)


def test_a_folder_is_a_problem(tmp_path: Path) -> None:
    assert examine(tmp_path).problems == ("it is not a regular file",)


def test_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert examine(tmp_path / "pipe.mp4").problems == ("it is not a regular file",)


@pytest.mark.parametrize("seed", range(6))
def test_random_bytes_are_no_video(tmp_path: Path, seed: int) -> None:
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(seed).bytes(20_000))
    assert examine(tmp_path / "noise.mp4").problems


def test_stray_bytes_behind_the_video_are_reported(clip: Path) -> None:
    broken = patched(clip, lambda data: data + b"Killed\n")
    assert examine(broken).problems == (f"7 bytes at {clip.stat().st_size:,} belong to no part of the file",)


@pytest.mark.parametrize(
    "text",
    ["ffconcat version 1.0\nfile 'clip.mp4'\n", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nclip.mp4\n"],
)
def test_a_playlist_named_mp4_opens_no_other_file(clip: Path, text: str) -> None:
    playlist = clip.with_name("playlist.mp4")
    playlist.write_text(text)
    facts = examine(playlist)
    assert facts.num_frames == 0
    assert "cannot be opened" in facts.problems[0]


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", 48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    facts = examine(tmp_path / "sound.mp4")
    assert (facts.problems, facts.has_audio) == (("it holds no video, only sound",), True)


def test_pictures_beyond_every_measure_are_not_decoded(tmp_path: Path) -> None:
    vast = a_foreign_clip(tmp_path / "vast.mkv", 1, size=Size(17_000, 16), codec="mjpeg", pix_fmt="yuvj420p")
    facts = examine(vast)
    assert facts.num_frames == 0
    assert "17000x16" in facts.problems[0]


def test_a_decode_that_takes_too_long_is_given_up(clip: Path) -> None:
    facts = examine(clip, limit_s=0.0)
    assert facts.num_frames < 9
    assert any("longer than 0 s" in problem for problem in facts.problems) or "cannot be opened" in facts.problems[0]


def test_tags_that_are_not_utf_8_do_not_raise(tmp_path: Path) -> None:
    film = a_clip(tmp_path / "tags.mp4", metadata={"title": "KaetzchenXY"})
    assert examine(patched(film, lambda data: data.replace(b"KaetzchenXY", b"Kaetzchen\xff\xfe"))).num_frames == 9


def test_damage_is_found_whether_or_not_the_decoder_complains(foreign_clip: Path) -> None:
    """Random bytes decode to all frames; in most cases the decoder logs nothing and only flags a frame."""
    damaged = [examine(with_random_bytes(foreign_clip, seed)) for seed in range(24)]
    complaints = [any("error while decoding MB" in line for line in facts.problems) for facts in damaged]
    flags = [any("damaged" in line for line in facts.problems) for facts in damaged]
    assert sum(flags) >= sum(complaints) > 0
    assert sum(flags) >= 12


def test_what_the_decoder_cannot_see_the_hash_of_the_frames_does(foreign_clip: Path) -> None:
    """Some damage decodes without a word (how much depends on the encoder's threads): never to the same frames."""
    whole = examine(foreign_clip)
    damaged = [examine(with_random_bytes(foreign_clip, seed)) for seed in range(24)]
    assert all(facts.problems or facts.frames_sha256 != whole.frames_sha256 for facts in damaged)


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_anywhere_in_our_own_videos_is_found(clip: Path, seed: int) -> None:
    with pytest.raises(OutputError):
        verify(with_flipped_bit(clip, seed, anywhere=True), PROMISE)


@pytest.mark.parametrize("seed", range(8))
def test_random_bytes_within_our_own_videos_are_found(clip: Path, seed: int) -> None:
    with pytest.raises(OutputError):
        verify(with_random_bytes(clip, seed), PROMISE)


def test_a_changed_byte_of_a_film_that_still_decodes_is_named(clip: Path) -> None:
    changed = patched(clip, lambda data: data.replace(b"Lavf", b"Lavg"))
    assert examine(changed).problems == ("its checksum does not match: the file has changed since it was written",)


def test_other_programs_read_a_video_with_a_checksum_without_complaint(clip: Path) -> None:
    with decoding(clip) as film:
        assert sum(1 for _ in film.packets(*film.tracks)) >= 9
        assert film.problems == ()


def test_a_decoder_line_is_noticed_every_time(clip: Path) -> None:
    """PyAV swallows a line that equals the last one it ever saw: the second look would find the film whole."""
    for _ in range(2):
        with decoding(clip) as film:
            av.logging.log(av.logging.ERROR, "h264", "the same words")
            assert film.problems == ("h264: the same words",)


def test_examining_leaves_the_log_of_libav_as_it_was(clip: Path) -> None:
    av.logging.set_level(av.logging.FATAL)
    try:
        examine(clip)
        assert (av.logging.get_level(), av.logging.get_skip_repeated()) == (av.logging.FATAL, True)
    finally:
        av.logging.set_level(None)


def test_two_videos_examined_at_once_keep_their_own_problems(foreign_clip: Path, clip: Path) -> None:
    broken = cut(foreign_clip, 0.7)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda path: bool(examine(path).problems), [clip, broken] * 6))
    assert found == [False, True] * 6


def test_the_decoders_log_is_read_for_one_video_at_a_time(clip: Path) -> None:
    entered = threading.Event()

    def read_too() -> tuple[str, ...]:
        with decoding(clip) as other:
            entered.set()
            return other.problems

    with ThreadPoolExecutor(1) as pool:
        with decoding(clip) as film:
            waiting = pool.submit(read_too)
            assert not entered.wait(0.2)
            av.logging.log(av.logging.ERROR, "h264", "this one is broken")
            assert len(film.problems) == 1
        assert waiting.result(60) == ()


def test_errors_of_an_encoder_elsewhere_are_not_blamed_on_the_video(clip: Path) -> None:
    with decoding(clip) as film, ThreadPoolExecutor(1) as pool:
        pool.submit(av.logging.log, av.logging.ERROR, "libx264", "broken elsewhere").result()
        assert not film.problems
        pool.submit(av.logging.log, av.logging.ERROR, "h264", "broken in a decoder's thread").result()
        assert film.problems == ("h264: broken in a decoder's thread",)


def test_a_reader_that_stops_in_the_middle_of_a_damaged_video_does_not_hang(foreign_clip: Path) -> None:
    for seed in range(8):
        with decoding(with_random_bytes(foreign_clip, seed)) as film:
            next(film.frames(), None)
    assert examine(foreign_clip).problems == ()


@pytest.mark.parametrize(("codec", "kind"), [("libx264", "h264"), ("libx265", "hevc"), ("mpeg2video", "mpeg2video")])
def test_a_stream_without_a_container_is_called_one(tmp_path: Path, codec: str, kind: str) -> None:
    film = a_foreign_clip(tmp_path / "a", 5, codec=codec, file_format=kind, fps=Fraction(25))
    (problem,) = examine(film).problems
    name = {"h264": "H.264", "hevc": "H.265", "mpeg2video": "MPEG"}[kind]
    assert problem.startswith(f"it cannot be opened: it looks like raw {name} video without a container")
