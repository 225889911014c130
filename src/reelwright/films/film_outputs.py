"""Checks, before anything is rendered, that a film replaces only its own files.

A film has three files: the video, its manifest, and its sheet. Each replaces an older file only if that belongs to the
same film: it is exactly the file that its manifest describes, and was made from the same storyboard.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..core.errors import Failure, InvalidInputError, VideoGenerationError
from ..core.files import shown
from ..core.manifest import Manifest, manifest_of, manifest_path
from ..core.plan import Finding
from ..runs import workspace
from ..runs.history import load_manifest
from ..runs.output_paths import refuse_inputs
from ..runs.workspace import file_digest
from .joinable import join_findings
from .planning import Planned, ShotFinding
from .records import board_path
from .render import FilmOrder
from .store import Store, clip_manifests
from .storyboard import PICTURES

TASK = "film"
SHEET_SUFFIX = ".sheet.png"
_ADVICE = "Give another -o, or --overwrite."


def _exists(message: str, advice: str = _ADVICE) -> InvalidInputError:
    return InvalidInputError(message, failure=Failure.EXISTS, advice=advice)


def name_of(output: Path) -> str:
    """A film's name in its store: ``film`` for ``film.mp4``; ``film.MP4`` is another film."""
    return output.stem if output.suffix == ".mp4" else output.name


def sheet_of(output: Path) -> Path:
    """The path of the film's sheet: ``film.mp4`` has ``film.sheet.png``."""
    return output.with_name(name_of(output) + SHEET_SUFFIX)


def film_findings(order: FilmOrder, planned: Sequence[Planned]) -> tuple[ShotFinding, ...]:
    """Findings about the film apart from its clips: its files, problems of joining, and unused settings."""
    own = (ShotFinding(finding) for finding in (*_output_findings(order), *_unused(order)))
    return (*own, *join_findings(order, planned))


def _output_findings(order: FilmOrder) -> Iterator[Finding]:
    output = workspace.absolute_output(order.output)
    try:
        workspace.check_folder(output)
        Store(output.parent).check()
        _check_inputs(order, output)
        check_sheet(order, output, replaceable_film(order, output))
    except VideoGenerationError as error:
        yield Finding("output", "error", error.message, error.advice, error.failure)


def _unused(order: FilmOrder) -> Iterator[Finding]:
    """Findings about settings for single clips; a film takes these values from its storyboard."""
    for name in ("size", "fps", "frame_num", "base_seed"):
        if getattr(order.settings, name) is not None and order.settings.origin(name) != "default":
            text = f"the setting {name} ({order.settings.origin(name)}) is for single clips: a storyboard has its own"
            yield Finding("setting.unused", "info", text)


def settled_output(order: FilmOrder) -> Path:
    """The path to publish to; with ``if_exists: rename``, the first numbered path that is free or already this film's.

    Raises:
        InvalidInputError: the path cannot be a film's; EXISTS with ``if_exists: skip``, which films do not support.
    """
    output = workspace.absolute_output(order.output)
    policy = order.settings.if_exists
    if policy not in ("skip", "rename") or _may_replace(order, output):
        return output
    if policy == "skip":
        raise _exists(
            f"{shown(output)} exists and is not this storyboard's film; if_exists: skip is for single clips",
            "Give another -o, --overwrite, or --set if_exists=rename.",
        )
    return next(path for path in workspace.numbered(output) if _may_replace(order, path))


def _may_replace(order: FilmOrder, output: Path) -> bool:
    try:
        check_sheet(order, output, replaceable_film(order, output))
    except InvalidInputError:
        return False
    return True


def _check_inputs(order: FilmOrder, output: Path) -> None:
    board = order.board
    inputs: dict[str, Path | None] = {"the storyboard": order.source}
    if board.audio:
        inputs["the sound"] = board.audio.file
    for shot in board.shots:
        for role in PICTURES:
            inputs[f"{role} of shot {shot.id}"] = getattr(shot, role)
    refuse_inputs({"the film": output, "its manifest": manifest_path(output), "its sheet": sheet_of(output)}, inputs)


def check_sheet(order: FilmOrder, output: Path, before: Manifest | None) -> None:
    """Refuse to draw the sheet of the film at ``output`` over a picture that is not a sheet of this film.

    Raises:
        InvalidInputError: EXISTS, another file has its name.
    """
    sheet = sheet_of(output)
    if not os.path.lexists(sheet):
        return
    if sheet.is_dir():
        raise InvalidInputError(
            f"{shown(sheet)} is a folder, and the film's sheet needs its name", advice="Give another -o, or rename it."
        )
    if order.settings.if_exists == "overwrite":
        return
    if before is not None and "sheet" not in before.facts:
        return  # a film of an older version, which did not record its sheet
    recorded = before.facts["sheet"] if before else None
    if sheet.is_symlink() or file_digest(sheet) not in {recorded, *Store(output.parent).record(name_of(output)).sheets}:
        changed = recorded is not None and not sheet.is_symlink()
        why = (
            "was changed since it was drawn; drawing it again would lose the change"
            if changed
            else "exists and is not a sheet of this film"
        )
        raise _exists(f"{shown(sheet)} {why}", f"Rename it. {_ADVICE}")


def replaceable_film(order: FilmOrder, output: Path) -> Manifest | None:
    """The manifest of the film at ``output``, if it may be replaced; ``None`` if no film exists.

    Raises:
        InvalidInputError: EXISTS, the file is not a film of Reelwright, has changed, or belongs to another storyboard.
    """
    record = manifest_of(output)
    if not os.path.lexists(output) and not os.path.lexists(record):
        return None
    try:
        manifest = load_manifest(record)
    except VideoGenerationError:
        manifest = None
    overwrite = order.settings.if_exists == "overwrite"
    if manifest is None or manifest.task != TASK or not _unchanged(manifest, output):
        if overwrite:
            return None
        there = output if os.path.lexists(output) else record
        raise _exists(f"{shown(there)} exists and is not an unchanged film of Reelwright")
    if manifest.generative and order.draft and not overwrite:
        raise _exists(
            f"{shown(output)} was generated by a model, and a draft would replace it",
            "Give the draft another -o, or leave -o out; or give --overwrite.",
        )
    other = None if overwrite else _other_storyboard(order, manifest, output)
    if other:
        raise _exists(f"{shown(output)} is the film of another storyboard, {other}")
    return manifest


def _unchanged(manifest: Manifest, output: Path) -> bool:
    """Whether the film is exactly the file that its manifest describes; a removed film may be made again."""
    if not os.path.lexists(output):
        return (manifest.output or {}).get("path") == output.name
    return not output.is_symlink() and (manifest.output or {}).get("sha256") == file_digest(output)


def _other_storyboard(order: FilmOrder, manifest: Manifest, output: Path) -> str | None:
    """A short name of the storyboard that a film was made from, if it is not the order's.

    A storyboard that no longer exists may have been renamed to the order's, so it does not count as another one.
    """
    name = manifest.requested.get("storyboard")
    if isinstance(name, str) and name:
        path = board_path(name, output.parent)
        try:
            same = order.source is not None and path.samefile(order.source)
        except (OSError, ValueError):
            return None if order.source is not None else shown(name)
        return None if same else shown(path)
    titled = f"{str(manifest.requested.get('prompt'))!r:.80}, that has no file"
    return None if order.source is None and _alike(order, manifest) else titled


def _alike(order: FilmOrder, manifest: Manifest) -> bool:
    """Whether a storyboard without a file may have made a film: the title or a shot is the same."""
    if manifest.requested.get("prompt") == order.board.title:
        return True
    made = {record.get("requested", {}).get("prompt") for _, record in clip_manifests(manifest)}
    return any(shot.prompt in made for shot in order.board.shots)
