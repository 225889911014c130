"""Keeps what this machine has learned in the state folder: useful mitigations, durations, records of failed runs.

``learned.json`` has one entry per (generator, task, GPUs, size, frames). It is only advice: a missing, damaged or
read-only file counts as empty. A failed run leaves ``runs/<run id>/`` with its manifest and logs, in the temporary
folder if the state folder cannot be written. The newest `KEPT_RUNS` records are kept. No failure in this module ends a
run.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from ..backends.diffusers.settings import DiffusersSettings
from ..core.errors import InvalidInputError
from ..core.files import (
    is_own,
    open_lock,
    path_error,
    read_json,
    read_object,
    reason,
    replacing,
    shown,
    temporary_folder,
)
from ..core.host import Host
from ..core.manifest import MAX_MANIFEST_BYTES, Manifest
from ..core.plan import Plan
from ..policy import GPU_FAULT, Diagnosis, Evidence

SCHEMA = 1
KEPT_RUNS = 50
_MAX_BYTES = 16 * 1024 * 1024
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "rung": list,
    "seconds": (int, float),
    "denoising_seconds": (int, float),
    "steps": int,
    "metrics": dict,
    "peaks": dict,
    "placement": str,
    "failures": dict,
    "message": str,
}
_FILE = "learned.json"
_SUSPECT = "suspect GPU|"
_WHERE = "Give a clip or a film, or the .reel.json beside it."
Entries = dict[str, dict[str, Any]]
#: Called with a sentence when a file cannot be kept in the state folder.
Warn = Callable[[str], None]


def key_of(plan: Plan, host: Host, requested: Mapping[str, Any]) -> str:
    """The key of runs with the same memory and time: generator, task, GPUs, size, frames, and an engine's weights."""
    gpus = [gpu for gpu in host.gpus or () if gpu.index in plan.gpus]
    card = gpus[0].name if gpus else "cpu"
    weights = [str(requested.get(name)) for name in ("model", "speed")] if "placement" in requested else []
    return "|".join(
        (
            plan.generator,
            *weights,
            plan.task,
            f"{len(gpus)}x{card}",
            str(requested.get("size")),
            str(requested.get("num_frames")),
        )
    )


def load_entries(state_dir: Path) -> Entries:
    """All entries; empty if the file is missing or damaged."""
    data = read_object(state_dir / _FILE, _MAX_BYTES)
    if data.get("schema") != SCHEMA or not isinstance(data.get("entries"), dict):
        return {}
    return {key: _sound(value) for key, value in data["entries"].items() if isinstance(value, dict)}


def _sound(entry: dict[str, Any]) -> dict[str, Any]:
    """The values of the expected types: somebody may have edited the file."""
    return {name: value for name, value in entry.items() if isinstance(value, _TYPES.get(name, object))}


class Learned:
    """The content of a state folder's `learned.json` when it was read."""

    def __init__(self, state_dir: Path) -> None:
        self._entries = load_entries(state_dir)

    def _entry(self, plan: Plan, host: Host) -> dict[str, Any]:
        """The entry for runs like this one; empty if there is none."""
        return self._entries.get(key_of(plan, host, plan.parameters), {})

    def starting_overrides(self, plan: Plan, host: Host) -> dict[str, Any]:
        """Overrides of the mitigations that the last successful run like this one used, if they cost no quality."""
        entry = self._entry(plan, host)
        wanted = entry.get("rung", ())
        overrides: dict[str, Any] = {}
        for mitigation in plan.mitigations:
            if mitigation.name in wanted and mitigation.costs in ("nothing", "time"):
                overrides.update(mitigation.overrides)
        placement = entry.get("placement")
        known = get_args(DiffusersSettings.model_fields["placement"].annotation)
        if placement in known and plan.parameters.get("placement") not in (None, placement):
            overrides["placement"] = placement
        return overrides

    def measured_peaks(self, plan: Plan, host: Host) -> dict[str, int]:
        """Peaks of GPU memory in runs like this one, by the engine's placement: bytes that torch allocated."""
        known = self._entry(plan, host).get("peaks")
        found = known.items() if isinstance(known, dict) else ()
        return {name: peak for name, peak in found if isinstance(peak, int)}

    def predicted_seconds(self, plan: Plan, host: Host) -> float | None:
        """Duration of the last run like this one, scaled to the plan's steps; ``None`` if there was none."""
        entry = self._entry(plan, host)
        seconds, before, now = entry.get("seconds"), entry.get("steps"), plan.parameters.get("steps")
        if not isinstance(seconds, (int, float)):
            return None
        denoising = entry.get("denoising_seconds")
        if before and now and isinstance(denoising, (int, float)):
            return float(seconds - denoising + denoising * now / before)
        return float(seconds)

    def suspect_gpus(self) -> Mapping[str, str]:
        """GPUs that failed and have made no clip since, by UUID, with the message; other GPUs are preferred.

        A card that fell off the bus once tends to do so again (Slurm drains such a node, row G06).
        """
        found = {key.removeprefix(_SUSPECT): item for key, item in self._entries.items() if key.startswith(_SUSPECT)}
        return {uuid: str(entry.get("message", "")) for uuid, entry in found.items()}


def remember_success(state_dir: Path, original: Plan, plan: Plan, host: Host, evidence: Evidence) -> None:
    """Record the mitigations and durations of a run that gave a verified clip; ``original`` is its first plan."""
    applied = [
        mitigation.name
        for mitigation in original.mitigations
        if all(plan.parameters.get(name) == value for name, value in mitigation.overrides.items())
    ]
    entry: dict[str, Any] = {
        "rung": applied,
        "seconds": round(evidence.wall_s, 1),
        "denoising_seconds": round(evidence.phase_seconds.get("denoising", 0.0), 1),
        "steps": plan.parameters.get("steps"),
        "metrics": _peaks(evidence.metrics),
    }
    if "placement" in plan.parameters:  # the engine may choose a lower placement
        ended, peak = evidence.facts.get("placement"), evidence.facts.get("peak_bytes")
        peaks = Learned(state_dir).measured_peaks(original, host)
        if isinstance(ended, str) and isinstance(peak, int):
            peaks[ended] = peak
        entry["peaks"] = peaks
        if ended != original.parameters.get("placement"):  # else the planner was right and decides again
            entry["placement"] = ended

    def note(entries: Entries) -> None:
        entries[key_of(original, host, original.parameters)] = entry
        for uuid in host.uuids(plan.gpus):
            entries.pop(f"{_SUSPECT}{uuid}", None)

    _update(state_dir, note)


def _peaks(metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (metrics or {}).items() if name.endswith("peak_bytes")}


def remember_failure(state_dir: Path, plan: Plan, host: Host, diagnosis: Diagnosis) -> None:
    """Count a failure for ``reel doctor``, and mark a GPU that failed."""

    def note(entries: Entries) -> None:
        entry = entries.setdefault(key_of(plan, host, plan.parameters), {})
        failures = entry.setdefault("failures", {})
        before = failures.get(diagnosis.failure.name)
        failures[diagnosis.failure.name] = (before if isinstance(before, int) else 0) + 1
        if diagnosis.cause == GPU_FAULT:
            entries.update(
                {f"{_SUSPECT}{uuid}": {"message": diagnosis.message[:200]} for uuid in host.uuids(plan.gpus)}
            )

    _update(state_dir, note)


def _update(state_dir: Path, change: Callable[[Entries], None]) -> None:
    with contextlib.suppress(OSError), _locked(state_dir):
        entries = load_entries(state_dir)
        change(entries)
        with replacing(state_dir / _FILE) as unfinished:
            unfinished.write_text(json.dumps({"schema": SCHEMA, "entries": entries}, indent=1), encoding="utf-8")


@contextlib.contextmanager
def _locked(state_dir: Path) -> Iterator[None]:
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = open_lock(state_dir / "learned.lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


# ------------------------------------------------------------------------------------------------ failed runs


def run_folder(state_dir: Path, run_id: str) -> Path:
    """The folder of the record of a run that gave no clip."""
    return state_dir / "runs" / run_id


def keep_record(state_dir: Path, manifest: Manifest, warn: Warn) -> Path | None:
    """Write the manifest of a run that gave no clip into the folder in which `keep_file` keeps its files."""

    def write(path: Path) -> None:
        path.write_text(manifest.to_text(), encoding="utf-8", errors="backslashreplace")

    return _keep(state_dir, manifest.run_id, "manifest.json", write, warn)


def keep_file(state_dir: Path, run_id: str, source: Path, name: str, warn: Warn) -> Path | None:
    """Copy a log or a refused clip into the record of a run; ``None`` if it does not exist or cannot be kept.

    If the state folder cannot be written, the record goes to this user's temporary folder.

    Args:
        state_dir, run_id: The state folder and the run of the record.
        source: The file to copy.
        name: Its name in the record.
        warn: Called with a sentence if the state folder cannot be written.
    """
    if not source.exists():
        return None
    return _keep(state_dir, run_id, name, lambda path: shutil.copyfile(source, path), warn)


def _keep(state_dir: Path, run_id: str, name: str, write: Callable[[Path], object], warn: Warn) -> Path | None:
    problem = ""
    for base in (state_dir, temporary_folder(os.environ)):
        path = run_folder(base, run_id) / name
        try:
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            if base is not state_dir and not is_own(base.lstat()):
                raise PermissionError(errno.EPERM, "it belongs to another user or others may write to it")
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with replacing(path) as unfinished:
                write(unfinished)
            _forget_old_runs(path.parent.parent)
        except OSError as error:
            problem = problem or f"the state folder {shown(state_dir)} cannot be written ({reason(error)})"
            continue
        if problem:
            warn(f"{problem}: the logs and the record of this run are kept in {path.parent}")
        return path
    warn(f"{problem}: the logs and the record of this run are lost")
    return None


def _forget_old_runs(folder: Path) -> None:
    for old in sorted(folder.iterdir())[:-KEPT_RUNS]:
        shutil.rmtree(old, ignore_errors=True)


def load_manifest(path: Path) -> Manifest:
    """The manifest in a file.

    Raises:
        InvalidInputError: the file cannot be read, or is not a manifest.
        StateError: the manifest is damaged or has a newer schema.
    """
    try:
        data = read_json(path, MAX_MANIFEST_BYTES)
    except OSError as error:
        raise path_error(error, path, advice=_WHERE) from None
    except ValueError:
        data = None
    if not isinstance(data, dict) or "run_id" not in data:
        raise InvalidInputError(f"{shown(path)} is not a manifest of Reelwright", advice=_WHERE)
    return Manifest.from_json(data)
