"""Reads a user's picture file once: finds its format by its first bytes, and keeps a private copy of its content.

The content is copied into an anonymous file while it is hashed, and the copy is made read-only. All later steps read
the copy, so a file that is replaced meanwhile cannot make the hash and the pixels differ. Nothing is decoded here.

    >>> with hold(Path("cat.jpg"), max_bytes=1 << 28) as held:
    ...     held.format, held.sha256[:8]
    ('JPEG', '1f0c5f2e')
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import InvalidInputError
from ..core.files import open_regular, reason, shown

_CHUNK_BYTES = 1 << 20
_ADVICE = "Give a JPEG, PNG, WebP, HEIC, AVIF, GIF, TIFF, BMP or JPEG XL file."
_EXPORT = "Open it in an image program and export it as PNG or JPEG."
_FRAME = "Take a frame of it: ffmpeg -i VIDEO -frames:v 1 frame.png"
_WRAP = "put it into one: ffmpeg -i FILE -c copy video.mp4"
_UNPACK = "Unpack it, and give the picture in it."
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "HEIF": (".heic", ".heif", ".hif"),
    "AVIF": (".avif", ".avifs"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp", ".dib"),
    "JXL": (".jxl",),
}
#: The common names of formats that have another name in Pillow.
TITLES = {"WEBP": "WebP", "HEIF": "HEIC", "JXL": "JPEG XL"}
# Suffixes of other kinds of files; the end of a name such as photo.2024 is no suffix of a kind.
_OTHER_SUFFIXES = frozenset({".svg", ".pdf", ".eps", ".psd", ".ico", ".jp2", ".html", ".mp4", ".mov", ".txt"})
# Many of these are TIFF files, whose first picture is a small preview.
_RAW_SUFFIXES = frozenset(
    {".dng", ".nef", ".nrw", ".cr2", ".arw", ".sr2", ".pef", ".srw", ".3fr", ".iiq", ".dcr", ".kdc"}
)
# First bytes of the supported formats.
_TAKEN = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    (b"\xff\x0a", "JXL"),
)
_RAW = ("a camera's raw file", "Develop it with your camera's program, and export it as JPEG or PNG.")
# First bytes of files that users give by mistake, with a name and advice. Longer signatures come before shorter ones.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"%PDF", "a PDF document", "Make a picture of a page: pdftoppm -png -r 150 -singlefile FILE.pdf page"),
    (b"%!PS", "an EPS or PostScript file", _EXPORT),
    (b"\xc5\xd0\xd3\xc6", "an EPS file", _EXPORT),
    (b"II+\0", "a TIFF picture of the 64-bit kind (BigTIFF)", _EXPORT),
    (b"MM\0+", "a TIFF picture of the 64-bit kind (BigTIFF)", _EXPORT),
    (b"IIRO", *_RAW),
    (b"IIU\0", *_RAW),
    (b"FUJIFILMCCD-RAW", *_RAW),
    (b"8BPS", "a Photoshop document", _EXPORT),
    (b"gimp xcf", "a GIMP document", _EXPORT),
    (b"\0\0\x01\0", "an icon", _EXPORT),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture", _EXPORT),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture", _EXPORT),
    (b"v/1\x01", "an OpenEXR picture", _EXPORT),
    (b"#?RADIANCE", "a Radiance HDR picture", _EXPORT),
    (b"qoif", "a QOI picture", _EXPORT),
    *((start + end, "a PBM, PGM or PPM picture", _EXPORT) for start in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6") for end in (b"\n", b" ", b"\r")),
    (b"P7\n", "a PAM picture", _EXPORT),
    (b"PF\n", "a PFM picture", _EXPORT),
    (b"Pf\n", "a PFM picture", _EXPORT),
    (b"DDS ", "a DDS texture", _EXPORT),
    (b"II\xbc\x01", "a JPEG XR picture", _EXPORT),
    (b"\x0a\x05\x01", "a PCX picture", _EXPORT),
    (b"\x01\xda", "an SGI picture", _EXPORT),
    (b"\x59\xa6\x6a\x95", "a Sun raster picture", _EXPORT),
    (b"icns", "a set of icons for macOS", _EXPORT),
    (b"\0\0\x02\0", "a cursor or a Targa (TGA) picture", _EXPORT),
    (b"SIMPLE  =", "a FITS picture", _EXPORT),
    (b"\xd7\xcd\xc6\x9a", "a WMF drawing", _EXPORT),
    (b"AT&TFORM", "a DjVu document", _EXPORT),
    (b"\x93NUMPY", "an array of NumPy", _EXPORT),
    (b"\x06\x0e\x2b\x34", "an MXF video", _FRAME),
    (b"YUV4MPEG2 ", "a Y4M video", _FRAME),
    (b"DKIF", "an IVF video", _FRAME),
    (b"nut/multimedia", "a NUT video", _FRAME),
    (b".RMF", "a RealMedia video", _FRAME),
    (b"FWS", "a Flash program (SWF)", _FRAME),
    (b"CWS", "a Flash program (SWF)", _FRAME),
    (b"\x1f\x07\0", "a DV video", _FRAME),
    (b"0&\xb2u", "a Windows Media video", _FRAME),
    *((b"\0\0\0\x01" + bytes((kind,)), f"raw H.264 video without a container ({_WRAP})", _FRAME) for kind in (0x09, 0x06, 0x27, 0x67)),
    *((b"\0\0\0\x01" + bytes((kind,)), f"raw H.265 video without a container ({_WRAP})", _FRAME) for kind in (0x40, 0x46)),
    (b"\0\0\x01\xb3", f"raw MPEG video without a container ({_WRAP})", _FRAME),
    (b"\x12\0\x0a", f"raw AV1 video without a container ({_WRAP})", _FRAME),
    (b"ID3", "an MP3 file, which is sound", ""),
    *((b"\xff" + bytes((kind,)), "an MP3 or AAC file, which is sound", "") for kind in (0xFB, 0xF3, 0xF2, 0xFA, 0xF1, 0xF9)),
    (b"fLaC", "a FLAC file, which is sound", ""),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video", _FRAME),
    (b"FLV\x01", "a Flash video", _FRAME),
    (b"G@", "an MPEG transport stream", _FRAME),
    (b"PK\x03\x04", "a ZIP archive", _UNPACK),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"7z\xbc\xaf", "a 7-Zip archive", _UNPACK),
    (b"version https://git-lfs", "a Git LFS pointer instead of the file itself (run: git lfs pull)", "Run: git lfs pull"),
)  # fmt: skip
_RIFF = {b"AVI ": "it looks like an AVI video", b"WAVE": "it looks like a WAV file, which is sound"}
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "HEIF"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
}
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})


@dataclass(frozen=True)
class Held:
    """A picture's content in a read-only anonymous file; valid inside `hold` only."""

    source: Path
    fd: int
    sha256: str
    num_bytes: int
    format: str

    @property
    def called(self) -> str:
        """Its format with an article, for use in a sentence."""
        return _called(self.format)

    @property
    def suffix_promises_otherwise(self) -> bool:
        """Whether the file's name has the suffix of another format."""
        suffix = self.source.suffix.lower()
        known = _OTHER_SUFFIXES.union(*SUFFIXES.values())
        return suffix in known and suffix not in SUFFIXES[self.format]


@contextmanager
def hold(source: Path, max_bytes: int) -> Iterator[Held]:
    """Read a picture once and hold its bytes until the end of the block.

    Raises:
        InvalidInputError: the file is missing, not a regular file, empty, over ``max_bytes``, unreadable, or of an
            unsupported format.
    """
    fd = os.memfd_create("reelwright-picture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        try:
            with open_regular(source) as origin:
                _check_bytes(source, os.fstat(origin.fileno()).st_size, max_bytes)
                digest, num_bytes = _copy(origin.fileno(), fd, max_bytes)
        except (OSError, ValueError) as error:
            raise unreadable(source, error) from None
        _check_bytes(source, num_bytes, max_bytes)
        yield Held(source, fd, digest, num_bytes, _format(source, os.pread(fd, 4096, 0)))
    finally:
        os.close(fd)


def unreadable(source: Path, error: OSError | ValueError) -> InvalidInputError:
    """The error for a picture that cannot be opened or read."""
    why = reason(error)
    if isinstance(error, FileNotFoundError) and source.is_symlink():
        why = "it is a symbolic link to a file that does not exist"
    return InvalidInputError(f"{shown(source)} cannot be read: {why}", advice="Check the path of the picture.")


def _check_bytes(source: Path, num_bytes: int, max_bytes: int) -> None:
    if num_bytes == 0:
        raise InvalidInputError(f"{shown(source)} is empty (0 bytes)", advice="Download or export it again.")
    if num_bytes > max_bytes:
        raise InvalidInputError(
            f"{shown(source)} is {num_bytes / 2**20:,.0f} MiB large; "
            f"the limit for a picture is {max_bytes / 2**20:,.0f} MiB",
            evidence=f"{num_bytes} bytes",
            advice=_ADVICE,
        )


def _copy(origin: int, target: int, max_bytes: int) -> tuple[str, int]:
    """Copy to the end, or just past the limit if the file has grown; then make the copy read-only."""
    digest, num_bytes = hashlib.sha256(), 0
    while num_bytes <= max_bytes and (chunk := os.read(origin, _CHUNK_BYTES)):
        digest.update(chunk)
        num_bytes += len(chunk)
        _write_all(target, chunk)
    fcntl.fcntl(target, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    os.lseek(target, 0, os.SEEK_SET)
    return digest.hexdigest(), num_bytes


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _format(source: Path, head: bytes) -> str:
    """Pillow's name of the format with these first bytes."""
    if head.startswith((b"II*\0", b"MM\0*")) and (head[8:10] == b"CR" or source.suffix.lower() in _RAW_SUFFIXES):
        raise InvalidInputError(f"{shown(source)} is {_RAW[0]}", advice=_RAW[1])
    found = next((kind for start, kind in _TAKEN if head.startswith(start)), None) or _by_structure(head)
    if found:
        return found
    # The message never quotes the content, because a link may lead to a private file.
    looks, fix = resembles(head)
    raise InvalidInputError(
        f"{shown(source)} is not a picture that Reelwright can read: {looks}", advice=fix or _ADVICE
    )


def _by_structure(head: bytes) -> str | None:
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"II*\0", b"MM\0*")):
        return "TIFF"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[4:8] != b"ftyp":
        return None
    # A shared brand (mif1) does not identify the format: the compatible brands decide.
    brands = [head[place : place + 4] for place in (8, *range(16, min(int.from_bytes(head[:4]), 256), 4))]
    kinds = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    if brands[0] not in _BRANDS:
        return None
    return "AVIF" if "AVIF" in kinds and brands[0] not in (b"heic", b"heix", b"hevc") else "HEIF"


def recognised(source: Path, head: bytes) -> str:
    """A sentence about the kind of a file, a picture or not, by its first bytes."""
    try:
        kind = _format(source, head)
    except InvalidInputError:
        return resembles(head)[0]
    return f"it is {_called(kind)}"


def _called(kind: str) -> str:
    return f"{'an' if kind == 'AVIF' else 'a'} {TITLES.get(kind, kind)} picture"


def resembles(head: bytes) -> tuple[str, str]:
    """A sentence about the kind of a file that is no supported picture, by its first bytes; and advice."""
    for signature, name, fix in _SIGNATURES:
        if head.startswith(signature):
            return f"it looks like {name}", fix
    if head.startswith(b"RIFF"):
        return _RIFF.get(head[8:12], "it looks like a RIFF file"), _FRAME if head[8:12] == b"AVI " else ""
    if head[4:8] == b"ftyp":
        if head[8:12] == b"crx ":
            return f"it looks like {_RAW[0]}", _RAW[1]
        return "it looks like an MP4 or QuickTime video", _FRAME
    if not head.strip(b"\0"):
        return "it holds only zero bytes", "Download or export it again."
    return _resembles_text(head.lstrip(b"\xef\xbb\xbf \t\r\n").lower())


def _resembles_text(text: bytes) -> tuple[str, str]:
    if b"<svg" in text:
        return "it looks like an SVG drawing", "Make a picture of it: rsvg-convert -w 1920 DRAWING.svg -o drawing.png"
    if text.startswith((b"<!doctype html", b"<html")):
        return "it looks like a web page (HTML); a download may have gone wrong", "Download the picture itself."
    if b"\0" not in text and (text.isascii() or _is_utf8(text)):
        return "it looks like plain text", ""
    return "its first bytes match no known format", ""


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return error.end >= len(text) - 4 and error.reason == "unexpected end of data"
    return True
