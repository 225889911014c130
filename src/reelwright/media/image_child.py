"""The decoder of pictures, run apart: hostile bytes in, plain 8-bit sRGB pixels out, under hard limits.

`image_apart` starts it as a process of its own; it reads the picture from descriptor 0, writes a report
(JSON) to descriptor 1 and the normalised PNG to a third one, and opens no other file. Not for importing into
the runner: a crash, a leak or a decompression bomb must end here. Imports Pillow and arithmetic, nothing else
of ours.

    >>> report = json.loads(...)          # what descriptor 1 holds after a run
    >>> report["width"], report["normalised"]
    (3024, ['it was turned upright (EXIF orientation 6)'])
"""

from __future__ import annotations

import json
import os
import resource
import struct
import zlib
from typing import Any, BinaryIO

from PIL import Image, ImageChops, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError, WebPImagePlugin

from .framing import place
from .image_colours import BROKEN, color_space, colour_change, gamma_power

_MIB = 1 << 20
assert JpegImagePlugin  # imported to be registered
assert WebPImagePlugin
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112
_HDR_TRANSFERS = (b"\x10", b"\x12")  # 16 (PQ) and 18 (HLG) of ITU-T H.273
_MODE_NOTES = {
    "1": "its black-and-white pixels were turned into RGB",
    "L": "its greyscale was turned into RGB",
    "LA": "its greyscale was turned into RGB",
    "P": "its palette was turned into RGB",
    "I": "its greyscale was turned into RGB",
    "I;16": "its greyscale was turned into RGB",
}
_DEEP_NOTE = "its 16 bits per channel were reduced to 8"


class Refused(Exception):
    """The picture cannot be used; the text says why, ``advice`` what to do."""

    def __init__(self, reason: str, advice: str = "", evidence: str = "") -> None:
        super().__init__(reason)
        self.report = {"refused": reason, "advice": advice, "evidence": [evidence] if evidence else []}


def main(job: dict[str, Any]) -> None:
    """Do one job (see `image_apart.decode`) and report on descriptor 1."""
    # Texts and profiles of a PNG are inflated up to this size; Pillow's own limit, 1 MiB, refuses real profiles.
    PngImagePlugin.MAX_TEXT_CHUNK = 8 * _MIB
    # Sizes are checked by `_open`, with numbers, before pixels are decoded; Pillow only warns up to twice a limit.
    Image.MAX_IMAGE_PIXELS = None
    _limit(job, job["max_pixels"])
    try:
        report = _work(job)
    except Refused as refusal:
        report = refusal.report
    except MemoryError:
        report = Refused("it needs more memory to decode than a picture of its size may").report
    except BROKEN as error:
        report = Refused(
            "it is damaged or cut off",
            "Download or export the picture again.",
            f"{type(error).__name__}: {error}"[:300],
        ).report
    os.write(1, json.dumps(report).encode())


def _limit(job: dict[str, Any], num_pixels: int) -> None:
    """Hard limits for a picture of that many pixels; each call only lowers them.

    24 bytes a pixel: Pillow holds 4, and five copies (decoder, upright, mask, colours) may live together; the
    WebP decoder holds its file as well.
    """
    num_pixels += job["frame_pixels"]
    memory = 512 * _MIB + 24 * num_pixels + 3 * job["num_bytes"]
    cpu_s = 10 + num_pixels // 2_000_000
    file_size = 4 * max(job["max_pixels"], job["frame_pixels"]) + _MIB
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, file_size),
    ):
        hard = resource.getrlimit(kind)[1]
        lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (lower, lower))


def _work(job: dict[str, Any]) -> dict[str, Any]:
    notes: list[str] = []
    with open(0, "rb", closefd=False) as file:
        image = _open(file, job, notes)
        _limit(job, image.width * image.height)
        if job["format"] == "PNG":
            _check_chunks(file, notes)
        file.seek(0)
        image = _open(file, job, [])
        facts = {"format": job["format"], "mode": image.mode, "color_space": color_space(image)}
        picture, info = _upright(image, notes)
    facts.update(width=picture.width, height=picture.height)
    if job["png_fd"] is None:
        colour_change(picture, info, notes)
    else:
        _save(_framed(picture, info, job, notes), job["png_fd"])
    return {**facts, "normalised": notes}


# -------------------------------------------------------------------------------------- what the header tells


def _open(file: BinaryIO, job: dict[str, Any], notes: list[str]) -> Image.Image:
    """Read the header only, and refuse what must not be decoded."""
    try:
        image = Image.open(file, formats=[job["format"]])
    except UnidentifiedImageError:
        raise Refused("it is damaged: its header cannot be read", "Download or export the picture again.") from None
    _check_size(image.width, image.height, job)
    # An MPO (a phone's photo with a preview or a depth map behind it) is a JPEG; its first picture is the
    # photo.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        frames = getattr(image, "n_frames", 2)
        if not job["first_frame"]:
            raise Refused(
                f"it is animated ({frames} frames)",
                "Export one frame of it as a picture, or allow its first frame.",
            )
        notes.append(f"only the first of its {frames} frames is used")
    return image


def _check_size(width: int, height: int, job: dict[str, Any]) -> None:
    limit, least, widest = job["max_pixels"], job["min_side"], job["max_aspect"]
    if width * height > limit:
        raise Refused(
            f"it has {width}x{height} pixels ({width * height / 1e6:,.0f} megapixels); "
            f"the limit is {limit / 1e6:,.3g} megapixels",
            "Scale it down.",
        )
    if min(width, height) < least:
        raise Refused(
            f"it has only {width}x{height} pixels; the shorter side must have at least {least}",
            "Give a larger picture.",
        )
    aspect = max(width, height) / min(width, height)
    if widest is not None and aspect > widest:
        raise Refused(
            f"its sides ({width}x{height}) are {aspect:.3g} to 1; the limit is {widest:.3g} to 1",
            "Crop it, or ask for a size together with --fit cover or --fit contain.",
        )


def _check_chunks(file: BinaryIO, notes: list[str]) -> None:
    """Every chunk of a PNG whole, with its checksum, up to IEND; Pillow does not look at these."""
    file.seek(8)
    name = b""
    while name != b"IEND":
        head = file.read(8)
        if len(head) < 8:
            raise EOFError("the file ends before its end mark (IEND)")
        length, name = struct.unpack(">I4s", head)
        checksum, left, chunk = zlib.crc32(name), length, b""
        while left:
            chunk = file.read(min(left, _MIB))
            if not chunk:
                raise EOFError(f"the file ends inside a {name!r} chunk")
            checksum = zlib.crc32(chunk, checksum)
            left -= len(chunk)
        if file.read(4) != struct.pack(">I", checksum):
            raise ValueError(f"a {name!r} chunk is damaged (checksum)")
        if name == b"cICP" and chunk[1:2] in _HDR_TRANSFERS:
            notes.append("it is an HDR picture and was read as sRGB, so it may look pale")


# ----------------------------------------------------------------------------------------------------- pixels


def _upright(image: Image.Image, notes: list[str]) -> tuple[Image.Image, dict[str, Any]]:
    """The decoded picture as it is meant to be seen, opaque, 8-bit L, RGB or CMYK; and its colour info."""
    deep = isinstance(image, PngImagePlugin.PngImageFile) and any("16" in str(tile[3]) for tile in image.tile)
    image.load()  # not verify(): that passes a JPEG cut in half
    info: dict[str, Any] = {str(key): value for key, value in image.info.items()}
    if image.mode in _MODE_NOTES:
        notes.append(_MODE_NOTES[image.mode])
    if deep:
        notes.append(_DEEP_NOTE)
    turn = _orientation(image, notes)
    base, alpha = _split(image, info, deep=deep)
    if alpha is not None and alpha.getextrema()[0] != 255:
        notes.append("its transparent parts were laid over white")
        white = Image.new(base.mode, base.size, "white")
        base = Image.composite(base, white, alpha)
    return (base.transpose(turn) if turn is not None else base), info


def _orientation(image: Image.Image, notes: list[str]) -> Image.Transpose | None:
    try:
        value = image.getexif().get(_ORIENTATION_TAG)
    except BROKEN:
        notes.append("its EXIF data cannot be read, so it was taken as upright")
        return None
    if not isinstance(value, int) or value not in _TURNS:
        return None
    notes.append(f"it was turned upright (EXIF orientation {value})")
    return _TURNS[value]


def _split(image: Image.Image, info: dict[str, Any], *, deep: bool) -> tuple[Image.Image, Image.Image | None]:
    """The colours and the opacity of a decoded picture."""
    clear = info.get("transparency")
    if image.mode in ("I", "I;16"):
        return _from_16_bits(image.convert("I"), info)
    if deep and isinstance(clear, tuple):
        # Pillow cuts the pixels to their upper 8 bits, but not the transparent colour.
        image.info["transparency"] = tuple(part >> 8 for part in clear)
    if clear is not None or image.mode in ("LA", "RGBA"):
        whole = image.convert("LA" if image.mode in ("1", "L", "LA") else "RGBA")
        return whole.convert(whole.mode[:-1]), whole.getchannel("A")
    if image.mode == "1":
        return image.convert("L"), None
    if image.mode == "CMYK" and "adobe" not in info:
        # Pillow takes every CMYK JPEG for an inverted one; by ITU-T T.872 only Adobe's marker says so.
        return ImageChops.invert(image), None
    return (image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")), None


def _from_16_bits(image: Image.Image, info: dict[str, Any]) -> tuple[Image.Image, Image.Image | None]:
    """16-bit greyscale scaled to 8: convert("RGB") would clip everything above 255 to white."""
    power = gamma_power(info) or 1.0
    info.pop("gamma", None)  # done here, where there are still 16 bits
    base = image.point([round(255 * (value / 65535) ** power) for value in range(65536)], "L")
    clear = info.get("transparency")
    if not isinstance(clear, int):
        return base, None
    return base, image.point([0 if value == clear else 255 for value in range(65536)], "L")


def _framed(image: Image.Image, info: dict[str, Any], job: dict[str, Any], notes: list[str]) -> Image.Image:
    """Scale first, convert colours after: there are fewer pixels then."""
    frame = tuple(job["frame"]) if job["frame"] else None
    placement = place(image.size, frame, job["fit"], tuple(job["anchor"]))
    change = colour_change(image, info, notes)
    if placement.inner != image.size or placement.canvas != image.size:
        image = image.resize(placement.inner, Image.Resampling.LANCZOS, placement.box)
    image = change(image)
    if placement.inner == placement.canvas:
        return image
    canvas = Image.new("RGB", placement.canvas, "black")
    canvas.paste(image, placement.offset)
    return canvas


def _save(image: Image.Image, fd: int) -> None:
    image.info = {}  # no profile, no transparent colour, no private data of the camera
    with open(fd, "wb", closefd=False) as file:
        image.save(file, "PNG", compress_level=1)
