"""Matches colours between clips: it undoes the colour change from a generator's given picture to its first frame.

Both pictures show the same things, so one affine map is fitted on the pair, and a change of content does not mislead
it. Each clip has one map, because a correction per frame flickers. Over sixty joints the errors of sixty fits add up,
so the fit must have no bias, and no measurement may be lost. A fit on every pixel in RGB, whose channels are nearly
equal, left a chain of 61 clips 30 to 60 levels off, because H.264 blurs colours and each fit undid that again. A drift
of 0.9 levels a clip was below the threshold each time and ended 54 levels off. This fit uses means of blocks, which
encoding hardly changes, in brightness and two colours, and it prefers no change if a picture has no colour. A change
that is too small to correct is stored in the frame (`carried`). The same chains now end within 2.3 levels, with
contrast within 5 %.

The module does not correct drift within a clip, because that drift may be intended.

    >>> match(handed_over, first_frame).corrects
    False
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..core.errors import OutputError
from ..core.files import read_bytes, replacing
from .writer import explained

Pixels = NDArray[np.uint8]
Matrix = NDArray[np.float64]
_MAX_PICTURE_BYTES = 1 << 30
_COLUMNS, _BLOCK = 64, 8  # most blocks across a picture; fewest pixels across a block
_CONTENT = 32.0  # levels: a block that differs by more shows something else, such as a label
_MIN_SHARE = 0.5  # the share of blocks that must show the same
_NOISE = 2.0  # variance in levels: where a colour varies less, its gain cannot be known and stays near 1
_GAIN = (0.8, 1.25)  # a larger change is another picture and not a drift
_MIXED = 0.1  # the largest share of one colour mixed into another
_SHIFT = 24.0  # the largest shift, in levels
_UNSEEN = 1.0  # mean change in levels that is invisible, and smaller than the error of encoding
_ROUNDED = 0.5  # a smaller mean change cannot be expressed in integer levels
_TAG = "reelwright-colour"
_OPPONENT = np.array([[0.2126, 0.7152, 0.0722], [-0.1146, -0.3854, 0.5], [0.5, -0.4542, -0.0458]])  # BT.709
_RGB = np.linalg.inv(_OPPONENT)


def unchanged() -> Matrix:
    """The map that changes nothing."""
    return np.hstack([np.eye(3), np.zeros((3, 1))])


@dataclass(frozen=True)
class ColourMatch:
    """The map that brings a clip's colours back to the given picture, or to the beginning of its chain.

    Attributes:
        matrix: 3x4, RGB in levels to RGB in levels; also set if the change is too small to correct.
        drift: Mean absolute difference of the pair, in levels of brightness and colours.
        residual: The part of the drift that remains.
        corrects: Whether frames are changed.
        note: The reason if frames are not changed.
    """

    matrix: Matrix
    drift: float
    residual: float
    corrects: bool = True
    note: str = ""

    def applied(self, picture: Pixels) -> Pixels:
        """The picture with corrected colours; unchanged unless `corrects`."""
        return apply(self.matrix, picture) if self.corrects else picture

    def to_cache(self) -> dict[str, Any]:
        """All fields, unrounded, as JSON values."""
        return {**asdict(self), "matrix": self.matrix.tolist()}

    @classmethod
    def from_cache(cls, data: Mapping[str, Any]) -> ColourMatch:
        """The match from the values of `to_cache`."""
        return cls(**{**data, "matrix": np.array(data["matrix"], dtype=np.float64)})

    def to_json(self) -> dict[str, Any]:
        """The rounded values for the joint report."""
        return {
            "drift": round(self.drift, 2),
            "residual": round(self.residual, 2),
            "corrected": self.corrects,
            "note": self.note,
            "matrix": [[round(float(value), 4) for value in row] for row in self.matrix],
        }


def apply(matrix: Matrix, picture: Pixels) -> Pixels:
    """Transform an RGB picture."""
    return np.asarray(cv2.transform(picture, matrix), dtype=np.uint8)


def composed(later: Matrix, first: Matrix) -> Matrix:
    """One map that does the same as ``first`` and then ``later``."""
    return np.asarray(later @ np.vstack([first, [0.0, 0.0, 0.0, 1.0]]), dtype=np.float64)


def match(wanted: Pixels, found: Pixels, before: Matrix | None = None) -> ColourMatch:
    """The map from ``found`` to ``wanted``, followed by ``before``, the map that ``wanted`` itself still needs.

    If the pictures show different things, the map is ``before`` alone.
    """
    target, source = _blocks(wanted), _blocks(found)
    drift = float(np.abs(target - source).mean()) if target.shape == source.shape else 0.0
    own, residual = _fitted(target, source) if target.shape == source.shape else (None, 0.0)
    note = "" if own is not None else "the pictures show different things"
    whole = unchanged() if own is None else own
    whole = whole if before is None else composed(before, whole)
    if effect(whole, found) < _UNSEEN:
        return ColourMatch(whole, drift, residual, corrects=False, note=note or "the difference is too small to see")
    return ColourMatch(whole, drift, residual, note=note)


def effect(matrix: Matrix, picture: Pixels) -> float:
    """Mean change of a picture by a map, in levels."""
    colours = _blocks(picture) @ _RGB.T
    return float(np.abs(colours @ matrix[:, :3].T + matrix[:, 3] - colours).mean())


def _fitted(target: Matrix, source: Matrix) -> tuple[Matrix | None, float]:
    """The map in RGB, or ``None`` if it explains too little; and the mean difference that remains."""
    apart = target - source
    same = np.abs(apart - np.median(apart, 0)).max(1) < _CONTENT
    if same.mean() < _MIN_SHARE:
        return None, float(np.abs(apart).mean())
    gain, shift, left = _least_squares(target[same], source[same])
    same[same] = left < max(4.0, 3 * float(np.median(left)))  # fit again without the blocks that have moved
    gain, shift, left = _least_squares(target[same], source[same])
    spread = float(target[same, 0].std())
    if float(np.sqrt((left**2).mean())) > max(3.0, 0.35 * spread):
        return None, float(np.abs(apart).mean())
    residual = float(np.abs(target[same] - source[same] @ gain.T - shift).mean())
    return np.column_stack([_RGB @ gain @ _OPPONENT, _RGB @ shift]), residual


def _least_squares(target: Matrix, source: Matrix) -> tuple[Matrix, NDArray[np.float64], NDArray[np.float64]]:
    """Gains and shift within the limits, and the largest difference that remains in each block."""
    means = target.mean(0), source.mean(0)
    spread = source - means[1]
    change = (target - means[0]) - spread
    ridge = _NOISE * len(source) * np.eye(3)
    wanted = np.linalg.solve(spread.T @ spread + ridge, spread.T @ change).T
    own = np.clip(np.diag(wanted), _GAIN[0] - 1, _GAIN[1] - 1)
    gain = np.eye(3) + np.clip(wanted, -_MIXED, _MIXED) * (1 - np.eye(3)) + np.diag(own)
    moved = np.clip(means[0] - means[1], -_SHIFT, _SHIFT)
    shift = means[1] + moved - gain @ means[1]
    return gain, shift, np.asarray(np.abs(target - source @ gain.T - shift).max(1), dtype=np.float64)


def _blocks(picture: Pixels) -> Matrix:
    """The means of blocks, each in brightness and two colours."""
    height, width = picture.shape[:2]
    columns = max(4, min(_COLUMNS, width // _BLOCK))
    size = (columns, max(2, round(height * columns / width)))
    small = cv2.resize(picture.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.asarray(small.reshape(-1, 3).astype(np.float64) @ _OPPONENT.T, dtype=np.float64)


# --- the frame that the next clip begins with


def read_picture(path: Path) -> Pixels:
    """A PNG that Reelwright wrote, as RGB.

    Raises:
        OutputError: it is missing or damaged.
    """
    picture = decoded_picture(path, cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise OutputError(f"{path} cannot be read as a picture")
    return np.asarray(picture, dtype=np.uint8)


def decoded_picture(path: Path, flags: int) -> NDArray[Any] | None:
    """A picture that Reelwright wrote, as OpenCV decodes it; ``None`` if it is missing or damaged.

    ``cv2.imread`` and ``cv2.imwrite`` crash on a name that is not UTF-8, so OpenCV gets bytes and no names.
    """
    try:
        data = np.frombuffer(read_bytes(path, _MAX_PICTURE_BYTES), np.uint8)
    except OSError:
        return None
    return cv2.imdecode(data, flags) if data.size else None


def carried(path: Path) -> Matrix:
    """The map, stored in a last frame, that still brings it to the colours of its chain's beginning.

    Raises:
        OutputError: it is missing or damaged.
    """
    try:
        with Image.open(path) as picture:
            text = picture.info.get(_TAG)
        return unchanged() if text is None else np.array(json.loads(text), dtype=np.float64).reshape(3, 4)
    except (OSError, ValueError, SyntaxError) as error:
        raise OutputError(f"{path} cannot be read as a picture") from error


def content_digest(path: Path) -> str:
    """The SHA-256 of a last frame's pixels and of its stored map, independent of the file's compression.

    Raises:
        OutputError: it is not a picture.
    """
    pixels = read_picture(path)
    about = json.dumps([list(pixels.shape), carried(path).tolist()])
    return hashlib.sha256(about.encode() + pixels.tobytes()).hexdigest()


def match_given(given: Path, video: Path, before: Matrix | None = None) -> ColourMatch:
    """The map that brings a clip to the colours of its chain's beginning.

    ``given`` is the picture that the clip starts from. ``before`` is the map of the clip that this picture is from, if
    that clip was left uncorrected.
    """
    from .video import first_frame

    lacking = carried(given)
    return match(read_picture(given), first_frame(video), lacking if before is None else composed(before, lacking))


def correct_last_frame(given: Path, video: Path, last_frame: Path) -> ColourMatch:
    """Bring a clip's last frame back to the colours of its chain's beginning, so that drift does not add up.

    ``last_frame`` is replaced atomically. The frame stores the part of the map that integer levels cannot express.
    """
    from .video import last_frame as decoded_last

    found, last = match_given(given, video), read_picture(last_frame)
    matrix, decoded = found.matrix, decoded_last(video)
    if decoded.shape == last.shape and not np.array_equal(decoded, last):
        # The map was fitted on the encoded first frame; a lossless last frame was not encoded.
        encoding = _fitted(_blocks(decoded), _blocks(last))[0]
        matrix = matrix if encoding is None else composed(matrix, encoding)
    if effect(matrix, last) >= _ROUNDED:
        corrected = apply(matrix, last)
        matrix, last = _rest(matrix, last, corrected), corrected
    _save(last, matrix, last_frame)
    return found


def _rest(matrix: Matrix, before: Pixels, after: Pixels) -> Matrix:
    """The shift that rounding lost."""
    exact = before.reshape(-1, 3) @ matrix[:, :3].T + matrix[:, 3]
    inside = ((exact > 0) & (exact < 255)).all(1)
    rest = unchanged()
    if inside.any():
        rest[:, 3] = (exact - after.reshape(-1, 3))[inside].mean(0)
    return rest


def _save(picture: Pixels, lacking: Matrix, path: Path) -> None:
    info = PngInfo()
    info.add_text(_TAG, json.dumps([[round(float(value), 6) for value in row] for row in lacking]))
    with explained(path), replacing(path) as unfinished:
        Image.fromarray(picture).save(unfinished, format="PNG", pnginfo=info, compress_level=1)
