"""Opens files that another process may have left, and explains in one sentence why a path cannot be used.

A folder may hold anything: a named pipe that blocks its reader, a device, a link to another person's file, a JSON text
of a gigabyte or of a million brackets. Every function opens without waiting, checks that the file is regular, and
limits the amount that it reads. None of them interprets the content.

    >>> read_json(Path("clip.mp4.reel.json"), 1 << 20)        # doctest: +SKIP
    {'schema': 1, ...}
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

from .errors import ConfigurationError, Failure, InvalidInputError, VideoGenerationError, error_for

MAX_DEPTH = 64
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_REASONS = {
    errno.ENOENT: "it does not exist",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.ELOOP: "its symbolic links form a loop",
    errno.ENAMETOOLONG: "its name is too long",
    errno.EACCES: "permission was denied",
    errno.EPERM: "permission was denied",
    errno.EROFS: "its file system is read-only",
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the limit (ulimit -f) or the file system allows",
    errno.EIO: "the disk reported an error",
    errno.ESTALE: "its network folder has changed or was unmounted",
    errno.ENOTCONN: "its network folder is not connected any more",
    errno.ETIMEDOUT: "its network folder does not answer",
    errno.EMFILE: "this process may open no more files (ulimit -n)",
    errno.ENFILE: "the machine may open no more files",
    errno.EAGAIN: "the machine may start no more processes or threads (ulimit -u)",
    errno.ENOMEM: "the machine has no memory left",
}
_DISK_ADVICE = "Free some space or check the disk, then run it again."
_SCARCE_ADVICE = "Close other programs or raise the limit, then run it again."
#: The failure class and the fix for an error number. Any other number means that the name is at fault.
_CLASSES: dict[int, tuple[Failure, str]] = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        (Failure.PERM, "Choose a path that you may use, or change its permissions."),
    ),
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT),
        (Failure.DISK, _DISK_ADVICE),
    ),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM), (Failure.ENV, _SCARCE_ADVICE)),
}


class UnsafeFileError(OSError):
    """Raised for a file that is not regular, is too large, or is not this user's own; ``strerror`` says which."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(errno.EINVAL, reason, str(path))


def open_regular(
    path: Path, max_bytes: int | None = None, *, owned: bool = False, dir_fd: int | None = None, write: bool = False
) -> BufferedReader:
    """Open a regular file for reading; the call never waits for a writer.

    Args:
        path: The file. Symbolic links are followed unless ``owned``.
        max_bytes: The largest size that is accepted; None for any.
        owned: Accept only this user's own file that nobody else may write, and no symbolic link.
        dir_fd: The open folder of a relative ``path``. Only this user may write to it, so the mode of a file in it does
            not matter.
        write: Open the descriptor for writing too, which some locks need; the file is not truncated.

    Raises:
        UnsafeFileError: the path is a folder, pipe, device or socket, or the file is too large or another user's.
        OSError: the file cannot be opened.
    """
    # The kind is checked before and after opening, because opening a device can already have an effect.
    private = dir_fd is not None
    _check(path, os.stat(path, dir_fd=dir_fd, follow_symlinks=not owned), max_bytes, owned=owned, private=private)
    flags = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (os.O_NOFOLLOW if owned else 0)
    fd = os.open(path, flags | (os.O_RDWR if write else os.O_RDONLY), dir_fd=dir_fd)
    with _closed_after_error(fd):
        _check(path, os.fstat(fd), max_bytes, owned=owned, private=private)
        return os.fdopen(fd, "rb")


def open_lock(path: Path, *, dir_fd: int | None = None) -> int:
    """Open a lock file, which is made if it is missing; returns its descriptor.

    Raises:
        UnsafeFileError: it is not a regular file; through a symbolic link, a note would replace another file.
        OSError: it cannot be opened.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600, dir_fd=dir_fd)
    with _closed_after_error(fd):
        _check(path, os.fstat(fd), None, owned=False, private=False)
    return fd


@contextlib.contextmanager
def _closed_after_error(fd: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(fd)
        raise


def _check(path: Path, status: os.stat_result, max_bytes: int | None, *, owned: bool, private: bool) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFLNK:
        raise UnsafeFileError(path, "it is a symbolic link")
    if kind != stat.S_IFREG:
        raise UnsafeFileError(path, f"it is {_KINDS.get(kind, 'not a regular file')}, not a file")
    if max_bytes is not None and status.st_size > max_bytes:
        raise UnsafeFileError(path, f"it is larger than {max_bytes / 2**20:,.0f} MiB")
    if owned and not (status.st_uid == os.geteuid() if private else is_own(status)):
        raise UnsafeFileError(path, "it belongs to another user, or other users may write it")


def temporary_folder(environ: Mapping[str, str]) -> Path:
    """This user's folder for Reelwright's temporary files. It may be missing; the caller checks it with `is_own`."""
    return Path(environ.get("TMPDIR") or "/tmp") / f"reelwright-{os.geteuid()}"  # noqa: S108 - 0700, owner checked


def is_own(status: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user and nobody else may write to it."""
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def read_bytes(path: Path, max_bytes: int, *, owned: bool = False, dir_fd: int | None = None) -> bytes:
    """The content of a small regular file; refuses and raises as `open_regular` does."""
    with open_regular(path, max_bytes, owned=owned, dir_fd=dir_fd) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise UnsafeFileError(path, f"it is larger than {max_bytes / 2**20:,.0f} MiB")
    return data


def read_start(path: Path, max_bytes: int) -> bytes:
    """The first bytes of a regular file of any size; refuses and raises as `open_regular` does."""
    with open_regular(path) as file:
        return file.read(max_bytes)


def read_text(path: Path, max_bytes: int, *, owned: bool = False) -> str:
    """The UTF-8 text of a small regular file.

    Raises:
        OSError: see `open_regular`.
        UnicodeDecodeError: the file is not UTF-8 (a ValueError).
    """
    return read_bytes(path, max_bytes, owned=owned).decode("utf-8")


def read_json(path: Path, max_bytes: int = 16 * 2**20, *, owned: bool = False, dir_fd: int | None = None) -> Any:
    """The JSON value in a small regular file, nested at most `MAX_DEPTH` deep.

    Raises:
        OSError: see `open_regular`.
        ValueError: it is not UTF-8 or not JSON, or is nested too deeply.
    """
    return parse_json(read_bytes(path, max_bytes, owned=owned, dir_fd=dir_fd))


def read_object(path: Path, max_bytes: int, *, owned: bool = False, dir_fd: int | None = None) -> dict[str, Any]:
    """The JSON object in a small file; empty if the file is missing, damaged or unsafe."""
    try:
        data = read_json(path, max_bytes, owned=owned, dir_fd=dir_fd)
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def parse_json(data: bytes | str) -> Any:
    """The JSON value in a text, nested at most `MAX_DEPTH` deep.

    Raises:
        ValueError: it is not UTF-8 or not JSON, or is nested too deeply.
    """
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError("the JSON is nested too deeply")


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path``, which replaces ``path`` when the block ends; after an error it is removed.

    Its name begins with a dot and this process's number. Nobody can guess it, and so nobody can plant a link at it.

    Raises:
        OSError: the system refuses; the file at ``path`` is unchanged.
    """
    unfinished = path.with_name(f".{os.getpid()}-{os.urandom(4).hex()}-{path.name[-60:]}.part")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sha256_of(path: Path) -> str:
    """SHA-256 of a regular file, in hexadecimal digits.

    Raises:
        OSError, ValueError: the file cannot be read; see `open_regular`.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key_of(material: Mapping[str, Any]) -> str:
    """A file name made from everything that determines a file's content: equal for equal material, else different."""
    text = json.dumps(material, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def expanded(path: Path | str) -> Path:
    """The path with ``~`` replaced by a home folder; ``~NAME`` of an unknown user stays unchanged."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def home() -> Path:
    """The user's home folder.

    Raises:
        ConfigurationError: HOME is not set and the system knows no home for this user (a container's random user).
    """
    try:
        return Path.home()
    except RuntimeError:
        raise ConfigurationError(
            "this user has no home folder", advice="Set HOME to a folder that you can write to."
        ) from None


def unusable(path: Path, doing: str = "be read", *, advice: str = "") -> VideoGenerationError | None:
    """The error for a path that cannot be opened as a file; ``None`` for one that can."""
    try:
        open_regular(path).close()
    except (OSError, ValueError) as error:
        return path_error(error, path, doing, advice=advice)
    return None


@contextlib.contextmanager
def path_errors(path: Path, doing: str = "be read", *, advice: str = "") -> Iterator[None]:
    """Turn a refusal of the operating system into the `path_error` of this path."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise path_error(error, path, doing, advice=advice) from None


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turn errors of the operating system into those of `core.errors`, inside ``with`` or in a decorated function.

    It is the last safety net of every public call, in Python and in ``reel``. `path_error` says more about a path.
    """
    try:
        yield
    except VideoGenerationError:
        raise
    except Exception as error:
        if (ours := system_error(error)) is None:
            raise
        raise ours from error


def system_error(error: Exception) -> VideoGenerationError | None:
    """The error for a refusal of the operating system (path, space, memory, files, threads); ``None`` for a bug."""
    text = str(error)
    if isinstance(error, OSError):
        return _of_the_system(error)
    if isinstance(error, ValueError) and ("null byte" in text or "null character" in text):
        return InvalidInputError("a path holds a NUL character", advice="Check the given paths.")
    if isinstance(error, UnicodeEncodeError) and "surrogates" in text:
        return InvalidInputError(
            "a text holds an incomplete character (a lone surrogate)", advice="Check the given texts and paths."
        )
    if isinstance(error, RuntimeError) and "start new thread" in text:
        return _of_the_system(OSError(errno.EAGAIN, text))
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and "failed to map segment" in text):
        fix = "Close other programs or raise the limit (ulimit -v, a container's), or ask for a smaller size."
        return error_for(Failure.OOM_HOST, "this process may use no more memory", advice=fix)
    return None


def _of_the_system(error: OSError) -> VideoGenerationError | None:
    name, number = error.filename2 or error.filename, error.errno or 0
    if isinstance(name, (str, bytes)):
        return path_error(error, os.fsdecode(name), "be used")
    if number == errno.ENOENT and _is_nowhere():
        fix = "Change to an existing folder, or give absolute paths."
        return InvalidInputError("the current folder no longer exists", advice=fix)
    if number not in _CLASSES:
        return None
    failure, fix = _CLASSES[number]
    return error_for(failure, f"the system refused the operation: {reason(error)}", advice=fix)


def _is_nowhere() -> bool:
    try:
        os.getcwd()  # noqa: PTH109 -- whether it exists
    except OSError:
        return True
    return False


def shown(path: Path | str) -> str:
    """The path for a message: shortened if it is long, and without control characters, which a terminal would obey."""
    text = str(path)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 300 else f"{text[:140]}...{text[-140:]}"


def reason(error: OSError | ValueError) -> str:
    """Why a path cannot be used, as the end of a sentence, such as "it does not exist"."""
    if isinstance(error, OSError):
        if isinstance(error, UnsafeFileError):
            return str(error.strerror)
        return _REASONS.get(error.errno or 0) or error.strerror or str(error)
    return "it holds a NUL character" if "null" in str(error) else str(error)


def path_error(
    error: OSError | ValueError, path: Path | str, doing: str = "be read", *, advice: str = ""
) -> VideoGenerationError:
    """The error for a path that the operating system refuses, in one sentence.

    Args:
        error: The system's error; Python raises ValueError for a NUL in a path.
        path: The path as it was given.
        doing: The words after "cannot": ``be read``, ``be written``, ``be made``.
        advice: The fix, if the general one does not fit.

    Returns:
        PERM for rights, DISK for a full or broken disk, ENV for a lack of files, threads or memory, else INPUT.
    """
    number = error.errno or 0 if isinstance(error, OSError) else 0
    failure, usual = _CLASSES.get(number, (Failure.INPUT, "Check the path."))
    return error_for(failure, f"{shown(path)} cannot {doing}: {reason(error)}", advice=advice or usual)
