"""Damage that leaves a picture complete, told and passed over, for the decoder's child (`image_child`) only.

A JPEG without its end marker and a PNG whose text has a wrong checksum show every pixel that was stored; a file that
was cut off does not. The difference is proven here, not guessed.

    >>> whole = without_end_marker(b"...")      # doctest: +SKIP
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

from PIL import Image

_MIB = 1 << 20
_END = b"\xff\xd9"
# What could follow the last byte. Where pixels are still missing, they are made of this, and come out differently.
_TAILS = (b"", bytes(256), b"\x55" * 256, b"\xaa" * 256, b"\xfe" * 256)
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
# Ancillary chunks that change pixels: a picture without them is another one.
_NEEDED = frozenset({b"tRNS"})
# Bytes that such chunks have at least; Pillow refuses the whole picture for a shorter one.
_LEAST = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9}
_END_CHUNK = b"\0\0\0\0IEND\xaeB`\x82"
_SIGNATURE_BYTES = 8


# -------------------------------------------------------------------------------------------------------- JPEG


def without_end_marker(data: bytes) -> Image.Image | None:
    """A JPEG that lacks only its end marker, decoded; ``None`` where anything else is missing.

    The file is decoded with several endings behind it. If all its pixels are there, no ending changes any of them.
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


# --------------------------------------------------------------------------------------------------------- PNG


def whole_png(file: BinaryIO, notes: list[str]) -> tuple[BinaryIO, bytes | None]:
    """The file, or a copy without damaged chunks that no pixel needs; and its ``cICP`` chunk.

    Every chunk is read with its checksum, up to the end mark, for Pillow does not look at those behind the pixels.

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
        elif name[0] & 32 and name not in _NEEDED:  # a small first letter: ancillary
            dropped.append(name)
        elif name != b"IEND":
            raise ValueError(f"a {name!r} chunk is damaged (checksum)")
    notes += [f"its damaged {name.decode('latin-1')!r} chunk was left out" for name in dict.fromkeys(dropped)]
    if ended:
        notes.append("its end mark is missing or damaged, but all of its pixels are there")
    if not dropped and not ended:
        return file, declared
    return _copied(file, kept, _END_CHUNK if ended else b""), declared


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, bytes, bool]]:
    """Each chunk's name, place, last piece, and whether its checksum is right, up to the end mark or the start of one."""
    file.seek(_SIGNATURE_BYTES)
    name = b""
    while name != b"IEND":
        start = file.tell()
        head = file.read(8)
        if len(head) < 8:
            if not head or not _END_CHUNK.startswith(head):
                raise EOFError("the file ends before its end mark (IEND)")
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
