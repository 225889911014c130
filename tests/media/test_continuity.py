"""Colours from clip to clip: drift is measured, undone and does not add up; other content is left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from reelwright.core.errors import Cancelled, OutputError
from reelwright.core.request import Size
from reelwright.films.editing.artifact_cache import ArtifactCache
from reelwright.films.editing.timing import JoinOptions, JoinPart
from reelwright.media.continuity import (
    Matrix,
    apply,
    carried,
    composed,
    correct_last_frame,
    effect,
    match,
    read_picture,
    unchanged,
)
from reelwright.media.video import last_frame
from reelwright.media.writer import Encoding, VideoWriter
from tests.media.parts import Pixels, frames, join, packets, save

PHOTOS = Path(__file__).parents[1] / "photos"
SIZE = Size(208, 120)


def a_photograph(name: str = "rocket.jpg") -> Pixels:
    """A real picture: its colours are nearly one, and encoding blurs them. Painted ones hide what goes wrong."""
    picture = cv2.imread(str(PHOTOS / name), cv2.IMREAD_COLOR_RGB)
    assert picture is not None
    return np.asarray(cv2.resize(picture, SIZE, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def a_map(gains: tuple[float, float, float] = (1, 1, 1), shift: tuple[float, float, float] = (0, 0, 0)) -> Matrix:
    return np.column_stack([np.diag(gains), shift])


def apart(one: Pixels, other: Pixels) -> float:
    """How much the mean colours differ: what an eye sees as a cast."""
    return float(np.abs(one.mean((0, 1)) - other.mean((0, 1))).max())


@pytest.mark.parametrize(
    "drift",
    [
        np.array([[1.08, 0.02, 0, -6], [0, 0.95, 0.01, 4], [0.01, 0, 1.04, 3]]),
        a_map((1.1, 1.1, 1.1), (-8, -8, -8)),
        a_map((0.9, 1.0, 1.0), (5, -5, 0)),
    ],
)
@pytest.mark.parametrize("name", ["rocket.jpg", "coffee_first.jpg"])
def test_a_drift_of_colour_is_measured_and_undone(name: str, drift: Matrix) -> None:
    given = a_photograph(name)
    found = match(given, apply(drift, given))
    assert found.corrects
    assert found.drift > 1.5
    assert found.residual < 0.5
    assert apart(found.applied(apply(drift, given)), given) < 0.7
    assert np.abs(found.applied(apply(drift, given)).astype(int) - given).mean() < 1.5


def test_the_same_picture_needs_no_correction() -> None:
    found = match(a_photograph(), a_photograph())
    assert not found.corrects
    assert found.matrix == pytest.approx(unchanged(), abs=1e-9)


def test_other_content_is_not_taken_for_a_drift() -> None:
    found = match(a_photograph("rocket.jpg"), a_photograph("coffee_first.jpg"))
    assert not found.corrects
    assert found.note == "the pictures show different things"
    assert found.applied(a_photograph()) is not None


def test_pictures_of_another_shape_are_not_compared() -> None:
    found = match(a_photograph(), np.zeros((120, 90, 3), np.uint8))
    assert (found.corrects, found.note) == (False, "the pictures show different things")


def test_a_label_in_the_corner_does_not_spoil_the_fit() -> None:
    given = a_photograph()
    shown = apply(a_map((1.05, 1, 0.95), (4, 0, -4)), given)
    shown[-24:, :80] = 0
    assert apart(match(given, shown).applied(shown)[:-24], given[:-24]) < 1.0


@pytest.mark.parametrize("gain", [0.4, 2.0])
def test_gains_beyond_any_drift_are_held_back(gain: float) -> None:
    rows, columns = np.mgrid[:120, :208]
    given = np.repeat((100 + 30 * np.sin(columns / 9) * np.cos(rows / 7))[..., None], 3, 2).round().astype(np.uint8)
    found = match(given, np.clip((given - 100.0) / gain + 100, 0, 255).round().astype(np.uint8)).matrix
    brightness = found[:, :3].sum(1)  # what becomes of grey
    assert (brightness > 0.79).all()
    assert (brightness < 1.26).all()


def test_a_flash_is_held_back() -> None:
    given = (a_photograph() * 0.5).astype(np.uint8)
    matrix = match(given, given + np.uint8(60)).matrix
    assert abs(float((matrix @ np.array([100.0, 100, 100, 1]) - 100).mean())) < 25


def test_a_grey_picture_keeps_the_gain_of_its_colours() -> None:
    """Noise where there is no colour says nothing about colours."""
    noise = np.random.default_rng(1)
    grey = np.repeat(a_photograph()[..., :1], 3, axis=2).astype(float)
    given, found = (np.clip(grey + noise.normal(0, 3, grey.shape), 0, 255).astype(np.uint8) for _ in range(2))
    assert match(given, found).matrix[:, :3] == pytest.approx(np.eye(3), abs=0.05)


def test_maps_are_composed_in_their_order() -> None:
    later, first = a_map((2, 2, 2)), a_map(shift=(3, 3, 3))
    assert composed(later, first)[:, 3].tolist() == [6, 6, 6]


# ------------------------------------------------------------------------------------------------- long chains


def encode(picture: Pixels, path: Path, *, foreign: bool) -> Path:
    """Two frames, by our writer or as official scripts write them: B-frames, no tags, more loss."""
    if not foreign:
        with VideoWriter(path, SIZE, 16, Encoding(), {}) as film:
            film.write(picture)
            film.write(picture)
        return path
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 16, {"crf": "25", "threads": "2"})
        stream.width, stream.height, stream.pix_fmt = SIZE.width, SIZE.height, "yuv420p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def a_drifting_chain(folder: Path, drift: Matrix, count: int, *, anchor: bool, foreign: bool = False) -> list[JoinPart]:
    """Clips of one photograph, each of which shifts the colours that it was given and adds grain."""
    grain, parts = np.random.default_rng(3), []
    for number in range(count):
        given = folder / f"last-{number - 1}.png"
        exact = cv2.transform(read_picture(given).astype(np.float64), drift) if number else a_photograph()
        shown = np.clip(np.round(exact + grain.normal(0, 1, exact.shape)), 0, 255).astype(np.uint8)
        video, last = encode(shown, folder / f"{number}.mp4", foreign=foreign), folder / f"last-{number}.png"
        save(last_frame(video) if foreign else shown, last)
        if anchor and number:
            correct_last_frame(given, video, last)
        parts.append(JoinPart(video, given if number else None, chained=number > 0))
    return parts


DRIFTS = {
    "what nobody sees, so often that all do": a_map(shift=(0.9, 0.9, 0.9)),
    "less than a level": a_map(shift=(-0.4, 0, 0.4)),
    "two levels": a_map(shift=(-2, -2, -2)),
    "contrast and cast": a_map((1.03, 1.02, 1.01), (0, -1, 1)),
    "none": a_map(),
}


@pytest.mark.parametrize("drift", DRIFTS.values(), ids=DRIFTS)
@pytest.mark.parametrize("foreign", [False, True], ids=["lossless hand-over", "decoded hand-over"])
def test_an_anchored_chain_of_21_clips_ends_in_the_colours_of_its_beginning(
    tmp_path: Path, drift: Matrix, foreign: bool
) -> None:
    parts = a_drifting_chain(tmp_path, drift, 21, anchor=True, foreign=foreign)
    join(parts, tmp_path / "film.mp4", JoinOptions(SIZE, 16.0))
    shown = frames(tmp_path / "film.mp4")
    assert max(apart(frame, shown[0]) for frame in shown) < 2.0
    assert shown[-1].std() == pytest.approx(shown[0].std(), rel=0.06)


@pytest.mark.parametrize("name", ["what nobody sees, so often that all do", "two levels"])
def test_with_joint_corrections_a_chain_keeps_its_first_colours(tmp_path: Path, name: str) -> None:
    parts = a_drifting_chain(tmp_path, DRIFTS[name], 21, anchor=False, foreign=True)
    report = join(parts, tmp_path / "film.mp4", JoinOptions(SIZE, 16.0, color="joint"))
    shown = frames(tmp_path / "film.mp4")
    assert max(apart(frame, shown[0]) for frame in shown) < 2.5
    assert "colours are corrected" in report.how


def test_without_correction_the_same_chain_drifts_away(tmp_path: Path) -> None:
    parts = a_drifting_chain(tmp_path, DRIFTS["two levels"], 21, anchor=False)
    report = join(parts, tmp_path / "film.mp4", JoinOptions(SIZE, 16.0, color="off"))
    assert report.how == "copied without encoding again"
    shown = frames(tmp_path / "film.mp4")
    assert apart(shown[-1], shown[0]) > 20


def test_a_joint_reports_the_drift_before_and_after(tmp_path: Path) -> None:
    parts = a_drifting_chain(tmp_path, a_map(shift=(6, 0, -6)), 2, anchor=True)
    (joint,) = join(parts, tmp_path / "film.mp4", JoinOptions(SIZE, 16.0)).joints
    assert joint.colour is not None
    assert joint.colour["corrected"]
    assert joint.colour["drift"] > 2 > joint.colour["residual"]


def test_a_clip_that_dissolves_in_is_corrected_like_what_continues_it(tmp_path: Path) -> None:
    first, second, third = a_drifting_chain(tmp_path, a_map(shift=(8, 8, 8)), 3, anchor=True)
    longer = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for path, part in zip(longer, (first, second), strict=True):
        with VideoWriter(path, SIZE, 16, Encoding(), {}) as film:
            for _ in range(6):
                film.write(last_frame(part.video))
    parts = [JoinPart(longer[0]), JoinPart(longer[1], second.first_picture, chained=True, dissolve=2), third]
    report = join(parts, tmp_path / "film.mp4", JoinOptions(SIZE, 16.0))
    assert not any(joint.jump for joint in report.joints)
    shown = frames(tmp_path / "film.mp4")
    assert max(apart(frame, shown[0]) for frame in shown) < 1.5


def test_a_clip_is_corrected_although_the_one_it_continues_is_not_shown(tmp_path: Path) -> None:
    _, second, third = a_drifting_chain(tmp_path, a_map(shift=(8, 8, 8)), 3, anchor=True)
    join([JoinPart(second.video, second.first_picture), third], tmp_path / "film.mp4", JoinOptions(SIZE, 16.0))
    shown = frames(tmp_path / "film.mp4")
    assert apart(shown[0], shown[-1]) < 1.5


def test_a_joint_correction_does_not_go_on_into_a_clip_of_another_chain(tmp_path: Path) -> None:
    first, second, third = a_drifting_chain(tmp_path, DRIFTS["two levels"], 3, anchor=False)
    third, options = replace(third, chained=False), JoinOptions(SIZE, 16.0, color="joint")
    join([first, second, third], tmp_path / "film.mp4", options)
    join([third], tmp_path / "alone.mp4", options)
    assert packets(tmp_path / "film.mp4")[-2:] == packets(tmp_path / "alone.mp4")


def test_a_request_to_stop_is_noticed_before_colours_are_compared(tmp_path: Path) -> None:
    cache, parts = ArtifactCache(tmp_path / "kept"), a_drifting_chain(tmp_path, DRIFTS["none"], 3, anchor=True)

    def stop() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        join(parts, tmp_path / "film.mp4", JoinOptions(SIZE, 16.0), cache=cache, check=stop)
    assert len(list(cache.folder.iterdir())) == 3  # what the headers of the clips say


@pytest.mark.parametrize("change", ["the picture of clip 2", "the picture of clip 3", "clip 2", "clip 3"])
def test_a_kept_correction_is_not_used_for_another_picture_or_clip(tmp_path: Path, change: str) -> None:
    parts = a_drifting_chain(tmp_path, DRIFTS["two levels"], 3, anchor=False)
    options, cache = JoinOptions(SIZE, 16.0, color="joint"), ArtifactCache(tmp_path / "kept")
    join(parts, tmp_path / "before.mp4", options, cache=cache)
    number = int(change[-1]) - 1
    brighter = apply(a_map(shift=(6, 6, 6)), last_frame(parts[number].video))
    if "picture" in change:
        parts[number] = replace(parts[number], first_picture=save(brighter, tmp_path / "other.png"))
    else:
        parts[number] = replace(parts[number], video=encode(brighter, tmp_path / "other.mp4", foreign=False))
    join(parts, tmp_path / "with.mp4", options, cache=cache)
    join(parts, tmp_path / "without.mp4", options)
    assert packets(tmp_path / "with.mp4") == packets(tmp_path / "without.mp4")


# -------------------------------------------------------------------------------------------- the frame handed on


def test_what_is_too_little_to_correct_goes_along_with_the_frame(tmp_path: Path) -> None:
    given, last = save(a_photograph(), tmp_path / "given.png"), tmp_path / "last.png"
    shown = np.clip(a_photograph().astype(int) + (np.arange(208) % 10 < 3)[None, :, None], 0, 255).astype(np.uint8)
    video = encode(shown, tmp_path / "clip.mp4", foreign=False)
    save(shown, last)
    correct_last_frame(given, video, last)
    assert np.array_equal(read_picture(last), shown)
    assert effect(carried(last), shown) == pytest.approx(0.3, abs=0.25)
    assert carried(last)[:, 3].sum() != 0


def test_what_rounding_kept_from_a_correction_goes_along_with_the_frame(tmp_path: Path) -> None:
    given, last = save(a_photograph(), tmp_path / "given.png"), tmp_path / "last.png"
    pattern = 2 + (np.arange(208) % 10 < 3)[None, :, None]  # 2.3 levels too bright, of which whole levels undo 2
    shown = np.clip(a_photograph().astype(int) + pattern, 0, 255).astype(np.uint8)
    video = encode(shown, tmp_path / "clip.mp4", foreign=False)
    correct_last_frame(given, video, save(shown, last))
    left = read_picture(last).astype(float) - a_photograph()
    both = left.mean((0, 1)) + carried(last)[:, 3]
    assert carried(last)[:, 3] != pytest.approx(0, abs=0.1)
    assert both == pytest.approx(0, abs=0.25)


def test_a_frame_that_carries_nothing_lacks_nothing(tmp_path: Path) -> None:
    assert carried(save(a_photograph(), tmp_path / "a.png")) == pytest.approx(unchanged())


def test_a_corrected_frame_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    given = save(a_photograph(), tmp_path / "given.png")
    shown = apply(a_map(shift=(9, 9, 9)), a_photograph())
    video, last = encode(shown, tmp_path / "clip.mp4", foreign=False), save(shown, tmp_path / "last.png")
    correct_last_frame(given, video, last)
    assert apart(read_picture(last), a_photograph()) < 1.0
    assert {path.name for path in tmp_path.iterdir()} == {"given.png", "clip.mp4", "last.png"}


def test_the_frame_handed_on_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    given = save(a_photograph(), tmp_path / "given.png")
    shown = apply(a_map(shift=(9, 4, 9)), a_photograph())
    video = encode(shown, tmp_path / "clip.mp4", foreign=False)
    made = []
    for _ in range(2):
        correct_last_frame(given, video, save(shown, tmp_path / "last.png"))
        made.append((tmp_path / "last.png").read_bytes())
    assert made[0] == made[1]


def test_a_damaged_frame_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "last.png").write_bytes(b"no picture")
    for reader in (read_picture, carried):
        with pytest.raises(OutputError, match=r"last\.png"):
            reader(tmp_path / "last.png")


def test_a_damaged_remainder_is_an_error(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("reelwright-colour", "[1, 2")
    Image.fromarray(a_photograph()).save(tmp_path / "last.png", pnginfo=info)
    with pytest.raises(OutputError, match=r"last\.png"):
        carried(tmp_path / "last.png")
