"""Prepares making a film again from its manifest: the same storyboard, generators and choice of shots.

A film's manifest has its storyboard, with pictures relative to the film's folder. Stored clips are used again; in
another folder every clip is made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..config.settings import Settings
from ..core.errors import InvalidInputError, StateError, VideoGenerationError
from ..core.files import shown
from ..core.manifest import Manifest
from ..runs.output_paths import refuse_inputs
from ..runs.workspace import file_digest
from .records import board_path
from .render import FilmOrder
from .store import clip_manifests
from .storyboard import PICTURES, Storyboard, load_storyboard, with_paths


def replay_facts(order: FilmOrder, sound: str | None) -> dict[str, Any]:
    """The part of a film's manifest from which it can be made again; ``sound`` is the SHA-256 of its sound file."""
    folder = Path(os.path.abspath(order.output)).parent  # noqa: PTH100 -- the folder of the film as named
    board = json.loads(with_paths(order.board, lambda path: Path(os.path.relpath(path, folder))).model_dump_json())
    return {"storyboard": board, "sound": sound, "draft": order.draft, "only": list(order.only), "from": order.start}


def replay_film_order(manifest: Manifest, path: Path, settings: Settings, output: Path | None) -> FilmOrder:
    """The order that makes a film again.

    Args:
        manifest: The film's manifest.
        path: The path of the manifest.
        settings: The settings, as for any film.
        output: The path of the new film; by default ``NAME.replay.mp4`` beside the first one.

    Raises:
        InvalidInputError: a picture or the sound is gone or has changed, or the storyboard of a film of an older version
            is gone; the advice says how to make the film again.
        StateError: the manifest is damaged.
    """
    folder = Path(os.path.abspath(path)).parent  # noqa: PTH100 -- the folder of the manifest as named
    original = folder / str((manifest.output or {}).get("path"))
    target = output or original.with_name(f"{original.stem}.replay.mp4")
    refuse_inputs({"the film": target}, {"the original film": original}, advice="Give another -o.")
    board, source, kept = _board(manifest, folder, target)
    chosen = {name: kept.get(name) for name in ("only", "from")}
    draft = kept["draft"] is True if "draft" in kept else manifest.generator == "draft"
    return FilmOrder(
        board=board if draft else _pinned(board, manifest),
        settings=settings,
        output=target,
        source=source,
        draft=draft,
        only=tuple(str(name) for name in chosen["only"] or ()),
        start=chosen["from"] if isinstance(chosen["from"], str) else None,
    )


def _board(manifest: Manifest, folder: Path, target: Path) -> tuple[Storyboard, Path | None, Mapping[str, Any]]:
    """The storyboard, its file if it still exists, and the other values of the order in the manifest."""
    name = manifest.requested.get("storyboard")
    file = board_path(name, folder) if isinstance(name, str) and name else None
    source = file if file and file.is_file() else None
    kept = manifest.facts.get("replay")
    if not isinstance(kept, dict):  # a film of an older version
        if source is None:
            raise InvalidInputError(
                f"the storyboard of this film is missing: {shown(file) if file else 'it had no file'}",
                advice=f"Restore it, then run: reel film {shown(file or 'FILM.yaml')} -o {shown(target)}",
            )
        return load_storyboard(source), source, {}
    try:
        board = Storyboard.model_validate(kept.get("storyboard"))
    except ValidationError as error:
        raise StateError(f"this manifest is damaged: its storyboard has {error.error_count()} mistakes") from None
    except VideoGenerationError as error:
        raise StateError(f"this manifest is damaged: {error.message}") from None
    board = with_paths(board, lambda path: folder / path)
    _check_files(manifest, board, kept.get("sound"))
    return board, source, kept


def _check_files(manifest: Manifest, board: Storyboard, sound: object) -> None:
    """Refuse if a picture of the film has changed, or if its sound has changed and the sound's hash is known."""
    if board.audio and isinstance(sound, str) and file_digest(board.audio.file) != sound:
        raise InvalidInputError(
            f"{shown(board.audio.file)} is missing or has changed since {manifest.created_at}",
            advice="Restore the sound file at that path.",
        )
    wanted: dict[str, set[str]] = {}
    for name, record in clip_manifests(manifest):
        wanted.setdefault(name, set()).update(str(item.get("sha256")) for item in record.get("inputs", ()))
    for shot in board.shots:
        for role in PICTURES:
            path = getattr(shot, role)
            if path is not None and shot.id in wanted and file_digest(path) not in wanted[shot.id]:
                raise InvalidInputError(
                    f"shot {shot.id}: {shown(path)} is missing or has changed since {manifest.created_at}",
                    advice="Restore the picture at that path.",
                )


def _pinned(board: Storyboard, manifest: Manifest) -> Storyboard:
    """The storyboard with the generator that made each shot, because ``auto`` may be another one now."""
    found = {name: record.get("generator") for name, record in clip_manifests(manifest)}
    shots = (shot.model_copy(update={"generator": found.get(shot.id) or shot.generator}) for shot in board.shots)
    return board.model_copy(update={"shots": tuple(shots)})
