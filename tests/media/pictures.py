"""Odd, broken and hostile pictures, made on the spot by the bytes."""

from __future__ import annotations

import random
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reelwright.core.errors import InvalidInputError
from reelwright.media.image import Intake, inspect_picture

Colour = tuple[int, ...]
CORNERS = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
)  # upper left, upper right, lower left, lower right


def four_corners(size: tuple[int, int] = (120, 80)) -> Image.Image:
    """A picture whose quarters have the colours of `CORNERS`, which show its orientation."""
    width, height = size
    image = Image.new("RGB", size)
    for index, colour in enumerate(CORNERS):
        x, y = index % 2 * (width // 2), index // 2 * (height // 2)
        image.paste(colour, (x, y, x + width // 2, y + height // 2))
    return image


def corners_of(path: Path) -> tuple[Colour, ...]:
    """The colours in the middle of the four quarters, each rounded to 0, 128 or 255 (JPEG is not exact)."""
    with Image.open(path) as image:
        width, height = image.size
        spots = [(x, y) for y in (height // 4, height * 3 // 4) for x in (width // 4, width * 3 // 4)]
        pixels: list[Any] = [image.getpixel(spot) for spot in spots]
    return tuple(tuple(min((0, 128, 255), key=lambda level: abs(level - part)) for part in pixel) for pixel in pixels)


def noise(size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture that no encoder can make small, the same each time."""
    return Image.frombytes("RGB", size, random.Random(1).randbytes(size[0] * size[1] * 3))


def as_bytes(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The picture as a file's content."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def save_in(folder: Path, content: bytes | Image.Image, name: str = "picture.png") -> Path:
    """Write a file's content, or a picture as PNG, and give its path."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else as_bytes(content, "PNG"))
    return path


def refusal(path: Path, intake: Intake | None = None) -> InvalidInputError:
    """The refusal of a picture, which must be of class INPUT."""
    with pytest.raises(InvalidInputError) as caught:
        inspect_picture(path, intake or Intake())
    assert caught.value.code == "INPUT"
    return caught.value


def one_colour(path: Path) -> Colour:
    """The colour of the pixel in the middle of a plain 8-bit RGB PNG that holds nothing but pixels."""
    with Image.open(path) as image:
        assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})
        pixel = image.getpixel((image.width // 2, image.height // 2))
    assert isinstance(pixel, tuple)
    return pixel


def animated(kind: str) -> bytes:
    """A red frame and a blue one."""
    first, second = Image.new("RGB", (40, 40), (200, 0, 0)), Image.new("RGB", (40, 40), (0, 0, 200))
    options = {"lossless": True} if kind == "WEBP" else {}
    return as_bytes(first, kind, save_all=True, append_images=[second], duration=100, **options)


def hidden_red() -> bytes:
    """An RGBA picture that is wholly transparent, and red below."""
    return as_bytes(Image.new("RGBA", (40, 40), (255, 0, 0, 0)), "PNG")


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(size: tuple[int, int], *, depth: int, colour: int, pixels: bytes, extra: bytes = b"") -> bytes:
    """A PNG written by hand: ``colour`` is its colour type, ``pixels`` its raw samples, unfiltered."""
    width, height = size
    row = len(pixels) // height if pixels else 0
    raw = b"".join(b"\0" + pixels[y * row : (y + 1) * row] for y in range(height if pixels else 0))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(raw, 1)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_with(image: Image.Image, extra: bytes, *, at_the_end: bool = False) -> bytes:
    """A normal PNG with more chunks behind its header, or before its end mark."""
    data = as_bytes(image, "PNG")
    place = len(data) - 12 if at_the_end else 33
    return data[:place] + extra + data[place:]


def exif_with(orientation: int) -> bytes:
    """EXIF data that holds an orientation and a GPS position."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes()


def without_adobe_marker(jpeg: bytes) -> bytes:
    """A CMYK JPEG as programs other than Adobe's write it: without the marker of inverted inks."""
    start = jpeg.index(b"\xff\xee")
    length = struct.unpack(">H", jpeg[start + 2 : start + 4])[0]
    return jpeg[:start] + jpeg[start + 2 + length :]


_SRGB_COLUMNS = {
    b"r": (0.4361, 0.2225, 0.0139),
    b"g": (0.3851, 0.7169, 0.0971),
    b"b": (0.1431, 0.0606, 0.7141),
}


def icc_profile(order: bytes = b"rgb", gamma: float = 2.2) -> bytes:
    """A colour profile: sRGB's primaries in another order (``bgr`` swaps red and blue); grey for ``b"k"``."""

    def fixed(*numbers: float) -> bytes:
        return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)

    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + b"\0\0"
    text = f"odd {order.decode()}".encode() + b"\0"
    description = b"desc" + struct.pack(">II", 0, len(text)) + text + bytes(78)
    tags = {
        b"desc": description + bytes(-len(description) % 4),
        b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1, 0.8249),
    }
    if order == b"k":
        tags[b"kTRC"] = curve
    else:
        for name, column in zip(b"rgb", order, strict=True):
            tags[bytes([name]) + b"XYZ"] = b"XYZ \0\0\0\0" + fixed(*_SRGB_COLUMNS[bytes([column])])
            tags[bytes([name]) + b"TRC"] = curve
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", offset + len(body), len(data))
        body += data
    space = b"GRAY" if order == b"k" else b"RGB "
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s12s4s", size, b"\0" * 4, 0x02100000, b"mntr", space, b"XYZ ", bytes(12), b"acsp")
    header += bytes(28) + fixed(0.9642, 1, 0.8249)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def webp_header(width: int, height: int) -> bytes:
    """A lossless WebP that claims a size and holds nothing."""
    bits = (width - 1) | (height - 1) << 14
    data = b"\x2f" + struct.pack("<I", bits) + bytes(5)
    return b"RIFF" + struct.pack("<I", 12 + len(data)) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data


def jpeg_header(width: int, height: int) -> bytes:
    """A baseline JPEG that claims a size and holds nothing."""
    data = bytearray(as_bytes(Image.new("RGB", (16, 16)), "JPEG"))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def zipped_zeros(num_bytes: int) -> bytes:
    """A zlib stream that inflates to so many zero bytes (a thousandth of them long)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    mebibyte = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x78\xda" + mebibyte * (num_bytes >> 20) + packer.flush()
