"""A user's picture file, read once: what it is, and its bytes under our own hand.

The bytes are copied into a sealed anonymous file while they are hashed. Everything later reads that copy, so
a file that is swapped or rewritten behind our back cannot make the hash and the pixels differ. Nothing is
decoded here.

    >>> with hold(Path("cat.jpg"), max_bytes=1 << 28) as held:
    ...     held.format, held.sha256[:8]
    ('JPEG', '1f0c5f2e')
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidInputError

_CHUNK_BYTES = 1 << 20
_ADVICE = "Give a JPEG, PNG or WebP file."
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
}
# Extensions that promise another kind of file; a name such as photo.2024 promises nothing.
_OTHER_SUFFIXES = frozenset(
    {".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".svg", ".pdf", ".eps", ".psd", ".ico"}
    | {".jp2", ".jxl", ".html", ".mp4", ".mov", ".txt"}
)
# First bytes of what people hand in by mistake. Longer signatures stand before shorter ones.
_SIGNATURES = (
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "an EPS or PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "an EPS file"),
    (b"BM", "a BMP picture"),
    (b"II*\0", "a TIFF or camera raw picture"),
    (b"MM\0*", "a TIFF or camera raw picture"),
    (b"II+\0", "a TIFF picture"),
    (b"8BPS", "a Photoshop document"),
    (b"\0\0\x01\0", "an icon"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"v/1\x01", "an OpenEXR picture"),
    (b"#?RADIANCE", "a Radiance HDR picture"),
    (b"qoif", "a QOI picture"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM film"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer instead of the file itself (run: git lfs pull)"),
)
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1"), "a HEIC picture"),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF picture"),
}


@dataclass(frozen=True)
class Held:
    """A picture's bytes in a sealed anonymous file; valid inside `hold` only."""

    source: Path
    fd: int
    sha256: str
    num_bytes: int
    format: str

    @property
    def suffix_promises_otherwise(self) -> bool:
        """Whether the file's name claims another format than its content has."""
        suffix = self.source.suffix.lower()
        known = _OTHER_SUFFIXES.union(*SUFFIXES.values())
        return suffix in known and suffix not in SUFFIXES[self.format]


@contextmanager
def hold(source: Path, max_bytes: int) -> Iterator[Held]:
    """Read a picture once and hold its bytes until the end of the block.

    Raises:
        InvalidInputError: missing, not a regular file, empty, over ``max_bytes``, unreadable, or of no format
            that we take.
    """
    try:
        origin = _open(source, max_bytes)
    except (OSError, ValueError) as error:
        raise unreadable(source, error) from None
    fd = os.memfd_create("reelwright-picture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        try:
            digest, num_bytes = _copy(origin, fd, max_bytes)
        except OSError as error:
            raise unreadable(source, error) from None
        finally:
            os.close(origin)
        if num_bytes > max_bytes:
            raise _too_big(source, num_bytes, max_bytes)
        yield Held(source, fd, digest, num_bytes, _format(source, os.pread(fd, 4096, 0)))
    finally:
        os.close(fd)


def shown(path: Path) -> str:
    """A path as it may appear in a message: control characters (a terminal would obey them) are escaped."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def unreadable(source: Path, error: OSError | ValueError) -> InvalidInputError:
    """What is told when a picture cannot be opened or read."""
    number = error.errno if isinstance(error, OSError) else None
    reason = {
        errno.ENOENT: "there is no such file",
        errno.ENOTDIR: "there is no such file",
        errno.ELOOP: "its symbolic links go round in a circle",
        errno.EACCES: "permission was denied",
        errno.EPERM: "permission was denied",
    }.get(number or 0, os.strerror(number) if number else str(error))
    if number == errno.ENOENT and source.is_symlink():
        reason = "it is a symbolic link to a file that does not exist"
    return InvalidInputError(f"{shown(source)} cannot be read: {reason}", advice="Check the path of the picture.")


def _open(source: Path, max_bytes: int) -> int:
    """Open a regular file of a sensible size. Opening a device can already have an effect: look before."""
    _check(source, source.stat(), max_bytes)
    # O_NONBLOCK: should a FIFO take the file's place just now, opening it must not wait for a writer.
    fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _check(source, os.fstat(fd), max_bytes)
    except InvalidInputError:
        os.close(fd)
        raise
    return fd


def _check(source: Path, status: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a device")
        raise InvalidInputError(f"{shown(source)} is {kind}, not a picture file", advice=_ADVICE)
    if status.st_size == 0:
        raise InvalidInputError(f"{shown(source)} is empty (0 bytes)", advice="Download or export it again.")
    if status.st_size > max_bytes:
        raise _too_big(source, status.st_size, max_bytes)


def _too_big(source: Path, num_bytes: int, max_bytes: int) -> InvalidInputError:
    return InvalidInputError(
        f"{shown(source)} is {num_bytes / 2**20:,.0f} MiB large; "
        f"the limit for a picture is {max_bytes / 2**20:,.0f} MiB",
        evidence=f"{num_bytes} bytes",
        advice=_ADVICE,
    )


def _copy(origin: int, target: int, max_bytes: int) -> tuple[str, int]:
    """Copy to the end, or just past the limit if the file has grown; then seal the copy against changes."""
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
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    # What the file holds is never quoted: a link may lead to a file that is not for everybody's eyes.
    raise InvalidInputError(f"{shown(source)} is not a JPEG, PNG or WebP picture: {_resembles(head)}", advice=_ADVICE)


def _resembles(head: bytes) -> str:
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return f"it looks like {name}"
    if head[4:8] == b"ftyp":
        return f"it looks like {_BRANDS.get(head[8:12], 'an MP4 or QuickTime film')}"
    if not head.strip(b"\0"):
        return "it holds only zero bytes"
    return _resembles_text(head.lstrip(b"\xef\xbb\xbf \t\r\n").lower())


def _resembles_text(text: bytes) -> str:
    if b"<svg" in text:
        return "it looks like an SVG drawing"
    if text.startswith((b"<!doctype html", b"<html")):
        return "it looks like a web page (HTML); a download may have gone wrong"
    if b"\0" not in text and text.isascii():
        return "it looks like plain text"
    return "its first bytes are those of no format we know"
