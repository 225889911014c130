"""Finds the unused clips of a folder, with their cost, and removes them on request.

A clip is in use if it is named by the record of an unfinished or existing film, by a film's manifest, or by a
storyboard in the folder. A storyboard names it by a shot with the same prompt, seed, size and sampling values, or by
the clip's key in its text. A file that cannot be read may name any clip, so nothing is removed then. Clips that were
used within the grace period stay.

>>> found = find_garbage(Path("films"), settings)  # doctest: +SKIP
>>> found.clips, found.reasons_to_keep_all         # doctest: +SKIP
((), ())
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.settings import Settings
from ..config.yamlfile import read_yaml_text
from ..core.errors import InvalidInputError, VideoGenerationError
from ..core.files import UnsafeFileError, path_error, path_errors, read_text, reason, shown
from ..core.manifest import MANIFEST_SUFFIX, Manifest, manifest_path
from ..runs.history import load_manifest
from .film_outputs import TASK
from .records import Record, board_path, read_record
from .render import rules
from .store import FOLDER, KEY, Store, film_shots
from .storyboard import load_storyboard
from .timeline import segments

GRACE_DAYS = 14.0
_FOLDER_ADVICE = "Give the folder that holds the films."
_DAY_S = 86_400.0
_BOARDS = (".yaml", ".yml", ".json")
_MAX_BOARD_BYTES = 4 * 1024 * 1024
_MAX_FILES = 10_000
#: The values of a shot that identify its clip on every machine; pictures and lengths are not compared.
_SAME = ("prompt", "seed", "size", "negative_prompt", "steps", "guidance_scale", "flow_shift")


@dataclass(frozen=True)
class Lost:
    """An unused clip.

    Attributes:
        key: Its name in the store.
        files: The video first, its manifest last.
        size: Bytes of all files.
        used: When it was made or last named, seconds since the epoch.
        manifest: The clip's manifest; ``None`` for the remains of a clip that was never finished.
    """

    key: str
    files: tuple[Path, ...]
    size: int
    used: float
    manifest: Manifest | None

    @property
    def gpu_seconds(self) -> float:
        """The GPU time that was spent on it; 0 for a draft, or if the time is unknown."""
        plan = self.manifest.plan if self.manifest else None
        gpus = plan.get("gpus") if plan else None
        return self.manifest.seconds * len(gpus) if self.manifest and isinstance(gpus, list) else 0.0

    def to_json(self) -> dict[str, Any]:
        """The clip's object in ``reel film gc --json``."""
        known = self.manifest
        return {
            "key": self.key,
            "files": [str(path) for path in self.files],
            "bytes": self.size,
            "used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.used)),
            "generator": known.generator if known else None,
            "prompt": known.requested.get("prompt") if known else None,
            "seconds": known.seconds if known else None,
            "gpu_seconds": self.gpu_seconds,
        }


@dataclass(frozen=True)
class Garbage:
    """The files that can be removed.

    Attributes:
        clips: Unused clips, and remains of clips.
        cached: Files of the artifact cache that no film here uses; they are made again in seconds.
        young: Number of unnamed clips that stay because they were used within the grace period.
        reasons_to_keep_all: Sentences about files that could not be read. These may name any clip, so all clips stay.
        odd: Unknown files in the store; they stay.
    """

    clips: tuple[Lost, ...]
    cached: tuple[Path, ...]
    young: int
    reasons_to_keep_all: tuple[str, ...]
    odd: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that would be removed."""
        return (*itertools.chain.from_iterable(clip.files for clip in self.clips), *self.cached)


def store_of(folder: Path) -> Store:
    """The store beside the films of a folder; the store's own folder may be given too.

    Raises:
        InvalidInputError: the folder does not exist or is not a folder.
        BackendUnavailableError: PERM, it may not be read.
    """
    if folder.is_file():
        raise InvalidInputError(f"{shown(folder)} is a file", advice=_FOLDER_ADVICE)
    with path_errors(folder, "be cleaned up", advice=_FOLDER_ADVICE):
        os.scandir(folder).close()
    return Store(folder.parent if folder.name == FOLDER else folder)


def find_garbage(store: Store, settings: Settings, grace_days: float = GRACE_DAYS) -> Garbage:
    """Find the clips and cached files that the store's folder does not use. Hold the store (`Store.all_held`).

    Args:
        store: The folder's store.
        settings: They decide which generator ``auto`` is, and so how shots are split.
        grace_days: Clips that were made or named within so many days stay.
    """
    named = _Named(store, settings)
    lost, odd = _lost(store, named)
    latest = time.time() - grace_days * _DAY_S
    old = [clip for clip in lost if clip.used <= latest]
    cached = [path for path in _files(store.cache) if path.name not in named.cached and _used((path,)) <= latest]
    if named.not_understood:
        return Garbage((), (), len(lost), tuple(named.not_understood), tuple(odd))
    return Garbage(tuple(old), tuple(cached), len(lost) - len(old), (), tuple(odd))


def remove(garbage: Garbage) -> None:
    """Remove the files. A clip's manifest goes last, so that an interrupted removal can be continued.

    Raises:
        VideoGenerationError: PERM or DISK, a file cannot be removed.
    """
    for path in garbage.files:
        with path_errors(path, "be removed"):
            path.unlink(missing_ok=True)


def _lost(store: Store, named: _Named) -> tuple[list[Lost], list[Path]]:
    """The unused clips, and the unknown files."""
    by_key: dict[str, list[Path]] = {}
    odd: list[Path] = []
    for path in _files(store.clips):
        key = path.name.partition(".")[0]
        if KEY.fullmatch(key) and not path.is_symlink():
            by_key.setdefault(key, []).append(path)
        else:
            odd.append(path)
    lost = []
    for key, files in by_key.items():
        if key in named.keys:
            continue
        manifest, video = None, store.video(key)
        try:
            manifest = load_manifest(manifest_path(video))
        except VideoGenerationError:
            if video in files:  # it may have cost hours, and its manifest cannot be read
                odd += files
                continue
        if manifest is None or not named.by_storyboard(manifest):
            order = {video: 0, manifest_path(video): 2}
            files.sort(key=lambda path: order.get(path, 1))
            size = sum(path.stat().st_size for path in files)
            lost.append(Lost(key, tuple(files), size, _used(files), manifest))
    return lost, odd


class _Named:
    """Collects everything that a folder names: keys of clips, cached files, and values of shots."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._folder, self._settings = store.root.parent, settings
        self.keys: set[str] = set()
        self.cached: set[str] = set()
        self.not_understood: list[str] = []
        self._shots: set[tuple[str, ...]] = set()
        records = list(self._records(store))
        boards = self._storyboards(records)
        claimed = {_real(board_path(name, self._folder)) for record in records for name in record.uses}
        unclaimed = any(_real(path) not in claimed for path in boards)
        for path in boards:
            self._take_storyboard(path)
        for path in sorted(self._folder.glob(f"*{MANIFEST_SUFFIX}")):
            self._take_manifest(path)
        for record in records:
            self._take_record(record, renamed=unclaimed)

    def by_storyboard(self, manifest: Manifest) -> bool:
        """Whether a shot of a storyboard here asks for this clip."""
        return _asked(manifest.requested) in self._shots

    def _records(self, store: Store) -> Iterator[Record]:
        for path in sorted(store.films.glob("*.json")):
            try:
                yield read_record(path)
            except (OSError, ValueError) as error:
                self._cannot(path, reason(error), "Remove it if its film has been made again.")

    def _take_record(self, record: Record, *, renamed: bool) -> None:
        """Count a record's clips as used.

        They are unused if the film was finished and is gone, its storyboard is gone, and none can be the renamed one.
        """
        lies_there = os.path.lexists(self._folder / record.output)
        for board, use in record.uses.items():
            here = os.path.lexists(board_path(board, self._folder))  # without a file, this is the folder
            if here or lies_there or renamed or not use.finished:
                self.keys.update(use.keys)
                self.cached.update(record.cached)

    def _take_manifest(self, path: Path) -> None:
        try:
            manifest = load_manifest(path)
        except VideoGenerationError as error:
            self._cannot(path, error.message, "")
            return
        if manifest.task == TASK:
            self.keys.update(str(shot.get("key")) for shot in film_shots(manifest))
            self.cached.update(str(name) for name in manifest.facts.get("kept", ()))

    def _storyboards(self, records: Iterable[Record]) -> list[Path]:
        """The storyboards in the folder, and those that made films in it."""
        found: dict[Path, Path] = {}
        noted = (board_path(name, self._folder) for record in records for name in record.uses if name)
        lying = (path for path in _files(self._folder) if path.suffix.lower() in _BOARDS)
        for path in itertools.chain(noted, itertools.islice(lying, _MAX_FILES)):
            if os.path.lexists(path) and not path.name.endswith(MANIFEST_SUFFIX):
                found.setdefault(_real(path), path)
        return [path for path in found.values() if self._is_storyboard(path)]

    def _is_storyboard(self, path: Path) -> bool:
        try:
            text = read_text(path, _MAX_BOARD_BYTES)
        except (UnsafeFileError, ValueError):
            return False  # not a regular file, not text, or too large: it cannot be a storyboard
        except OSError as error:
            self._cannot(path, reason(error), "It may be a storyboard.")
            return False
        if "shots" not in text:
            return False
        try:
            value = read_yaml_text(text, path.name)
        except VideoGenerationError:
            return True  # `_take_storyboard` reports its mistakes
        return isinstance(value, dict) and "shots" in value

    def _take_storyboard(self, path: Path) -> None:
        try:
            text, board = read_text(path, _MAX_BOARD_BYTES), load_storyboard(path)
            asked = segments(board, lambda name: rules(name, self._settings))
            self._shots.update(_asked(segment.request.to_json()) for segment in asked)
        except (OSError, ValueError) as error:
            self._cannot(path, reason(error), "")
        except VideoGenerationError as error:
            self._cannot(path, error.message, "")
        else:
            self.keys.update(KEY.findall(text))

    def _cannot(self, path: Path, why: str, fix: str) -> None:
        self.not_understood.append(f"{shown(path)} cannot be understood: {why}. {fix}".strip())


def _asked(request: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(request.get(name)) for name in _SAME)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _used(files: Sequence[Path]) -> float:
    """When the newest of some files was written or touched; now, if a wrong clock dated one into the future."""
    return min(time.time(), max(path.lstat().st_mtime for path in files))


def _files(folder: Path) -> list[Path]:
    """The files in a folder, without subfolders and without hidden files, which are still being written."""
    try:
        found = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise path_error(error, folder) from None
    return [path for path in found if not path.name.startswith(".") and (path.is_symlink() or not path.is_dir())]
