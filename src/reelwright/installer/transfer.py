"""Bringing a repository's files into a folder: resumable at any byte, checked before they get their names.

A file in progress lies under ``.cache/huggingface/download`` of the folder, named after the content it is to become,
and is appended to; nothing is stored twice. Before it gets its final name it is hashed, and the record that
huggingface_hub would leave (commit, checksum, time) is written, so that ``sites.local.probes.checkpoints`` can verify it later and
the hub's own tools know it. So a file with its final name is whole, whenever we were killed. Not for deciding what is
needed: see `planning`.

    >>> partial_path(Path("/m"), RemoteFile("a.pth", 5, Checksum("sha256", "ab" * 32))).name
    'a.pth.abababababababab.incomplete'
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import BackendUnavailableError, Failure, ModelNotFoundError
from ..core.files import open_regular, read_bytes
from ..runs.workspace import disk_error
from ..sites.local.probes.checksums import HUB_RECORDS, Checksum, digest_of
from .weight_sources import Interrupted, Listing, RemoteFile, WeightsSource

_MAX_RECORD_BYTES = 64 * 1024
_WORKERS = 4  # one connection rarely fills a line; more only make a disk seek
_TRIES = 6  # without a single byte in between
_TELL_EVERY_S = 0.5

Progress = Callable[[int], None]


# ------------------------------------------------------------------------------------------------------ what is there


def partial_path(folder: Path, file: RemoteFile) -> Path:
    """Where a file lies while it is being fetched; another content gets another name."""
    content = file.checksum.digest[:16] if file.checksum else f"{file.size}"
    return folder / HUB_RECORDS / f"{file.name}.{content}.incomplete"


def record_path(folder: Path, file: RemoteFile) -> Path:
    """huggingface_hub's record of a file."""
    return folder / HUB_RECORDS / f"{file.name}.metadata"


def is_there(folder: Path, file: RemoteFile) -> bool:
    """Whether a file has its size, and no record says that it is another version."""
    try:
        if (folder / file.name).stat().st_size != file.size:
            return False
        lines = read_bytes(record_path(folder, file), _MAX_RECORD_BYTES).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return (folder / file.name).is_file()
    except OSError:
        return False
    return file.checksum is None or len(lines) < 2 or lines[1].strip().strip('"') == file.checksum.digest


def missing(folder: Path, listing: Listing) -> tuple[RemoteFile, ...]:
    """The files that are still to be fetched."""
    return tuple(file for file in listing.files if not is_there(folder, file))


def partial_bytes(folder: Path, files: Iterable[RemoteFile]) -> int:
    """What has been fetched of files that are not complete."""
    return sum(min(_size(partial_path(folder, file)), file.size) for file in files)


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def damaged(folder: Path, files: Iterable[RemoteFile], told: Progress) -> tuple[RemoteFile, ...]:
    """Those of the files whose content is not what was published; ``told`` gets the bytes hashed."""
    return tuple(file for file in files if not _is_sound(folder / file.name, file.checksum, told))


def _is_sound(path: Path, checksum: Checksum | None, told: Progress) -> bool:
    if checksum is None:
        return True
    with open_regular(path) as file:
        return digest_of(checksum.kind, file, path.stat().st_size, told) == checksum.digest


def forget(folder: Path, file: RemoteFile) -> None:
    """Remove a file that is known to be damaged, and its record."""
    (folder / file.name).unlink(missing_ok=True)
    record_path(folder, file).unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Once everything is there: partial files of other versions, and what the hub's own tools left behind."""
    for path in (folder / HUB_RECORDS).rglob("*.incomplete"):
        path.unlink(missing_ok=True)


# ----------------------------------------------------------------------------------------------------------- one file


@dataclass(frozen=True)
class Fetch:
    """Files to bring from a source into a folder."""

    source: WeightsSource
    listing: Listing
    folder: Path
    files: tuple[RemoteFile, ...]
    pause_s: float = 1.0


def fetch_file(job: Fetch, file: RemoteFile, told: Progress, stop: threading.Event) -> None:
    """Fetch one file, going on where an earlier attempt ended.

    Raises:
        VideoGenerationError: the source cannot be read, the content is not what was published, the disk is full.
    """
    partial = partial_path(job.folder, file)
    partial.parent.mkdir(parents=True, exist_ok=True)
    if _size(partial) > file.size:
        partial.unlink()
    resumed = partial.exists()
    _complete(job, file, told, stop)
    if stop.is_set():
        return
    sound = _is_sound(partial, file.checksum, lambda _count: None)
    if not sound and resumed:  # an old part may have been damaged, by a power cut for example: once more from zero
        told(-_size(partial))
        partial.unlink()
        _complete(job, file, told, stop)
        sound = stop.is_set() or _is_sound(partial, file.checksum, lambda _count: None)
    if not sound:
        partial.unlink()
        raise ModelNotFoundError(
            f"{file.name} from {job.source.name} is damaged: its checksum is not the published one",
            advice="Run the same command again; if it stays so, use another --weights-source.",
        )
    if not stop.is_set():
        _publish(job, file, partial)


def _complete(job: Fetch, file: RemoteFile, told: Progress, stop: threading.Event) -> None:
    """Append until the partial file has its size; interruptions are gone through as long as something comes."""
    partial = partial_path(job.folder, file)
    tries = 0
    partial.touch()
    while (before := _size(partial)) < file.size and not stop.is_set():
        problem = "the source ended too early"
        try:
            _append(job, file, told, stop)
        except Interrupted as error:
            problem = str(error)
        tries = 0 if _size(partial) > before else tries + 1
        if tries >= _TRIES:
            raise BackendUnavailableError(
                f"{file.name} could not be fetched: {problem}",
                failure=Failure.ENV,
                advice="What was fetched is kept: run the same command again to go on.",
            )
        if _size(partial) < file.size:
            stop.wait(min(job.pause_s * 2**tries, 30.0))


def _append(job: Fetch, file: RemoteFile, told: Progress, stop: threading.Event) -> None:
    partial = partial_path(job.folder, file)
    start = _size(partial)
    # Unbuffered: what was received is the kernel's at once, and outlives our process.
    with job.source.open(job.listing, file, start) as stream, partial.open("r+b", buffering=0) as target:
        if stream.start > start:
            raise Interrupted("the server left a part out")
        target.seek(stream.start)
        target.truncate()
        told(stream.start - start)
        while not stop.is_set() and (piece := stream.read()):
            left = file.size - target.tell()
            if len(piece) > left:
                target.truncate(0)
                raise ModelNotFoundError(f"{file.name} from {job.source.name} is longer than was told")
            _write(target, piece, partial)
            told(len(piece))


def _write(target: io.RawIOBase, piece: bytes, partial: Path) -> None:
    view = memoryview(piece)
    try:
        while view:
            view = view[target.write(view) or 0 :]
    except OSError as error:
        raise disk_error(error, partial) from None


def _publish(job: Fetch, file: RemoteFile, partial: Path) -> None:
    """The record first, then the name: a file with its final name always has its record."""
    with partial.open("rb") as done:
        os.fsync(done.fileno())
    target, record = job.folder / file.name, record_path(job.folder, file)
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.checksum is not None:
        # Without a commit the hub's tools take the record for one of another version, which it may be.
        text = f"{job.listing.commit or '0' * 40}\n{file.checksum.digest}\n{time.time()}\n"
        record.write_text(text, "utf-8")
    partial.replace(target)


# ---------------------------------------------------------------------------------------------------------- all files


@dataclass
class _Shared:
    """What the workers share."""

    waiting: queue.SimpleQueue[RemoteFile | None] = field(default_factory=queue.SimpleQueue)
    ended: queue.SimpleQueue[Exception | None] = field(default_factory=queue.SimpleQueue)
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    bytes: int = 0

    def told(self, count: int) -> None:
        with self.lock:
            self.bytes += count


def fetch(job: Fetch, told: Progress) -> None:
    """Fetch all files, a few at a time, begun ones first; ``told`` gets the bytes so far, from this thread.

    After an interrupt it comes back at once: the workers are daemons and their files can be resumed at any byte.

    Raises:
        VideoGenerationError: the first worker's.
    """
    shared = _Shared()
    for file in sorted(job.files, key=lambda file: -partial_bytes(job.folder, [file])):
        shared.waiting.put(file)
    workers = min(_WORKERS, len(job.files))
    for number in range(workers):
        shared.waiting.put(None)
        threading.Thread(target=_work, args=(job, shared), name=f"fetch-{number}", daemon=True).start()
    problem: Exception | None = None
    try:
        while workers:
            with contextlib.suppress(queue.Empty):
                problem = shared.ended.get(timeout=_TELL_EVERY_S) or problem
                workers -= 1
            told(shared.bytes)
    finally:
        shared.stop.set()
    if problem is not None:
        raise problem


def _work(job: Fetch, shared: _Shared) -> None:
    problem: Exception | None = None
    try:
        while not shared.stop.is_set() and (file := shared.waiting.get()) is not None:
            fetch_file(job, file, shared.told, shared.stop)
    except Exception as error:  # noqa: BLE001 - carried over to the thread that waits, and raised there
        problem = error
        shared.stop.set()
    shared.ended.put(problem)
