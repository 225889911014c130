"""Clips become one film: every frame once and in order, copied where that is possible, the same bytes each time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from reelwright.core.errors import BackendUnavailableError, Cancelled, Failure, InvalidInputError, OutputError
from reelwright.core.request import Size
from reelwright.films.editing.artifact_cache import ArtifactCache
from reelwright.films.editing.timing import JoinOptions, JoinPart, expected_frames, length_in_film, places
from reelwright.media.sheet import film_sheet
from reelwright.media.video import examine
from reelwright.media.writer import Encoding
from tests.media.clips import a_foreign_clip, cut, file_size_limit, number_in
from tests.media.parts import OPTIONS, SIZE, a_chain, a_coded_clip, a_grey_clip, frames, join, packets, read, save, seen


@pytest.fixture
def chain(tmp_path: Path) -> list[JoinPart]:
    return a_chain(tmp_path)


def test_the_frame_that_occurs_twice_is_shown_once(chain: list[JoinPart], tmp_path: Path) -> None:
    report = join(chain, tmp_path / "film.mp4", OPTIONS)
    assert read(tmp_path / "film.mp4") == list(range(31))
    assert report.num_frames == 31 == expected_frames([11, 11, 11], chain, OPTIONS)
    assert report.how == "copied without encoding again"


def test_copied_packets_are_bit_for_bit_those_of_the_clips(chain: list[JoinPart], tmp_path: Path) -> None:
    join(chain, tmp_path / "film.mp4", OPTIONS)
    expected = [packet for part in chain[:2] for packet in packets(part.video)[:-1]] + packets(chain[2].video)
    assert packets(tmp_path / "film.mp4") == expected


def test_a_film_is_whole_regular_and_tagged(chain: list[JoinPart], tmp_path: Path) -> None:
    join(chain, tmp_path / "film.mp4", OPTIONS)
    facts = examine(tmp_path / "film.mp4")
    assert (facts.problems, facts.num_frames, facts.fps, facts.constant_rate) == ((), 31, 16.0, True)
    assert facts.metadata["title"] == "Film"


@pytest.mark.parametrize("options", [OPTIONS, JoinOptions(SIZE, 16.0, overlap=4)])
def test_the_same_clips_give_the_same_bytes(chain: list[JoinPart], tmp_path: Path, options: JoinOptions) -> None:
    for name in ("a.mp4", "b.mp4"):
        join(chain, tmp_path / name, options)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_cuts_keep_every_frame(tmp_path: Path) -> None:
    parts = [
        JoinPart(a_coded_clip(tmp_path / "a.mp4", range(5))),
        JoinPart(a_coded_clip(tmp_path / "b.mp4", range(50, 55))),
    ]
    join(parts, tmp_path / "film.mp4", OPTIONS)
    assert read(tmp_path / "film.mp4") == [*range(5), *range(50, 55)]


def test_a_dissolve_lies_over_both_clips(tmp_path: Path) -> None:
    parts = [
        JoinPart(a_grey_clip(tmp_path / "a.mp4", [0] * 8)),
        JoinPart(a_grey_clip(tmp_path / "b.mp4", [100] * 8), dissolve=3),
    ]
    report = join(parts, tmp_path / "film.mp4", OPTIONS)
    assert report.num_frames == 13
    assert seen(tmp_path / "film.mp4") == pytest.approx([0] * 5 + [25, 50, 75] + [100] * 5, abs=1)
    assert "dissolves" in report.how


def test_a_dissolve_keeps_the_numbers_around_it(tmp_path: Path) -> None:
    parts = [
        JoinPart(a_coded_clip(tmp_path / "a.mp4", range(9))),
        JoinPart(a_coded_clip(tmp_path / "b.mp4", range(9, 18)), dissolve=4),
    ]
    join(parts, tmp_path / "film.mp4", OPTIONS)
    shown = read(tmp_path / "film.mp4")
    assert (shown[:5], shown[9:]) == (list(range(5)), list(range(13, 18)))
    assert len(shown) == 14


def test_a_crossfade_at_a_chained_joint_is_as_long_as_requested(chain: list[JoinPart], tmp_path: Path) -> None:
    report = join(chain, tmp_path / "film.mp4", JoinOptions(SIZE, 16.0, overlap=3))
    shown = read(tmp_path / "film.mp4")
    assert (shown[:8], shown[11:16], shown[19:]) == (list(range(8)), list(range(13, 18)), list(range(23, 31)))
    assert report.num_frames == len(shown) == 27


def test_clips_of_two_frames_can_be_chained(tmp_path: Path) -> None:
    parts = [JoinPart(a_coded_clip(tmp_path / f"{n}.mp4", [n, n + 1]), chained=n > 0) for n in range(4)]
    join(parts, tmp_path / "film.mp4", OPTIONS)
    assert read(tmp_path / "film.mp4") == [0, 1, 2, 3, 4]


def test_av1_clips_are_copied(tmp_path: Path) -> None:
    av1 = Encoding(codec="av1")
    parts = [
        JoinPart(a_coded_clip(tmp_path / f"{n}.mp4", range(9 * n, 9 * n + 9), av1), chained=n > 0) for n in range(2)
    ]
    report = join(parts, tmp_path / "film.mp4", OPTIONS)
    assert report.how == "copied without encoding again"
    assert read(tmp_path / "film.mp4") == [*range(8), *range(9, 18)]
    assert examine(tmp_path / "film.mp4").problems == ()


@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "3", "preset": "medium"}], ids=["plain", "B-frames"])
def test_clips_of_other_encoders_keep_every_frame(tmp_path: Path, options: dict[str, str]) -> None:
    clips = [a_foreign_clip(tmp_path / f"{n}.mp4", 9, size=SIZE, options=options) for n in range(2)]
    report = join([JoinPart(clips[0]), JoinPart(clips[1], chained=True)], tmp_path / "film.mp4", OPTIONS)
    assert ("copied" in report.how) == (options == {"bf": "0"})
    assert read(tmp_path / "film.mp4") == [*range(8), *range(9)]
    assert examine(tmp_path / "film.mp4").problems == ()


def test_clips_whose_tags_alone_differ_are_not_copied_together(tmp_path: Path) -> None:
    clips = [a_coded_clip(tmp_path / "ours.mp4", range(9)), a_foreign_clip(tmp_path / "other.mp4", 9, size=SIZE)]
    report = join([JoinPart(clip) for clip in clips], tmp_path / "film.mp4", OPTIONS)
    assert "clip 2" in report.how
    assert examine(tmp_path / "film.mp4").colour["space"] == "bt709"


@pytest.mark.parametrize(
    ("fps", "numbers"), [(32.0, [1, 3, 5, 7]), (8.0, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7])]
)
def test_a_clip_of_another_rate_takes_the_time_it_takes(tmp_path: Path, fps: float, numbers: list[int]) -> None:
    parts = [
        JoinPart(a_coded_clip(tmp_path / "a.mp4", range(20, 26))),
        JoinPart(a_coded_clip(tmp_path / "b.mp4", range(8), fps=fps)),
    ]
    report = join(parts, tmp_path / "film.mp4", OPTIONS)
    assert read(tmp_path / "film.mp4") == [*range(20, 26), *numbers]
    assert report.num_frames == 6 + length_in_film(8, fps, OPTIONS)
    assert f"clip 2 has {fps:g} frames a second" in report.warnings[0]


def test_clips_that_all_have_another_rate_than_the_film_are_not_copied(tmp_path: Path) -> None:
    report = join([JoinPart(a_grey_clip(tmp_path / "a.mp4", range(8)))], tmp_path / "film.mp4", JoinOptions(SIZE, 24.0))
    assert "frame rate" in report.how
    assert examine(tmp_path / "film.mp4").fps == 24.0


@pytest.mark.parametrize("fps", [24.0, 24000 / 1001, 16.0, 25, 8.5])
@pytest.mark.parametrize("count", [1, 2, 81])
def test_the_frames_of_a_clip_of_another_rate_are_counted_before_they_are_made(
    tmp_path: Path, fps: float, count: int
) -> None:
    clip = a_grey_clip(tmp_path / "a.mp4", [n % 100 for n in range(count)], fps=fps)
    report = join([JoinPart(clip)], tmp_path / "film.mp4", OPTIONS)
    assert len(seen(tmp_path / "film.mp4")) == report.num_frames == length_in_film(count, fps, OPTIONS)


@pytest.mark.parametrize(
    ("count", "fps", "film_fps", "frames"),
    [
        (2000, 24000 / 1001, 24.0, 2000),  # one rate in two notations
        (100, 25.0, 24.0, 96),
        (23, 48.0, 16.0, 8),  # 7.67, rounded
        (1, 60.0, 16.0, 1),  # no clip vanishes
        (3, 60.0, 16.0, 1),
    ],
)
def test_a_clip_takes_its_time_in_the_film_and_at_least_a_frame(
    count: int, fps: float, film_fps: float, frames: int
) -> None:
    assert length_in_film(count, fps, JoinOptions(SIZE, film_fps)) == frames


def test_a_clip_of_another_shape_lies_on_black_whatever_its_colours(tmp_path: Path) -> None:
    given = save(np.full((96, 48, 3), 80, np.uint8), tmp_path / "given.png")
    parts = [
        JoinPart(a_grey_clip(tmp_path / "a.mp4", [0] * 3)),
        JoinPart(a_grey_clip(tmp_path / "b.mp4", [30] * 3, size=Size(48, 96)), first_picture=given),
    ]
    report = join(parts, tmp_path / "film.mp4", OPTIONS)
    last = frames(tmp_path / "film.mp4")[-1]
    assert last[:, :36].max() <= 2
    assert last[:, 42:86].mean() == pytest.approx(80, abs=2)
    assert "clip 2 is 48x96: it is fitted into 128x96 on black" in report.warnings


REASONS: dict[str, Callable[[Path], Path]] = {
    "size": lambda path: a_grey_clip(path, range(5, 10), size=Size(64, 48)),
    "coding": lambda path: a_coded_clip(path, range(5, 10), Encoding(codec="av1")),
}


def test_clips_of_other_quality_are_copied_together(tmp_path: Path) -> None:
    parts = [
        JoinPart(a_coded_clip(tmp_path / f"{n}.mp4", range(9 * n, 9 * n + 9), Encoding(crf=10 + 9 * n)))
        for n in range(3)
    ]
    assert join(parts, tmp_path / "film.mp4", OPTIONS).how == "copied without encoding again"
    assert read(tmp_path / "film.mp4") == list(range(27))
    assert examine(tmp_path / "film.mp4").problems == ()


@pytest.mark.parametrize("kind", REASONS)
def test_clips_of_another_kind_are_encoded_again_and_reported(tmp_path: Path, kind: str) -> None:
    parts = [
        JoinPart(a_grey_clip(tmp_path / "a.mp4", range(5))),
        JoinPart(REASONS[kind](tmp_path / "b.mp4")),
    ]
    report = join(parts, tmp_path / "film.mp4", OPTIONS)
    assert "clip 2" in report.how
    assert len(seen(tmp_path / "film.mp4")) == 10
    facts = examine(tmp_path / "film.mp4")
    assert (facts.width, facts.height, facts.problems) == (128, 96, ())


def test_too_short_a_clip_for_its_transitions_is_refused(tmp_path: Path) -> None:
    parts = [
        JoinPart(a_grey_clip(tmp_path / "a.mp4", range(5))),
        JoinPart(a_grey_clip(tmp_path / "b.mp4", range(5)), dissolve=5),
    ]
    with pytest.raises(InvalidInputError, match="too few"):
        join(parts, tmp_path / "film.mp4", OPTIONS)


@pytest.mark.parametrize("options", [OPTIONS, JoinOptions(SIZE, 16.0, overlap=4)])
def test_a_stop_leaves_no_film(chain: list[JoinPart], tmp_path: Path, options: JoinOptions) -> None:
    calls = iter(range(1000))

    def check() -> None:
        if next(calls) == 12:
            raise Cancelled

    with pytest.raises(Cancelled):
        join(chain, tmp_path / "film.mp4", options, check=check)
    assert not (tmp_path / "film.mp4").exists()


def test_no_clip_at_all_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no clip"):
        join([], tmp_path / "film.mp4", OPTIONS)


def test_a_clip_is_never_written_over(chain: list[JoinPart], tmp_path: Path) -> None:
    before = chain[1].video.read_bytes()
    with pytest.raises(ValueError, match="overwritten"):
        join(chain, chain[1].video, OPTIONS)
    assert chain[1].video.read_bytes() == before


@pytest.mark.parametrize("overlap", [0, 3], ids=["copied", "encoded"])
def test_a_damaged_clip_is_named_and_no_film_is_left(chain: list[JoinPart], tmp_path: Path, overlap: int) -> None:
    broken = cut(chain[1].video, 0.7)
    with pytest.raises(OutputError, match=broken.name):
        join(
            [chain[0], JoinPart(broken, chained=True)], tmp_path / "film.mp4", JoinOptions(SIZE, 16.0, overlap=overlap)
        )
    assert not (tmp_path / "film.mp4").exists()


@pytest.mark.parametrize("overlap", [0, 3], ids=["copied", "encoded"])
def test_d01_a_full_disk_is_reported_and_no_film_is_left(chain: list[JoinPart], tmp_path: Path, overlap: int) -> None:
    with file_size_limit(20_000), pytest.raises(BackendUnavailableError) as caught:
        join(chain, tmp_path / "film.mp4", JoinOptions(SIZE, 16.0, overlap=overlap))
    assert caught.value.failure is Failure.DISK
    assert not (tmp_path / "film.mp4").exists()


def test_a_jump_between_quiet_clips_is_seen_although_another_is_lively(tmp_path: Path) -> None:
    parts = [
        JoinPart(a_grey_clip(tmp_path / "a.mp4", [0] * 12)),
        JoinPart(a_grey_clip(tmp_path / "b.mp4", [2] * 12), chained=True),
        JoinPart(a_grey_clip(tmp_path / "c.mp4", [90, 10] * 20)),
    ]
    assert [joint.jump for joint in join(parts, tmp_path / "film.mp4", OPTIONS).joints] == [True, False]


def test_a_lively_chained_joint_is_no_jump_although_the_rest_is_still(tmp_path: Path) -> None:
    parts = [
        JoinPart(a_grey_clip(tmp_path / "a.mp4", [0] * 60)),
        JoinPart(a_grey_clip(tmp_path / "b.mp4", range(0, 60, 5))),
        JoinPart(a_grey_clip(tmp_path / "c.mp4", range(60, 110, 5)), chained=True),
    ]
    assert not any(joint.jump for joint in join(parts, tmp_path / "film.mp4", OPTIONS).joints)


def test_a_jump_within_a_crossfade_is_seen(tmp_path: Path) -> None:
    parts = [
        JoinPart(a_grey_clip(tmp_path / "a.mp4", [0] * 12)),
        JoinPart(a_grey_clip(tmp_path / "b.mp4", [0] + [60] * 11), chained=True),
    ]
    (joint,) = join(parts, tmp_path / "film.mp4", JoinOptions(SIZE, 16.0, overlap=4)).joints
    assert joint.jump


def test_a_jump_at_a_chained_joint_is_reported(tmp_path: Path) -> None:
    parts = [
        JoinPart(a_grey_clip(tmp_path / "a.mp4", range(9))),
        JoinPart(a_grey_clip(tmp_path / "b.mp4", range(60, 69)), chained=True),
    ]
    report = join(parts, tmp_path / "film.mp4", OPTIONS)
    assert [joint.jump for joint in report.joints] == [True]
    assert "clip 2" in report.warnings[0]


def test_a_sheet_has_a_row_for_each_clip_of_frames_that_the_film_shows(chain: list[JoinPart], tmp_path: Path) -> None:
    begins = places([11, 11, 11], chain, OPTIONS)
    assert begins == (0, 10, 20)
    report = join(chain, tmp_path / "film.mp4", OPTIONS, cache=ArtifactCache(tmp_path / "cache"))
    analyses = report.promise.analyses
    film_sheet([f"shot {n}" for n in range(3)], lambda number: analyses[number].tiles, tmp_path / "sheet.png")
    drawn = cv2.imread(str(tmp_path / "sheet.png"))
    assert drawn is not None
    assert drawn.shape[0] > 3 * 60
    assert [len(analysis.tiles) for analysis in analyses] == [6, 6, 6]
    assert [number_in(cv2.resize(tile, tuple(SIZE))) for tile in analyses[1].tiles] == [10, 12, 14, 15, 17, 19]


_MEASURE = """
import sys
from pathlib import Path
from tests.media.parts import join
from reelwright.films.editing.timing import JoinOptions, JoinPart
from reelwright.core.request import Size
parts = [JoinPart(Path(sys.argv[1])) for _ in range(int(sys.argv[3]))]
join(parts, Path(sys.argv[2]), JoinOptions(Size(128, 96), 16.0, overlap=2, **eval(sys.argv[4])))
print(int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024)
"""


@pytest.mark.parametrize("options", [{}, {"double_fps": True}, {"upscale": 2}], ids=str)
def test_a_film_of_2000_frames_needs_no_more_memory_than_one_of_200(tmp_path: Path, options: dict[str, Any]) -> None:
    clip = a_grey_clip(tmp_path / "a.mp4", [n % 100 for n in range(100)])

    def peak(count: int) -> int:
        argv = [sys.executable, "-c", _MEASURE, str(clip), str(tmp_path / f"{count}.mp4"), str(count), repr(options)]
        return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)

    assert peak(20) - peak(2) < 20
