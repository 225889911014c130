"""Computes where the virtual camera stands in every frame: moves with easing, framed so that no border ever shows.

A `Track` says for each frame how far the window is zoomed, shifted and rolled from its first position; `window` turns
one of its rows into the matrix that samples the still. The first frame is the identity: a segment starts on exactly its
picture. Every move has zero speed at both ends, so segments can be chained. Poses are always composed from the original
still, never from a frame that is already warped. This module touches no pixels.

    >>> framing = Framing.cover((1600, 900), (1280, 720), (0.5, 0.5))
    >>> track = shoot(CameraShot(("push_in",), speed=1.0, num_frames=81, fps=16.0, seed=0), framing)
    >>> round(float(track.zoom[0]), 3), round(float(track.zoom[-1]), 3)
    (1.0, 1.25)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_ROWS = ("shift_x", "shift_y", "roll", "yaw", "near_x", "near_y", "near_zoom")
_CORNERS = np.array([[-0.5, -0.5, 1.0], [0.5, -0.5, 1.0], [-0.5, 0.5, 1.0], [0.5, 0.5, 1.0]]).T
RAMP = 0.3  # share of the clip in which a move gains speed, and again in which it loses it
PUSH = 1.25  # zoom of a push-in at normal speed over five seconds
PAN = 0.10  # shift of a pan, in windows, at normal speed over five seconds
ROLL = np.deg2rad(4.0)
ORBIT = np.deg2rad(7.0)  # turn of the flat picture: straight lines stay straight, a guessed depth bent them
ORBIT_ZOOM = 1.05
LENS = 1.2  # focal length in windows, for the perspective of an orbit
PARALLAX = 0.03  # of the window's width: more than that looks like jelly
SHAKE, SHAKE_ROLL = 0.0035, np.deg2rad(0.12)  # a third of the first choice, whose full speed showed at the joints


@dataclass(frozen=True)
class CameraShot:
    """Moves, their speed and length. ``depth``: a depth picture exists. ``identity_start`` forbids the reversed
    pull-out (its still is extended by `PUSH` beyond the edges instead)."""

    moves: tuple[str, ...]
    speed: float
    num_frames: int
    fps: float
    seed: int
    depth: bool = False
    identity_start: bool = False

    @property
    def amount(self) -> float:
        """How far the moves go, relative to five seconds at normal speed."""
        return self.speed * float(np.clip(self.num_frames / self.fps / 5.0, 0.4, 2.0))


@dataclass(frozen=True)
class Framing:
    """The window of the first frame inside the still, in the still's pixels, and the output's size."""

    still: tuple[float, float]
    window: tuple[float, float]
    centre: tuple[float, float]
    output: tuple[int, int]

    @classmethod
    def cover(cls, still: tuple[float, float], output: tuple[int, int], anchor: tuple[float, float]) -> Framing:
        """The largest window of the output's aspect; ``anchor`` (0..1) places it."""
        scale = min(still[0] / output[0], still[1] / output[1])
        window = (output[0] * scale, output[1] * scale)
        spare = (still[0] - window[0], still[1] - window[1])
        centre = (spare[0] * anchor[0] + window[0] / 2, spare[1] * anchor[1] + window[1] / 2)
        return cls(still, window, centre, output)

    def scaled(self, still: tuple[int, int]) -> Framing:
        """The same framing in a resized still."""
        fx, fy = still[0] / self.still[0], still[1] / self.still[1]
        window = (self.window[0] * fx, self.window[1] * fy)
        return Framing(still, window, (self.centre[0] * fx, self.centre[1] * fy), self.output)

    def moved(self, origin: tuple[float, float], still: tuple[int, int]) -> Framing:
        """The same framing in a still that was cut out of this one (or extended) and begins at ``origin``."""
        return Framing(still, self.window, (self.centre[0] - origin[0], self.centre[1] - origin[1]), self.output)

    @property
    def margins(self) -> tuple[float, float, float, float]:
        """Room left, right, above and below the window, in windows."""
        (w, h), (x, y) = self.window, self.centre
        return (x / w - 0.5, (self.still[0] - x) / w - 0.5, y / h - 0.5, (self.still[1] - y) / h - 0.5)


@dataclass(frozen=True)
class Track:
    """One row per frame. Shifts are in windows, angles in radians; parallax is the displacement, in windows,
    of the nearest point against the pivot: ``near_x`` and ``near_y`` sideways, ``near_zoom`` outwards at the
    frame's edge."""

    zoom: Floats
    shift_x: Floats
    shift_y: Floats
    roll: Floats
    yaw: Floats
    near_x: Floats
    near_y: Floats
    near_zoom: Floats

    @property
    def moves_depth(self) -> bool:
        """Whether near and far points move differently."""
        return bool(np.any(self.near_x) or np.any(self.near_y) or np.any(self.near_zoom))


def ease(num_frames: int) -> Floats:
    """0 to 1 with zero speed at both ends: raised-cosine ramps around a steady middle."""
    t = np.linspace(0.0, 1.0, num_frames) if num_frames > 1 else np.zeros(1)
    early = np.minimum(t, 1 - t)
    ramp = early / 2 - RAMP / (2 * np.pi) * np.sin(np.pi * early / RAMP)
    half = np.where(early < RAMP, ramp, early - RAMP / 2) / (1 - RAMP)
    eased: Floats = np.where(t <= 0.5, half, 1 - half)
    return eased


def envelope(num_frames: int, fps: float) -> Floats:
    """0 at both ends, 1 between: shaking fades in and out within a second (or a third of a short clip)."""
    t = np.arange(num_frames, dtype=np.float64)
    rise = max(1.0, min(fps, (num_frames - 1) / 3))
    x = np.clip(np.minimum(t, num_frames - 1 - t) / rise, 0.0, 1.0)
    return x * x * x * (x * (6 * x - 15) + 10)


def shoot(shot: CameraShot, framing: Framing) -> Track:
    """The camera's track: all moves together, zoomed in just enough to stay inside the still."""
    steady, shaking = ease(shot.num_frames), envelope(shot.num_frames, shot.fps)
    zoom = np.ones(shot.num_frames)
    rows = {name: np.zeros(shot.num_frames) for name in _ROWS}
    for move in shot.moves:
        zoom = zoom * _zoom(move, shot, steady)
        _add_shift(move, shot, framing, steady, rows)
        _add_turn(move, shot, steady, rows)
    if shot.depth:
        _add_depth(zoom, rows)
    track = _kept_inside(Track(zoom, **rows), framing, steady)
    if "handheld" not in shot.moves:
        return track
    # The shaking has a separate zoom: it begins within a second, and the zoom that hides its borders must, too. The
    # zoom that hides the borders of a pan takes the entire clip.
    shaken = {name: vars(track)[name] + wave for name, wave in _shake(shot, shaking).items()}
    return _kept_inside(replace(track, **shaken), framing, shaking)


def _zoom(move: str, shot: CameraShot, steady: Floats) -> Floats:
    if move == "push_in":
        return np.asarray(PUSH ** (shot.amount * steady))
    if move == "pull_out":
        amount = min(1.0, shot.amount) if shot.identity_start else shot.amount
        return np.asarray(PUSH ** (-amount * steady if shot.identity_start else amount * (1 - steady)))
    if move.startswith("orbit"):
        return np.asarray(ORBIT_ZOOM ** (shot.amount * steady))
    return np.ones_like(steady)


def _add_shift(move: str, shot: CameraShot, framing: Framing, steady: Floats, rows: dict[str, Floats]) -> None:
    """Pans and tilts; they go further in a direction where the crop left room."""
    directions = {"pan_left": (0, -1), "pan_right": (1, 1), "tilt_up": (2, -1), "tilt_down": (3, 1)}
    if move not in directions:
        return
    side, sign = directions[move]
    shift = max(PAN * shot.amount, min(framing.margins[side], 2.5 * PAN * shot.amount))
    name = "shift_x" if side < 2 else "shift_y"
    rows[name] = rows[name] + sign * shift * steady


def _add_turn(move: str, shot: CameraShot, steady: Floats, rows: dict[str, Floats]) -> None:
    side = -1.0 if move.endswith("left") else 1.0
    if move.startswith("roll"):
        rows["roll"] = rows["roll"] + side * min(ROLL * shot.amount, 2 * ROLL) * steady
    elif move.startswith("orbit") and shot.depth:
        rows["near_x"] = rows["near_x"] - side * min(PARALLAX, PARALLAX * shot.amount) * steady
    elif move.startswith("orbit"):
        rows["yaw"] = rows["yaw"] + side * min(ORBIT * shot.amount, 2 * ORBIT) * steady


def _add_depth(zoom: Floats, rows: dict[str, Floats]) -> None:
    """Near things move more than far ones, by less than `PARALLAX` of the width in all."""
    for near, shift in (("near_x", "shift_x"), ("near_y", "shift_y")):
        moved = rows[near] + 0.3 * rows[shift]
        largest = float(np.abs(moved).max())
        rows[near] = moved * (min(largest, PARALLAX) / largest if largest else 0.0)
    closer = 0.3 * (zoom / zoom[0] - 1.0)
    largest = float(np.abs(closer).max())
    rows["near_zoom"] = closer * (min(largest, PARALLAX) / largest if largest else 0.0)


def _shake(shot: CameraShot, shaking: Floats) -> dict[str, Floats]:
    """The shaking of a hand: three slow sines per axis, with phases from the seed."""
    random = np.random.default_rng([shot.seed & 0xFFFFFFFF, shot.seed >> 32])
    seconds = np.arange(shot.num_frames) / shot.fps
    waves: dict[str, Floats] = {}
    for name, reach in (("shift_x", SHAKE), ("shift_y", 1.3 * SHAKE), ("roll", SHAKE_ROLL)):
        wave = np.zeros(shot.num_frames)
        for hertz, weight in ((0.35, 0.55), (0.8, 0.3), (1.7, 0.15)):
            rate = hertz * random.uniform(0.85, 1.15)
            wave = wave + weight * np.sin(2 * np.pi * (rate * seconds + random.uniform()))
        waves[name] = reach * min(shot.speed, 1.6) * shaking * wave
    return waves


def _kept_inside(track: Track, framing: Framing, ramp: Floats) -> Track:
    """Zoom in along with the moves, as little as possible."""
    if _overshoot(track, framing) <= 0:
        return track
    low, high = 0.0, 1.0
    while _overshoot(_zoomed(track, high * ramp), framing) > 0 and high < 64:
        high *= 2
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if _overshoot(_zoomed(track, middle * ramp), framing) > 0 else (low, middle)
    return _zoomed(track, high * ramp)


def _zoomed(track: Track, more: Floats) -> Track:
    return replace(track, zoom=track.zoom * (1 + more))


def _overshoot(track: Track, framing: Framing) -> float:
    """How far, in windows, the worst frame looks beyond the still; less than 1e-9 is rounding."""
    looks = np.array([_look(track, frame, framing) for frame in range(len(track.zoom))])
    corners = looks @ _CORNERS
    x, y = corners[:, 0] / corners[:, 2], corners[:, 1] / corners[:, 2]
    reach_x = (np.abs(track.near_x) + np.abs(track.near_zoom))[:, None]
    reach_y = (np.abs(track.near_y) + np.abs(track.near_zoom))[:, None]
    left, right, above, below = framing.margins
    beyond = (
        -0.5 - left - x + reach_x,
        x + reach_x - 0.5 - right,
        -0.5 - above - y + reach_y,
        y + reach_y - 0.5 - below,
    )
    worst = float(np.max(beyond))
    return worst if worst > 1e-9 else 0.0


def _look(track: Track, frame: int, framing: Framing) -> Floats:
    """The 3x3 matrix from the output to the still, both in windows from the centre of the first window."""
    zoom, roll, yaw = track.zoom[frame], track.roll[frame], track.yaw[frame]
    aspect = framing.window[0] / framing.window[1]
    closer = np.diag([1 / zoom, 1 / zoom / aspect, 1.0])  # from here on in widths, so that angles are angles
    rolled = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    # A picture turned about its vertical axis, seen through a lens: x = f u / (f cos - u sin), y = v f cos / (...)
    turned = np.array([[LENS, 0, 0], [0, LENS * np.cos(yaw), 0], [-np.sin(yaw), 0, LENS * np.cos(yaw)]]) / LENS
    moved = np.array([[1, 0, track.shift_x[frame]], [0, aspect, track.shift_y[frame]], [0, 0, 1]])
    return np.asarray(moved @ turned @ rolled @ closer)


def window(track: Track, frame: int, framing: Framing) -> Floats:
    """The 3x3 matrix from a pixel of the output to the still (pixel centres at whole numbers, as in cv2); its last row
    is 0 0 1 unless the camera orbits."""
    (width, height), (w, h), (x, y) = framing.output, framing.window, framing.centre
    to_windows = np.array([[1 / width, 0, 0.5 / width - 0.5], [0, 1 / height, 0.5 / height - 0.5], [0, 0, 1]])
    to_still = np.array([[w, 0, x - 0.5], [0, h, y - 0.5], [0, 0, 1]])
    matrix = to_still @ _look(track, frame, framing) @ to_windows
    return np.asarray(matrix / matrix[2, 2])


def reach(track: Track, framing: Framing) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the part of the still that any frame shows, with room for filters."""
    width, height = framing.output
    corners = np.array([[-0.5, -0.5, 1], [width, -0.5, 1], [-0.5, height, 1], [width, height, 1]]).T
    seen = np.array([window(track, frame, framing) @ corners for frame in range(len(track.zoom))])
    places = seen[:, :2] / seen[:, 2:]
    near = np.abs(track.near_zoom).max() + np.array([np.abs(track.near_x).max(), np.abs(track.near_y).max()])
    room = 4 + near * framing.window
    low = np.maximum(0, np.floor(places.min(axis=(0, 2)) - room))
    high = np.minimum(framing.still, np.ceil(places.max(axis=(0, 2)) + room + 1))
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
