"""From clips to the film: joined, verified, published with a manifest of every shot; nothing if nothing changed.

The film gets its name by the same atomic move as a clip, and replaces an older one only if that is ours: the very
file that its manifest describes, made from the same storyboard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import workspace
from .._version import __version__
from ..errors import Failure, InvalidInputError, StateError, VideoGenerationError, error_for
from ..executors import Cancellation
from ..history import load_manifest
from ..result import Manifest, manifest_path
from . import EmitFilm, FilmEvent, FilmResult, Joining
from .estimate import estimate
from .planning import Planned
from .render import FilmOrder, Made, chosen_shots, make_clips
from .store import Clip, Store, file_digest, key_of

if TYPE_CHECKING:
    from ..media.joining import JoinReport

__all__ = ["FilmResult", "film"]
TASK = "film"
SHEET_SUFFIX = ".sheet.png"


def _ignore(event: FilmEvent) -> None:
    """The default listener."""


def film(order: FilmOrder, emit: EmitFilm = _ignore, cancellation: Cancellation | None = None) -> FilmResult:
    """Make the film of an order: what is missing is rendered, what is there is used; then it is joined and verified.

    May be interrupted at any moment and called again. Two calls for one output cannot run at the same time.

    Raises:
        VideoGenerationError: see `errors`; of a shot that failed, with its name, after all that does not need it.
    """
    output = workspace.absolute_output(order.output)
    workspace.check_folder(output)
    workspace.recover(output.parent)
    store = Store(output.parent)
    cancellation = cancellation or Cancellation()
    with store.held(output.stem):
        before = _ours(order, output)
        made = make_clips(order, store, emit, cancellation)
        keys = [item.key for item in made.planned]
        store.note(output.stem, order.source, keys, _kept(before))
        if made.failures and not (order.keep_going and _parts(order, made)):
            raise _failed(made)
        estimated = estimate(order, output.parent)
        manifest = _Assembly(order, made, store, before).manifest(estimated, emit, cancellation)
        store.note(output.stem, order.source, keys, _kept(manifest))
        return replace(_told(order, made, manifest), estimate=tuple(estimated), unchanged=manifest is before)


def _ours(order: FilmOrder, output: Path) -> Manifest | None:
    """The manifest of the film that lies there, if we may replace it; ``None`` if nothing lies there.

    Raises:
        InvalidInputError: what lies there is not ours, or was changed since.
    """
    record = manifest_path(output)
    if not output.exists() and not record.exists():
        return None
    try:
        manifest = load_manifest(record)
    except (InvalidInputError, StateError):
        manifest = None
    same = manifest is not None and manifest.task == TASK and _unchanged(manifest, output)
    if same or order.settings.if_exists == "overwrite":
        return manifest if same else None
    raise InvalidInputError(
        f"{output if output.exists() else record} exists and is no unchanged film of ours",
        failure=Failure.EXISTS,
        advice="Give another -o, or --overwrite.",
    )


def _unchanged(manifest: Manifest, output: Path) -> bool:
    """Whether the film is the very file that its manifest describes; one that was removed may be made again."""
    return not output.exists() or (manifest.output or {}).get("sha256") == file_digest(output)


def _failed(made: Made) -> VideoGenerationError:
    name, error = next(iter(made.failures.items()))
    lines = [f"{other}: {failure.code}: {failure.message}" for other, failure in made.failures.items() if other != name]
    lines += [f"{other}: not made, it goes on from {cause}" for other, cause in made.blocked.items()]
    advice = f"{error.advice} The other clips are kept: the same command goes on from here.".strip()
    return error_for(error.failure, f"shot {name}: {error.message}", evidence=(*error.evidence, *lines), advice=advice)


@dataclass(frozen=True)
class _Piece:
    """A segment that the film shows, with its clip."""

    planned: Planned
    clip: Clip

    @property
    def name(self) -> str:
        return self.planned.segment.id


def _parts(order: FilmOrder, made: Made) -> tuple[_Piece, ...]:
    """What the film will show, in its order."""
    shots = chosen_shots(order)
    found = (item for item in made.planned if item.segment.shot in shots and item.segment.id in made.clips)
    return tuple(_Piece(item, made.clips[item.segment.id]) for item in found)


class _Assembly:
    """Joining, verifying and publishing one film."""

    def __init__(self, order: FilmOrder, made: Made, store: Store, before: Manifest | None) -> None:
        self._order, self._made, self._before = order, made, before
        self._output = workspace.absolute_output(order.output)
        self._pieces = _parts(order, made)
        self._sheet = _sheet_of(self._output)
        self._store = store

    def manifest(self, estimated: list[str], emit: EmitFilm, cancellation: Cancellation) -> Manifest:
        """That of the film as it lies there if nothing changed, else as it is made now."""
        key = self._key()
        there = self._output.exists() and self._sheet.exists()
        if self._before is not None and self._before.facts.get("key") == key and there:
            return self._before
        return self._made_now({"key": key, "estimate": estimated}, emit, cancellation)

    def _key(self) -> str:
        board = self._order.board
        return key_of(
            {
                "clips": [(piece.clip.manifest.output or {}).get("sha256") for piece in self._pieces],
                "joints": [self._joint(index) for index in range(len(self._pieces))],
                "film": board.model_dump(mode="json", include={"title", "size", "color", "overlap", "finish", "fps"}),
                "audio": [str(file_digest(board.audio.file)), board.audio.fade_s] if board.audio else None,
                "codec": self._order.settings.codec,
                "engine": __version__,
            }
        )

    def _joint(self, index: int) -> tuple[bool, int]:
        """Whether a piece goes on from the one shown before it, and its dissolve."""
        if index == 0:
            return False, 0
        segment, before = self._pieces[index].planned.segment, self._pieces[index - 1]
        return segment.upstream == before.name, segment.dissolve

    def _made_now(self, known: Mapping[str, Any], emit: EmitFilm, cancellation: Cancellation) -> Manifest:
        from ..media import joining, proof
        from ..media.shelf import Shelf

        started = datetime.now(UTC)
        run_id = workspace.new_run_id()
        folder = workspace.plan_folder(self._output, run_id)
        with workspace.open_folder(folder):
            folder.attempt(1).mkdir(mode=0o700)
            video, parts, options = folder.video(1), self._join_parts(), self._join_options()

            def joined(done: int, total: int) -> None:
                emit(Joining(done, total))

            shelf = Shelf(self._store.pieces)
            report = joining.join(parts, video, options, joined, cancellation.check, shelf=shelf)
            with ThreadPoolExecutor(1, thread_name_prefix="sheet") as pool:
                drawn = pool.submit(self._draw, report, folder.attempt(1) / "sheet.png")
                facts = proof.proven(video, report.promise)
                workspace.place(drawn.result(), self._sheet)
            cancellation.check()
            told = {**known, **report.to_json(), "kept": sorted(shelf.used), "shots": self._shots(report)}
            manifest = self._manifest(run_id, started, told, facts.to_json())
            over = self._before is not None or self._order.settings.if_exists == "overwrite"
            workspace.publish(folder, video, manifest, replace=over)
        return manifest

    def _shots(self, report: JoinReport) -> list[dict[str, Any]]:
        """Each clip's entry in the film's manifest: its own manifest, where it lies, and how it came into the film."""
        return [
            {
                "segment": piece.name,
                "shot": piece.planned.segment.shot,
                "key": piece.clip.key,
                "goes_on_from": piece.planned.segment.upstream,
                "frames": glance.frames,
                "encoded_again": report.encoded.get(number),
                "manifest": json.loads(piece.clip.manifest.to_text()),
            }
            for number, (piece, glance) in enumerate(zip(self._pieces, report.glances, strict=True))
        ]

    def _draw(self, report: JoinReport, target: Path) -> Path:
        from ..media.sheet import film_sheet

        names = (piece.name for piece in self._pieces)
        film_sheet(list(zip(names, report.glances, strict=True)), target)
        return target

    def _join_parts(self) -> list[Any]:
        from ..media.joining import Part

        parts = []
        for index, piece in enumerate(self._pieces):
            chained, dissolve = self._joint(index)
            first = self._pieces[index - 1].clip.last_frame if chained else None
            digest = str((piece.clip.manifest.output or {})["sha256"])  # `Store.find` has just compared it
            parts.append(Part(piece.clip.video, first, chained and not dissolve, dissolve, digest))
        return parts

    def _join_options(self) -> Any:
        from ..media.joining import JoinOptions

        board, generative = self._order.board, self._generative()
        first = self._pieces[0].clip.manifest.output or {}
        how = "a model generated it" if generative else "an animatic preview, no model has generated anything"
        return JoinOptions(
            size=self._size(),
            fps=float(first["fps"]),
            title=board.title,
            color=board.color,
            overlap=board.overlap,
            double_fps=board.finish.double_fps,
            upscale=board.finish.upscale,
            audio=board.audio.file if board.audio else None,
            audio_fade_s=board.audio.fade_s if board.audio else 1.0,
            metadata={
                "comment": f"Joined by reelwright from {len(self._pieces)} clips; {how}.",
                "generative": str(generative).lower(),
            },
            codec=self._order.settings.codec,
        )

    def _size(self) -> Any:
        from ..request import Size

        first = self._pieces[0].clip.manifest.output or {}
        return Size(int(first["width"]), int(first["height"]))

    def _generative(self) -> bool:
        return any(piece.clip.manifest.generative for piece in self._pieces)

    def _manifest(
        self, run_id: str, started: datetime, facts: Mapping[str, Any], output: Mapping[str, Any]
    ) -> Manifest:
        order = self._order
        warnings = list(self._made.warnings)
        for piece in self._pieces:
            warnings += [f"{piece.name}: {text}" for text in piece.clip.manifest.warnings]
        warnings += list(facts.get("warnings", ()))
        if self._made.failures:
            warnings.append(f"left out, because they failed: {', '.join([*self._made.failures, *self._made.blocked])}")
        return Manifest(
            run_id=run_id,
            reelwright=__version__,
            generator=", ".join(dict.fromkeys(piece.planned.backend.name for piece in self._pieces)),
            task=TASK,
            generative=self._generative(),
            state="completed",
            created_at=started.isoformat(timespec="seconds"),
            requested={"prompt": order.board.title, "storyboard": str(order.source) if order.source else None},
            output={"path": self._output.name, **output},
            seconds=(datetime.now(UTC) - started).total_seconds(),
            degraded=any(piece.clip.manifest.degraded for piece in self._pieces) or bool(self._made.failures),
            warnings=tuple(dict.fromkeys(warnings)),
            facts=facts,
        )


def _told(order: FilmOrder, made: Made, manifest: Manifest) -> FilmResult:
    video, output, facts = workspace.absolute_output(order.output), manifest.output or {}, manifest.facts
    return FilmResult(
        output=video,
        manifest=manifest_path(video),
        sheet=_sheet_of(video),
        width=output["width"],
        height=output["height"],
        num_frames=output["frames"],
        fps=output["fps"],
        seconds=output["seconds"],
        generative=manifest.generative,
        degraded=manifest.degraded,
        rendered=tuple(made.rendered),
        stored=tuple(name for name in made.clips if name not in made.rendered),
        failed=(*made.failures, *made.blocked),
        how=str(facts.get("how", "")),
        joints=tuple(facts.get("joints", ())),
        warnings=manifest.warnings,
    )


def _sheet_of(video: Path) -> Path:
    return video.with_name(video.stem + SHEET_SUFFIX)


def _kept(manifest: Manifest | None) -> tuple[str, ...]:
    """What lies on the shelf for a film."""
    return tuple(manifest.facts.get("kept", ())) if manifest else ()
