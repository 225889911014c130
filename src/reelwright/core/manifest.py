"""Defines the record of a run: its attempts, the manifest beside the video, and the result of a call.

The manifest is versioned JSON with everything needed to trust, explain and repeat a video: requested and effective
parameters, the seed, hashes of inputs and output, versions, time per phase, every attempt and every warning. It holds
no secret: its plan names the environment variables that are passed through, but not their values.

    >>> Manifest.from_json(manifest.to_json()) == manifest
    True
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from .errors import StateError
from .files import read_json
from .request import VideoRequest

SCHEMA = 1
MANIFEST_SUFFIX = ".reel.json"
#: Enough for a film of a thousand shots, whose manifest contains the manifests of all its clips.
MAX_MANIFEST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Attempt:
    """One attempt, successful or not.

    Attributes:
        number: The attempt's number, from 1.
        outcome: ``completed``, ``failed`` or ``cancelled``.
        failure: Class of the failure, such as ``OOM_GPU``; ``None`` on success.
        cause: Finer cause, such as ``vae`` or ``flash-attn``.
        message: Description of the failure, for people.
        evidence: Lines that prove the failure.
        phase: The phase in which the attempt ended.
        step: The last sampling step that was reported.
        changed: This attempt's changes to the original parameters, as ``name: old -> new``.
        why: The reason for those changes.
        helps: The quantity that each change lowers: ``memory``, ``time`` or ``none``.
        skipped: Steps of the ladder that were left out because they would have changed nothing.
        counts: Whether the attempt counts against the retry limit.
        parameters: Effective parameters of this attempt.
        seconds: Wall-clock duration.
        phase_seconds: Duration of each phase.
        exit_status, signal_number: How the process ended.
        log: Path of the log, if it was kept.
    """

    number: int
    outcome: str
    failure: str | None = None
    cause: str = ""
    message: str = ""
    evidence: tuple[str, ...] = ()
    phase: str = ""
    step: int = 0
    changed: tuple[str, ...] = ()
    why: str = ""
    helps: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    counts: bool = True
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    phase_seconds: Mapping[str, float] = field(default_factory=dict)
    exit_status: int | None = None
    signal_number: int | None = None
    log: str | None = None

    def evolve(self, **changes: Any) -> Attempt:
        """A copy with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Manifest:
    """The JSON beside the video. Mappings hold JSON values only.

    Attributes:
        run_id: The run's name; also in the video's metadata.
        reelwright: Reelwright's version.
        generator, task, generative: The generator, the task, and whether a model invented the picture.
        state: ``completed``, ``failed`` or ``cancelled``.
        created_at: ISO time of the start, UTC.
        requested: The original request (`VideoRequest.to_json`).
        effective: The parameters of the last attempt.
        seed: The seed that was used.
        inputs: One mapping per picture: role, path, sha256, width, height, notes.
        output: path (file name), sha256, frames_sha256, bytes, width, height, frames, fps, seconds, codec.
        plan: The plan of the last attempt (`Plan.to_json`).
        versions: Versions of the software that shaped the video.
        machine: CPU count, GPUs.
        phase_seconds: Seconds of each phase, over the complete run.
        seconds: Duration of the complete run.
        attempts: Every attempt.
        degraded: Whether quality was lowered against the request.
        warnings: Everything that the user should know.
        metrics: GPU memory over time, utilisation, disk rates (`sites.local.metrics.Metrics`).
        error: The error object, if there is no video.
        facts: Facts that the generator reports (the draft's mode and camera).
    """

    run_id: str
    reelwright: str
    generator: str
    task: str
    generative: bool
    state: str
    created_at: str
    requested: Mapping[str, Any]
    effective: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    inputs: tuple[Mapping[str, Any], ...] = ()
    output: Mapping[str, Any] | None = None
    plan: Mapping[str, Any] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    phase_seconds: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    attempts: tuple[Attempt, ...] = ()
    degraded: bool = False
    warnings: tuple[str, ...] = ()
    metrics: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def request(self) -> VideoRequest:
        """The original request, from which a replay is made.

        Raises:
            StateError: the request is damaged.
            InvalidInputError: no generator can fulfil it.
        """
        try:
            return VideoRequest.from_json(self.requested)
        except (TypeError, ValueError) as error:
            raise StateError(f"this manifest is damaged: requested: {error}") from None

    def evolve(self, **changes: Any) -> Manifest:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values, with the schema number."""
        return {"schema": SCHEMA, **asdict(self)}

    def to_text(self) -> str:
        """The file's content. The prompt and log lines are JSON strings, so none of them can forge a line."""
        return json.dumps(self.to_json(), indent=2, ensure_ascii=False, default=str) + "\n"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Manifest:
        """The manifest that `to_json` wrote; unknown fields of a newer minor version are ignored.

        Raises:
            StateError: the data is not a manifest, or has a newer schema.
        """
        if data.get("schema") != SCHEMA:
            raise StateError(
                f"this manifest has schema {data.get('schema')!r:.40}; this version reads {SCHEMA}",
                advice="Use the version of Reelwright that wrote it, or a newer one.",
            )
        try:
            manifest = _adapter().validate_python(dict(data))
        except ValidationError as error:
            item = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(map(str, item["loc"]))  # the value may hold any text, and is not shown
            raise StateError(f"this manifest is damaged: {place!r:.80}: {item['msg']:.120}") from None
        if problem := _unusable(manifest):
            raise StateError(f"this manifest is damaged: {problem}")
        return manifest


def _unusable(manifest: Manifest) -> str | None:
    """The first fault in the mappings that other modules rely on; ``None`` if they have none."""
    name = (manifest.output or {}).get("path", "film.mp4")
    if not isinstance(name, str) or "\0" in name or name != Path(name).name:
        return "its video is not a file beside it"
    if not all(isinstance(item.get(key), str) for item in manifest.inputs for key in ("role", "path")):
        return "an input has no role or no path"
    if manifest.error is not None and not all(isinstance(manifest.error.get(key), str) for key in ("code", "message")):
        return "its error has no code or no message"
    return None


@functools.cache
def _adapter() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)


def manifest_path(video: Path) -> Path:
    """The manifest of a video: ``clip.mp4`` has ``clip.reel.json``, ``clip.MP4`` has ``clip.MP4.reel.json``."""
    return video.with_name((video.stem if video.suffix == ".mp4" else video.name) + MANIFEST_SUFFIX)


def manifest_of(video: Path) -> Path:
    """The path of a video's existing manifest; `manifest_path` if it has none.

    An older version wrote the manifest of ``clip.MP4`` as ``clip.reel.json``: that file counts if it names
    ``clip.MP4``.
    """
    path = manifest_path(video)
    older = video.with_name(video.stem + MANIFEST_SUFFIX)
    if path == older or os.path.lexists(path):
        return path
    try:
        data = read_json(older, MAX_MANIFEST_BYTES)
        named = data["output"]["path"]
    except (OSError, ValueError, KeyError, TypeError):
        return path
    return older if named == video.name else path


@dataclass(frozen=True)
class Result:
    """The result of a successful `generate`."""

    output: Path
    manifest: Path
    width: int
    height: int
    num_frames: int
    fps: float
    seconds: float
    attempts: int
    degraded: bool
    warnings: tuple[str, ...]
    generator: str
    generative: bool
    seed: int | None
    skipped: bool = False

    def to_json(self) -> dict[str, Any]:
        """The result object that ``--json`` prints as its last line."""
        data = asdict(self)
        data["frames"] = data.pop("num_frames")
        return {**data, "output": str(self.output), "manifest": str(self.manifest), "warnings": list(self.warnings)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        """The result that `to_json` wrote; fields that a newer version or ``reel replay`` adds are ignored."""
        known = {item.name for item in fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        paths = {name: Path(data[name]) for name in ("output", "manifest")}
        return cls(**{**values, **paths, "num_frames": data["frames"], "warnings": tuple(data["warnings"])})
