"""Copies a stand-in checkout with its script for one test, and reads the records of its launches.

>>> checkout = make_wan_checkout(tmp_path / "Wan2.1", [{"oom_phase": "dit"}, {}])  # doctest: +SKIP
"""

from __future__ import annotations

import compileall
import functools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("wan21")
HUNYUAN = Path(__file__).with_name("hunyuan")
_ENGINE = Path(__file__).with_name("engine")
#: Member -> the folders that make its checkout, one over the other.
HUNYUAN_LAYERS: Mapping[str, tuple[str, ...]] = {
    "t2v": ("older", "t2v"),
    "i2v": ("older", "i2v"),
    "1.5": ("newer",),
    "documented": ("documented",),
}


def make_wan_checkout(folder: Path, plan: Sequence[Mapping[str, Any]] = (), *, old: bool = False) -> Path:
    """Copy the stand-in to ``folder``; ``old`` is a checkout from before 2025-12-02, whose i2v takes 81
    frames only."""
    _copy(SOURCE, folder)
    _copy(_ENGINE, folder / "wan" / "stand_in")
    set_plan(folder, plan)
    if old:
        source = folder / "wan" / "image2video.py"
        text = source.read_text("utf-8")
        text = text.replace("torch.ones(1, F,", "torch.ones(1, 81,").replace("int | None = None", "int | None = 81")
        source.write_text(text, "utf-8")
    return folder


def make_hunyuan_checkout(folder: Path, member: str, plan: Sequence[Mapping[str, Any]] = ()) -> Path:
    """Copy one of the family to ``folder``: ``t2v``, ``i2v``, ``1.5`` or ``documented``."""
    for layer in HUNYUAN_LAYERS[member]:
        _copy(HUNYUAN / layer, folder)
    _copy(_ENGINE, folder / "hyvideo" / "stand_in")
    set_plan(folder, plan)
    return folder


def _copy(source: Path, folder: Path) -> None:
    """Copy with bytecode, so that a launch compiles its script only."""
    _compile(source)
    ignored = shutil.ignore_patterns(".*", "fake_*")
    shutil.copytree(source, folder, ignore=ignored, dirs_exist_ok=True)


@functools.cache
def _compile(source: Path) -> None:
    compileall.compile_dir(source, quiet=1)


def set_plan(checkout: Path, plan: Sequence[Mapping[str, Any]]) -> None:
    """Set the script of the next launches; the last entry repeats."""
    (checkout / "fake_plan.json").write_text(json.dumps(list(plan)), "utf-8")


def forget_launches(checkout: Path) -> None:
    """Delete the records, so that the next launch is the first again."""
    (checkout / "fake_record.jsonl").unlink(missing_ok=True)
    shutil.rmtree(checkout / "fake_state", ignore_errors=True)


def launches(checkout: Path) -> list[dict[str, Any]]:
    """One entry per started process, in order: argv, cwd, environ, pid, sid, rank, launch, ..."""
    return [entry for entry in _record(checkout) if "note" not in entry]


def notes(checkout: Path) -> list[dict[str, Any]]:
    """The notes that the processes made about themselves."""
    return [entry["note"] for entry in _record(checkout) if "note" in entry]


def reached(checkout: Path, point: str) -> list[list[str]]:
    """[launch, rank, pid, monotonic seconds] for each time that a process reached a point; empty if none has."""
    path = checkout / "fake_state" / f"at-{point.replace(' ', '-')}"
    return [line.split() for line in whole_lines(path)]


def spawned(checkout: Path) -> list[int]:
    """Pids of the grandchildren that the script started."""
    path = checkout / "fake_state" / "spawned"
    return [int(pid) for pid in whole_lines(path)]


def _record(checkout: Path) -> list[dict[str, Any]]:
    path = checkout / "fake_record.jsonl"
    return [json.loads(line) for line in whole_lines(path)]


def whole_lines(path: Path) -> list[str]:
    """The complete lines of a file; an unfinished last line is left out."""
    return path.read_text("utf-8").rpartition("\n")[0].splitlines() if path.exists() else []
