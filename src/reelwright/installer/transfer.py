"""Downloads a repository's files into a folder: resumes at any byte, and checks each file before it gets its final
name.

An unfinished file is in ``.cache/huggingface/download`` of the folder, and its name contains its checksum. Downloads
append to it, so no byte is stored twice. A complete file is hashed, and gets the record that huggingface_hub would
write (commit, checksum, time): ``sites.local.probes.checkpoints`` can verify the file later, and the hub's tools
recognise it. A file with its final name is therefore complete, even if a setup was killed. `planning` decides which
files are needed.

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
from .weight_sources import Listing, RemoteFile, TransferInterrupted, WeightsSource

_MAX_RECORD_BYTES = 64 * 1024
_WORKERS = 4  # one connection rarely uses the full bandwidth; more than four only make a disk seek
_TRIES = 6  # in a row that bring no byte
_REPORT_EVERY_S = 0.5

OnBytes = Callable[[int], None]


# ------------------------------------------------------------------------------------------------------ what exists


def partial_path(folder: Path, file: RemoteFile) -> Path:
    """The path of an unfinished file; different content has a different path."""
    content = file.checksum.digest[:16] if file.checksum else f"{file.size}"
    return folder / HUB_RECORDS / f"{file.name}.{content}.incomplete"


def record_path(folder: Path, file: RemoteFile) -> Path:
    """The path of huggingface_hub's record of a file."""
    return folder / HUB_RECORDS / f"{file.name}.metadata"


def is_there(folder: Path, file: RemoteFile) -> bool:
    """Whether a file has the right size, and no record of another version."""
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
    """The files that still need a download."""
    return tuple(file for file in listing.files if not is_there(folder, file))


def partial_bytes(folder: Path, files: Iterable[RemoteFile]) -> int:
    """The number of bytes that unfinished files already hold."""
    return sum(min(_size(partial_path(folder, file)), file.size) for file in files)


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def is_sound(path: Path, checksum: Checksum | None, on_bytes: OnBytes = lambda _count: None) -> bool:
    """Whether a file has the published checksum; ``on_bytes`` gets the size of each hashed piece."""
    if checksum is None:
        return True
    with open_regular(path) as file:
        return digest_of(checksum.kind, file, path.stat().st_size, on_bytes) == checksum.digest


def remove(folder: Path, file: RemoteFile) -> None:
    """Remove a damaged file and its record."""
    (folder / file.name).unlink(missing_ok=True)
    record_path(folder, file).unlink(missing_ok=True)


def remove_partial_files(folder: Path) -> None:
    """Remove unfinished files of other versions and of the hub's tools; call it once all files are complete."""
    for path in (folder / HUB_RECORDS).rglob("*.incomplete"):
        path.unlink(missing_ok=True)


# ----------------------------------------------------------------------------------------------------------- download


@dataclass(frozen=True)
class Fetch:
    """Files to download from a source into a folder."""

    source: WeightsSource
    listing: Listing
    folder: Path
    files: tuple[RemoteFile, ...]
    pause_s: float = 1.0


def fetch(job: Fetch, on_bytes: OnBytes) -> None:
    """Download all files, a few at a time, partial ones first.

    ``on_bytes`` gets the number of bytes so far, in the calling thread. After an interrupt the function ends at
    once: the workers are daemons, and their files can be resumed at any byte.

    Raises:
        VideoGenerationError: a worker failed.
    """
    shared = _Shared(job)
    for file in sorted(job.files, key=lambda file: -partial_bytes(job.folder, [file])):
        shared.waiting.put(file)
    workers = min(_WORKERS, len(job.files))
    for number in range(workers):
        shared.waiting.put(None)
        threading.Thread(target=shared.work, name=f"fetch-{number}", daemon=True).start()
    problem: Exception | None = None
    try:
        while workers:
            with contextlib.suppress(queue.Empty):
                problem = shared.ended.get(timeout=_REPORT_EVERY_S) or problem
                workers -= 1
            on_bytes(shared.bytes)
    finally:
        shared.stop.set()
    if problem is not None:
        raise problem


@dataclass
class _Shared:
    """The state of a download, shared by its workers."""

    job: Fetch
    waiting: queue.SimpleQueue[RemoteFile | None] = field(default_factory=queue.SimpleQueue)
    ended: queue.SimpleQueue[Exception | None] = field(default_factory=queue.SimpleQueue)
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    bytes: int = 0

    def work(self) -> None:
        problem: Exception | None = None
        try:
            while not self.stop.is_set() and (file := self.waiting.get()) is not None:
                self.fetch_file(file)
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
            problem = error
            self.stop.set()
        self.ended.put(problem)

    def count(self, received: int) -> None:
        with self.lock:
            self.bytes += received

    def fetch_file(self, file: RemoteFile) -> None:
        """Download one file, continuing an earlier attempt."""
        partial = partial_path(self.job.folder, file)
        partial.parent.mkdir(parents=True, exist_ok=True)
        if _size(partial) > file.size:
            partial.unlink()
        resumed = partial.exists()
        self.complete(file, partial)
        if self.stop.is_set():
            return
        sound = is_sound(partial, file.checksum)
        if not sound and resumed:  # an old part may be damaged, for example by a power cut
            self.count(-_size(partial))
            partial.unlink()
            self.complete(file, partial)
            sound = self.stop.is_set() or is_sound(partial, file.checksum)
        if not sound:
            partial.unlink()
            raise ModelNotFoundError(
                f"{file.name} from {self.job.source.name} is damaged: its checksum is not the published one",
                advice="Run the same command again; if it fails again, use another --weights-source.",
            )
        if not self.stop.is_set():
            _publish(self.job, file, partial)

    def complete(self, file: RemoteFile, partial: Path) -> None:
        """Append until the partial file is complete; give up after `_TRIES` tries in a row without a byte."""
        tries = 0
        partial.touch()
        while (before := _size(partial)) < file.size and not self.stop.is_set():
            problem = "the source ended too early"
            try:
                self.append(file, partial)
            except TransferInterrupted as error:
                problem = str(error)
            tries = 0 if _size(partial) > before else tries + 1
            if tries >= _TRIES:
                raise BackendUnavailableError(
                    f"{file.name} could not be fetched: {problem}",
                    failure=Failure.ENV,
                    advice="The fetched files are kept: run the same command again to continue.",
                )
            if _size(partial) < file.size:
                self.stop.wait(min(self.job.pause_s * 2**tries, 30.0))

    def append(self, file: RemoteFile, partial: Path) -> None:
        start = _size(partial)
        # Unbuffered: the kernel gets each piece at once, so the piece survives a kill of this process.
        with (
            self.job.source.open(self.job.listing, file, start) as stream,
            partial.open("r+b", buffering=0) as target,
        ):
            if stream.start > start:
                raise TransferInterrupted("the server left a part out")
            target.seek(stream.start)
            target.truncate()
            self.count(stream.start - start)
            while not self.stop.is_set() and (piece := next(stream.pieces, b"")):
                if len(piece) > file.size - target.tell():
                    target.truncate(0)
                    raise ModelNotFoundError(f"{file.name} from {self.job.source.name} is longer than announced")
                _write(target, piece, partial)
                self.count(len(piece))


def _write(target: io.RawIOBase, piece: bytes, partial: Path) -> None:
    view = memoryview(piece)
    try:
        while view:
            view = view[target.write(view) or 0 :]
    except OSError as error:
        raise disk_error(error, partial) from None


def _publish(job: Fetch, file: RemoteFile, partial: Path) -> None:
    """Write the record first, then rename: a file with its final name always has its record."""
    with partial.open("rb") as done:
        os.fsync(done.fileno())
    target, record = job.folder / file.name, record_path(job.folder, file)
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.checksum is not None:
        # Without a commit, the hub's tools treat the record as one of another version, which it may be.
        text = f"{job.listing.commit or '0' * 40}\n{file.checksum.digest}\n{time.time()}\n"
        record.write_text(text, "utf-8")
    partial.replace(target)
