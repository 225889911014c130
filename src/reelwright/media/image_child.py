"""Decodes a picture in a child process under hard limits: hostile bytes in, plain 8-bit sRGB pixels out.

`image_decoder` starts it. It reads the picture from descriptor 0, writes a report (JSON) to descriptor 1 and the
normalised PNG to a third descriptor, and can open no other file (`confinement`). The runner never imports this module,
so a crash, a leak or a decompression bomb ends here.

    >>> report = json.loads(...)          # the content of descriptor 1 after a run
    >>> report["width"], report["normalised"]
    (3024, ['it was turned upright (EXIF orientation 6)'])
"""

from __future__ import annotations

import json
import os
import resource
from typing import Any, BinaryIO, NoReturn, cast

from PIL import Image, ImageChops, PngImagePlugin, UnidentifiedImageError

from .confinement import confine, limit
from .framing import place
from .image_colours import BROKEN, color_space, colour_change, declare_colours, gamma_power, use_adobe_rgb
from .image_formats import (
    bmp_profile,
    declared_colours,
    is_camera_raw,
    jxl_header,
    register,
    whole_png,
    without_end_marker,
)

_MIB = 1 << 20
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
_INTEROPERABILITY = 0xA005
_MODE_NOTES = {
    "1": "its black-and-white pixels were turned into RGB",
    "L": "its greyscale was turned into RGB",
    "LA": "its greyscale was turned into RGB",
    "P": "its palette was turned into RGB",
    "PA": "its palette was turned into RGB",
    "I": "its greyscale was turned into RGB",
    "I;16": "its greyscale was turned into RGB",
    "I;16B": "its greyscale was turned into RGB",
}
# Pixel values that are not levels of a screen; Pillow would clip them.
_UNUSABLE = {
    "F": "its pixels are floating-point numbers",
    "LAB": "its colours are CIELAB numbers",
}
_STEPS = {"L;2": 85, "L;4": 17}  # between levels of grey with 2 and 4 bits
_DEEP_NOTE = "its 16 bits per channel were reduced to 8"


class PictureRefused(Exception):
    """The picture cannot be used; the text gives the reason, ``advice`` the remedy."""

    def __init__(self, reason: str, advice: str = "", evidence: str = "") -> None:
        super().__init__(reason)
        self.report = {"refused": reason, "advice": advice, "evidence": [evidence] if evidence else []}


def main(job: dict[str, Any]) -> None:
    """Do one job (see `image_decoder.decode`) and report on descriptor 1."""
    # Texts and profiles of a PNG are inflated up to this size; Pillow's own limit, 1 MiB, refuses real profiles.
    PngImagePlugin.MAX_TEXT_CHUNK = 8 * _MIB
    # `_open` checks the size before pixels are decoded, and reports it; Pillow only warns up to twice its limit.
    Image.MAX_IMAGE_PIXELS = None
    register(job["format"])
    _limit(job, job["max_pixels"])
    confine()
    try:
        report = _work(job)
    except PictureRefused as refusal:
        report = refusal.report
    except MemoryError:
        report = PictureRefused("decoding it needs more memory than a picture of its size should").report
    except BROKEN as error:
        reason, advice = "it is damaged or cut off", "Download or export the picture again."
        if "Decompressed data too large" in str(error):
            limit = PngImagePlugin.MAX_TEXT_CHUNK // _MIB
            reason = f"a text or a colour profile in it takes more than {limit} MiB"
            advice = "Export the picture again without its metadata."
        report = PictureRefused(reason, advice, " ".join(f"{type(error).__name__}: {error}".split())[:300]).report
    os.write(1, json.dumps(report).encode())


def _limit(job: dict[str, Any], num_pixels: int) -> None:
    """Set hard limits for a picture of ``num_pixels``; each call only lowers them.

    The memory limit has 24 bytes a pixel: Pillow holds 4, and five copies (decoder, upright, mask, colours) may exist
    together. The WebP decoder holds its file as well.
    """
    num_pixels += job["frame_pixels"]
    memory = 512 * _MIB + 24 * num_pixels + 3 * job["num_bytes"]
    cpu_s = 10 + num_pixels // 2_000_000
    file_size = 4 * max(job["max_pixels"], job["frame_pixels"]) + _MIB
    files = max(2, job["png_fd"] or 0) + 2  # one more, for a copy of descriptor 0
    limit({resource.RLIMIT_AS: memory, resource.RLIMIT_FSIZE: file_size, resource.RLIMIT_NOFILE: files}, cpu_s)


def _work(job: dict[str, Any]) -> dict[str, Any]:
    notes: list[str] = []
    with open(0, "rb", closefd=False) as file:
        stored: BinaryIO = file
        declared = None
        if job["format"] == "PNG":
            stored, declared = whole_png(file, notes)
            stored.seek(0)
        image = _open(stored, job)
        _limit(job, image.width * image.height)
        stored.seek(0)
        image = _open(stored, job)
        _add_colours(image, job["format"], file, declared)
        colours = declare_colours(cast("dict[str, Any]", image.info), notes)
        facts = {"format": job["format"], "mode": image.mode, "color_space": colours or color_space(image)}
        image = _loaded(image, job["format"], stored, notes)
        picture, info = _upright(image, job["format"], notes)
    facts.update(width=picture.width, height=picture.height)
    if job["png_fd"] is None:
        colour_change(picture, info, notes)
    else:
        _save(_framed(picture, info, job, notes), job["png_fd"])
    return {**facts, "normalised": notes}


# --- the header


def _open(file: BinaryIO, job: dict[str, Any]) -> Image.Image:
    """Read only the header, and refuse a picture that must not be decoded."""
    kind = job["format"]
    many: int | str = 0
    if kind == "JXL":  # its plugin decodes everything at once
        width, height, animated = jxl_header(file.read())
        _check_size(width, height, job)
        many = "several" if animated else 0
        file.seek(0)
    try:
        image = Image.open(file, formats=[kind])
    except UnidentifiedImageError:
        rare = ", or its pixel format is not supported, such as floating-point numbers" if kind == "TIFF" else ""
        raise PictureRefused(
            f"its header cannot be read: it is damaged{rare}",
            "Download or export the picture again" + (" as 8-bit or 16-bit RGB." if rare else "."),
        ) from None
    _check_size(image.width, image.height, job)
    # An MPO (a phone's photo with a preview or a depth map behind it) is a JPEG; its first picture is the photo. A HEIC
    # file may hold other pictures too; its main picture is the photo.
    if getattr(image, "is_animated", False) and image.format not in ("MPO", "HEIF"):
        many = getattr(image, "n_frames", 2)
    if kind == "TIFF" and is_camera_raw(image):
        raise PictureRefused(
            "it is a camera's raw file", "Develop it with your camera's program, and export it as JPEG or PNG."
        )
    if many:
        _refuse_frames(many, job)
    return image


def _refuse_frames(many: int | str, job: dict[str, Any]) -> NoReturn:
    how = f"holds {many} pages" if job["format"] == "TIFF" else f"is animated ({many} frames)"
    raise PictureRefused(f"it {how}", "Export one of them as a picture.")


def _add_colours(image: Image.Image, kind: str, file: BinaryIO, chunk: bytes | None) -> None:
    """Add the colour declarations of the file that Pillow does not pass on."""
    if kind == "PNG" and chunk is not None and len(chunk) == 4:
        image.info["declared"] = (chunk[0], chunk[1], chunk[3] == 1)
    if kind in ("HEIF", "AVIF", "BMP") and not image.info.get("icc_profile"):
        file.seek(0)
        data = file.read()
        if kind == "BMP":
            if profile := bmp_profile(data):
                image.info["icc_profile"] = profile
        else:
            image.info["declared"] = declared_colours(kind, data)


def _check_size(width: int, height: int, job: dict[str, Any]) -> None:
    limit, least, widest = job["max_pixels"], job["min_side"], job["max_aspect"]
    if width * height > limit:
        raise PictureRefused(
            f"it has {width}x{height} pixels ({width * height / 1e6:,.0f} megapixels); "
            f"the limit is {limit / 1e6:,.3g} megapixels",
            "Scale it down.",
        )
    if min(width, height) < least:
        raise PictureRefused(
            f"it has only {width}x{height} pixels; the shorter side must have at least {least}",
            "Give a larger picture.",
        )
    aspect = max(width, height) / min(width, height)
    if widest is not None and aspect > widest:
        raise PictureRefused(
            f"its sides ({width}x{height}) are {aspect:.3g} to 1; the limit is {widest:.3g} to 1",
            "Crop it, or have it cropped (--fit cover) or padded (--fit contain) to the size of the video.",
        )


# --- pixels


def _loaded(image: Image.Image, kind: str, stored: BinaryIO, notes: list[str]) -> Image.Image:
    """The picture with all pixels decoded."""
    if image.mode in _UNUSABLE or (kind == "TIFF" and image.mode == "I"):
        why = _UNUSABLE.get(image.mode, "its pixels are 32-bit numbers")
        raise PictureRefused(f"{why}, not the levels of a picture", "Export it as an 8-bit or 16-bit RGB picture.")
    raw = {_raw_mode(tile[3]) for tile in getattr(image, "tile", ())}
    image.info["deep"] = kind in ("PNG", "TIFF") and any("16" in mode for mode in raw)
    clear = image.info.get("transparency")
    if kind == "PNG" and isinstance(clear, int) and not raw.isdisjoint(_STEPS):
        # Pillow brings the pixels to 8 bits, but not the transparent level.
        image.info["transparency"] = clear * _STEPS[raw.pop()]
    try:
        image.load()  # verify() accepts a JPEG cut in half
    except OSError:
        whole = None
        if kind == "JPEG":
            stored.seek(0)
            whole = without_end_marker(stored.read())
        if whole is None:
            raise
        notes.append("its end marker is missing, but all of its pixels are present")
        whole.info.update(image.info)
        return whole
    return image


def _upright(image: Image.Image, kind: str, notes: list[str]) -> tuple[Image.Image, dict[str, Any]]:
    """The decoded picture, upright, opaque, in 8-bit L, RGB or CMYK; and its colour information."""
    deep = image.info.pop("deep", False)
    info: dict[str, Any] = {str(key): value for key, value in image.info.items()}
    if image.mode in _MODE_NOTES:
        notes.append(_MODE_NOTES[image.mode])
    if deep:
        notes.append(_DEEP_NOTE)
    # The JPEG XL decoder has already turned the picture; its EXIF orientation does not count (ISO/IEC 18181-2).
    turn = _orientation(image, info, notes) if kind != "JXL" else None
    base, alpha = _split(image, info, deep=deep, jpeg=kind == "JPEG")
    if alpha is not None and alpha.getextrema()[0] != 255:
        notes.append("its transparent parts were laid over white")
        white = Image.new(base.mode, base.size, "white")
        base = Image.composite(base, white, alpha)
    return (base.transpose(turn) if turn is not None else base), info


def _raw_mode(arguments: Any) -> str:
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _orientation(image: Image.Image, info: dict[str, Any], notes: list[str]) -> Image.Transpose | None:
    """The turn that makes the picture upright, from its EXIF data, which may also declare Adobe RGB colours."""
    try:
        exif = image.getexif()
        value = exif.get(_ORIENTATION_TAG)
        if not info.get("icc_profile") and exif.get_ifd(_INTEROPERABILITY).get(1) == "R03":
            use_adobe_rgb(info)
    except BROKEN:
        notes.append("its EXIF data cannot be read, so Reelwright took it as upright")
        return None
    if not isinstance(value, int) or value not in _TURNS:
        return None
    notes.append(f"it was turned upright (EXIF orientation {value})")
    return _TURNS[value]


def _split(
    image: Image.Image, info: dict[str, Any], *, deep: bool, jpeg: bool
) -> tuple[Image.Image, Image.Image | None]:
    """The colours and the opacity of a decoded picture."""
    clear = info.get("transparency")
    if image.mode in ("I", "I;16", "I;16B"):
        return _from_16_bits(image.convert("I"), info)
    if deep and isinstance(clear, tuple):
        # Pillow cuts the pixels to their upper 8 bits, but not the transparent colour.
        image.info["transparency"] = tuple(part >> 8 for part in clear)
    if clear is not None or image.mode in ("LA", "RGBA", "PA", "La", "RGBa"):
        whole = image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
        return whole.convert(whole.mode[:-1]), whole.getchannel("A")
    if image.mode == "1":
        return image.convert("L"), None
    if image.mode == "CMYK" and jpeg and "adobe" not in info:
        # Pillow reads every CMYK JPEG as inverted; by ITU-T T.872 only one with Adobe's marker is.
        return ImageChops.invert(image), None
    return (image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")), None


def _from_16_bits(image: Image.Image, info: dict[str, Any]) -> tuple[Image.Image, Image.Image | None]:
    """16-bit greyscale scaled to 8 bits; convert("RGB") would clip everything above 255 to white."""
    power = gamma_power(info) or 1.0
    info.pop("gamma", None)  # applied here, while the pixels still have 16 bits
    base = image.point([round(255 * (value / 65535) ** power) for value in range(65536)], "L")
    clear = info.get("transparency")
    if not isinstance(clear, int):
        return base, None
    return base, image.point([0 if value == clear else 255 for value in range(65536)], "L")


def _framed(image: Image.Image, info: dict[str, Any], job: dict[str, Any], notes: list[str]) -> Image.Image:
    """The picture in its frame, in sRGB. It is scaled first, so that fewer pixels are converted."""
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
