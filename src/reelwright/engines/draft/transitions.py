"""Measures how a first picture can become a last one without a model: by a camera move, a flow, or a dissolve.

The measurements choose the mode, and are reported (`PictureMatch.facts`):

    camera    one similarity (zoom, shift, roll) maps one picture onto the other, and little is left over
    flow      dense optical flow agrees with itself, forwards and backwards, nearly everywhere
    dissolve  anything else; no classical method invents the poses in between

`passages` makes the frames. Both pictures have the clip's size.

    >>> measure(first, last).mode
    'camera'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .stills import Floats, Matrix, Pixels

_MEASURED_WIDTH = 640  # of the copies on which cameras are fitted
_MIN_INLIERS, _MIN_INLIER_SHARE = 40, 0.35
_TILE = 40  # pixels, at half resolution
_FLOW_GATE = 0.08  # share of bad tiles: good pairs measured up to .056, a jumping animal .118
_CAMERA_GATE = 0.08


@dataclass(frozen=True)
class PictureMatch:
    """The mode for two pictures, and its evidence.

    ``similarity`` maps pixels of the first picture to the last one (camera); ``flows`` are the displacements there and
    back in pixels (flow); ``facts`` are the measurements, for the manifest.
    """

    mode: str
    similarity: Matrix | None = None
    flows: tuple[Floats, Floats] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def measure(first: Pixels, last: Pixels) -> PictureMatch:
    """Measure two RGB pictures and choose the best mode whose evidence holds."""
    facts: dict[str, Any] = {}
    similarity = _camera_fit(first, last, facts)
    if similarity is not None:
        return PictureMatch("camera", similarity=similarity, facts=facts)
    flows = _flow_fit(first, last, facts)
    if flows is not None:
        return PictureMatch("flow", flows=flows, facts=facts)
    return PictureMatch("dissolve", facts=facts)


def _camera_fit(first: Pixels, last: Pixels, facts: dict[str, Any]) -> Matrix | None:
    """The similarity from the first picture to the last in output pixels, if it explains nearly everything."""
    small_first, scale = _small_grey(first)
    small_last, _ = _small_grey(last)
    fitted = _by_features(small_first, small_last, facts)
    if fitted is None:
        fitted = _by_correlation(small_first, small_last, facts)
    if fitted is None:
        return None
    overlap, bad_tiles = _left_over(small_first, small_last, fitted)
    facts |= {"camera_overlap": round(overlap, 3), "camera_bad_tiles": round(bad_tiles, 3)}
    facts["camera_zoom"] = round(float(np.hypot(fitted[0, 0], fitted[1, 0])), 4)
    if overlap < 0.2 or bad_tiles > _CAMERA_GATE:
        return None
    return _rescaled(fitted, 1 / scale)


def _small_grey(picture: Pixels) -> tuple[Pixels, float]:
    scale = min(1.0, _MEASURED_WIDTH / picture.shape[1])
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    if scale == 1.0:
        return np.asarray(grey, np.uint8), scale
    return np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8), scale


def _rescaled(matrix: Matrix, factor: float) -> Matrix:
    """The same map between pictures ``factor`` times as large (pixel centres at whole numbers)."""
    shift = (factor - 1) / 2
    linear = matrix[:, :2]
    offset = factor * matrix[:, 2] + shift - linear @ np.array([shift, shift])
    return np.column_stack([linear, offset])


def _by_features(first: Pixels, last: Pixels, facts: dict[str, Any]) -> Matrix | None:
    orb = cv2.ORB.create(nfeatures=2500, fastThreshold=10)
    points_first, marks_first = orb.detectAndCompute(first, None)
    points_last, marks_last = orb.detectAndCompute(last, None)
    facts["inliers"] = 0
    if marks_first is None or marks_last is None or min(len(marks_first), len(marks_last)) < _MIN_INLIERS:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(marks_first, marks_last, k=2)
    good = [pair[0] for pair in pairs if len(pair) == 2 and pair[0].distance < 0.75 * pair[1].distance]
    facts["matches"] = len(good)
    if len(good) < _MIN_INLIERS:
        return None
    here = np.array([points_first[match.queryIdx].pt for match in good], np.float32)
    there = np.array([points_last[match.trainIdx].pt for match in good], np.float32)
    matrix, inliers = cv2.estimateAffinePartial2D(
        here, there, method=cv2.RANSAC, ransacReprojThreshold=2.0, maxIters=4000, confidence=0.999
    )
    if matrix is None:
        return None
    facts["inliers"] = int(inliers.sum())
    enough = facts["inliers"] >= _MIN_INLIERS and facts["inliers"] >= _MIN_INLIER_SHARE * len(good)
    return np.asarray(matrix, np.float64) if enough and 0.2 < np.hypot(matrix[0, 0], matrix[1, 0]) < 5 else None


def _by_correlation(first: Pixels, last: Pixels, facts: dict[str, Any]) -> Matrix | None:
    """A coarse fit by enhanced correlation, for pictures without corners; its result must be nearly a similarity."""
    guess = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 120, 1e-5)
    half = [cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for grey in (first, last)]
    try:
        correlation, found = cv2.findTransformECC(half[0], half[1], guess, cv2.MOTION_AFFINE, stop, None, 5)
    except cv2.error:  # it did not converge
        return None
    facts["correlation"] = round(float(correlation), 4)
    a, b = (found[0, 0] + found[1, 1]) / 2, (found[1, 0] - found[0, 1]) / 2
    linear = np.array([[a, -b], [b, a]], np.float64)
    if correlation < 0.95 or np.abs(found[:, :2] - linear).max() > 0.02 or not 0.2 < np.hypot(a, b) < 5:
        return None
    middle = np.array([half[0].shape[1] / 2, half[0].shape[0] / 2])
    offset = found[:, :2] @ middle + found[:, 2] - linear @ middle
    return _rescaled(np.column_stack([linear, offset]), 2.0)


def _left_over(first: Pixels, last: Pixels, similarity: Matrix) -> tuple[float, float]:
    """Share of the frame that both pictures show, and share of its tiles that the camera does not explain."""
    size = (first.shape[1], first.shape[0])
    moved = cv2.warpAffine(last, similarity, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    seen = cv2.warpAffine(np.full_like(last, 255), similarity, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    back = cv2.warpAffine(np.full_like(first, 255), similarity, size, flags=cv2.INTER_LINEAR)
    both = seen > 254
    overlap = max(float(both.mean()), float((back > 254).mean()))
    if not both.any():
        return 0.0, 1.0
    smooth = [cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 2.0) for grey in (first, moved)]
    gain = smooth[0][both].mean() - smooth[1][both].mean()  # a change of light is no movement
    detail = float(smooth[0][both].std()) + 4.0
    wrong = (np.abs(smooth[0] - smooth[1] - gain) > 0.5 * detail) & both
    return overlap, _bad_share(wrong, both, 0.2)


def _bad_share(wrong: NDArray[np.bool_], valid: NDArray[np.bool_], limit: float) -> float:
    """Share of the (mostly valid) tiles in which more than ``limit`` of the pixels are wrong."""
    grid = (max(1, wrong.shape[1] // _TILE), max(1, wrong.shape[0] // _TILE))
    weight = cv2.resize(valid.astype(np.float32), grid, interpolation=cv2.INTER_AREA)
    share = cv2.resize(wrong.astype(np.float32), grid, interpolation=cv2.INTER_AREA)
    used = weight > 0.5
    return float((share[used] > limit * weight[used]).mean()) if used.any() else 1.0


def _flow_fit(first: Pixels, last: Pixels, facts: dict[str, Any]) -> tuple[Floats, Floats] | None:
    """Flows at half resolution, there and back, if they agree; in pixels of the full resolution."""
    half = (first.shape[1] // 2, first.shape[0] // 2)
    greys = [
        cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), half, interpolation=cv2.INTER_AREA)
        for picture in (first, last)
    ]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    there, back = search.calc(greys[0], greys[1], None), search.calc(greys[1], greys[0], None)
    columns, rows = np.meshgrid(np.arange(half[0], dtype=np.float32), np.arange(half[1], dtype=np.float32))
    returned = cv2.remap(back, columns + there[..., 0], rows + there[..., 1], cv2.INTER_LINEAR)
    landed = cv2.remap(greys[1], columns + there[..., 0], rows + there[..., 1], cv2.INTER_LINEAR)
    apart = np.linalg.norm(there + returned, axis=2)
    unlike = np.abs(landed.astype(np.float32) - greys[0].astype(np.float32)) > 40
    wrong = (apart > 1.0 + 0.05 * np.linalg.norm(there, axis=2)) | unlike
    bad_tiles = _bad_share(wrong, np.ones_like(wrong), 0.5)
    facts |= {"fb_consistency": round(float(1 - wrong.mean()), 3), "fb_bad_tiles": round(bad_tiles, 3)}
    if bad_tiles > _FLOW_GATE:
        return None
    size = (first.shape[1], first.shape[0])
    stretch = np.array([size[0] / half[0], size[1] / half[1]], np.float32)
    return cv2.resize(there, size) * stretch, cv2.resize(back, size) * stretch
