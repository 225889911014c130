"""Renders drafts on the CPU: a moving camera over a still, or a passage from a first picture to a last one.

`backends.draft` makes the JSON options of a draft. Nothing in the picture acts, so the label in the corner and the tags
in the file say that it is a draft. The parts: `camera_path` (where the camera stands), `stills` (pictures and their
pixels), `transitions` (measures two pictures), `passages` (frames between them), `label`.

    >>> options = {"first": "cat.png", "width": 1280, "height": 720, "num_frames": 81, "fps": 16.0, "seed": 1,
    ...            "camera": ["push_in"], "speed": 1.0}
    >>> facts = ENGINE.generate(options, Path("cat.mp4"), emit=print, check=lambda: None)

Same options, same pictures and same library versions give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from ...core.events import Log, Phase, Progress
from ...core.files import path_errors
from ...core.request import Size
from ...media.writer import Encoding, VideoWriter
from .. import Check, Emit
from . import camera_path, passages, stills, transitions
from .label import Label
from .stills import Pixels

LAST_FRAME_NAME = "last.png"


@dataclass(frozen=True)
class Scene:
    """Frames, rendered on demand, and facts about them. A frame may repeat: do not change its array."""

    frames: Iterator[Pixels]
    facts: Mapping[str, Any]


class DraftEngine:
    """See `engines.Engine`."""

    def generate(self, options: Mapping[str, Any], output: Path, emit: Emit, check: Check) -> Mapping[str, Any]:
        """Render to ``output``; on cancellation the unfinished file is removed.

        With ``last_frame`` the last frame is also written, clean and lossless, to ``last.png`` beside the
        output: a following segment starts from it.
        """
        size = Size(options["width"], options["height"])
        scene = scene_of(options)
        emit(Log(_summary(scene.facts)))
        emit(Phase("rendering"))
        label = Label(size) if options.get("label", True) else None
        encoding = Encoding(codec=options.get("codec", "h264"))
        total, frame = options["num_frames"], None
        with VideoWriter(output, size, options["fps"], encoding, options.get("metadata", {})) as clip:
            for number, frame in enumerate(scene.frames, 1):
                check()
                clip.write(frame if label is None else label.drawn(frame))
                emit(Progress("rendering", number, total))
            emit(Phase("saving"))
        if options.get("last_frame"):
            assert frame is not None
            _save_lossless(frame, output.with_name(LAST_FRAME_NAME))
            return {**scene.facts, "last_frame": LAST_FRAME_NAME}
        return scene.facts


def scene_of(options: Mapping[str, Any]) -> Scene:
    """The frames of these options, rendered on demand, without the label."""
    return _passage_scene(options) if "last" in options else _camera_scene(options)


def _camera_scene(options: Mapping[str, Any]) -> Scene:
    size = Size(options["width"], options["height"])
    moves = tuple(options["camera"])
    still = stills.load_still(Path(options["first"]), size, options.get("fit", "cover"))
    shot = camera_path.CameraShot(
        moves, options["speed"], options["num_frames"], options["fps"], options["seed"],
        depth="depth" in options, identity_start=bool(options.get("identity_start")),
    )  # fmt: skip
    inner = (still.shape[1], still.shape[0])
    framing = camera_path.Framing.cover(inner, size, _anchor(options))
    if shot.identity_start and "pull_out" in moves:
        still = stills.extended(still, camera_path.PUSH ** min(1.0, shot.amount))
        whole = (still.shape[1], still.shape[0])
        framing = framing.moved(((inner[0] - whole[0]) / 2, (inner[1] - whole[1]) / 2), whole)
    track = camera_path.shoot(shot, framing)
    facts: dict[str, Any] = {
        "mode": "camera move",
        "camera": list(moves),
        "speed": shot.speed,
        "starts_on_picture": bool(track.zoom[0] == 1.0),
        "parallax": track.moves_depth,
    }
    depth = None
    if track.moves_depth:
        depth = stills.load_depth(Path(options["depth"]))
        if options.get("fit") == "contain":
            scale = min(inner[0] / depth.shape[1], inner[1] / depth.shape[0])
            inner = (round(depth.shape[1] * scale), round(depth.shape[0] * scale))
        depth = stills.placed(depth, inner, (still.shape[1], still.shape[0]))
    still, framing = _reduced(still, framing, track)
    return Scene(_camera_frames(still, depth, track, framing), facts)


def _reduced(
    still: Pixels, framing: camera_path.Framing, track: camera_path.Track
) -> tuple[Pixels, camera_path.Framing]:
    """The still at the resolution of the middle of the zoom: sharp when close, without shimmer when wide."""
    per_pixel = framing.window[0] / framing.output[0]
    wanted = math.sqrt(max(1.0, float(track.zoom.max()))) * float(max(1.0, track.zoom.min()))
    if per_pixel <= wanted:
        return still, framing
    scale = wanted / per_pixel
    small = stills.resized(still, (round(still.shape[1] * scale), round(still.shape[0] * scale)))
    return small, framing.scaled((small.shape[1], small.shape[0]))


def _camera_frames(
    still: Pixels, depth: stills.Floats | None, track: camera_path.Track, framing: camera_path.Framing
) -> Iterator[Pixels]:
    size = Size(*framing.output)
    left, top, right, bottom = camera_path.reach(track, framing)
    relief = None
    if depth is not None:
        relief = stills.Relief(depth, (still.shape[1], still.shape[0]), (left, top), size)
    source = stills.Still(still[top:bottom, left:right])
    framing = framing.moved((left, top), (right - left, bottom - top))
    width = framing.window[0]
    previous, frame = None, None
    for number in range(len(track.zoom)):
        matrix = camera_path.window(track, number, framing)
        near = (track.near_x[number] * width, track.near_y[number] * width, track.near_zoom[number] * width)
        pose = (matrix.tobytes(), near)
        if frame is None or pose != previous:  # a locked camera is rendered once
            if relief is not None and any(near):
                frame = source.displaced(*relief.maps(matrix, near[:2], near[2]))
            else:
                frame = source.warped(matrix, size)
        previous = pose
        yield frame


def _passage_scene(options: Mapping[str, Any]) -> Scene:
    size = Size(options["width"], options["height"])
    whole = [stills.load_still(Path(options[role]), size, options.get("fit", "cover")) for role in ("first", "last")]
    crops = [_cropped(picture, size, _anchor(options)) for picture in whole]
    first, last = (stills.resized(crop, size) for crop in crops)
    match = transitions.measure(first, last)
    facts = {"mode": match.mode, **match.facts, "starts_on_picture": True}
    return Scene(_passage_frames(first, last, _passage_of(match, crops, size), options["num_frames"]), facts)


def _passage_of(match: transitions.PictureMatch, crops: list[Pixels], size: Size) -> passages.Passage:
    if match.similarity is not None:
        zoom = match.facts["camera_zoom"]
        one, other = (
            stills.Still(_finer(crop, size, closer), seen_small=True)
            for crop, closer in zip(crops, (zoom, 1 / zoom), strict=True)
        )
        return passages.CameraMove(one, other, match.similarity, size)
    one, other = (stills.Still(stills.resized(crop, size)) for crop in crops)
    if match.flows is not None:
        return passages.Morph(one, other, match.flows)
    return passages.Dissolve(one, other, size)


def _passage_frames(first: Pixels, last: Pixels, passage: passages.Passage, num_frames: int) -> Iterator[Pixels]:
    times = camera_path.ease(num_frames)
    yield first
    for number in range(1, num_frames - 1):
        yield passage.render(float(times[number]))
    if num_frames > 1:
        yield last


def _cropped(picture: Pixels, size: Size, anchor: tuple[float, float]) -> Pixels:
    """The part of a picture that fills the frame, at the picture's own resolution."""
    height, width = picture.shape[:2]
    framing = camera_path.Framing.cover((width, height), size, anchor)
    wide, high = round(framing.window[0]), round(framing.window[1])
    left, top = round(framing.centre[0] - wide / 2), round(framing.centre[1] - high / 2)
    left, top = min(max(0, left), width - wide), min(max(0, top), height - high)
    return picture[top : top + high, left : left + wide]


def _finer(crop: Pixels, size: Size, zoom: float) -> Pixels:
    """A crop with as many pixels as a zoom into it can use."""
    factor = min(crop.shape[1] / size.width, math.sqrt(max(1.0, zoom)))
    if factor <= 1.0:
        return stills.resized(crop, size)
    return stills.resized(crop, (round(size.width * factor), round(size.height * factor)))


def _anchor(options: Mapping[str, Any]) -> tuple[float, float]:
    x, y = options.get("anchor", (0.5, 0.5))
    return x, y


def _summary(facts: Mapping[str, Any]) -> str:
    if "camera" in facts:
        return f"camera: [{', '.join(facts['camera'])}] speed {facts['speed']:g}"
    return f"from the first picture to the last one by {facts['mode']}"


def _save_lossless(frame: Pixels, path: Path) -> None:
    _, data = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    with path_errors(path, "be written"):
        path.write_bytes(data.tobytes())  # `cv2.imwrite` crashes on a name that is not UTF-8


ENGINE = DraftEngine()
