"""Sound under a film: every sample at its time, as loud as it was, whatever the file holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from reelwright.core.errors import InvalidInputError
from reelwright.films.editing.sound import RATE, check_sound, with_sound
from tests.conftest import a_photo
from tests.media.parts import a_grey_clip

Samples = NDArray[np.float32]
FILM_S = 4.0


def tone(seconds: float, rate: int = RATE, level: float = 0.5) -> Samples:
    """A tone of 440 Hz."""
    return (level * np.sin(np.arange(round(seconds * rate)) * 2 * np.pi * 440 / rate)).astype(np.float32)


def a_file(
    path: Path, *pieces: tuple[float, Samples], rate: int = RATE, codec: str = "pcm_f32le", channels: int = 1
) -> Path:
    """Pieces of sound, each at its second."""
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[channels]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, layout=layout)
        for at_s, samples in pieces:
            kind = {"pcm_u8": "u8", "pcm_s16le": "s16", "mp2": "s16"}.get(
                codec, "flt" if codec == "pcm_f32le" else "fltp"
            )
            data = np.repeat(samples[None], channels, axis=0)
            if kind == "u8":
                data = ((data + 1) * 127.5).astype(np.uint8)
            elif kind == "s16":
                data = (data * 32767).astype(np.int16)
            packed = data if kind == "fltp" else np.ascontiguousarray(data.T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, format=kind, layout=layout)
            frame.sample_rate, frame.pts = rate, round(at_s * rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def heard(tmp_path: Path, audio: Path, fade_s: float = 0.0, seconds: float = FILM_S) -> tuple[Samples, tuple[str, ...]]:
    """The film's sound, decoded, and what was said of it."""
    film = a_grey_clip(tmp_path / "film.mp4", range(round(seconds * 16)))
    notes = with_sound(film, audio, fade_s)
    with av.open(str(film)) as opened:
        parts = [frame.to_ndarray() for frame in opened.decode(audio=0)]
    return np.concatenate(parts, axis=1), notes


def loudness(samples: Samples, start_s: float, end_s: float) -> float:
    """RMS of both channels together."""
    part = samples[:, round(start_s * RATE) : round(end_s * RATE)]
    return float(np.sqrt((part.astype(np.float64) ** 2).mean()))


FULL = 0.5 / np.sqrt(2)


def loud_seconds(samples: Samples) -> Sequence[bool]:
    """For each half second, whether it sounds."""
    return [loudness(samples, place / 2 + 0.1, place / 2 + 0.4) > FULL / 4 for place in range(round(FILM_S * 2))]


@pytest.mark.parametrize("channels", [1, 2])
def test_one_channel_is_as_loud_as_it_was_in_both(tmp_path: Path, channels: int) -> None:
    samples, notes = heard(tmp_path, a_file(tmp_path / "a.wav", (0, tone(4)), channels=channels))
    assert loudness(samples[:1], 1, 3) == pytest.approx(FULL, rel=0.05)
    assert loudness(samples[1:], 1, 3) == pytest.approx(FULL, rel=0.05)
    assert notes == ()


@pytest.mark.parametrize(
    ("pieces", "sounds"),
    [
        ([(0, 1)], [1, 1, 0, 0, 0, 0, 0, 0]),
        ([(1, 1)], [0, 0, 1, 1, 0, 0, 0, 0]),
        ([(0, 1), (2, 1)], [1, 1, 0, 0, 1, 1, 0, 0]),
        ([(1, 0.5), (3, 0.5)], [0, 0, 1, 0, 0, 0, 1, 0]),
    ],
    ids=["from the start", "late", "gap", "late with a gap"],
)
def test_late_and_missing_sound_becomes_silence(
    tmp_path: Path, pieces: list[tuple[float, float]], sounds: list[int]
) -> None:
    audio = a_file(tmp_path / "a.mka", *((at, tone(length)) for at, length in pieces))
    samples, _ = heard(tmp_path, audio)
    assert loud_seconds(samples) == [bool(item) for item in sounds]


def test_where_the_clock_of_a_file_begins_anywhere_its_sound_begins_at_once(tmp_path: Path) -> None:
    samples, _ = heard(tmp_path, a_file(tmp_path / "a.ts", (1.5, tone(2)), codec="mp2", channels=2))
    assert loud_seconds(samples) == [True] * 4 + [False] * 4


def test_an_overlap_shifts_nothing_that_follows(tmp_path: Path) -> None:
    audio = a_file(tmp_path / "a.mka", (0, tone(1)), (0.5, tone(1)), (3, tone(0.5)))
    samples, _ = heard(tmp_path, audio)
    assert loud_seconds(samples) == [True, True, True, False, False, False, True, False]


def test_junk_between_frames_is_skipped_and_said(tmp_path: Path) -> None:
    audio = a_file(tmp_path / "a.mp3", (0, tone(4)), codec="libmp3lame")
    data = audio.read_bytes()
    junk = np.random.default_rng(1).integers(0, 256, 3000, dtype=np.uint8).tobytes()
    audio.write_bytes(data[: len(data) // 2] + junk + data[len(data) // 2 :])
    check_sound(audio)
    samples, notes = heard(tmp_path, audio)
    assert loudness(samples, 0.5, 1.5) == pytest.approx(FULL, rel=0.1)
    assert loudness(samples, 2.5, 3.5) == pytest.approx(FULL, rel=0.1)
    assert all("a.mp3 is damaged" in note for note in notes)


def test_a_file_that_says_how_long_it_is_is_called_cut_off(tmp_path: Path) -> None:
    audio = a_file(tmp_path / "a.wav", (0, tone(4)))
    audio.write_bytes(audio.read_bytes()[: audio.stat().st_size // 2])
    _, notes = heard(tmp_path, audio)
    assert notes == ("a.wav is cut off: its sound ends after 2.00 of 4.00 s, and silence follows",)
    assert heard(tmp_path, audio, seconds=1.5)[1] == ()


@pytest.mark.parametrize(("level", "told"), [(0.9, False), (1.2, False), (3.0, True)])
def test_sound_beyond_full_scale_is_reported(tmp_path: Path, level: float, told: bool) -> None:
    _, notes = heard(tmp_path, a_file(tmp_path / "a.wav", (0, tone(1, level=level))), seconds=1)
    loud = ("a.wav is up to 10 dB louder than full scale in stereo, and distorted there: lower its volume",)
    assert notes == (loud if told else ())


def test_a_piece_that_cannot_be_decoded_is_skipped_and_said(tmp_path: Path) -> None:
    audio = a_file(tmp_path / "a.mka", (0, tone(4)), codec="flac", channels=2)
    data = bytearray(audio.read_bytes())
    data[len(data) // 2 - 300 : len(data) // 2 + 300] = np.random.default_rng(2).bytes(600)
    audio.write_bytes(data)
    samples, notes = heard(tmp_path, audio)
    assert loudness(samples, 2.9, 3.7) == pytest.approx(FULL, rel=0.1)
    assert ["a.mka is damaged" in note for note in notes] == [True]


def test_a_file_that_is_cut_off_sounds_as_far_as_it_goes(tmp_path: Path) -> None:
    audio = a_file(tmp_path / "a.mp3", (0, tone(4)), codec="libmp3lame")
    audio.write_bytes(audio.read_bytes()[: audio.stat().st_size // 2 + 100])
    samples, _ = heard(tmp_path, audio)
    assert loudness(samples, 0.5, 1.5) == pytest.approx(FULL, rel=0.1)
    assert loudness(samples, 2.5, 3.5) < FULL / 10


@pytest.mark.parametrize(
    ("codec", "name", "rate", "channels"),
    [
        ("pcm_u8", "a.wav", 8000, 1),
        ("pcm_s16le", "a.wav", 44_100, 2),
        ("pcm_f32le", "a.wav", 96_000, 2),
        ("aac", "a.m4a", 44_100, 1),
        ("pcm_f32le", "a.mka", 48_000, 6),
        ("pcm_f32le", "a.mka", 48_000, 8),
    ],
)
def test_any_rate_and_any_number_of_channels_sounds_in_time(
    tmp_path: Path, codec: str, name: str, rate: int, channels: int
) -> None:
    sound = tone(2, rate, level=0.5 if channels < 3 else 0.3)  # all channels together are louder than one
    audio = a_file(tmp_path / name, (0, sound), rate=rate, codec=codec, channels=channels)
    samples, notes = heard(tmp_path, audio)
    assert loud_seconds(samples) == [True] * 4 + [False] * 4
    assert loudness(samples, 0.5, 1.5) > FULL / 3
    assert notes == ()


def test_samples_that_are_no_numbers_are_silent(tmp_path: Path) -> None:
    broken = tone(4)
    broken[RATE : 2 * RATE] = np.nan
    samples, _ = heard(tmp_path, a_file(tmp_path / "a.wav", (0, broken)))
    assert np.isfinite(samples).all()
    assert loudness(samples, 1.2, 1.8) < FULL / 10
    assert loudness(samples, 2.5, 3.5) == pytest.approx(FULL, rel=0.1)


def test_a_fade_longer_than_the_film_takes_the_whole_film_and_says_so(tmp_path: Path) -> None:
    samples, notes = heard(tmp_path, a_file(tmp_path / "a.wav", (0, tone(4))), fade_s=60.0)
    assert loudness(samples, 0.0, 0.2) > FULL * 0.9
    assert loudness(samples, 1.9, 2.1) == pytest.approx(FULL / 2, rel=0.1)
    assert loudness(samples, 3.8, 4.0) < FULL * 0.1
    assert notes == ("the fade of 60 s is longer than the film: it takes the whole film, 4.00 s",)


def test_what_is_no_sound_is_refused_in_one_sentence_that_says_what_it_is(tmp_path: Path) -> None:
    a_photo(tmp_path / "picture.png")
    (tmp_path / "empty.mp3").write_bytes(b"")
    (tmp_path / "text.mp3").write_text("la la la\n" * 50)
    (tmp_path / "folder.mp3").mkdir()
    whole = a_file(tmp_path / "whole.m4a", (0, tone(1)), codec="aac").read_bytes()
    (tmp_path / "cut.m4a").write_bytes(whole[: len(whole) // 2])
    silent = a_grey_clip(tmp_path / "silent.mp4", range(3))
    wanted = {
        "picture.png": "no audio stream",
        "empty.mp3": "is empty",
        "text.mp3": "cannot be read as sound",
        "folder.mp3": "it is a folder",
        silent.name: "no audio stream",
        "missing.mp3": "No such file",
        "cut.m4a": "it is cut off",
    }
    for name, text in wanted.items():
        with pytest.raises(InvalidInputError) as caught:
            check_sound(tmp_path / name)
        assert name in caught.value.message
        assert text in caught.value.message
        assert "\n" not in caught.value.message
