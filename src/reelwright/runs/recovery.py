"""Recovers after a crash: publishes the finished clips of dead runs in a folder, and removes the rest.

The folder may be shared, or come from an unknown archive, so a name in it proves nothing. `recover` changes a run's
folder only if it belongs to this user with mode 0700, has no symbolic link in place of a file, and has a lock that
names the run's output. It publishes a clip only if the manifest describes that file and a full decode agrees. It
replaces only the files that the run was allowed to replace, and changes nothing else. See docs/trust.md.

    >>> recover(Path("films"))
    ()
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from ..core.errors import VideoGenerationError
from ..core.files import open_regular, parse_json, read_json
from ..core.manifest import MAX_MANIFEST_BYTES, Manifest, manifest_path
from ..core.plan import ExpectedVideo
from ..media.verification import examine
from . import workspace
from .workspace import PREFIX, FileSystem, RunFolder

#: Time limit of one call, over all folders; the next call does the rest.
LIMIT_S = 600.0
_MAX_FOLDERS = 1000
_MAX_ATTEMPTS = 200
_MAX_NOTE_BYTES = 64 * 1024
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_ATTEMPT = re.compile(r"attempt-\d{1,4}")
_OWN_NAMES = frozenset({"lock", "manifest.json", "overwrite", "first.png", "last.png", "depth.png"})
#: The facts of a clip that its manifest needs, with their types.
_FACTS = {"path": (str,), "sha256": (str,), "bytes": (int,), "width": (int,), "height": (int,), "frames": (int,)}
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Recovery:
    """The action of `recover` for one dead run: ``finished``, ``adopted`` or ``removed``."""

    run_id: str
    action: Literal["finished", "adopted", "removed"]
    output: Path | None


class _NotUnderstoodError(Exception):
    """Raised for a folder in a state that no run of this user leaves: it stays unchanged."""


@dataclass(frozen=True)
class _Patience:
    """The time limit and the check for a stop."""

    check: Callable[[], None]
    deadline: float

    def __call__(self) -> None:
        self.check()
        if time.monotonic() > self.deadline:
            raise _NotUnderstoodError


def recover(
    directory: Path,
    *,
    files: FileSystem | None = None,
    check: Callable[[], None] = lambda: None,
    limit_s: float = LIMIT_S,
) -> tuple[Recovery, ...]:
    """Finish or remove the folders of dead runs. It may run at any time, and in several processes at once.

    ``finished``: the run had published its clip, and now its manifest is published. ``adopted``: the run was killed
    just before publishing; its verified clip is published, under the next free number if the name was taken since.
    ``removed``: the run had no verified clip. ``check`` is called often and may raise.
    """
    files = files or FileSystem()
    patience = _Patience(check, time.monotonic() + limit_s)
    done = []
    for name in _names(directory):
        with (
            contextlib.suppress(OSError, ValueError, VideoGenerationError, _NotUnderstoodError),
            _dead(directory, name) as dead,
        ):
            done.append(dead.recovered(files, patience))
        check()
    return tuple(done)


def _names(directory: Path) -> list[str]:
    """Names of folders that may belong to runs."""
    try:
        with os.scandir(directory) as entries:
            ours = (entry for entry in entries if entry.name.startswith(PREFIX))
            found = (entry.name for entry in ours if entry.stat(follow_symlinks=False).st_uid == os.geteuid())
            return sorted(itertools.islice(found, _MAX_FOLDERS))
    except OSError:
        return []


@contextlib.contextmanager
def _dead(directory: Path, name: str) -> Iterator[_DeadRun]:
    """The dead run of a folder. It belongs to this user, and its lock is held while the context lasts."""
    run_id = name.removeprefix(PREFIX)
    if not _RUN_ID.fullmatch(run_id):
        raise _NotUnderstoodError
    fd = os.open(directory / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise _NotUnderstoodError
        if "lock" not in os.listdir(fd):  # noqa: PTH208 -- of a descriptor
            _remove_half_made(fd, directory / name)
        with open_regular(Path("lock"), _MAX_NOTE_BYTES, owned=True, dir_fd=fd, write=True) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: the run is alive
            if not os.path.samestat(os.fstat(lock.fileno()), os.stat("lock", dir_fd=fd, follow_symlinks=False)):
                raise _NotUnderstoodError
            yield _DeadRun(fd, RunFolder(directory / name, run_id, directory / _output_name(lock, run_id)))
    finally:
        os.close(fd)


def _remove_half_made(fd: int, path: Path) -> None:
    """Remove the folder of a run that was killed before it had a lock. A run that is starting makes it again."""
    names = os.listdir(fd)
    if names == [workspace.UNNAMED_LOCK]:
        with open_regular(Path(names[0]), _MAX_NOTE_BYTES, owned=True, dir_fd=fd, write=True) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(names[0], dir_fd=fd)
    path.rmdir()  # fails if the folder is not empty


def _output_name(lock: BinaryIO, run_id: str) -> str:
    """The name of the run's output, from its lock file."""
    note = parse_json(lock.read(_MAX_NOTE_BYTES))
    name = note.get("output") if isinstance(note, dict) and note.get("run") == run_id else None
    if not isinstance(name, str) or not _is_output_name(name):
        raise _NotUnderstoodError
    return name


def _is_output_name(name: str) -> bool:
    try:
        return workspace.absolute_output(Path("/", name)) == Path("/", name) and name == Path(name).name
    except VideoGenerationError:
        return False


@dataclass(frozen=True)
class _DeadRun:
    """The folder of a dead run. ``fd`` is the open folder, which stays the same if another folder gets its name."""

    fd: int
    folder: RunFolder

    def recovered(self, files: FileSystem, patience: _Patience) -> Recovery:
        intent = self._intent()
        if intent is None:
            return self._remove()
        output, facts = self.folder.output, intent.output or {}
        if facts["path"] != output.name or intent.run_id != self.folder.run_id:
            raise _NotUnderstoodError
        if _digest(output, facts, patience, owned=False) == facts["sha256"]:
            return self._finish(files)
        clip = self._clip(facts, patience)
        if clip is None:
            return self._remove()
        if not _matches_manifest(clip, facts, patience):
            raise _NotUnderstoodError
        return self._adopt(clip, intent, files)

    def _intent(self) -> Manifest | None:
        """The manifest of a finished clip; ``None`` if the run had no finished clip."""
        try:
            data = read_json(Path("manifest.json"), MAX_MANIFEST_BYTES, owned=True, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        except ValueError:  # power failed during the write
            return None
        manifest = Manifest.from_json(data)
        facts = manifest.output or {}
        if manifest.state != "completed" or not all(type(facts.get(name)) in kinds for name, kinds in _FACTS.items()):
            raise _NotUnderstoodError
        return manifest

    def _clip(self, facts: Any, patience: _Patience) -> Path | None:
        for attempt in sorted(filter(_ATTEMPT.fullmatch, self._names()))[:_MAX_ATTEMPTS]:
            inside = os.open(attempt, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
            try:
                for name in ("film.mp4", "tagged.mp4"):
                    if _digest(Path(name), facts, patience, dir_fd=inside) == facts["sha256"]:
                        return self.folder.path / attempt / name
            finally:
                os.close(inside)
        return None

    def _finish(self, files: FileSystem) -> Recovery:
        """Publish the manifest of a published clip."""
        target = manifest_path(self.folder.output)
        replace = self._may_replace("manifest", target)
        if not replace and os.path.lexists(target):
            raise _NotUnderstoodError
        self._check_path()
        files.move(self.folder.manifest, target, replace=replace)
        files.fsync(target.parent)
        self._remove()
        return Recovery(self.folder.run_id, "finished", self.folder.output)

    def _adopt(self, clip: Path, intent: Manifest, files: FileSystem) -> Recovery:
        output = self.folder.output
        replace = self._may_replace("film", output) and self._may_replace("manifest", manifest_path(output))
        if workspace.is_taken(output) and not replace:
            output = next(path for path in workspace.numbered(output) if not workspace.is_taken(path))
            intent = intent.evolve(output={**(intent.output or {}), "path": output.name})
        self._check_path()
        run = RunFolder(self.folder.path, self.folder.run_id, output)
        workspace.publish(run, clip, intent, replace=replace, files=files)
        return Recovery(self.folder.run_id, "adopted", output)

    def _may_replace(self, kind: str, path: Path) -> bool:
        """Whether the run may overwrite, and ``path`` is missing or is the file that the run may replace."""
        try:
            marker = read_json(Path("overwrite"), _MAX_NOTE_BYTES, owned=True, dir_fd=self.fd)
        except FileNotFoundError:
            return False
        return isinstance(marker, dict) and workspace.identity(path) in (None, marker.get(kind))

    def _remove(self) -> Recovery:
        """Remove the folder by its descriptor, if all names in it are names that a run makes."""
        unknown = [name for name in self._names() if name not in _OWN_NAMES and not _ATTEMPT.fullmatch(name)]
        if unknown:
            raise _NotUnderstoodError
        workspace.empty(self.fd)
        with contextlib.suppress(OSError):
            self._check_path()
            self.folder.path.rmdir()
        return Recovery(self.folder.run_id, "removed", None)

    def _names(self) -> list[str]:
        return os.listdir(self.fd)  # noqa: PTH208 -- of a descriptor

    def _check_path(self) -> None:
        """Check that the name still leads to the open folder; raises if not."""
        if not os.path.samestat(os.fstat(self.fd), self.folder.path.lstat()):
            raise _NotUnderstoodError


def _digest(
    path: Path, facts: Any, patience: _Patience, *, owned: bool = True, dir_fd: int | None = None
) -> str | None:
    """SHA-256 of a regular file that has the recorded size; ``None`` for any other file."""
    digest = hashlib.sha256()
    try:
        with open_regular(path, owned=owned, dir_fd=dir_fd) as file:
            if os.fstat(file.fileno()).st_size != facts["bytes"]:
                return None
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                patience()
    except OSError:
        return None
    return digest.hexdigest()


def _matches_manifest(clip: Path, facts: Any, patience: _Patience) -> bool:
    """Whether a full decode in a separate process finds the clip that the manifest describes."""
    fps = facts.get("fps")
    if not isinstance(fps, int | float) or not 0 < fps < 1000:
        return False
    promise = ExpectedVideo(facts["width"], facts["height"], facts["frames"], fps)
    found = examine(clip, promise, apart=True, check=patience)
    return not found["problems"] and not found["differences"]
