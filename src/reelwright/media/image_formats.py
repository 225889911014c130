"""Adds checks and repairs for single picture formats to Pillow, for the decoder's child (`image_child`) only.

It imports the plugins, reads sizes that must be known before a plugin decodes, reads colour declarations that plugins
do not pass on, and accepts damage that loses no pixel. A JPEG without its end marker and a PNG whose text has a wrong
checksum still hold every pixel; a file that was cut off does not. The code proves the difference and does not guess.

    >>> jxl_header(bytes.fromhex("ff0a7b0a"))
    (240, 240, False)
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from importlib import import_module
from io import BytesIO
from typing import Any, BinaryIO

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
    """Import the reader of one format with all its modules, because the disk cannot be read later."""
    Image.preinit()
    for name in ("copy", "PIL.ImageCms", "PIL.ImageColor", "PIL.ImagePalette", "PIL.TiffImagePlugin"):
        import_module(name)  # Pillow imports these only when it needs them; the plugin for TIFF reads EXIF data
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


# --- JPEG XL


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
        """Skip the size of a preview."""
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
    """Width, height and whether it is animated; the plugin gives the size only after it has decoded everything.

    Raises:
        ValueError: it is not a JPEG XL file.
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
    if not bits.take(1) and bits.take(1):  # not all values are defaults, and extra fields follow
        turned = bits.take(3) >= 4
        if bits.take(1):
            bits.size()
        if bits.take(1):
            bits.preview()
        animated = bool(bits.take(1))
        if turned:
            width, height = height, width
    return width, height, animated


# --- declared colours


def declared_colours(kind: str, data: bytes) -> tuple[int, int, bool] | None:
    """Primaries and transfer (ITU-T H.273) and whether the full range is used, as a HEIC or AVIF file declares."""
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


# --- damage

_MIB = 1 << 20
_END = b"\xff\xd9"
# Endings to try after the last byte. Missing pixels would be decoded from the ending, and differ.
_TAILS = (b"", bytes(256), b"\x55" * 256, b"\xaa" * 256, b"\xfe" * 256)
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
# Ancillary chunks that change pixels: without them the picture would be a different one.
_NEEDED = frozenset({b"tRNS"})
# The least sizes of ancillary chunks, in bytes; Pillow refuses a picture with a shorter one.
_LEAST = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9}
_END_CHUNK = b"\0\0\0\0IEND\xaeB`\x82"
_SIGNATURE_BYTES = 8


# --- damage: JPEG


def without_end_marker(data: bytes) -> Image.Image | None:
    """The decoded picture of a JPEG that lacks only its end marker; ``None`` if more is missing.

    The file is decoded with several endings. If all its pixels are stored, no ending changes any of them.
    """
    stored = data[:-1] if data.endswith(b"\xff") else data
    if data.endswith(_END) or not _every_scan(stored):
        return None
    seen: Image.Image | None = None
    for tail in _TAILS:
        image = Image.open(BytesIO(stored + tail + _END), formats=["JPEG"])
        image.load()
        if seen is not None and image.tobytes() != seen.tobytes():
            return None
        seen = seen or image
    return seen


def _every_scan(data: bytes) -> bool:
    """Whether every component has a scan for all of its coefficients to the last bit (ITU-T T.81, G.1)."""
    place, progressive = 2, False
    missing: dict[int, set[int]] = {}
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            place = data.find(b"\xff", place)
            if place < 0:
                break
            continue
        marker = data[place + 1]
        if marker in (0x00, 0xFF) or marker in _ALONE:
            place += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[place + 2 : place + 4])
        segment = data[place + 4 : place + 2 + length]
        if marker in _FRAMES:
            progressive = marker == 0xC2
            missing = {segment[6 + 3 * n]: set(range(64)) for n in range(segment[5])}
        elif marker == 0xDA:
            count = segment[0]
            first, last, bits = segment[1 + 2 * count : 4 + 2 * count]
            done = set(range(first, last + 1)) if progressive and bits & 15 == 0 else set()
            for n in range(count):
                missing[segment[1 + 2 * n]] -= done if progressive else set(range(64))
        place += 2 + length
    return bool(missing) and not any(missing.values())


# --- damage: PNG


def whole_png(file: BinaryIO, notes: list[str]) -> tuple[BinaryIO, bytes | None]:
    """The file, or a copy without damaged chunks that no pixel needs; and its ``cICP`` chunk.

    Every chunk up to the end mark is read with its checksum, because Pillow does not check those behind the pixels.

    Raises:
        EOFError: it is cut off before its end mark.
        ValueError: a chunk that pixels need is damaged.
    """
    kept: list[tuple[int, int]] = []
    dropped: list[bytes] = []
    declared: bytes | None = None
    ended = True
    for name, start, chunk, intact in _chunks(file):
        if intact:
            kept.append((start, file.tell() - start))
            declared = chunk if name == b"cICP" else declared
            ended = name != b"IEND"
        elif name[0] & 32 and name not in _NEEDED:  # a lower-case first letter: ancillary
            dropped.append(name)
        elif name != b"IEND":
            raise ValueError(f"a {name!r} chunk is damaged (checksum)")
    notes += [f"its damaged {name.decode('latin-1')!r} chunk was left out" for name in dict.fromkeys(dropped)]
    if ended:
        notes.append("its end marker is missing or damaged, but all of its pixels are present")
    if not dropped and not ended:
        return file, declared
    return _copied(file, kept, _END_CHUNK if ended else b""), declared


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, bytes, bool]]:
    """Each chunk's name, offset, last piece and whether it is intact, up to the end mark or the first bytes of one."""
    file.seek(_SIGNATURE_BYTES)
    name = b""
    while name != b"IEND":
        start = file.tell()
        head = file.read(8)
        if len(head) < 8:
            if not head or not _END_CHUNK.startswith(head):
                raise EOFError("the file ends before its end marker (IEND)")
            return
        length, name = struct.unpack(">I4s", head)
        chunk, intact = _chunk(file, name, length)
        yield name, start, chunk, intact and length >= _LEAST.get(name, 0)


def _chunk(file: BinaryIO, name: bytes, length: int) -> tuple[bytes, bool]:
    """The last piece of a chunk's content, and whether its checksum is right."""
    checksum, left, piece = zlib.crc32(name), length, b""
    while left:
        piece = file.read(min(left, _MIB))
        if not piece:
            raise EOFError(f"the file ends inside a {name!r} chunk")
        checksum = zlib.crc32(piece, checksum)
        left -= len(piece)
    stored = file.read(4)
    if len(stored) < 4 and name != b"IEND":
        raise EOFError(f"the file ends inside a {name!r} chunk")
    return piece, stored == struct.pack(">I", checksum)


def _copied(file: BinaryIO, parts: list[tuple[int, int]], end: bytes) -> BytesIO:
    copy = BytesIO()
    file.seek(0)
    copy.write(file.read(_SIGNATURE_BYTES))
    for start, length in parts:
        file.seek(start)
        copy.write(file.read(length))
    copy.write(end)
    copy.seek(0)
    return copy
