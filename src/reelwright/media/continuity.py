"""Colours from clip to clip: what a generator changed between the picture it was given and its own first frame.

Both show the same pixels, so one affine matrix fitted on the pair needs no guess, and no change of content can fool
it. One matrix per clip: a correction per frame flickers. Not for: drift within a clip, which may be meant.

    >>> match(handed_over, first_frame).is_identity
    True
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import Failure, OutputError, error_for

Pixels = NDArray[np.uint8]
_MEASURED_WIDTH = 320
_CONTENT = 32.0  # a pixel that differs by more shows something else: a label, a new object
_MIN_SHARE = 0.5  # of the pixels that must show the same
_MAX_RESIDUAL = 12.0
_GAIN = (0.8, 1.25)  # beyond this it is no drift of colour but another picture
_UNSEEN = 1.0  # mean change in levels that nobody sees, and less than encoding costs


@dataclass(frozen=True)
class ColourMatch:
    """What brings a clip's colours back to the picture that it was given.

    Attributes:
        matrix: 3x4, RGB in levels to RGB in levels.
        residual: Root mean square of what is left on the fitted pixels, in levels.
        drift: Mean absolute difference of the pair before, in levels.
        note: Why there is no correction, if there is none.
    """

    matrix: NDArray[np.float64]
    residual: float
    drift: float
    note: str = ""

    @property
    def is_identity(self) -> bool:
        """Whether nothing is to be changed."""
        return bool(self.note)

    def applied(self, picture: Pixels) -> Pixels:
        """A picture with these colours."""
        return picture if self.is_identity else apply(self.matrix, picture)

    def to_json(self) -> dict[str, Any]:
        """For the joint report."""
        return {
            "drift": round(self.drift, 2),
            "residual": round(self.residual, 2),
            "corrected": not self.is_identity,
            "note": self.note,
            "matrix": [[round(float(value), 4) for value in row] for row in self.matrix],
        }


def apply(matrix: NDArray[np.float64], picture: Pixels) -> Pixels:
    """Transform an RGB picture."""
    return np.asarray(cv2.transform(picture, matrix), dtype=np.uint8)


def match(wanted: Pixels, found: Pixels) -> ColourMatch:
    """The matrix from ``found`` to ``wanted``; the identity where they do not show the same thing."""
    target, source = (_small(picture, wanted.shape) for picture in (wanted, found))
    drift = float(np.abs(target - source).mean())
    same = np.abs(target - source - (target - source).mean(0)).max(1) < _CONTENT
    if same.mean() < _MIN_SHARE:
        return _identity(drift, drift, "the pictures show different things")
    design = np.hstack([source[same], np.ones((int(same.sum()), 1))])
    solution, *_ = np.linalg.lstsq(design, target[same], rcond=None)
    matrix = np.asarray(solution.T, dtype=np.float64)
    residual = float(np.sqrt(((design @ solution - target[same]) ** 2).mean()))
    if residual > _MAX_RESIDUAL:
        return _identity(drift, residual, "no change of colour explains the difference")
    matrix = clamped(matrix)
    if float(np.abs(design @ matrix.T - source[same]).mean()) < _UNSEEN:
        return _identity(drift, residual, "nothing to correct")
    return ColourMatch(matrix, residual, drift)


def clamped(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix, drawn towards the identity until no channel's gain is beyond the limits."""
    identity = np.hstack([np.eye(3), np.zeros((3, 1))])
    gains = np.diag(matrix[:, :3])
    share = 1.0
    for gain in gains:
        limit = _GAIN[1] if gain > 1 else _GAIN[0]
        if not _GAIN[0] <= gain <= _GAIN[1]:
            share = min(share, (limit - 1) / (gain - 1))
    return np.asarray(identity + share * (matrix - identity), dtype=np.float64)


def _identity(drift: float, residual: float, note: str) -> ColourMatch:
    return ColourMatch(np.hstack([np.eye(3), np.zeros((3, 1))]), residual, drift, note)


def _small(picture: Pixels, shape: tuple[int, ...]) -> NDArray[np.float64]:
    height, width = shape[:2]
    size = (min(_MEASURED_WIDTH, width), max(1, round(height * min(_MEASURED_WIDTH, width) / width)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return np.asarray(small.reshape(-1, 3), dtype=np.float64)


def read_picture(path: Path) -> Pixels:
    """A PNG of ours as RGB.

    Raises:
        OutputError: it is gone or damaged.
    """
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise OutputError(f"{path} cannot be read as a picture")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def correct_last_frame(given: Path, video: Path, last_frame: Path) -> ColourMatch:
    """Bring the frame that a clip hands on back to the colours that the clip was given: so drift does not add up.

    ``last_frame`` is replaced, whole or not at all, if there is something to correct.
    """
    from .video import first_frame

    found = match(read_picture(given), first_frame(video))
    if not found.is_identity:
        corrected = found.applied(read_picture(last_frame))
        unfinished = last_frame.with_name(f".{last_frame.name}.part.png")
        if not cv2.imwrite(str(unfinished), cv2.cvtColor(corrected, cv2.COLOR_RGB2BGR)):
            raise error_for(Failure.DISK, f"{unfinished} cannot be written", advice="Make room.")
        unfinished.replace(last_frame)
    return found
