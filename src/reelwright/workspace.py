"""Every file name of a run, and publishing: the one place where a film gets its final name.

A run owns a private folder ``.reelwright-<run id>`` beside its output, on the same file system. Inputs, logs and
attempts live in it; only a verified film leaves it, by `publish`:

    fsync film -> write and fsync the manifest (the intent) -> link/rename film, never replacing unless told
    -> rename manifest -> fsync folder -> remove private folder

Power may fail between any two steps: `recover` finishes or removes what a dead run left. A folder belongs to a
living run while its ``lock`` file is flock'd. Nothing outside the output's folder is touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

from .errors import BackendUnavailableError, Failure, InvalidInputError, VideoGenerationError
from .result import Manifest, manifest_path

IfExists = Literal["error", "overwrite", "skip", "rename"]
PREFIX = ".reelwright-"
MAX_NAME_BYTES = 255  # NAME_MAX of every common Linux file system
#: The lossless last frame that an engine of ours leaves beside its film.
LAST_FRAME = "last.png"
_RENAME_NOREPLACE = 1
_AT_FDCWD = -100


class FileSystem(Protocol):
    """The calls that publishing makes, so that tests can let the n-th one fail."""

    def fsync(self, path: Path) -> None: ...
    def write(self, path: Path, text: str) -> None: ...
    def move(self, source: Path, target: Path, *, replace: bool) -> None: ...
    def remove(self, folder: Path) -> None: ...


class RealFileSystem:
    """The machine's own file system."""

    def fsync(self, path: Path) -> None:
        """Bring a file's or folder's content to the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def write(self, path: Path, text: str) -> None:
        """Write a whole file and bring it to the disk."""
        with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def move(self, source: Path, target: Path, *, replace: bool) -> None:
        """Rename inside one file system; without ``replace`` an existing target is `FileExistsError`, atomically."""
        if replace:
            source.replace(target)
        else:
            _rename_noreplace(source, target)

    def remove(self, folder: Path) -> None:
        """Remove a private folder and all in it."""
        shutil.rmtree(folder, ignore_errors=True)


def _rename_noreplace(source: Path, target: Path) -> None:
    """renameat2(RENAME_NOREPLACE), and link + unlink where the file system does not know it."""
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
        """The manifest that will be published; its presence with state ``completed`` is the intent to publish."""
        return self.path / "manifest.json"

    @property
    def may_replace(self) -> Path:
        """Exists when the run was told to overwrite, so that `recover` knows it too."""
        return self.path / "overwrite"

    @property
    def lock(self) -> Path:
        """Locked as long as the run lives."""
        return self.path / "lock"

    def picture(self, role: str) -> Path:
        """The private PNG of the ``first``, ``last`` or ``depth`` picture."""
        return self.path / f"{role}.png"

    def attempt(self, number: int) -> Path:
        """Folder of one attempt; names are never used twice, so a stale film cannot pass for a new one."""
        return self.path / f"attempt-{number}"

    def video(self, number: int) -> Path:
        """Where attempt ``number`` writes its film."""
        return self.attempt(number) / "film.mp4"

    def tagged(self, number: int) -> Path:
        """The copy of a framework's film that carries our tags and seal."""
        return self.attempt(number) / "tagged.mp4"

    def log(self, number: int) -> Path:
        """The bounded log of attempt ``number``."""
        return self.attempt(number) / "log.txt"


def place(source: Path, target: Path, files: FileSystem | None = None) -> None:
    """Move a file of a private folder to ``target`` on the same file system, whole or not at all."""
    files = files or RealFileSystem()
    files.fsync(source)
    files.move(source, target, replace=True)
    files.fsync(target.parent)


def new_run_id() -> str:
    """A sortable name for a run: UTC time and random letters."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def plan_folder(output: Path, run_id: str) -> RunFolder:
    """The names of a run, without making anything."""
    return RunFolder(output.parent / f"{PREFIX}{run_id}", run_id, output)


def absolute_output(output: Path) -> Path:
    """The output as an absolute path with a name that every step can use.

    Raises:
        InvalidInputError: the current folder is gone, the name is unusable, or it is not an ``.mp4``.
    """
    try:
        path = Path(os.path.abspath(output.expanduser()))  # noqa: PTH100 -- resolve() would follow a symlinked name
    except FileNotFoundError:
        raise InvalidInputError(
            "the current folder no longer exists", advice="Change to an existing folder or give an absolute path."
        ) from None
    if "\0" in str(path):
        raise InvalidInputError("the output path holds a NUL character")
    if path.suffix.lower() != ".mp4":
        raise InvalidInputError(
            f"{path.name!r} does not end in .mp4", advice="Films are MP4; give the output a name such as clip.mp4."
        )
    longest = max(len(os.fsencode(path.name)), len(os.fsencode(manifest_path(path).name)))
    if longest > MAX_NAME_BYTES:
        raise InvalidInputError(
            f"the output's name is too long: with its manifest {longest} bytes, the limit is {MAX_NAME_BYTES}",
            advice="Give a shorter name.",
        )
    return path


def check_folder(output: Path) -> None:
    """Refuse an output folder that is missing, no folder, or not writable.

    Raises:
        InvalidInputError: it does not exist.
        BackendUnavailableError: PERM, it may not be written.
    """
    folder = output.parent
    if not folder.exists():
        raise InvalidInputError(f"the folder {folder} does not exist", advice=f"Create it first: mkdir -p {folder}")
    if not folder.is_dir() or output.is_dir():
        thing = folder if not folder.is_dir() else output
        raise BackendUnavailableError(
            f"{thing} is {'not a folder' if thing is folder else 'a folder'}",
            failure=Failure.PERM,
            advice="Give the path of a file in an existing folder.",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BackendUnavailableError(
            f"the folder {folder} is not writable", failure=Failure.PERM, advice="Choose a folder of your own."
        )


def settle_output(output: Path, if_exists: IfExists) -> Path | None:
    """The path to publish to under the policy; ``None`` means: skip, the film is there already.

    Raises:
        InvalidInputError: EXISTS, with the policy ``error``.
    """
    if not _taken(output) or if_exists == "overwrite":
        return output
    if if_exists == "skip" and os.path.lexists(output):
        return None
    if if_exists in ("rename", "skip"):
        return next(path for path in _numbered(output) if not _taken(path))
    raise _exists(output)


def _taken(output: Path) -> bool:
    return os.path.lexists(output) or os.path.lexists(manifest_path(output))


def _numbered(output: Path) -> Iterator[Path]:
    number = 2
    while True:
        yield output.with_name(f"{output.stem}-{number}{output.suffix}")
        number += 1


def _exists(output: Path) -> InvalidInputError:
    taken = output if os.path.lexists(output) else manifest_path(output)
    return InvalidInputError(
        f"{taken} exists already",
        failure=Failure.EXISTS,
        advice="Choose another name, or give --overwrite or --if-exists skip|rename.",
    )


@contextlib.contextmanager
def open_folder(folder: RunFolder, *, keep: Callable[[], bool] = lambda: False) -> Iterator[RunFolder]:
    """Make a run's private folder, hold its lock, and remove it at the end unless ``keep`` says otherwise.

    Raises:
        BackendUnavailableError: DISK or PERM, the folder cannot be made.
    """
    try:
        folder.path.mkdir(mode=0o700)
        # Locked before it has its name: `recover` must never see the lock of a living run free.
        unnamed = folder.path / "lock.new"
        fd = os.open(unnamed, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        unnamed.rename(folder.lock)
    except OSError as error:
        raise disk_error(error, folder.path) from error
    try:
        yield folder
    finally:
        if not keep():
            shutil.rmtree(folder.path, ignore_errors=True)
        os.close(fd)


def disk_error(error: OSError, path: Path) -> VideoGenerationError:
    """DISK or PERM for an operating-system error while writing ``path``."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return BackendUnavailableError(
            f"{path} may not be written: {error.strerror}", failure=Failure.PERM, advice="Choose a folder of your own."
        )
    return BackendUnavailableError(
        f"writing {path} failed: {error.strerror}",
        failure=Failure.DISK,
        evidence=(str(error),),
        advice="Free some space (or check the disk), then run the same command again.",
    )


def publish(
    folder: RunFolder, video: Path, manifest: Manifest, *, replace: bool, files: FileSystem | None = None
) -> None:
    """Give a verified film and its manifest their final names; either both are there afterwards or neither.

    Call it once. After an error the final path is what it was before, and the film is still in the private folder.

    Raises:
        InvalidInputError: EXISTS, somebody else made the output meanwhile.
        BackendUnavailableError: DISK or PERM.
    """
    files = files or RealFileSystem()
    output = folder.output
    try:
        files.fsync(video)
        if replace:
            files.write(folder.may_replace, "")
        files.write(folder.manifest, manifest.to_text())
        files.fsync(folder.path)
        if not replace and os.path.lexists(manifest_path(output)):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(manifest_path(output)))
        files.move(video, output, replace=replace)
    except FileExistsError:
        raise _exists(output) from None
    except OSError as error:
        raise disk_error(error, output) from error
    _finish(folder, files)


def _finish(folder: RunFolder, files: FileSystem) -> None:
    """The steps after the commit point; a failure here is mended by the next `recover`, the film is safe."""
    with contextlib.suppress(OSError):
        files.move(folder.manifest, manifest_path(folder.output), replace=True)
        files.fsync(folder.output.parent)
        files.remove(folder.path)


@dataclass(frozen=True)
class Recovery:
    """What `recover` did with one dead run: ``finished``, ``adopted`` or ``removed``."""

    run_id: str
    action: Literal["finished", "adopted", "removed"]
    output: Path | None


def recover(directory: Path, *, files: FileSystem | None = None) -> tuple[Recovery, ...]:
    """Finish or clear what dead runs left in a folder. Safe to call at any time and from several runs at once.

    A run that had stated its intent and moved its film gets its manifest published (``finished``). One that was cut
    off just before the move has its verified film adopted, if the final name is still free (``adopted``). All else
    is removed.
    """
    files = files or RealFileSystem()
    done = []
    with contextlib.suppress(OSError):
        for path in sorted(directory.glob(f"{PREFIX}*")):
            outcome = _recover_one(path, files)
            if outcome:
                done.append(outcome)
    return tuple(done)


def _recover_one(path: Path, files: FileSystem) -> Recovery | None:
    run_id = path.name.removeprefix(PREFIX)
    with contextlib.ExitStack() as stack:
        try:
            fd = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            stack.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None  # alive
        except OSError:
            return None  # not one of ours, or just being made
        intent = _read_intent(path / "manifest.json")
        if intent is None:
            files.remove(path)
            return Recovery(run_id, "removed", None)
        return _complete(path, run_id, intent, files)


def _read_intent(path: Path) -> Manifest | None:
    try:
        manifest = Manifest.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, VideoGenerationError):
        return None
    return manifest if manifest.state == "completed" and manifest.output else None


def _complete(path: Path, run_id: str, intent: Manifest, files: FileSystem) -> Recovery:
    assert intent.output is not None
    output = path.parent / Path(str(intent.output["path"])).name
    folder = RunFolder(path, run_id, output)
    wanted = str(intent.output["sha256"])
    if file_digest(output) == wanted:
        _finish(folder, files)
        return Recovery(run_id, "finished", output)
    film = next((film for film in sorted(path.glob("attempt-*/*.mp4")) if file_digest(film) == wanted), None)
    replace = folder.may_replace.exists()
    if film is None or (_taken(output) and not replace):
        files.remove(path)
        return Recovery(run_id, "removed", None)
    publish(folder, film, intent, replace=replace, files=files)
    return Recovery(run_id, "adopted", output)


def file_digest(path: Path) -> str | None:
    """SHA-256 of a file; ``None`` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
