"""Where a film's clips are kept, under a key of everything that determines them: ``.reel/`` beside the film.

    .reel/clips/KEY.mp4, KEY.reel.json, KEY.last.png      one clip, its manifest, its lossless last frame
    .reel/pieces/KEY.*                                    what was seen in clips, and encoded for a film (`media.shelf`)
    .reel/films/NAME.json                                 which of these a film uses
    .reel/films/NAME.lock                                 held while it is being made

A clip is found only if it is the very file that its manifest describes. Two films in one folder share clips.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BusyError, InvalidInputError, StateError
from ..files import open_lock, path_error, read_json
from ..history import load_manifest
from ..result import Manifest, manifest_path
from ..workspace import file_digest

FOLDER = ".reel"
KEY_SCHEMA = 1
_MAX_RECORD_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Clip:
    """A clip that is there and whole."""

    key: str
    video: Path
    last_frame: Path
    manifest: Manifest


def key_of(material: Mapping[str, Any]) -> str:
    """A name for everything that determines a clip; equal if and only if the material is."""
    text = json.dumps({"key": KEY_SCHEMA, **material}, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Store:
    """The clips beside a film; ``root`` is made when it is first written to."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / FOLDER
        self.clips = self.root / "clips"
        self.films = self.root / "films"
        self.pieces = self.root / "pieces"

    def prepare(self) -> None:
        """Make the folders."""
        for folder in (self.clips, self.films):
            folder.mkdir(parents=True, exist_ok=True)

    def video(self, key: str) -> Path:
        """Where the clip of that key lies, or will lie."""
        return self.clips / f"{key}.mp4"

    def last_frame(self, key: str) -> Path:
        """Where its last frame lies."""
        return self.clips / f"{key}.last.png"

    def find(self, key: str) -> Clip | None:
        """The clip of that key, if all of it is there and the film is the one that was verified."""
        video, frame = self.video(key), self.last_frame(key)
        try:
            manifest = load_manifest(manifest_path(video))
        except (InvalidInputError, StateError):
            return None
        output = manifest.output or {}
        if manifest.state != "completed" or not frame.is_file() or file_digest(video) != output.get("sha256"):
            return None
        return Clip(key, video, frame, manifest)

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Keep the film of that name for this process.

        Raises:
            BusyError: another process makes it now.
        """
        self.prepare()
        path = self.films / f"{name}.lock"
        try:
            fd = open_lock(path)
        except OSError as error:
            raise path_error(error, path, advice="Remove it, or give another -o.") from None
        with os.fdopen(fd, "r+b") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = re.sub(r"\D", "", lock.read(20).decode("ascii", "replace"))
                raise BusyError(
                    f"the film {name} is being made by process {holder or '?'}",
                    advice="Wait for it, or end it; it loses nothing.",
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()).encode("ascii"))
            lock.flush()
            yield

    def note(self, name: str, storyboard: Path | None, keys: Sequence[str], pieces: Sequence[str] = ()) -> None:
        """Remember which clips and pieces a film uses, so that `garbage` keeps them."""
        path = self.films / f"{name}.json"
        unfinished = path.with_suffix(".new")
        record = {"storyboard": str(storyboard) if storyboard else None, "keys": list(keys), "pieces": list(pieces)}
        unfinished.unlink(missing_ok=True)  # whatever lies there is not written through
        unfinished.write_text(json.dumps(record), encoding="utf-8")
        unfinished.replace(path)

    def garbage(self) -> tuple[Path, ...]:
        """Files of clips and pieces that no film here uses; a record whose storyboard is gone counts no more.

        Raises:
            BusyError: a film here is being made: what it has made is in no record yet.
        """
        for lock in sorted(self.films.glob("*.lock")):
            with self.held(lock.stem):
                pass
        keys: set[str] = set()
        pieces: set[str] = set()
        for path in self.films.glob("*.json"):
            with contextlib.suppress(OSError, ValueError):
                record = read_json(path, _MAX_RECORD_BYTES)
                if record["storyboard"] is None or Path(record["storyboard"]).exists():
                    keys.update(record["keys"])
                    pieces.update(record.get("pieces", ()))
        clips = (path for path in _files(self.clips) if path.name.partition(".")[0] not in keys)
        return (*clips, *(path for path in _files(self.pieces) if path.name not in pieces))


def _files(folder: Path) -> list[Path]:
    """What lies in a folder, without what is just being written."""
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
