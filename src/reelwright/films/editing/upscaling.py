"""Larger frames: Lanczos is built in; other packages may bring a better one, and nothing is downloaded here.

A package names its upscaler in its ``pyproject.toml``; the storyboard asks for it by that name::

    [project.entry-points."reelwright.upscalers"]
    realesrgan = "my_package:load"          # load(times) -> upscale(frame) -> larger frame

``load`` is called once for a film, so that a model is read once; ``upscale`` gets each frame (RGB, uint8, height x
width x 3) in the film's order and returns it with both sides ``times`` as long.

    >>> upscale = find_upscaler("lanczos")(2)
    >>> upscale(frame).shape
    (1440, 2560, 3)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points

import cv2
import numpy as np
from numpy.typing import NDArray

from ...core.errors import Failure, InvalidInputError, OutputError, error_for

Pixels = NDArray[np.uint8]
Upscaler = Callable[[Pixels], Pixels]
GROUP = "reelwright.upscalers"
LANCZOS = "lanczos"


def find_upscaler(name: str) -> Callable[[int], Upscaler]:
    """What loads the upscaler of that name.

    Raises:
        InvalidInputError: none is installed under that name.
        BackendUnavailableError: it is installed and cannot be imported.
    """
    if name == LANCZOS:
        return _lanczos
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if name not in installed:
        known = ", ".join([LANCZOS, *sorted(installed)])
        raise InvalidInputError(f"there is no upscaler {name!r}", advice=f"Installed are: {known}.")
    try:
        loaded: Callable[[int], Upscaler] = installed[name].load()
    except Exception as error:
        why = f"the upscaler {name!r} cannot be loaded: {type(error).__name__}: {error}"
        raise error_for(Failure.ENV, why, advice=f"Repair its package, or use {LANCZOS}.") from error
    return loaded


def enlarged(
    frames: Iterator[Pixels], times: int, name: str = LANCZOS, loaded: Upscaler | None = None
) -> Iterator[Pixels]:
    """Each side ``times`` as long; 1 leaves the frames as they are. ``loaded`` is that upscaler, if it is there yet.

    Raises:
        OutputError: the upscaler returned something else than a larger picture.
    """
    if times == 1:
        yield from frames
        return
    upscale = loaded or find_upscaler(name)(times)
    for frame in frames:
        large = upscale(frame)
        wanted = (frame.shape[0] * times, frame.shape[1] * times, 3)
        if large.shape != wanted or large.dtype != np.uint8:
            raise OutputError(f"the upscaler {name!r} returned {large.dtype} {large.shape} instead of uint8 {wanted}")
        yield np.ascontiguousarray(large)


def _lanczos(times: int) -> Upscaler:
    """Lanczos and a light unsharp mask."""

    def upscale(frame: Pixels) -> Pixels:
        height, width = frame.shape[:2]
        large = cv2.resize(frame, (width * times, height * times), interpolation=cv2.INTER_LANCZOS4)
        soft = cv2.GaussianBlur(large, (0, 0), times * 0.6)
        return np.asarray(cv2.addWeighted(large, 1.4, soft, -0.4, 0), dtype=np.uint8)

    return upscale
