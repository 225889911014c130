"""What each format of picture needs before Pillow can read it safely, for the decoder's child (`image_child`) only.

Here are the plugins, the sizes that must be known before a plugin decodes, and the colour declarations that plugins
do not hand on. Bytes in, facts out; nothing is decoded.

    >>> jxl_header(bytes.fromhex("ff0a7b0a"))
    (240, 240, False)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from PIL import Image

from .image_colours import BROKEN

_PLUGINS = {
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "WEBP": "WebPImagePlugin",
    "GIF": "GifImagePlugin",
    "BMP": "BmpImagePlugin",
    "TIFF": "TiffImagePlugin",
    "AVIF": "AvifImagePlugin",
}
_THREADS = 2  # each thread of a decoder takes address space, which is limited
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_RAW_TAGS = frozenset({50706, 33421, 50741})  # DNGVersion, CFARepeatPatternDim, MakerNoteSafety (DNG)
_RAW_PHOTOMETRY = frozenset({32803, 34892})  # colour filter array, linear raw


def register(kind: str) -> None:
    """Import the reader of one format; all that it needs of the disk is read now."""
    Image.preinit()
    for name in ("copy", "PIL.ImageCms", "PIL.ImageColor", "PIL.ImagePalette", "PIL.TiffImagePlugin"):
        import_module(name)  # which Pillow imports when it needs them; EXIF data are read by the plugin for TIFF
    if kind == "HEIF":
        plugin = import_module("pillow_heif")
        plugin.register_heif_opener(decode_threads=_THREADS, thumbnails=False, depth_images=False, aux_images=False)
        return
    if kind == "JXL":
        vars(import_module("pillow_jxl.JpegXLImagePlugin"))["DECODE_THREADS"] = _THREADS
        return
    module = import_module(f"PIL.{_PLUGINS[kind]}")
    if kind == "JPEG":
        import_module("PIL.MpoImagePlugin")
    if kind == "AVIF":
        vars(module)["DEFAULT_MAX_THREADS"] = _THREADS


def is_camera_raw(image: Image.Image) -> bool:
    """Whether a TIFF is a camera's raw file, whose first picture is a small preview or unfinished sensor data."""
    tags: Any = getattr(image, "tag_v2", {})
    preview = bool(tags.get(254, 0) & 1) and 330 in tags  # reduced resolution, and sub-pictures
    return preview or not _RAW_TAGS.isdisjoint(tags) or tags.get(262) in _RAW_PHOTOMETRY


# ----------------------------------------------------------------------------------------------------- JPEG XL


class _Bits:
    """Numbers of a JPEG XL codestream, lowest bit first (ISO/IEC 18181-1)."""

    def __init__(self, data: bytes) -> None:
        self._left = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self._left & ((1 << count) - 1)
        self._left >>= count
        return value

    def size(self) -> tuple[int, int]:
        small = self.take(1)
        height = self._side(small)
        ratio = self.take(3)
        if ratio == 0:
            return self._side(small), height
        wide, high = _RATIOS[ratio]
        return height * wide // high, height

    def preview(self) -> None:
        """Pass over the size of a preview."""
        eighths = self.take(1)
        self._preview_side(eighths)
        if self.take(3) == 0:
            self._preview_side(eighths)

    def _preview_side(self, eighths: int) -> None:
        choice = self.take(2)
        self.take((0, 0, 5, 9)[choice] if eighths else (6, 8, 10, 12)[choice])

    def _side(self, small: int) -> int:
        return 8 * (self.take(5) + 1) if small else 1 + self.take((9, 13, 18, 30)[self.take(2)])


def jxl_header(data: bytes) -> tuple[int, int, bool]:
    """Width, height and whether it is animated: the plugin decodes everything before it tells the size.

    Raises:
        ValueError: it is no JPEG XL file.
    """
    stream = data
    if not data.startswith(b"\xff\x0a"):
        pieces = {b"jxlc": 0, b"jxlp": 4}  # a piece begins with its number
        stream = b"".join(content[pieces[kind] :] for kind, content in _boxes(data) if kind in pieces)
    if not stream.startswith(b"\xff\x0a"):
        raise ValueError("it has no JPEG XL codestream")
    bits = _Bits(stream[2:64])
    width, height = bits.size()
    animated = False
    if not bits.take(1) and bits.take(1):  # not everything as usual, and extra fields
        turned = bits.take(3) >= 4
        if bits.take(1):
            bits.size()
        if bits.take(1):
            bits.preview()
        animated = bool(bits.take(1))
        if turned:
            width, height = height, width
    return width, height, animated


# ------------------------------------------------------------------------------------------ declared colours


def declared_colours(kind: str, data: bytes) -> tuple[int, int, bool] | None:
    """Primaries and transfer (ITU-T H.273) and whether the full range is used, as a HEIC or AVIF file says."""
    if kind not in ("HEIF", "AVIF"):
        return None
    try:
        for content in _found(data, b"meta", b"iprp", b"ipco", b"colr"):
            if content[:4] == b"nclx":
                primaries, transfer = struct.unpack(">HH", content[4:8])
                return primaries, transfer, True  # the decoder has brought it to full range
    except BROKEN:
        pass
    return None


def _found(data: bytes, *path: bytes) -> Iterator[bytes]:
    """The contents of all boxes at a path."""
    for kind, content in _boxes(data):
        if kind == path[0]:
            inner = content[4:] if kind == b"meta" else content  # version and flags
            if len(path) == 1:
                yield content
            else:
                yield from _found(inner, *path[1:])


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes of an ISO media file (ISO/IEC 14496-12), one level."""
    place = 0
    while place + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        head = 8
        if length == 1:
            length, head = int.from_bytes(data[place + 8 : place + 16]), 16
        end = place + length if length else len(data)
        if end < place + head:
            return
        yield kind, data[place + head : end]
        place = end


def bmp_profile(data: bytes) -> bytes | None:
    """The colour profile inside a BMP with a header of version 5, which Pillow does not read."""
    if len(data) < 138 or int.from_bytes(data[14:18], "little") < 124 or data[70:74] != b"DEBM":
        return None
    offset, length = struct.unpack("<II", data[126:134])
    return data[14 + offset : 14 + offset + length] or None
