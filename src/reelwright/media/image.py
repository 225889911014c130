"""Turns a user's picture into a private, upright, opaque 8-bit sRGB PNG, or refuses it with a reason.

A generator opens a picture with ``Image.open(path).convert("RGB")``: that ignores the EXIF rotation, clips 16 bits to
white, shows the colours hidden under transparency, and reads every colour profile as sRGB. So generators only get the
copy made here, and a note names each correction (with ``strict``, the picture is refused instead). Backends decide
which sizes they take.

    >>> picture = take_picture(Path("cat.jpg"), Path("private/first.png"), Intake(size=Size(1280, 720)))
    >>> picture.size, picture.notes
    (Size(width=1280, height=720), ('it was turned upright (EXIF orientation 6)',))
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import BackendUnavailableError, Failure, InvalidInputError, VideoGenerationError
from ..core.files import shown
from ..core.request import Fit, Picture, Size
from .framing import PicturePlacement, cover_crop_share, parse_anchor, place
from .image_decoder import decode
from .picture_file import Held, hold

MIN_SIDE = 32  # below this nothing can be recognised, and every generator would enlarge it ten times or more
MAX_ASPECT = 5.0  # wider than any screen (32:9 is 3.6); a generator that keeps the aspect would make a ribbon
_NOTED_CROP = 0.25
_NOTED_ENLARGEMENT = 2.0


@dataclass(frozen=True)
class Intake:
    """The rules for taking in pictures.

    Attributes:
        strict: Refuse a picture that needs a change that the user did not request.
        fit: How it is fitted to ``size``; ``None`` covers, and adds a note if a large part is lost.
        anchor: The part that survives a crop, or the picture's position between bars: see `framing.parse_anchor`.
        size: The exact size of the copy; ``None`` keeps the picture's size.
        max_pixels: Refuse more pixels than this before decoding any.
        max_bytes: Refuse larger files before reading them.
        fitted_later: With a ``fit``, the generator scales the copy itself: any shape is allowed, as with ``size``.
    """

    strict: bool = False
    fit: Fit | None = None
    anchor: str = "center"
    size: Size | None = None
    max_pixels: int = 64_000_000
    max_bytes: int = 256 * 1024 * 1024
    fitted_later: bool = False


@dataclass(frozen=True)
class _Taken:
    """An accepted picture: its copy's facts and the PNG's descriptor."""

    held: Held
    facts: dict[str, Any]
    placement: PicturePlacement
    notes: tuple[str, ...]
    png_fd: int

    def picture(self, path: Path) -> Picture:
        return Picture(
            path=path,
            source=self.held.source,
            size=Size(*self.placement.canvas),
            source_size=Size(self.facts["width"], self.facts["height"]),
            sha256=self.held.sha256,
            notes=self.notes,
        )


def take_picture(source: Path, target: Path, intake: Intake) -> Picture:
    """Write the normalised copy of a picture to ``target``.

    ``target`` gets mode 0600 and is replaced if it exists; an error leaves no partial file. The same bytes with
    the same intake always give the same PNG.

    Raises:
        InvalidInputError: the file, its format, its content or its shape cannot be used.
        BackendUnavailableError: the copy cannot be written (disk full, no permission).
    """
    with _taken(source, intake, write=True) as taken:
        _write_private(taken.png_fd, target)
        return taken.picture(target)


def inspect_picture(source: Path, intake: Intake) -> Picture:
    """Check and decode a picture like `take_picture`, without writing a file.

    ``path`` of the result is the source itself.
    """
    with _taken(source, intake, write=False) as taken:
        return taken.picture(source)


def describe_picture(path: Path, intake: Intake | None = None) -> dict[str, Any]:
    """The answer of the image validator (``valid``, ``errors``, ``info``); a bad picture raises no error."""
    try:
        with _taken(path, intake or Intake(), write=False) as taken:
            return {"valid": True, "errors": [], "info": _info(taken)}
    except VideoGenerationError as error:
        text = f"{error.message}. {error.advice}" if error.advice else error.message
        return {"valid": False, "errors": [text], "info": {}}


def _info(taken: _Taken) -> dict[str, Any]:
    facts = taken.facts
    return {
        "format": facts["format"],
        "width": facts["width"],
        "height": facts["height"],
        "mode": facts["mode"],
        "bytes": taken.held.num_bytes,
        "file_size_mb": taken.held.num_bytes / 1024**2,
        "dimensions": (facts["width"], facts["height"]),
        "aspect_ratio": round(facts["width"] / facts["height"], 4),
        "color_space": facts["color_space"],
        "notes": list(taken.notes),
    }


# --- the intake


@contextlib.contextmanager
def _taken(source: Path, intake: Intake, *, write: bool) -> Iterator[_Taken]:
    job = _job(intake)
    with hold(source, intake.max_bytes) as held:
        named = {**job, "format": held.format, "num_bytes": held.num_bytes}
        with decode(held, named, write=write) as (facts, png_fd):
            yield _judged(held, facts, intake, png_fd)


def _job(intake: Intake) -> dict[str, Any]:
    """The job of the decoder's child (see `image_child`)."""
    if intake.size and intake.size.area > intake.max_pixels:
        raise InvalidInputError(
            f"the requested size {intake.size} is too large: the limit is {intake.max_pixels / 1e6:,.3g} megapixels",
            advice="Use a smaller size.",
        )
    asked_to_fit = intake.fit is not None and (intake.size is not None or intake.fitted_later)
    return {
        "max_pixels": intake.max_pixels,
        "min_side": MIN_SIDE,
        "max_aspect": None if asked_to_fit else MAX_ASPECT,
        "frame": intake.size,
        "frame_pixels": intake.size.area if intake.size else 0,
        "fit": intake.fit or "cover",
        "anchor": parse_anchor(intake.anchor),
    }


def _judged(held: Held, facts: dict[str, Any], intake: Intake, png_fd: int) -> _Taken:
    """Note each correction; with ``strict``, refuse the picture instead."""
    size = (facts["width"], facts["height"])
    placement = place(size, intake.size, intake.fit or "cover", parse_anchor(intake.anchor))
    normalised = list(facts["normalised"])
    if held.suffix_promises_otherwise:
        normalised.insert(0, f"it is {held.called}, although its name ends in {held.source.suffix}")
    cropped = _cropped(size, intake)
    if intake.fit is None:
        normalised += cropped
        cropped = []
    if intake.strict and normalised:
        raise InvalidInputError(
            f"{shown(held.source)} would have to be changed: {'; '.join(normalised)}",
            evidence=normalised,
            advice="Correct the picture yourself, or leave out --strict-input.",
        )
    notes = (*normalised, *cropped, *_remarks(size, placement))
    return _Taken(held, facts, placement, notes, png_fd)


def _cropped(size: tuple[int, int], intake: Intake) -> list[str]:
    if intake.size is None or intake.fit not in (None, "cover"):
        return []
    share = cover_crop_share(size, intake.size)
    if share <= _NOTED_CROP:
        return []
    lost = f"{share:.0%} of the picture is cropped away to fill {intake.size}"
    return [f"{lost}; choose the part with --anchor, or keep all of it with --fit contain"]


def _remarks(size: tuple[int, int], placement: PicturePlacement) -> list[str]:
    """Notes on requested changes that the user should know about."""
    remarks = []
    left, top, right, bottom = placement.box
    used, shape = (right - left) / (bottom - top), placement.inner[0] / placement.inner[1]
    distortion = max(used / shape, shape / used)
    if distortion > 1.02:  # rounding to full pixels stays below that from 50 pixels on
        remarks.append(f"it was stretched {distortion:.2f} times in one direction, from {size[0]}x{size[1]}")
    if placement.bars_share > 0.02:
        remarks.append(f"black bars fill {placement.bars_share:.0%} of the frame")
    if placement.enlargement > _NOTED_ENLARGEMENT:
        remarks.append(f"it was enlarged {placement.enlargement:.1f} times, so the video will look soft")
    return remarks


# --- the private copy


def _write_private(png_fd: int, target: Path) -> None:
    try:
        target.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(target, flags, 0o600)
        try:
            _copy(png_fd, fd)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
    except OSError as error:
        failure = Failure.PERM if isinstance(error, PermissionError) else Failure.DISK
        raise BackendUnavailableError(
            f"the private copy of a picture cannot be written to {shown(target.parent)}: {error.strerror}",
            failure=failure,
            advice="Free some space on that disk, or put the output into another folder.",
        ) from error


def _copy(origin: int, target: int) -> None:
    done, end = 0, os.fstat(origin).st_size
    while done < end:
        done += os.sendfile(target, origin, done, end - done)
