"""What must hold after every run, however it ended: I1 to I8.

For the tests of the stand-in; `WanMachine.check` calls all of it. Nothing here starts or ends anything.

    >>> assert_whole_records(state_dir)  # doctest: +SKIP
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from reelwright.core.errors import Failure
from reelwright.core.manifest import Manifest

#: In the environment of every run; it is in no file that a run leaves, and no framework gets it.
CANARY = "canary-7d1f0c2b9e"
#: What the bounded log may have beyond its limit: the line that says how much was dropped.
_LOG_NOTE_BYTES = 200
_Found = Mapping[str, tuple[int, int]]


def snapshot(folder: Path, own: tuple[Path, ...]) -> _Found:
    """Every file (size, time) and folder below ``folder`` but in ``own`` (I4); what a launch notes of itself is left out."""
    found: dict[str, tuple[int, int]] = {}
    for place, folders, names in os.walk(folder):
        here = Path(place)
        skipped = ("fake_state", "__pycache__", ".mypy_cache")
        folders[:] = [name for name in folders if name not in skipped and here / name not in own]
        found.update({str(here / name): (0, 0) for name in folders})
        for name in names:
            if not name.startswith("fake_") and here / name not in own:
                seen = (here / name).lstat()
                found[str(here / name)] = (seen.st_size, seen.st_mtime_ns)
    return found


def survivors(folder: Path) -> list[int]:
    """Living processes of runs on this machine (I1): marked ones that know its folder, and shims that hold its files."""
    wanted = str(folder).encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environ, line = (entry / "environ").read_bytes(), (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0]
            marked = b"REELWRIGHT_RUN=" in environ and wanted in environ + line
            mine = marked or (b"shim.py" in line and _holds_files(entry, folder))
        except OSError:
            continue
        if mine and state not in b"ZX":
            found.append(int(entry.name))
    return found


def _holds_files(entry: Path, folder: Path) -> bool:
    return any(str(link.readlink()).startswith(str(folder)) for link in (entry / "fd").iterdir())


def records(state_dir: Path) -> Iterator[Manifest]:
    """The records of the runs without a film, in no order."""
    for path in (state_dir / "runs").glob("*/manifest.json"):
        yield Manifest.from_json(json.loads(path.read_text("utf-8")))


def assert_one_end(manifest: Manifest) -> None:
    """I5: one terminal state, and one class of error that fits it."""
    assert manifest.state in ("completed", "failed", "cancelled")
    if manifest.state == "completed":
        assert manifest.error is None
        assert manifest.attempts[-1].outcome == "completed"
        return
    assert manifest.error is not None
    assert manifest.error["code"] in Failure.__members__
    assert (manifest.error["code"] == "CANCELLED") == (manifest.state == "cancelled")
    assert manifest.output is None
    done = [attempt for attempt in manifest.attempts if attempt.outcome == "completed"]
    # Only publishing can fail after an attempt that gave a good film.
    assert not done or manifest.error["code"] in ("EXISTS", "DISK", "PERM", "CANCELLED")
    assert all(attempt.failure in Failure.__members__ for attempt in manifest.attempts if attempt not in done)


def assert_whole_records(state_dir: Path, log_limit_bytes: int) -> None:
    """I5, I6 and I8: records with one end, bounded logs, complete learned values."""
    for manifest in records(state_dir):
        assert_one_end(manifest)
    for log in (state_dir / "runs").glob("*/*.log"):
        assert log.stat().st_size <= log_limit_bytes + _LOG_NOTE_BYTES
    learnt = state_dir / "learned.json"
    if learnt.exists():
        assert json.loads(learnt.read_text("utf-8"))["schema"] == 1


def assert_no_secret(folder: Path) -> None:
    """I6: the canary of the environment is nowhere."""
    for place, _, names in os.walk(folder):
        for path in (Path(place) / name for name in names):
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 8_000_000:
                assert CANARY.encode() not in path.read_bytes(), path
