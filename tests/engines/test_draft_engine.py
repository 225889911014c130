"""The draft renderer: the quality rules a viewer would notice, each as a measurement."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reelwright.core.errors import Cancelled, InvalidInputError
from reelwright.core.events import Log, Phase, Progress
from reelwright.core.request import Size
from reelwright.engines import load_engine
from reelwright.engines.draft import LAST_FRAME_NAME, passages, scene_of, stills, transitions
from reelwright.engines.draft import camera_path as camera
from reelwright.engines.draft.label import Label

MOVES = ("push_in", "pull_out", "pan_left", "pan_right", "tilt_up", "tilt_down", "orbit_left", "orbit_right",
         "roll_left", "roll_right", "handheld", "static")  # fmt: skip
SIZE = Size(256, 144)


def textured(size: tuple[int, int], seed: int = 1) -> np.ndarray:
    """Smooth colourful noise with corners: something every measurement can hold on to."""
    random = np.random.default_rng(seed)
    width, height = size
    coarse = random.integers(0, 255, (height // 12 + 2, width // 12 + 2, 3)).astype(np.uint8)
    picture: np.ndarray = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    for _ in range(40):
        x, y = int(random.integers(0, width)), int(random.integers(0, height))
        colour = tuple(int(value) for value in random.integers(0, 255, 3))
        cv2.rectangle(picture, (x, y), (x + width // 14, y + height // 14), colour, -1)
    return picture


def save(path: Path, rgb: np.ndarray) -> str:
    assert cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR) if rgb.ndim == 3 else rgb)
    return str(path)


def options(first: str, **changes: Any) -> dict[str, Any]:
    chosen = {
        "first": first, "width": SIZE.width, "height": SIZE.height, "num_frames": 25, "fps": 16.0, "seed": 3,
        "camera": ["push_in"], "speed": 1.0,
    }  # fmt: skip
    return {**chosen, **changes}


def frames_of(given: Mapping[str, Any]) -> list[np.ndarray]:
    return [frame.copy() for frame in scene_of(given).frames]


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as film:
        return [frame.to_ndarray(format="rgb24", src_colorspace="ITU709") for frame in film.decode(video=0)]


def render(given: Mapping[str, Any], output: Path) -> tuple[Mapping[str, Any], list[Any]]:
    events: list[Any] = []
    return load_engine("draft").generate(given, output, events.append, lambda: None), events


def a_shot(moves: tuple[str, ...], **changes: Any) -> camera.CameraShot:
    return camera.CameraShot(moves, **{"speed": 1.0, "num_frames": 81, "fps": 16.0, "seed": 5, **changes})


def expected_path(shot: camera.CameraShot, size: Size, point: tuple[float, float]) -> np.ndarray:
    """Where a point of a still of the film's size is to be seen in every frame."""
    framing = camera.Framing.cover(size, size, (0.5, 0.5))
    track = camera.shoot(shot, framing)
    seen = [np.linalg.inv(camera.window(track, n, framing)) @ [*point, 1] for n in range(shot.num_frames)]
    return np.array([place[:2] / place[2] for place in seen])


def differences(frames: list[np.ndarray]) -> np.ndarray:
    pairs = itertools.pairwise(frames)
    return np.array([np.abs(a.astype(np.int16) - b).mean() for a, b in pairs])


# ----------------------------------------------------------------------------------------------- the camera


@pytest.mark.parametrize("move", [move for move in MOVES if move != "pull_out"])
def test_the_first_frame_is_the_picture_itself_whatever_the_move(tmp_path: Path, move: str) -> None:
    picture = textured(SIZE)
    frame = next(iter(scene_of(options(save(tmp_path / "p.png", picture), camera=[move])).frames))
    assert np.array_equal(frame, picture)


def test_a_pull_out_ends_on_the_picture_and_says_that_it_does_not_start_there(tmp_path: Path) -> None:
    picture = textured(SIZE)
    scene = scene_of(options(save(tmp_path / "p.png", picture), camera=["pull_out"]))
    assert scene.facts["starts_on_picture"] is False
    assert np.array_equal(list(scene.frames)[-1], picture)


def test_a_pull_out_that_must_start_on_the_picture_invents_blurred_surroundings(tmp_path: Path) -> None:
    picture = textured(SIZE)
    scene = scene_of(options(save(tmp_path / "p.png", picture), camera=["pull_out"], identity_start=True))
    frames = list(scene.frames)
    assert np.abs(frames[0].astype(int) - picture).mean() < 1.0
    # 25 frames are 1.6 s, so the move goes 0.4 of its way
    inner = cv2.resize(picture, None, fx=camera.PUSH**-0.4, fy=camera.PUSH**-0.4, interpolation=cv2.INTER_AREA)
    y, x = (SIZE.height - inner.shape[0]) // 2, (SIZE.width - inner.shape[1]) // 2
    shown = frames[-1][y : y + inner.shape[0], x : x + inner.shape[1]]
    assert np.abs(shown.astype(int) - inner)[8:-8, 8:-8].mean() < 12


@settings(max_examples=60, deadline=None)
@given(
    moves=st.lists(st.sampled_from(MOVES), min_size=1, max_size=3, unique=True),
    speed=st.sampled_from((0.55, 1.0, 1.6)),
    still=st.tuples(st.integers(40, 900), st.integers(40, 900)),
    anchor=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    depth=st.booleans(),
)
def test_no_frame_ever_looks_beyond_the_picture(
    moves: list[str], speed: float, still: tuple[int, int], anchor: tuple[float, float], depth: bool
) -> None:
    framing = camera.Framing.cover(still, SIZE, anchor)
    track = camera.shoot(a_shot(tuple(moves), speed=speed, num_frames=33, depth=depth), framing)
    corners = np.array([[-0.5, -0.5, 1], [SIZE.width - 0.5, -0.5, 1], [-0.5, SIZE.height - 0.5, 1],
                        [SIZE.width - 0.5, SIZE.height - 0.5, 1]]).T  # fmt: skip
    for number in range(33):
        seen = camera.window(track, number, framing) @ corners
        seen = seen[:2] / seen[2]
        near = np.array([abs(track.near_x[number]) * framing.window[0], abs(track.near_y[number]) * framing.window[1]])
        near = near + abs(track.near_zoom[number]) * np.array(framing.window)
        assert (seen.min(axis=1) - near >= -0.5 - 1e-6).all()
        assert (seen.max(axis=1) + near <= np.array(still) - 0.5 + 1e-6).all()


@pytest.mark.parametrize("move", MOVES)
def test_a_marker_outside_the_picture_is_never_seen(move: str) -> None:
    framing = camera.Framing.cover((300, 200), SIZE, (0.5, 0.5))
    track = camera.shoot(a_shot((move,)), framing)
    inside = np.full((200, 300), 100, np.uint8)
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    for number in range(81):
        matrix = camera.window(track, number, framing)
        frame = cv2.warpPerspective(inside, matrix, SIZE, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=255)
        assert frame.max() == 100


@pytest.mark.parametrize("move", [move for move in MOVES if move != "static"])
def test_every_move_starts_and_ends_at_rest(move: str) -> None:
    framing = camera.Framing.cover((320, 180), SIZE, (0.5, 0.5))
    track = camera.shoot(a_shot((move,)), framing)
    corners = np.array([[0, 0, 1], [255, 143, 1]]).T
    seen = [camera.window(track, number, framing) @ corners for number in range(81)]
    speed = np.abs(np.diff([place[:2] / place[2] for place in seen], axis=0)).max(axis=(1, 2))
    assert speed.max() > 0.1
    assert max(speed[0], speed[-1]) < 0.06 * speed.max()


def test_the_zoom_that_hides_the_edges_ramps_in_with_the_pan() -> None:
    track = camera.shoot(a_shot(("pan_left", "handheld")), camera.Framing.cover((320, 180), SIZE, (0.5, 0.5)))
    steps = np.diff(track.zoom)
    assert track.zoom[0] == 1.0
    assert track.zoom.max() > 1.15
    assert np.abs(np.diff(steps)).max() < 0.15 * steps.max()


def test_a_pan_uses_the_picture_that_the_crop_cut_off_instead_of_zooming() -> None:
    track = camera.shoot(a_shot(("pan_right",)), camera.Framing.cover((900, 180), SIZE, (0.5, 0.5)))
    assert track.zoom.max() == 1.0
    assert track.shift_x[-1] > 0.2


@pytest.mark.parametrize(
    ("move", "axis", "sign"),
    [("pan_left", 0, 1), ("pan_right", 0, -1), ("tilt_up", 1, 1), ("tilt_down", 1, -1)],
)
def test_a_feature_moves_smoothly_and_one_way_to_a_tenth_of_a_pixel(
    tmp_path: Path, move: str, axis: int, sign: int
) -> None:
    # Whole-pixel jitter, as ffmpeg's zoompan has it, would show as second differences of about 1 px.
    columns, rows = np.meshgrid(np.arange(640), np.arange(360))
    dot = 255 * np.exp(-((columns - 320) ** 2 + (rows - 180) ** 2) / (2 * 20.0**2))
    first = save(tmp_path / "dot.png", np.dstack([dot] * 3).astype(np.uint8))
    frames = frames_of(options(first, camera=[move], num_frames=81, width=640, height=360))
    weights = [frame[..., 1].astype(np.float64) for frame in frames]
    place = np.array([(columns * w).sum() / w.sum() if axis == 0 else (rows * w).sum() / w.sum() for w in weights])
    expected = expected_path(a_shot((move,)), Size(640, 360), (320, 180))[:, axis]
    assert np.abs(place - expected).max() < 0.1
    assert sign * (expected[-1] - expected[0]) > 20
    assert (sign * np.diff(expected) >= 0).all()
    assert np.abs(np.diff(expected, 2)).max() < 0.15


def test_handheld_is_calm_at_both_ends_so_that_joints_do_not_jump(tmp_path: Path) -> None:
    first = save(tmp_path / "p.png", textured((512, 288)))
    change = differences(frames_of(options(first, camera=["pan_left", "handheld"], num_frames=49)))
    assert max(change[0], change[-1]) <= 3 * np.median(change)
    assert max(change[0], change[-1]) < 0.2 * change.max()


def test_a_chained_segment_continues_without_a_jump(tmp_path: Path) -> None:
    first = save(tmp_path / "p.png", textured((512, 288)))
    given = options(first, camera=["push_in", "handheld"], last_frame=True)
    render(given, tmp_path / "a.mp4")
    one = frames_of(given)
    two = frames_of(options(str(tmp_path / LAST_FRAME_NAME), camera=["pan_left", "handheld"], seed=9))
    change = differences(one + two)
    assert change[len(one) - 1] <= 3 * np.median(change)
    assert change[len(one) - 1] == 0.0


def test_the_seed_moves_the_hand_and_nothing_else(tmp_path: Path) -> None:
    first = save(tmp_path / "p.png", textured(SIZE))
    shaky = [frames_of(options(first, camera=["handheld"], seed=seed)) for seed in (1, 1, 2)]
    steady = [frames_of(options(first, seed=seed)) for seed in (1, 2)]
    assert np.array_equal(shaky[0], shaky[1])
    assert not np.array_equal(shaky[0], shaky[2])
    assert np.array_equal(steady[0], steady[1])


def test_a_static_camera_repeats_one_frame(tmp_path: Path) -> None:
    frames = frames_of(options(save(tmp_path / "p.png", textured((400, 300))), camera=["static"]))
    assert differences(frames).max() == 0


# ----------------------------------------------------------------------------------------------- the stills


def test_zooming_in_uses_the_pixels_of_a_large_picture(tmp_path: Path) -> None:
    large = textured((1024, 576), seed=4)
    noise = np.random.default_rng(0).integers(-60, 60, large.shape)
    large = np.clip(cv2.GaussianBlur(large, (0, 0), 3).astype(int) + noise, 0, 255).astype(np.uint8)
    small = cv2.resize(large, SIZE, interpolation=cv2.INTER_AREA)
    fine = frames_of(options(save(tmp_path / "l.png", large), speed=1.6, num_frames=81))[-1]
    soft = frames_of(options(save(tmp_path / "s.png", small), speed=1.6, num_frames=81))[-1]
    sharpness = [cv2.Laplacian(frame, cv2.CV_64F).var() for frame in (fine, soft)]
    assert sharpness[0] > 1.25 * sharpness[1]


def test_fine_stripes_of_a_large_picture_do_not_turn_into_coarse_ones(tmp_path: Path) -> None:
    stripes = np.zeros((1152, 2048, 3), np.uint8)
    stripes[:, ::2] = 255  # far finer than the film's pixels: honest reduction gives flat grey
    frames = frames_of(options(save(tmp_path / "s.png", stripes), num_frames=9))
    assert max(frame[8:-8, 8:-8].std() for frame in frames) < 10  # of 127


def test_contain_shows_the_whole_picture_over_a_dark_blur(tmp_path: Path) -> None:
    tall = np.full((300, 200, 3), 200, np.uint8)
    frame = frames_of(options(save(tmp_path / "t.png", tall), fit="contain", camera=["static"], num_frames=1))[0]
    assert abs(int(frame[72, 128, 0]) - 200) <= 1
    assert frame[0, 128, 0] > 190
    assert 40 < frame[72, 5, 0] < 130


def test_stretch_fills_the_film_with_the_whole_picture(tmp_path: Path) -> None:
    halves = np.zeros((100, 300, 3), np.uint8)
    halves[:, 150:] = 255
    frame = frames_of(options(save(tmp_path / "h.png", halves), fit="stretch", camera=["static"], num_frames=1))[0]
    assert frame[:, :120].max() < 10
    assert frame[:, 136:].min() > 245


def test_the_anchor_says_what_survives_the_crop(tmp_path: Path) -> None:
    tall = np.zeros((600, 256, 3), np.uint8)
    tall[:100] = 255
    first = save(tmp_path / "t.png", tall)
    top, middle = (
        frames_of(options(first, anchor=anchor, camera=["static"], num_frames=1))[0]
        for anchor in ([0.5, 0.0], [0.5, 0.5])
    )
    assert top[:95].min() > 250
    assert middle.max() < 5


# ------------------------------------------------------------------------------------------------- parallax


def a_depth(path: Path, dtype: type) -> str:
    depth: Any = np.zeros((144, 256), dtype)
    cv2.circle(depth, (64, 72), 40, float(np.iinfo(dtype).max), -1)
    return save(path, depth)


def test_a_16_bit_depth_is_read_with_all_its_bits(tmp_path: Path) -> None:
    ramp = np.linspace(1000, 1200, 256 * 10).astype(np.uint16).reshape(10, 256)
    assert len(np.unique(stills.load_depth(Path(save(tmp_path / "r.png", ramp))))) > 150


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_near_things_move_more_than_far_ones(tmp_path: Path, dtype: type) -> None:
    depth = a_depth(tmp_path / "d.png", dtype)
    relief = stills.Relief(stills.load_depth(Path(depth)), SIZE, (0, 0), SIZE)
    x, _ = relief.maps(np.eye(3), (5.0, 0.0), 0.0)
    base = np.arange(SIZE.width, dtype=np.float32)
    near, far = (x - base)[72, 64], (x - base)[72, 240]
    assert near - far > 3.5
    assert np.abs(x - base).max() <= 5.0 + 1e-3


def test_parallax_never_folds_or_tears_and_stays_within_three_percent(tmp_path: Path) -> None:
    checker = (np.indices((9, 16)).sum(axis=0) % 2 * 255).astype(np.uint8)
    depth = cv2.resize(checker, (640, 360), interpolation=cv2.INTER_NEAREST)  # as unkind as a depth can be
    relief = stills.Relief(depth.astype(np.float32) / 255, (640, 360), (0, 0), Size(640, 360))
    amplitude = camera.PARALLAX * 640
    x, y = relief.maps(np.eye(3), (amplitude, amplitude), amplitude)
    assert np.diff(x, axis=1).min() > 0.1
    assert np.diff(y, axis=0).min() > 0.1
    base_x, base_y = np.meshgrid(np.arange(640), np.arange(360))
    assert max(np.abs(x - base_x).max(), np.abs(y - base_y).max()) <= 2 * amplitude


def test_depth_changes_an_orbit_and_is_reported(tmp_path: Path) -> None:
    first = save(tmp_path / "p.png", textured((512, 288)))
    depth = a_depth(tmp_path / "d.png", np.uint8)
    flat, deep = (scene_of(options(first, camera=["orbit_left"], **extra)) for extra in ({}, {"depth": depth}))
    assert (flat.facts["parallax"], deep.facts["parallax"]) == (False, True)
    assert not np.array_equal(list(flat.frames)[-1], list(deep.frames)[-1])


# -------------------------------------------------------------------------------------------- first to last


def a_pair(
    zoom: float, shift: tuple[float, float], size: tuple[int, int] = (512, 288)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A view of a scene, another one, and the similarity between them."""
    scene = textured((size[0] + 448, size[1] + 252), seed=8)
    here = np.array([[1.0, 0, 200], [0, 1.0, 100]])
    there = np.array([[1 / zoom, 0, 200 + shift[0]], [0, 1 / zoom, 100 + shift[1]]])
    views = [cv2.warpAffine(scene, m, size, flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP) for m in (here, there)]
    expected = np.linalg.inv(np.vstack([there, [0, 0, 1]])) @ np.vstack([here, [0, 0, 1]])
    return views[0], views[1], expected[:2]


def test_a_zoom_and_a_pan_are_recognised_as_a_camera_move() -> None:
    first, last, expected = a_pair(1.44, (90, 40))
    match = transitions.measure(first, last)
    assert match.mode == "camera"
    assert match.facts["inliers"] >= 40
    assert match.facts["camera_zoom"] == pytest.approx(1.44, abs=0.01)
    assert match.similarity is not None
    corners = np.array([[0, 0, 1], [511, 0, 1], [0, 287, 1], [511, 287, 1]]).T
    assert np.abs(match.similarity @ corners - expected @ corners).max() < 1.5


def test_a_camera_is_found_just_as_well_in_a_film_larger_than_the_copies_that_are_measured() -> None:
    first, last, expected = a_pair(1.3, (90, 40), size=(1280, 720))
    match = transitions.measure(first, last)
    assert match.similarity is not None
    corners = np.array([[0, 0, 1], [1279, 0, 1], [0, 719, 1], [1279, 719, 1]]).T
    assert np.abs(match.similarity @ corners - expected @ corners).max() < 2.5


def test_what_only_one_picture_shows_is_taken_from_that_one() -> None:
    first, last, similarity = a_pair(1.0, (200, 0))
    move = passages.CameraMove(stills.Still(first), stills.Still(last), similarity, Size(512, 288))
    frame = move.render(0.5).astype(int)  # half way: the scene from 100 pixels right of the first view
    assert np.abs(frame[:, :100] - first[:, 100:200])[:, :80].mean() < 3
    assert np.abs(frame[:, -100:] - last[:, -200:-100])[:, 20:].mean() < 3


def test_another_exposure_comes_in_slowly_up_to_the_border_of_the_frame() -> None:
    first, last, similarity = a_pair(0.8, (-50, -30))
    last = np.clip(last.astype(int) * 0.6, 0, 255).astype(np.uint8)
    move = passages.CameraMove(stills.Still(first), stills.Still(last), similarity, Size(512, 288))
    change = np.abs(move.render(0.01).astype(int) - first)
    assert max(change[:3].mean(), change[-3:].mean(), change[:, :3].mean(), change[:, -3:].mean()) < 6


def test_a_camera_move_stays_sharp_half_way() -> None:
    first, last, _ = a_pair(1.44, (90, 40))
    match = transitions.measure(first, last)
    assert match.similarity is not None
    move = passages.CameraMove(stills.Still(first), stills.Still(last), match.similarity, Size(512, 288))
    sharpness = [cv2.Laplacian(frame, cv2.CV_64F).var() for frame in (last, move.render(0.5))]
    assert sharpness[1] > 0.6 * sharpness[0]


def test_a_camera_move_leaves_no_hole_where_only_one_picture_shows_the_place() -> None:
    first, last, _ = a_pair(1.0, (220, 120))
    first, last = np.maximum(first, 60), np.maximum(last, 60)
    match = transitions.measure(first, last)
    assert match.mode == "camera"
    assert match.similarity is not None
    move = passages.CameraMove(stills.Still(first), stills.Still(last), match.similarity, Size(512, 288))
    assert min(int(move.render(time).min()) for time in (0.05, 0.5, 0.95)) > 30


def test_pictures_without_corners_are_aligned_by_correlation() -> None:
    columns, rows = np.meshgrid(np.arange(512.0), np.arange(288.0))

    def hills(dx: float) -> np.ndarray:
        wave = 120 + 60 * np.sin((columns + dx) / 60) + 50 * np.cos((rows + columns / 3) / 45)
        return np.dstack([wave] * 3).astype(np.uint8)

    match = transitions.measure(hills(0), hills(6))
    assert match.facts["inliers"] == 0
    assert match.facts["correlation"] > 0.95
    assert match.mode == "camera"


def test_a_small_movement_inside_the_picture_is_a_flow() -> None:
    # Near things shift by 9 pixels and far ones by 2: no single camera similarity explains both.
    scene = textured((620, 400), seed=2)
    columns, rows = np.meshgrid(np.arange(512, dtype=np.float32), np.arange(288, dtype=np.float32))
    wave = 5 + 4.5 * np.sin(rows / 30)
    first, last = (cv2.remap(scene, columns + 40 + sign * wave, rows + 40, cv2.INTER_LINEAR) for sign in (0, 1))
    match = transitions.measure(first, last)
    assert match.mode == "flow"
    assert match.facts["fb_bad_tiles"] <= 0.08
    assert match.flows is not None
    middle = passages.Morph(stills.Still(first), stills.Still(last), match.flows).render(0.5)
    truth = cv2.remap(scene, columns + 40 + 0.5 * wave, rows + 40, cv2.INTER_LINEAR)
    error = np.abs(middle.astype(int) - truth).mean()
    assert error < 0.5 * np.abs(cv2.addWeighted(first, 0.5, last, 0.5, 0).astype(int) - truth).mean()


def test_unrelated_pictures_dissolve() -> None:
    match = transitions.measure(textured((512, 288), seed=1), textured((512, 288), seed=99))
    assert match.mode == "dissolve"


def test_a_moved_object_before_a_still_background_is_no_camera_move() -> None:
    first = textured((512, 288), seed=6)
    last = first.copy()
    cv2.circle(first, (150, 150), 60, (250, 250, 250), -1)
    cv2.circle(last, (380, 150), 60, (250, 250, 250), -1)
    assert transitions.measure(first, last).mode == "dissolve"


@pytest.mark.parametrize("enlarged", [1, 2])
@pytest.mark.parametrize("kind", ["camera", "flow", "dissolve"])
def test_both_ends_of_a_passage_are_exactly_the_pictures(tmp_path: Path, kind: str, enlarged: int) -> None:
    size = (SIZE.width * enlarged, SIZE.height * enlarged)
    first = textured(size, seed=11)
    closer = first[size[1] // 7 : -size[1] // 9, size[0] // 8 : -size[0] // 8]
    last = {
        "camera": cv2.resize(closer, size, interpolation=cv2.INTER_CUBIC),
        "flow": first,
        "dissolve": textured(size, seed=12),
    }[kind]
    frames = frames_of(options(save(tmp_path / "a.png", first), last=save(tmp_path / "b.png", last)))
    assert len(frames) == 25
    assert np.array_equal(frames[0], stills.resized(first, SIZE))
    assert np.array_equal(frames[-1], stills.resized(last, SIZE))


@pytest.mark.parametrize(("zoom", "other"), [(1.44, None), (1.0, 77)])
def test_a_passage_has_no_jump_anywhere(tmp_path: Path, zoom: float, other: int | None) -> None:
    first, last, _ = a_pair(zoom, (90, 40))
    if other is not None:
        last = textured((512, 288), seed=other)
    given = options(
        save(tmp_path / "a.png", first),
        last=save(tmp_path / "b.png", last),
        num_frames=49,
        width=512,
        height=288,
    )
    change = differences(frames_of(given))
    assert max(change[0], change[-1]) <= np.median(change) * 3
    assert change.max() < 5 * np.mean(change)


def test_the_mode_and_its_evidence_are_reported(tmp_path: Path) -> None:
    first, last, _ = a_pair(1.44, (90, 40))
    given = options(
        save(tmp_path / "a.png", first),
        last=save(tmp_path / "b.png", last),
        width=512,
        height=288,
        num_frames=3,
    )
    facts, events = render(given, tmp_path / "o.mp4")
    assert facts["mode"] == "camera"
    assert {"inliers", "camera_zoom", "camera_bad_tiles"} <= set(facts)
    assert json.loads(json.dumps(facts)) == facts
    assert any(isinstance(event, Log) and "by camera" in event.text for event in events)


# ------------------------------------------------------------------------------------------------- the film


def test_the_film_keeps_its_promise_and_tells_its_progress(tmp_path: Path) -> None:
    given = options(save(tmp_path / "p.png", textured((400, 300))), metadata={"generative": "false"})
    _, events = render(given, tmp_path / "o.mp4")
    frames = decoded(tmp_path / "o.mp4")
    assert (len(frames), frames[0].shape) == (25, (144, 256, 3))
    assert [event.name for event in events if isinstance(event, Phase)] == ["rendering", "saving"]
    steps = [event for event in events if isinstance(event, Progress)]
    assert steps == [Progress("rendering", number, 25) for number in range(1, 26)]
    with av.open(str(tmp_path / "o.mp4")) as film:
        assert film.metadata["generative"] == "false"


def test_the_same_request_gives_the_same_bytes(tmp_path: Path) -> None:
    given = options(save(tmp_path / "p.png", textured((400, 300))), camera=["pan_left", "handheld"])
    digests = set()
    for name in ("a.mp4", "b.mp4"):
        render(given, tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_the_label_is_in_the_film_but_never_in_the_frame_handed_on(tmp_path: Path) -> None:
    dark = np.full((144, 256, 3), 40, np.uint8)
    given = options(save(tmp_path / "p.png", dark), camera=["static"], num_frames=3, last_frame=True)
    facts, _ = render(given, tmp_path / "o.mp4")
    assert facts["last_frame"] == LAST_FRAME_NAME
    assert decoded(tmp_path / "o.mp4")[0][-40:, :200].max() > 150
    handed_on = cv2.imread(str(tmp_path / LAST_FRAME_NAME))
    assert handed_on is not None
    assert np.array_equal(handed_on, dark)


def test_the_label_can_be_turned_off(tmp_path: Path) -> None:
    dark = np.full((144, 256, 3), 40, np.uint8)
    given = options(save(tmp_path / "p.png", dark), camera=["static"], num_frames=3, label=False)
    render(given, tmp_path / "o.mp4")
    assert decoded(tmp_path / "o.mp4")[0].max() < 50


@pytest.mark.parametrize("size", [(64, 64), (128, 720), (1280, 720), (1920, 1080), (720, 1280)])
def test_the_label_fits_every_size_and_does_not_touch_the_frame(size: tuple[int, int]) -> None:
    frame = np.zeros((size[1], size[0], 3), np.uint8)
    labelled = Label(Size(*size)).drawn(frame)
    rows, columns = np.nonzero(labelled[..., 0] > 100)
    assert frame.max() == 0
    assert rows.size
    assert rows.min() > size[1] // 2
    assert columns.max() < size[0] - 1


def test_cancelling_stops_at_the_next_frame_and_leaves_no_file(tmp_path: Path) -> None:
    given = options(save(tmp_path / "p.png", textured(SIZE)), num_frames=81)
    calls = iter(range(100))

    def check() -> None:
        if next(calls) == 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        load_engine("draft").generate(given, tmp_path / "o.mp4", lambda event: None, check)
    assert next(calls) == 6
    assert not (tmp_path / "o.mp4").exists()


@pytest.mark.parametrize("role", ["first", "depth"])
def test_a_picture_that_vanished_is_an_input_error(tmp_path: Path, role: str) -> None:
    given = options(save(tmp_path / "p.png", textured(SIZE)), camera=["pan_left"])
    given[role] = str(tmp_path / "gone.png")
    with pytest.raises(InvalidInputError, match=r"gone\.png"):
        render(given, tmp_path / "o.mp4")


def test_a_film_of_one_frame_is_the_picture(tmp_path: Path) -> None:
    picture = textured(SIZE)
    assert np.array_equal(frames_of(options(save(tmp_path / "p.png", picture), num_frames=1))[0], picture)
