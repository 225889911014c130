"""What may be done to a joined film: another rate, another size, sound."""

from __future__ import annotations

import socket
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from reelwright.core.errors import InvalidInputError
from reelwright.films.editing.reencode import doubled
from reelwright.films.editing.sound import check_sound, with_sound
from reelwright.films.editing.timing import JoinOptions, JoinPart
from reelwright.media.video import examine
from reelwright.media.writer import Encoding, VideoWriter
from tests.media.parts import OPTIONS, SIZE, Pixels, a_chain, a_coded_clip, a_grey_clip, frames, join, packets, seen

PHOTOS = Path(__file__).parents[1] / "photos"


@pytest.fixture
def chain(tmp_path: Path) -> list[JoinPart]:
    return a_chain(tmp_path)


def test_a_doubled_rate_has_a_frame_between_each_two(tmp_path: Path) -> None:
    parts = [JoinPart(a_grey_clip(tmp_path / "a.mp4", range(0, 20, 2)))]
    options = JoinOptions(SIZE, 16.0, double_fps=True)
    report = join(parts, tmp_path / "film.mp4", options)
    assert (report.fps, report.num_frames) == (32.0, 19)
    assert seen(tmp_path / "film.mp4") == pytest.approx(list(range(19)), abs=1)


def test_nothing_is_invented_across_a_cut(tmp_path: Path) -> None:
    parts = [JoinPart(a_grey_clip(tmp_path / "a.mp4", [0, 0])), JoinPart(a_grey_clip(tmp_path / "b.mp4", [100, 100]))]
    join(parts, tmp_path / "film.mp4", JoinOptions(SIZE, 16.0, double_fps=True))
    assert seen(tmp_path / "film.mp4") == pytest.approx([0, 0, 0, 0, 100, 100, 100], abs=1)


def a_picture(name: str, brightness: float) -> Pixels:
    picture = cv2.imread(str(PHOTOS / name), cv2.IMREAD_COLOR_RGB)
    assert picture is not None
    return np.asarray(cv2.resize(picture, SIZE, interpolation=cv2.INTER_AREA) * brightness, dtype=np.uint8)


def test_nothing_is_invented_across_a_cut_between_dark_pictures(tmp_path: Path) -> None:
    """Their difference is under any limit that lets motion pass; but the film knows where it cuts."""
    clips = []
    for name in ("rocket.jpg", "coffee_first.jpg"):
        clips.append(tmp_path / f"{name}.mp4")
        with VideoWriter(clips[-1], SIZE, 16, Encoding(crf=4), {}) as film:
            film.write(a_picture(name, 0.25))
            film.write(a_picture(name, 0.25))
    join([JoinPart(clip) for clip in clips], tmp_path / "film.mp4", JoinOptions(SIZE, 16.0, double_fps=True))
    shown = [frame.astype(int) for frame in frames(tmp_path / "film.mp4")]
    assert len(shown) == 7
    assert np.abs(shown[3] - shown[2]).mean() < 1 < np.abs(shown[3] - shown[4]).mean()


def test_what_moves_is_half_way_in_between(tmp_path: Path) -> None:
    wide = cv2.resize(a_picture("rocket.jpg", 1.0), (512, 288), interpolation=cv2.INTER_CUBIC)
    moving = [np.ascontiguousarray(wide[40:200, 60 + 8 * n : 316 + 8 * n]) for n in range(3)]
    half = np.ascontiguousarray(wide[40:200, 64:320])
    made = list(doubled(iter(moving)))
    inside = (slice(16, -16), slice(16, -16))
    assert [np.array_equal(made[2 * n], moving[n]) for n in range(3)] == [True] * 3
    error = np.abs(made[1][inside].astype(int) - half[inside]).mean()
    blend = np.abs((moving[0][inside].astype(int) + moving[1][inside]) / 2 - half[inside]).mean()
    assert error < blend / 2


@pytest.mark.parametrize(("one", "other", "between"), [(40, 60, 50), (40, 80, 40)], ids=["a change", "a cut"])
def test_a_great_difference_inside_a_clip_is_a_cut_and_a_small_one_is_not(one: int, other: int, between: int) -> None:
    made = list(doubled(np.full((32, 32, 3), grey, np.uint8) for grey in (one, other)))
    assert int(np.median(made[1])) == between


@pytest.mark.parametrize("count", [0, 1])
def test_there_is_nothing_between_less_than_two_frames(count: int) -> None:
    assert len(list(doubled(iter([np.zeros((16, 16, 3), np.uint8)] * count)))) == count


def test_enlargement_multiplies_both_sides(tmp_path: Path) -> None:
    report = join(
        [JoinPart(a_grey_clip(tmp_path / "a.mp4", range(3)))], tmp_path / "film.mp4", JoinOptions(SIZE, 16.0, upscale=2)
    )
    facts = examine(tmp_path / "film.mp4")
    assert (facts.width, facts.height) == (256, 192) == (report.width, report.height)


def test_enlargement_keeps_the_picture(tmp_path: Path) -> None:
    clip = a_coded_clip(tmp_path / "a.mp4", range(3))
    join([JoinPart(clip)], tmp_path / "film.mp4", JoinOptions(SIZE, 16.0, upscale=2))
    larger = frames(clip)[0].repeat(2, 0).repeat(2, 1)
    assert np.abs(frames(tmp_path / "film.mp4")[0].astype(int) - larger).mean() < 6


def a_tone(path: Path, seconds: float) -> Path:
    with av.open(str(path), "w") as target:
        stream = target.add_stream("pcm_s16le", rate=22_050, layout="mono")
        wave = (np.sin(np.arange(int(22_050 * seconds)) * 0.1) * 20_000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
        frame.sample_rate = 22_050
        target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("seconds", [0.5, 5.0])
def test_sound_is_as_long_as_the_film_and_the_pictures_are_untouched(
    chain: list[JoinPart], tmp_path: Path, seconds: float
) -> None:
    join(chain, tmp_path / "silent.mp4", OPTIONS)
    tone = a_tone(tmp_path / "tone.wav", seconds)
    join(chain, tmp_path / "film.mp4", JoinOptions(SIZE, 16.0, "Film", audio=tone, audio_fade_s=0.5))
    assert packets(tmp_path / "film.mp4") == packets(tmp_path / "silent.mp4")
    with av.open(str(tmp_path / "film.mp4")) as film:
        sound = np.concatenate([frame.to_ndarray() for frame in film.decode(audio=0)], axis=1)
    assert 0 <= sound.shape[1] - 48_000 * 31 / 16 < 1024  # the last AAC frame may be fuller
    assert np.abs(sound[:, -200:]).max() < 0.05
    assert examine(tmp_path / "film.mp4").problems == ()


@pytest.mark.parametrize("content", [b"", b"no sound at all"])
def test_what_is_no_sound_is_named_and_no_film_is_left(chain: list[JoinPart], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp3").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"a\.mp3"):
        join(chain, tmp_path / "film.mp4", JoinOptions(SIZE, 16.0, audio=tmp_path / "a.mp3"))
    assert {path.suffix for path in tmp_path.iterdir() if "film" in path.name} == set()


def test_sound_goes_under_an_av1_film(tmp_path: Path) -> None:
    film = a_coded_clip(tmp_path / "film.mp4", range(9), Encoding(codec="av1"))
    before = packets(film)
    with_sound(film, a_tone(tmp_path / "tone.wav", 1.0), 0.0)
    assert packets(film) == before
    assert examine(film).problems == ()


def test_sound_begins_at_its_time(tmp_path: Path) -> None:
    """A click at half a second stays there: players read the encoder's delay and remove it."""
    film, click = a_grey_clip(tmp_path / "film.mp4", range(32)), np.zeros((1, 96_000), np.int16)
    click[0, 24_000:24_400] = 20_000
    with av.open(str(tmp_path / "click.wav"), "w") as target:
        stream = target.add_stream("pcm_s16le", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(click, format="s16", layout="mono")
        frame.sample_rate = 48_000
        target.mux(stream.encode(frame))
    with_sound(film, tmp_path / "click.wav", 0.0)
    with av.open(str(film)) as opened:
        heard = [(frame.time, frame.to_ndarray()) for frame in opened.decode(audio=0)]
    samples = np.concatenate([part for _, part in heard], axis=1)[0]
    assert heard[0][0] == 0.0
    assert int(np.argmax(np.abs(samples) > 0.3)) == pytest.approx(24_000, abs=48)


def test_sound_is_checked_before_it_is_needed(tmp_path: Path) -> None:
    check_sound(a_tone(tmp_path / "tone.wav", 0.1))
    (tmp_path / "text.mp3").write_text("no sound")
    for wrong in ("text.mp3", "missing.mp3", "."):
        with pytest.raises(InvalidInputError):
            check_sound(tmp_path / wrong)


def test_a_film_without_sound_is_no_audio_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no sound"):
        check_sound(a_grey_clip(tmp_path / "film.mp4", range(2)))


def test_a_playlist_named_as_music_reaches_nobody(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        text = f"ffconcat version 1.0\nfile http://127.0.0.1:{port}/a.wav\noption safe 0\n"
        (tmp_path / "music.mp3").write_text(text)
        with pytest.raises(InvalidInputError):
            check_sound(tmp_path / "music.mp3")
        with pytest.raises(TimeoutError):
            server.accept()
