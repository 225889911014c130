"""Checks that a folder of weights and each of its files are complete, and on request compares published checksums.

It reads headers and indexes only, so a checkpoint of 65 GB takes milliseconds, and finds a missing shard, a cut
download, a pointer file or a running download before the framework starts. It does not need torch. It does not decide
which task the weights are for: the backend reads ``config`` and ``foreign``. Faults of the disk are findings too, even
a mount that no longer answers.

    >>> look_at_checkpoint(CheckpointQuery(Path("/models/nowhere"))).problems
    ('/models/nowhere is missing',)
"""

from __future__ import annotations

import fcntl
import fnmatch
import hashlib
import json
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from typing import Any, BinaryIO

from ....core.files import open_regular
from ....core.host import Checkpoint, CheckpointQuery, Kind
from .checksums import HUB_RECORDS, Checksum, digest_of, recorded
from .folders import Files, Folder
from .recognition import kind_of, precision_kind
from .tensor_file import header_of, sample_digest, tensor_names, weights_problem

OnProgress = Callable[[int, int], None]
STALL_S = 60.0
_MOST_SHARDS = 1000
_PARTIAL = (".incomplete", ".aria2", ".part", ".partial", ".crdownload", ".download", ".!qB", ".lock")
#: The index file of a folder in diffusers' layout.
INDEX = "model_index.json"
_WEIGHTY = re.compile(r"transformer|vae|text_encoder|image_encoder")
_TENSORS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


def look_at_checkpoint(
    query: CheckpointQuery,
    *,
    files: Files | None = None,
    on_progress: OnProgress | None = None,
    stall_s: float = STALL_S,
) -> Checkpoint:
    """Look at the folder. ``on_progress`` gets (hashed bytes, bytes to hash) when ``query.verify`` is set.

    It returns at most ``stall_s`` seconds after the disk's last answer; a thread may stay behind in the hung call.
    """
    look = _Look(query, Folder(query.directory, files or Files()), on_progress)
    answer: Future[Checkpoint] = Future()
    threading.Thread(target=_answer, args=(look, answer), name="checkpoint", daemon=True).start()
    while True:
        left_s = look.folder.answered_s + stall_s - time.monotonic()
        try:
            return answer.result(timeout=max(left_s, 0.01))
        except NotYet:
            if answer.done() or time.monotonic() - look.folder.answered_s < stall_s:
                continue
        at = query.directory / look.folder.at
        return Checkpoint(query.directory, (f"{at} did not answer for {stall_s:g} s: its disk or network hangs",))


def _answer(look: _Look, answer: Future[Checkpoint]) -> None:
    try:
        answer.set_result(look.run())
    except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
        answer.set_exception(error)


class _Look:
    """One look at one folder."""

    def __init__(self, query: CheckpointQuery, folder: Folder, on_progress: OnProgress | None) -> None:
        self.query, self.folder = query, folder
        self._on_progress = on_progress
        self._sizes: dict[str, int] = {}
        self._samples: dict[str, str] = {}
        self._header: tuple[str, dict[str, Any]] | None = None

    def run(self) -> Checkpoint:
        config: dict[str, Any] = {}
        configs: dict[str, dict[str, Any]] = {}
        names = self.folder.contents("") or []
        if self.query.otherwise is not None and INDEX not in names:
            self.query = self.query.otherwise
        if names:
            self._look_at_files()
            if self.query.config is not None and self._is_there(self.query.config):
                config = self.folder.json(self.query.config)
            configs = {name: self.folder.json(name) for name in self.query.configs if self._is_there(name)}
            if self.query.verify and not self.folder.said:
                self._verify()
        problems = tuple(self.folder.problems)
        foreign = frozenset(name for name in self.query.foreign if name in names)
        kind = self._kind(bool(problems or foreign))
        if kind is not None:
            problems = (f"{self.query.directory} {kind.what}",)
        content = json.dumps(sorted((name, size, self._samples.get(name)) for name, size in self._sizes.items()))
        fingerprint = hashlib.sha256(content.encode()).hexdigest() if self._sizes else ""
        return Checkpoint(
            self.query.directory,
            problems,
            self._sizes,
            config,
            foreign,
            configs,
            fingerprint,
            kind,
            self._dtypes(),
            frozenset(names),
        )

    def _look_at_files(self) -> None:
        for name in self.query.required:
            self._require(name)
        for pattern in self.query.weights:
            self._look_at_weights(pattern)
        if self.query.components:
            self._look_at_components()
        self._look_for_partial()

    def _kind(self, doubtful: bool) -> Kind | None:
        """The kind of a folder that has a fault, or whose numbers have another precision."""
        if not self.query.layout:
            return None
        if self._header:
            found = precision_kind(*self._header)
            if found is not None:
                return found
        if not doubtful and self.query.layout != "hunyuan":  # the parts of HunyuanVideo are checked one by one
            return None
        return kind_of(self.query.directory, self.query.layout, self.folder.files)

    def _dtypes(self) -> frozenset[str]:
        tensors = self._header[1] if self._header else {}
        return frozenset(str(item.get("dtype")) for name, item in tensors.items() if name != "__metadata__")

    def _require(self, name: str) -> None:
        if not name.endswith("/"):
            self._check(name)
            return
        folder = name.rstrip("/")
        for inner in self.folder.contents(folder) or []:
            found = self.folder.stat(f"{folder}/{inner}")
            if found is not None and not stat.S_ISDIR(found.st_mode):
                self._check(f"{folder}/{inner}")

    def _check(self, name: str) -> bool:
        """Check a required file; true if it exists and is complete."""
        before = len(self.folder.said)
        size = self.folder.size(name)
        if size is not None and name not in self._sizes:
            self._sizes[name] = size
            problem = self.folder.read(name, lambda file: self._look_into(file, size, name))
            if problem:
                self.folder.say(name, problem)
        return len(self.folder.said) == before

    def _look_into(self, file: BinaryIO, size: int, name: str) -> str | None:
        """Sample the content for the fingerprint; returns the file's fault."""
        self._samples[name] = sample_digest(file, size)
        file.seek(0)
        problem = weights_problem(file, size, name)
        if problem is None and self._header is None and name.endswith(".safetensors"):
            self._header = (name, header_of(file, size))
        return problem

    def _is_there(self, name: str) -> bool:
        """Whether an optional file exists in the folder or one folder below; a missing one is not a problem."""
        folder, _, file = name.rpartition("/")
        known = not folder or folder in (self.folder.names("") or [])
        return known and file in (self.folder.names(folder) or [])

    def _look_at_components(self) -> None:
        """Check every component that the index names, with the weights of those that hold any."""
        index = self.folder.json(INDEX)
        for name, value in index.items():
            if name.startswith("_") or not isinstance(value, list) or len(value) != 2 or value[1] is None:
                continue
            inner = self.folder.contents(name)
            if inner is None:
                continue
            for file in inner:
                if file.endswith(".json"):
                    self._check(f"{name}/{file}")
            if _WEIGHTY.match(name):
                self._look_at_weights(f"{name}/*.safetensors")

    # Shards

    def _look_at_weights(self, pattern: str) -> None:
        folder, slash, glob = pattern.rpartition("/")
        names = self.folder.names(folder)
        if names is None:
            return
        prefix = folder + slash
        found = [name for name in names if fnmatch.fnmatchcase(name, glob)]
        indexes = [name for name in names if name.endswith(".safetensors.index.json")]
        if not found and not indexes:
            self.folder.say(pattern, "is missing" if pattern in names else "matches no file")
        for name in found:
            self._check(prefix + name)
        for name in indexes:
            self._look_at_index(prefix, name)
        if not indexes:
            self._look_at_series(prefix, found)

    def _look_at_index(self, prefix: str, name: str) -> None:
        if not self._check(prefix + name):
            return
        weight_map = self.folder.json(prefix + name).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            self.folder.say(prefix + name, "lists no shards")
            return
        shards: dict[str, set[str]] = {}
        for tensor, shard in weight_map.items():
            shards.setdefault(str(shard), set()).add(tensor)
        for shard, tensors in sorted(shards.items()):
            known = prefix + shard in self._sizes
            if (known or self._check(prefix + shard)) and self._sizes.get(prefix + shard):
                self._look_at_tensors(prefix + shard, tensors, name)

    def _look_at_tensors(self, shard: str, tensors: set[str], index: str) -> None:
        size = self._sizes[shard]
        held = self.folder.read(shard, lambda file: tensor_names(file, size))
        absent = tensors - held if held else ()
        if absent:
            example = min(absent)
            self.folder.say(
                shard,
                f"lacks {len(absent)} tensors that {index} places there ({example}): from another download",
            )

    def _look_at_series(self, prefix: str, found: Iterable[str]) -> None:
        """Find missing shards without an index, by names such as model-00002-of-00007."""
        series: dict[tuple[str, str, str], set[int]] = {}
        for name in found:
            match = re.fullmatch(r"(.+)-(\d{1,5})-of-(\d{1,5})(\.\w+)", name)
            if match:
                series.setdefault((match[1], match[3], match[4]), set()).add(int(match[2]))
        for (stem, total, suffix), present in series.items():
            for number in sorted(set(range(1, min(int(total), _MOST_SHARDS) + 1)) - present):
                self.folder.say(f"{prefix}{stem}-{number:0{len(total)}}-of-{total}{suffix}", "is missing")
            self.folder.say(f"{prefix}{stem}{suffix}.index.json", "is missing")

    # Unfinished downloads

    def _look_for_partial(self) -> None:
        for place in sorted({name.rpartition("/")[0] for name in self._sizes} | {""}):
            for name in self.folder.names(place) or []:
                if name.endswith(_PARTIAL):
                    self._say_mark(f"{place}/{name}".lstrip("/"))
        # huggingface_hub keeps partial files in a separate folder. Its locks stay behind, so only a held one counts.
        # Since version 2 a part of a killed download stays behind too, and the next download does not continue it.
        records = self.query.directory / HUB_RECORDS
        for folder, _, names in os.walk(records):
            for path in (Path(folder) / name for name in names):
                if path.suffix == ".incomplete":
                    name = str(path.relative_to(self.query.directory))
                    fix = "run the download again, then delete it if it is still there"
                    self.folder.say(name, f"is an unfinished download: {fix}")
                elif path.suffix == ".lock" and _is_held(path):
                    name = str(path.relative_to(self.query.directory))
                    self.folder.say(name, "is locked: a download into this folder is running")

    def _say_mark(self, mark: str) -> None:
        """Report the mark, and drop the line about its missing file: one cause, one line."""
        gone = (mark.rpartition(".")[0], "is missing")
        self.folder.said[:] = [item for item in self.folder.said if item != gone]
        self.folder.say(mark, "marks an unfinished download: finish it, or delete the mark")

    # Checksums

    def _verify(self) -> None:
        known = recorded(self.query.directory, self._sizes, self.folder.text)
        for name in sorted(self._sizes):
            if name.endswith(_TENSORS) and name not in known:
                self.folder.say(
                    name,
                    "has no recorded checksum to verify: put the published ones into SHA256SUMS beside it",
                )
        counted = self._counter(sum(self._sizes[name] for name in known))
        # hashlib releases the interpreter's lock; more readers than this only make a disk seek.
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            list(pool.map(lambda item: self._compare(item[0], item[1], counted), known.items()))

    def _counter(self, total: int) -> Callable[[int], None]:
        hashed, lock = 0, threading.Lock()

        def counted(count: int) -> None:
            nonlocal hashed
            with lock:
                hashed += count
                self.folder.alive()
                if self._on_progress is not None:
                    self._on_progress(hashed, total)

        return counted

    def _compare(self, name: str, expected: Checksum, counted: Callable[[int], None]) -> None:
        size = self._sizes[name]
        digest = self.folder.read(name, lambda file: digest_of(expected.kind, file, size, counted))
        if digest is not None and digest != expected.digest:
            self.folder.say(
                name,
                f"is damaged: its checksum is {digest[:12]}... and {expected.digest[:12]}... was published; "
                "download it again",
            )


def _is_held(path: Path) -> bool:
    """Whether a process holds the lock file's lock now."""
    try:
        with open_regular(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
