"""Names every file of a run, and publishes: the one place in which a clip gets its final name.

A run owns a private folder ``.reelwright-<run id>`` beside its output, on the same file system. It contains the
inputs, logs and attempts. `publish` moves only a verified clip out of it:

    fsync clip -> write and fsync the manifest (the intent) -> link/rename clip, replacing only with overwrite
    -> rename manifest -> fsync folder -> remove private folder

Power may fail between any two steps: `runs.recovery` finishes or removes the folder of a dead run. A folder belongs to
a living run while its ``lock`` file is locked (flock); the file names the run's output. No file outside the output's
folder changes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shlex
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ..core.errors import BackendUnavailableError, Failure, InvalidInputError, VideoGenerationError, error_for
from ..core.files import expanded, flush, path_error, sha256_of, shown
from ..core.manifest import Manifest, manifest_path

IfExists = Literal["error", "overwrite", "skip", "rename"]
PREFIX = ".reelwright-"
MAX_NAME_BYTES = 255  # NAME_MAX of every common Linux file system
#: The name of a run's lock while its folder is being made.
UNNAMED_LOCK = "lock.new"
_RENAME_NOREPLACE = 1
_AT_FDCWD = -100


class FileSystem:
    """The calls that publishing makes; a test replaces them to make the n-th one fail."""

    def fsync(self, path: Path) -> None:
        """Flush a file or folder to the disk."""
        flush(path)

    def write(self, path: Path, text: str) -> None:
        """Write a complete file and flush it to the disk."""
        with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def move(self, source: Path, target: Path, *, replace: bool) -> None:
        """Rename atomically inside one file system; without ``replace`` an existing target raises FileExistsError."""
        if replace:
            source.replace(target)
        else:
            _rename_noreplace(source, target)

    def remove(self, folder: Path) -> None:
        """Remove a private folder, the lock last, so that an interrupted removal can be finished."""
        with contextlib.suppress(OSError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                empty(fd)
            finally:
                os.close(fd)
            folder.rmdir()


def empty(fd: int) -> None:
    """Remove everything in an open private folder, the lock last; files that cannot be removed stay."""
    for name in sorted(os.listdir(fd), key=lambda name: name == "lock"):
        try:
            os.unlink(name, dir_fd=fd)
        except OSError:  # a folder
            shutil.rmtree(name, ignore_errors=True, dir_fd=fd)


def _rename_noreplace(source: Path, target: Path) -> None:
    """Call renameat2(RENAME_NOREPLACE), or link and unlink if the file system does not support it."""
    import ctypes  # 5 ms, which a plan does not need

    libc = ctypes.CDLL(None, use_errno=True)
    try:
        call = libc.renameat2
    except AttributeError:
        call = None
    if call is not None:
        if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number), str(source), None, str(target))
    os.link(source, target)
    source.unlink()


@dataclass(frozen=True)
class RunFolder:
    """The names inside one run's private folder."""

    path: Path
    run_id: str
    output: Path

    @property
    def manifest(self) -> Path:
        """The manifest to publish; if it exists with state ``completed``, the run intends to publish."""
        return self.path / "manifest.json"

    @property
    def may_replace(self) -> Path:
        """The marker of a run that may overwrite; it identifies the files that `runs.recovery` may replace."""
        return self.path / "overwrite"

    @property
    def lock(self) -> Path:
        """The file that the run keeps locked while it is alive."""
        return self.path / "lock"

    def picture(self, role: str) -> Path:
        """The private PNG of the ``first``, ``last`` or ``depth`` picture."""
        return self.path / f"{role}.png"

    def attempt(self, number: int) -> Path:
        """The folder of one attempt. No name is used twice, so an old clip cannot be taken for a new one."""
        return self.path / f"attempt-{number}"

    def video(self, number: int) -> Path:
        """The file that attempt ``number`` writes."""
        return self.attempt(number) / "film.mp4"

    def tagged(self, number: int) -> Path:
        """The copy of a framework's output with Reelwright's tags and checksum."""
        return self.attempt(number) / "tagged.mp4"

    def log(self, number: int) -> Path:
        """The bounded log of attempt ``number``."""
        return self.attempt(number) / "log.txt"


def place(source: Path, target: Path, files: FileSystem | None = None) -> None:
    """Move a file of a private folder to ``target`` on the same file system, completely or not at all."""
    files = files or FileSystem()
    files.fsync(source)
    files.move(source, target, replace=True)
    files.fsync(target.parent)


def new_run_id() -> str:
    """A sortable name for a run: UTC time and random hexadecimal digits."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def plan_folder(output: Path, run_id: str) -> RunFolder:
    """The names of a run's files; no folder is made."""
    return RunFolder(output.parent / f"{PREFIX}{run_id}", run_id, output)


def absolute_output(output: Path) -> Path:
    """The output as an absolute path with a name that every step can use.

    Raises:
        InvalidInputError: the current folder is gone, or the name is unusable or does not end in ``.mp4``.
    """
    try:
        path = Path(os.path.abspath(expanded(output)))  # noqa: PTH100 -- resolve() would follow a symlinked name
    except FileNotFoundError:
        raise InvalidInputError(
            "the current folder no longer exists", advice="Change to an existing folder or give an absolute path."
        ) from None
    if "\0" in str(path):
        raise InvalidInputError("the output path holds a NUL character")
    if path.suffix.lower() != ".mp4":
        raise InvalidInputError(
            f"{path.name!r} does not end in .mp4", advice="Videos are MP4; give the output a name such as clip.mp4."
        )
    longest = max(len(os.fsencode(path.name)), len(os.fsencode(manifest_path(path).name)))
    if longest > MAX_NAME_BYTES:
        raise InvalidInputError(
            f"the output's name is too long: with its manifest {longest} bytes, the limit is {MAX_NAME_BYTES}",
            advice="Give a shorter name.",
        )
    return path


def check_folder(output: Path) -> None:
    """Refuse an output folder that is missing, is not a folder, or is not writable.

    Raises:
        InvalidInputError: the folder does not exist.
        BackendUnavailableError: PERM, the folder is not writable.
    """
    check_writable(output.parent)
    if output.is_dir():
        raise BackendUnavailableError(
            f"{shown(output)} is a folder", failure=Failure.PERM, advice="Give the path of a file in a folder."
        )
    if manifest_path(output).is_dir():
        raise InvalidInputError(
            f"{shown(manifest_path(output))} is a folder, and the manifest needs its name",
            failure=Failure.EXISTS,
            advice="Give another -o, or rename the folder.",
        )


def check_writable(folder: Path) -> None:
    """Refuse a folder in which no file can be made; raises as `check_folder`."""
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except FileNotFoundError:
        if folder.is_symlink():
            text = f"the folder {shown(folder)} is a symbolic link to something that does not exist"
            raise InvalidInputError(text, advice="Correct the link, or give another folder.") from None
        text = f"the folder {shown(folder)} does not exist"
        raise InvalidInputError(text, advice=f"Create it first: mkdir -p {shlex.quote(str(folder))}") from None
    except OSError as error:
        raise path_error(error, folder, "be used", advice="Give the path of a file in an existing folder.") from None
    if not is_folder:
        raise BackendUnavailableError(
            f"{shown(folder)} is not a folder",
            failure=Failure.PERM,
            advice="Give the path of a file in an existing folder.",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BackendUnavailableError(
            f"the folder {shown(folder)} is not writable",
            failure=Failure.PERM,
            advice="Choose a folder that you can write to.",
        )


def settle_output(output: Path, if_exists: IfExists) -> Path | None:
    """The path to publish to under the policy; ``None`` to skip the run, because the file exists.

    Raises:
        InvalidInputError: EXISTS, with the policy ``error``.
    """
    if not is_taken(output) or if_exists == "overwrite":
        return output
    if if_exists == "skip" and os.path.lexists(output):
        return None
    if if_exists in ("rename", "skip"):
        return next(path for path in numbered(output) if not is_taken(path))
    raise _exists(output)


def is_taken(output: Path) -> bool:
    """Whether a file of any kind has the name of the output or of its manifest."""
    return os.path.lexists(output) or os.path.lexists(manifest_path(output))


def numbered(output: Path) -> Iterator[Path]:
    """The names that the policy ``rename`` tries: ``clip-2.mp4``, ``clip-3.mp4`` and so on."""
    number = 2
    while True:
        yield output.with_name(f"{output.stem}-{number}{output.suffix}")
        number += 1


def _exists(output: Path) -> InvalidInputError:
    taken = output if os.path.lexists(output) else manifest_path(output)
    return InvalidInputError(
        f"{taken} exists already",
        failure=Failure.EXISTS,
        advice="Choose another name, or give --overwrite or --set if_exists=skip (or rename).",
    )


@contextlib.contextmanager
def open_folder(folder: RunFolder, *, keep: Callable[[], bool] = lambda: False) -> Iterator[RunFolder]:
    """Make a run's private folder, hold its lock, and remove it at the end unless ``keep`` returns true.

    Raises:
        BackendUnavailableError: DISK or PERM, the folder cannot be made.
    """
    try:
        fd = _made(folder)
    except OSError as error:
        with contextlib.suppress(OSError):  # the disk may be full
            (folder.path / UNNAMED_LOCK).unlink(missing_ok=True)
            folder.path.rmdir()
        raise disk_error(error, folder.path) from error
    try:
        yield folder
    finally:
        if not keep():
            with contextlib.suppress(OSError):  # the next run in this folder removes the rest
                FileSystem().remove(folder.path)
        os.close(fd)


def _made(folder: RunFolder) -> int:
    """Make the folder and its lock; returns the descriptor that holds the lock."""
    note = json.dumps({"run": folder.run_id, "output": folder.output.name}).encode("ascii")
    unnamed = folder.path / UNNAMED_LOCK
    for tries_left in (4, 3, 2, 1, 0):
        folder.path.mkdir(mode=0o700)
        try:
            # It is locked before it gets its name: `runs.recovery` must never see the lock of a living run free.
            fd = os.open(unnamed, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                os.write(fd, note)
                os.fsync(fd)
                unnamed.rename(folder.lock)
            except BaseException:
                os.close(fd)
                raise
            return fd
        except FileNotFoundError:  # another run removed it, as the folder of a run killed at this point
            if not tries_left:
                raise
    raise AssertionError


def disk_error(error: OSError, path: Path) -> VideoGenerationError:
    """DISK, PERM or ENV for an operating-system error while writing ``path``."""
    found = path_error(error, path, "be written")
    if found.failure is Failure.INPUT:  # the path was usable when the run began
        return error_for(Failure.DISK, found.message, advice="Check the disk, then run the same command again.")
    return found


def publish(
    folder: RunFolder, video: Path, manifest: Manifest, *, replace: bool, files: FileSystem | None = None
) -> None:
    """Give a verified clip and its manifest their final names: both, or neither.

    Call it once. After an error the final path is unchanged, and the clip is still in the private folder.

    Raises:
        InvalidInputError: EXISTS, another program has made the output meanwhile.
        BackendUnavailableError: DISK or PERM.
    """
    files = files or FileSystem()
    output = folder.output
    try:
        files.fsync(video)
        if replace:
            files.write(folder.may_replace, replaceable(output))
        files.write(folder.manifest, manifest.to_text())
        files.fsync(folder.path)
        if not replace and os.path.lexists(manifest_path(output)):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(manifest_path(output)))
        files.move(video, output, replace=replace)
    except FileExistsError:
        raise _exists(output) from None
    except OSError as error:
        raise disk_error(error, output) from error
    # The clip is published. If a later step fails, the next recovery finishes it.
    with contextlib.suppress(OSError):
        files.move(folder.manifest, manifest_path(output), replace=True)
        files.fsync(output.parent)
        files.remove(folder.path)


def replaceable(output: Path) -> str:
    """The content of the marker `RunFolder.may_replace`, as JSON: the clip and the manifest that may be replaced."""
    return json.dumps({"film": identity(output), "manifest": identity(manifest_path(output))})


def identity(path: Path) -> list[int] | None:
    """Inode, size and time of a file, which identify it; ``None`` if it does not exist."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def file_digest(path: Path) -> str | None:
    """SHA-256 of a regular file; ``None`` if it cannot be read."""
    try:
        return sha256_of(path)
    except (OSError, ValueError):
        return None
