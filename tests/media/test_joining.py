"""Clips become one film: every frame once and in order, copied where that is possible, the same bytes each time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from clips import a_picture as a_picture_with
from clips import number_in
from numpy.typing import NDArray

from reelwright.errors import Cancelled, InvalidInputError
from reelwright.media.continuity import apply, clamped, match
from reelwright.media.decoding import decoding, to_rgb
from reelwright.media.joining import JoinOptions, Part, expected_frames, join, places
from reelwright.media.sheet import FilmSheet
from reelwright.media.video import Encoding, VideoWriter, examine
from reelwright.request import Size

SIZE = Size(128, 96)
Pixels = NDArray[np.uint8]


def coded(number: int) -> Pixels:
    """A picture with its number in blocks that no encoder can change."""
    return a_picture_with(number, SIZE)


def numbered(number: int, size: Size = SIZE) -> Pixels:
    """A picture whose brightness is its number."""
    return np.full((size.height, size.width, 3), 40 + number * 2, np.uint8)


def a_clip(path: Path, numbers: Sequence[int], *, size: Size = SIZE, crf: int | None = 1) -> Path:
    with VideoWriter(path, size, 16, Encoding(crf=crf), {}) as film:
        for number in numbers:
            film.write(numbered(number, size))
    return path


def a_coded_clip(path: Path, numbers: Sequence[int]) -> Path:
    with VideoWriter(path, SIZE, 16, Encoding(crf=10), {}) as film:
        for number in numbers:
            film.write(coded(number))
    return path


def read(path: Path) -> list[int]:
    """The numbers coded into a film's frames."""
    with decoding(path) as film:
        return [number_in(to_rgb(frame)) for frame in film.frames()]


def seen(path: Path) -> list[int]:
    """The numbers painted into a film's frames."""
    with decoding(path) as film:
        return [round((float(np.median(to_rgb(frame))) - 40) / 2) for frame in film.frames()]


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as film:
        return [bytes(packet) for packet in film.demux(video=0) if packet.size]


OPTIONS = JoinOptions(SIZE, 16.0, "Film")


@pytest.fixture
def chain(tmp_path: Path) -> list[Part]:
    """Three clips, each of which begins with the last frame of the one before."""
    clips = [a_coded_clip(tmp_path / f"{n}.mp4", range(n * 10, n * 10 + 11)) for n in range(3)]
    return [Part(clips[0]), Part(clips[1], chained=True), Part(clips[2], chained=True)]


def test_the_frame_that_is_there_twice_is_shown_once(chain: list[Part], tmp_path: Path) -> None:
    report = join(chain, tmp_path / "film.mp4", OPTIONS)
    assert read(tmp_path / "film.mp4") == list(range(31))
    assert report.num_frames == 31 == expected_frames([11, 11, 11], chain, OPTIONS)
    assert report.how == "copied without encoding again"


def test_copied_packets_are_bit_for_bit_those_of_the_clips(chain: list[Part], tmp_path: Path) -> None:
    join(chain, tmp_path / "film.mp4", OPTIONS)
    expected = [packet for part in chain[:2] for packet in packets(part.video)[:-1]] + packets(chain[2].video)
    assert packets(tmp_path / "film.mp4") == expected


def test_a_film_is_whole_regular_and_tagged(chain: list[Part], tmp_path: Path) -> None:
    join(chain, tmp_path / "film.mp4", OPTIONS)
    facts = examine(tmp_path / "film.mp4")
    assert (facts.problems, facts.num_frames, facts.fps, facts.constant_rate) == ((), 31, 16.0, True)
    assert facts.metadata["title"] == "Film"


@pytest.mark.parametrize("options", [OPTIONS, JoinOptions(SIZE, 16.0, overlap=4)])
def test_the_same_clips_give_the_same_bytes(chain: list[Part], tmp_path: Path, options: JoinOptions) -> None:
    for name in ("a.mp4", "b.mp4"):
        join(chain, tmp_path / name, options)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_cuts_keep_every_frame(tmp_path: Path) -> None:
    parts = [Part(a_coded_clip(tmp_path / "a.mp4", range(5))), Part(a_coded_clip(tmp_path / "b.mp4", range(50, 55)))]
    join(parts, tmp_path / "film.mp4", OPTIONS)
    assert read(tmp_path / "film.mp4") == [*range(5), *range(50, 55)]


def test_a_dissolve_lies_over_both_clips(tmp_path: Path) -> None:
    parts = [Part(a_clip(tmp_path / "a.mp4", [0] * 8)), Part(a_clip(tmp_path / "b.mp4", [100] * 8), dissolve=3)]
    report = join(parts, tmp_path / "film.mp4", OPTIONS)
    assert report.num_frames == 13
    assert seen(tmp_path / "film.mp4") == pytest.approx([0] * 5 + [25, 50, 75] + [100] * 5, abs=1)
    assert "dissolves" in report.how


REASONS: dict[str, dict[str, Any]] = {
    "size": {"size": Size(64, 48)},
    "coding": {"crf": 30},
}


@pytest.mark.parametrize("kind", REASONS)
def test_clips_of_another_kind_are_encoded_again_and_told(tmp_path: Path, kind: str) -> None:
    parts = [
        Part(a_clip(tmp_path / "a.mp4", range(5))),
        Part(a_clip(tmp_path / "b.mp4", range(5, 10), **REASONS[kind])),
    ]
    report = join(parts, tmp_path / "film.mp4", OPTIONS)
    assert "clip 2" in report.how
    assert len(seen(tmp_path / "film.mp4")) == 10
    facts = examine(tmp_path / "film.mp4")
    assert (facts.width, facts.height, facts.problems) == (128, 96, ())


def test_too_short_a_clip_for_its_transitions_is_refused(tmp_path: Path) -> None:
    parts = [Part(a_clip(tmp_path / "a.mp4", range(5))), Part(a_clip(tmp_path / "b.mp4", range(5)), dissolve=5)]
    with pytest.raises(InvalidInputError, match="too few"):
        join(parts, tmp_path / "film.mp4", OPTIONS)


@pytest.mark.parametrize("options", [OPTIONS, JoinOptions(SIZE, 16.0, overlap=4)])
def test_a_stop_leaves_no_film(chain: list[Part], tmp_path: Path, options: JoinOptions) -> None:
    calls = iter(range(1000))

    def check() -> None:
        if next(calls) == 12:
            raise Cancelled

    with pytest.raises(Cancelled):
        join(chain, tmp_path / "film.mp4", options, check=check)
    assert not (tmp_path / "film.mp4").exists()


def test_a_jump_at_a_chained_joint_is_told(tmp_path: Path) -> None:
    parts = [Part(a_clip(tmp_path / "a.mp4", range(9))), Part(a_clip(tmp_path / "b.mp4", range(60, 69)), chained=True)]
    report = join(parts, tmp_path / "film.mp4", OPTIONS)
    assert [joint.jump for joint in report.joints] == [True]
    assert "clip 2" in report.warnings[0]


# ------------------------------------------------------------------------------------------------------- colour


def a_picture(seed: int = 1) -> Pixels:
    noise = np.random.default_rng(seed).integers(30, 200, (12, 16, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, SIZE, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


DRIFT = np.array([[1.08, 0.02, 0, -6], [0, 0.95, 0.01, 4], [0.01, 0, 1.04, 3]])


def test_a_drift_of_colour_is_measured_and_undone() -> None:
    given = a_picture()
    found = match(given, apply(DRIFT, given))
    assert not found.is_identity
    assert np.abs(found.applied(apply(DRIFT, given)).astype(int) - given).mean() < 1.0


def test_other_content_is_not_taken_for_a_drift() -> None:
    found = match(a_picture(1), a_picture(2))
    assert found.is_identity
    assert found.note


def test_a_label_in_the_corner_does_not_spoil_the_fit() -> None:
    given, shown = a_picture(), apply(DRIFT, a_picture())
    shown[-12:, :40] = 0
    assert np.abs(match(given, shown).applied(shown)[:-16].astype(int) - given[:-16]).mean() < 2.0


def test_gains_beyond_any_drift_are_held_back() -> None:
    matrix = clamped(np.hstack([np.diag([2.0, 1.0, 1.0]), np.zeros((3, 1))]))
    assert matrix[0, 0] == pytest.approx(1.25)


def chained_with_drift(folder: Path, count: int) -> list[Part]:
    """Clips of one picture, each of which shifts the colours that it was given; pictures handed on are uncorrected."""
    parts, given = [], a_picture()
    for number in range(count):
        shown = given if number == 0 else apply(DRIFT, given)
        path, first = folder / f"{number}.mp4", folder / f"{number}.png"
        with VideoWriter(path, SIZE, 16, Encoding(crf=4), {}) as film:
            for _ in range(5):
                film.write(shown)
        cv2.imwrite(str(first), cv2.cvtColor(given, cv2.COLOR_RGB2BGR))
        parts.append(Part(path, first if number else None, chained=number > 0))
        given = shown
    return parts


def test_with_joint_corrections_a_chain_keeps_its_first_colours(tmp_path: Path) -> None:
    parts = chained_with_drift(tmp_path, 5)
    report = join(parts, tmp_path / "film.mp4", JoinOptions(SIZE, 16.0, color="joint"))
    with decoding(tmp_path / "film.mp4") as film:
        last = [to_rgb(frame) for frame in film.frames()][-1]
    assert np.abs(last.astype(int) - a_picture()).mean() < 6.0
    assert "colours are corrected" in report.how
    assert all(joint.colour and joint.colour["corrected"] for joint in report.joints)


def test_without_correction_the_same_chain_drifts_away(tmp_path: Path) -> None:
    join(chained_with_drift(tmp_path, 5), tmp_path / "film.mp4", JoinOptions(SIZE, 16.0, color="off"))
    with decoding(tmp_path / "film.mp4") as film:
        last = [to_rgb(frame) for frame in film.frames()][-1]
    assert np.abs(last.astype(int) - a_picture()).mean() > 8.0


# ---------------------------------------------------------------------------------------------------- finishing


def test_a_doubled_rate_has_a_frame_between_each_two(tmp_path: Path) -> None:
    parts = [Part(a_clip(tmp_path / "a.mp4", range(0, 20, 2)))]
    options = JoinOptions(SIZE, 16.0, double_fps=True)
    report = join(parts, tmp_path / "film.mp4", options)
    assert (report.fps, report.num_frames) == (32.0, 19)
    assert seen(tmp_path / "film.mp4") == pytest.approx(list(range(19)), abs=1)


def test_nothing_is_invented_across_a_cut(tmp_path: Path) -> None:
    parts = [Part(a_clip(tmp_path / "a.mp4", [0, 0])), Part(a_clip(tmp_path / "b.mp4", [100, 100]))]
    join(parts, tmp_path / "film.mp4", JoinOptions(SIZE, 16.0, double_fps=True))
    assert seen(tmp_path / "film.mp4") == pytest.approx([0, 0, 0, 0, 100, 100, 100], abs=1)


def test_enlargement_multiplies_both_sides(tmp_path: Path) -> None:
    report = join(
        [Part(a_clip(tmp_path / "a.mp4", range(3)))], tmp_path / "film.mp4", JoinOptions(SIZE, 16.0, upscale=2)
    )
    facts = examine(tmp_path / "film.mp4")
    assert (facts.width, facts.height) == (256, 192) == (report.width, report.height)


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
    chain: list[Part], tmp_path: Path, seconds: float
) -> None:
    join(chain, tmp_path / "silent.mp4", OPTIONS)
    tone = a_tone(tmp_path / "tone.wav", seconds)
    join(chain, tmp_path / "film.mp4", JoinOptions(SIZE, 16.0, "Film", audio=tone, audio_fade_s=0.5))
    assert packets(tmp_path / "film.mp4") == packets(tmp_path / "silent.mp4")
    with av.open(str(tmp_path / "film.mp4")) as film:
        sound = np.concatenate([frame.to_ndarray() for frame in film.decode(audio=0)], axis=1)
    assert abs(sound.shape[1] / 48_000 - 31 / 16) < 0.05
    assert np.abs(sound[:, -200:]).max() < 0.05
    assert examine(tmp_path / "film.mp4").problems == ()


@pytest.mark.parametrize("content", [b"", b"no sound at all"])
def test_what_is_no_sound_is_named_and_no_film_is_left(chain: list[Part], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp3").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"a\.mp3"):
        join(chain, tmp_path / "film.mp4", JoinOptions(SIZE, 16.0, audio=tmp_path / "a.mp3"))
    assert {path.suffix for path in tmp_path.iterdir() if "film" in path.name} == set()


def test_a_sheet_has_a_row_for_each_clip_in_one_pass_over_the_film(chain: list[Part], tmp_path: Path) -> None:
    begins = places([11, 11, 11], chain, OPTIONS)
    assert begins == (0, 10, 20)
    sheet = FilmSheet([(f"shot {n}", begin, 10) for n, begin in enumerate(begins)], columns=2)
    join(chain, tmp_path / "film.mp4", OPTIONS, look=sheet.look)
    sheet.save(tmp_path / "sheet.png")
    drawn = cv2.imread(str(tmp_path / "sheet.png"))
    assert drawn is not None
    assert drawn.shape[0] > 3 * 60
    assert [len(tiles) for tiles in sheet._tiles] == [2, 2, 2]


_MEASURE = """
import resource, sys
from pathlib import Path
from reelwright.media.joining import JoinOptions, Part, join
from reelwright.request import Size
parts = [Part(Path(sys.argv[1])) for _ in range(int(sys.argv[3]))]
join(parts, Path(sys.argv[2]), JoinOptions(Size(128, 96), 16.0, overlap=2, upscale=int(sys.argv[4])))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.parametrize("upscale", [1, 2])
def test_a_long_film_needs_no_more_memory_than_a_short_one(tmp_path: Path, upscale: int) -> None:
    clip = a_clip(tmp_path / "a.mp4", [n % 100 for n in range(100)])

    def peak(count: int) -> int:
        argv = [sys.executable, "-c", _MEASURE, str(clip), str(tmp_path / f"{count}.mp4"), str(count), str(upscale)]
        return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)

    assert peak(20) - peak(2) < 25
