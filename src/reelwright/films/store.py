"""Stores a film's clips in ``.reel/`` beside the film, each under a key of everything that determines it.

    .reel/clips/KEY.mp4, KEY.reel.json, KEY.last.png      one clip, its manifest, its lossless last frame
    .reel/pieces/KEY.*                                    analyses, encoded stretches (`films.editing.artifact_cache`)
    .reel/films/NAME.json                                 which of these a film uses (`records`)
    .reel/films/NAME.lock, .reel/lock                     locked while a film is made, or while clips are removed

A clip is found only if it is exactly the file that its manifest describes. Two films in one folder share clips.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any

from ..core.errors import BusyError, VideoGenerationError
from ..core.files import key_of, open_lock, path_error, path_errors, replacing
from ..core.manifest import MANIFEST_SUFFIX, Manifest, manifest_path
from ..runs.history import load_manifest
from ..runs.workspace import file_digest
from .records import Record, read_record

FOLDER = ".reel"
KEY_SCHEMA = 1
KEY = re.compile(r"[0-9a-f]{32}")
#: The values that the manifest of a joinable clip must have, with their types.
_FACTS: dict[str, type | tuple[type, ...]] = {
    "sha256": str,
    "width": int,
    "height": int,
    "frames": int,
    "fps": (int, float),
}


@dataclass(frozen=True)
class Clip:
    """A complete clip in the store."""

    key: str
    video: Path
    last_frame: Path
    manifest: Manifest


def clip_key(**material: Any) -> str:
    """The key of a clip or film made of this material."""
    return key_of({"key": KEY_SCHEMA, **material})


def film_shots(manifest: Manifest) -> Iterator[Mapping[str, Any]]:
    """The entries of the clips in a film's manifest, without damaged ones."""
    shots = manifest.facts.get("shots")
    yield from (shot for shot in (shots if isinstance(shots, list) else ()) if isinstance(shot, dict))


def clip_manifests(manifest: Manifest) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The shot and the manifest of each clip in a film's manifest."""
    for shot in film_shots(manifest):
        if isinstance(shot.get("manifest"), dict):
            yield str(shot.get("shot")), shot["manifest"]


def _readable(path: Path) -> bool:
    try:
        read_record(path)
    except (OSError, ValueError):
        return False
    return True


def _describes(manifest: Manifest, key: str, video: Path) -> bool:
    """Whether a clip is exactly the file that a manifest describes, made for this key."""
    output = manifest.output or {}
    known = all(isinstance(output.get(name), kind) for name, kind in _FACTS.items())
    if manifest.state != "completed" or not known or output.get("key", key) != key:
        return False
    return bool(file_digest(video) == output["sha256"])


class Store:
    """The clips beside a film; ``root`` is created at the first write."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / FOLDER
        self.clips = self.root / "clips"
        self.films = self.root / "films"
        self.cache = self.root / "pieces"

    def check(self) -> None:
        """Refuse a store that this user may not write, before anything is made.

        Raises:
            VideoGenerationError: PERM, the store may not be read or written.
        """
        for folder in (self.root, self.clips, self.films):
            if os.path.lexists(folder) and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise path_error(OSError(errno.EACCES, ""), folder, "be written") from None

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            VideoGenerationError: PERM, DISK or INPUT, they cannot be made.
        """
        for folder in (self.clips, self.films):
            with path_errors(folder, "be made"):
                folder.mkdir(parents=True, exist_ok=True)

    def video(self, key: str) -> Path:
        """The path of the clip of that key, whether or not it exists."""
        return self.clips / f"{key}.mp4"

    def last_frame(self, key: str) -> Path:
        """The path of the last frame of that clip."""
        return self.clips / f"{key}.last.png"

    def find(self, key: str) -> Clip | None:
        """The clip of that key, if it is exactly the file that was verified for this key; otherwise ``None``.

        If the clip's manifest is damaged, the copy in a film's manifest is used. The clip's last frame may be damaged:
        see `last_frames.is_whole`.
        """
        video = self.video(key)
        if not os.path.isfile(video):  # noqa: PTH113 -- also false if the store may not be read
            return None
        try:
            manifest = load_manifest(manifest_path(video))
        except VideoGenerationError:
            found = self._in_films(key)
        else:
            found = iter((manifest,))
        return next((Clip(key, video, self.last_frame(key), one) for one in found if _describes(one, key, video)), None)

    def _in_films(self, key: str) -> Iterator[Manifest]:
        """The copies of a clip's manifest in the manifests of the films beside the store."""
        for path in sorted(self.root.parent.glob(f"*{MANIFEST_SUFFIX}")):
            with contextlib.suppress(VideoGenerationError, TypeError, AttributeError):
                for shot in film_shots(load_manifest(path)):
                    if shot.get("key") == key:
                        yield Manifest.from_json(shot["manifest"])

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Lock the film of that name for this process, and keep its clips from being removed.

        Raises:
            BusyError: another process is making it, or is removing clips.
            VideoGenerationError: PERM, DISK or INPUT, the store cannot be written.
        """
        self.prepare()
        with self._locked(self.root / "lock", fcntl.LOCK_SH, "the clips here are being cleaned up"):
            path, busy = self.films / f"{name}.lock", f"the film {name} is being made"
            with self._locked(path, fcntl.LOCK_EX, busy) as lock:
                with path_errors(path, "be written"):
                    lock.truncate(0)
                    lock.write(str(os.getpid()).encode("ascii"))
                    lock.flush()
                yield

    @contextlib.contextmanager
    def all_held(self) -> Iterator[None]:
        """Lock the complete store for this process.

        Raises:
            BusyError: a film here is being made, and not all of its clips are in a record yet.
        """
        with contextlib.ExitStack() as stack:
            for path in sorted(self.films.glob("*.lock")):
                stack.enter_context(self._locked(path, fcntl.LOCK_EX, f"the film {path.stem} is being made"))
            stack.enter_context(self._locked(self.root / "lock", fcntl.LOCK_EX, "a film here is being made"))
            yield

    @contextlib.contextmanager
    def _locked(self, path: Path, kind: int, busy: str) -> Iterator[BufferedRandom]:
        with path_errors(path, advice="Remove it, or give another -o."):
            fd = open_lock(path)
        with os.fdopen(fd, "r+b") as lock:
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = re.sub(r"\D", "", lock.read(20).decode("ascii", "replace"))
                by = f" by process {holder}" if holder else ""
                raise BusyError(f"{busy}{by}", advice="Wait for it, or stop it: its finished clips are kept.") from None
            yield lock

    def record(self, name: str) -> Record:
        """The record of the film of that name; an empty one if it does not exist or cannot be read."""
        try:
            return read_record(self._record(name))
        except (OSError, ValueError):
            return Record()

    def _record(self, name: str) -> Path:
        return self.films / f"{name}.json"

    def note(self, name: str, record: Record) -> None:
        """Record which clips and cached files a film uses, so that they are not garbage.

        The grace period of clips that it no longer uses begins now.

        Raises:
            VideoGenerationError: DISK or PERM, it cannot be written.
        """
        path = self._record(name)
        for key in filter(KEY.fullmatch, self.record(name).keys - record.keys):
            with contextlib.suppress(OSError):
                os.utime(manifest_path(self.video(key)))
        with path_errors(path, "be written"):
            if os.path.lexists(path) and not _readable(path):
                path.replace(path.with_name(f"{name}.unreadable.json"))  # while it exists, `garbage` removes nothing
            with replacing(path) as unfinished:
                unfinished.write_text(record.to_text(), encoding="utf-8")
