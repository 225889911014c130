"""Joins clips into the film, verifies it, and publishes it with a manifest of every shot, unless nothing has changed.

The film is published by the same atomic move as a clip. It replaces an older file only if that is exactly the film
that its manifest describes, made from the same storyboard.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._version import RENDERING_VERSION, __version__
from ..core.errors import Cancelled, VideoGenerationError, error_for
from ..core.files import refusals
from ..core.manifest import Manifest, manifest_path
from ..core.request import Size
from ..runs import workspace
from ..runs.recovery import recover
from ..runs.workspace import file_digest
from ..sites import Site
from ..sites.cancellation import Cancellation
from ..sites.local.execution import Reports
from . import EmitFilm, FilmResult, Joining
from .editing.timing import JoinOptions, JoinPart
from .estimate import estimate
from .film_outputs import TASK, check_sheet, film_findings, name_of, replaceable_film, settled_output, sheet_of
from .joinable import join_options, join_parts
from .planning import Planned, raise_for
from .records import Use, board_name, noted
from .render import FilmOrder, Made, chosen_shots, look, make_clips, plan_film
from .replaying import replay_facts
from .store import Clip, Store, clip_key
from .timeline import joints

if TYPE_CHECKING:
    from .editing.joining import JoinReport

__all__ = ["FilmResult", "film"]


@refusals()
def film(
    order: FilmOrder,
    emit: EmitFilm = lambda _: None,
    cancellation: Cancellation | None = None,
    site: Site | None = None,
) -> FilmResult:
    """Make the film of an order: use the stored clips, render the missing ones, then join and verify.

    The call may be interrupted at any moment and repeated. Two calls for one output cannot run at the same time.

    Raises:
        VideoGenerationError: see `core.errors`. The error of a failed shot names the shot; it comes after the clips
            that do not need that shot were made.
    """
    if site is None:
        from ..sites.local.site import LocalSite

        with LocalSite() as own:
            return film(order, emit, cancellation, own)
    output = workspace.absolute_output(order.output)
    workspace.check_folder(output)
    cancellation, reports = cancellation or Cancellation(), Reports(emit)
    recover(output.parent, check=cancellation.check)
    order = replace(order, output=settled_output(order))
    output = order.output
    store = Store(output.parent)
    with store.held(name_of(output)):
        looked = look(order, store, site)
        raise_for((*film_findings(order, looked.planned), *looked.planner.findings(looked.missing)))
        before = replaceable_film(order, output)
        noting = _Noting(order, store, site)
        noting.begun(before)
        try:
            made = make_clips(order, store, site, reports, cancellation, looked)
        except Cancelled as stopped:
            stopped.advice = "The finished clips are kept: run the same command again to continue."
            raise
        if made.ended_by or (made.failures and not (order.keep_going and _parts(order, made))):
            raise _failed(made)
        estimated = estimate(order, output.parent, site)
        if reports.lost:
            made.warnings.append(f"{reports.lost}; the film was made without reports")
        manifest = _Assembly(order, made, store, before).manifest(estimated, reports, cancellation, noting)
        noting.finished(manifest)
        return replace(_result(order, made, manifest), estimate=tuple(estimated), unchanged=manifest is before)


class _Noting:
    """Writes a film's record to its store while the film is made (see `records`)."""

    def __init__(self, order: FilmOrder, store: Store, site: Site) -> None:
        self._store, self._folder = store, order.output.parent
        self._name, self._output = name_of(order.output), order.output.name
        self._board = board_name(order.source, self._folder)
        self._keys = tuple(_keys(order, store, site))

    def begun(self, before: Manifest | None) -> None:
        """Record what the storyboard uses, before any clip is made. The present film keeps its cached files."""
        self._note(Use(self._keys), _kept(before))

    def drawn(self, sheet: Path) -> None:
        """Record the sheet before it is published: if this process dies before the film is, the sheet is known."""
        self._note(Use(self._keys), None, (str(workspace.file_digest(sheet)),))

    def finished(self, manifest: Manifest) -> None:
        """Record that the film is published."""
        self._note(Use(self._keys, finished=True), _kept(manifest))

    def _note(self, use: Use, cached: tuple[str, ...] | None, sheets: tuple[str, ...] = ()) -> None:
        before = self._store.record(self._name)
        record = noted(replace(before, output=self._output), self._board, self._folder, use, sheets)
        self._store.note(self._name, record if cached is None else replace(record, cached=cached))


def _keys(order: FilmOrder, store: Store, site: Site) -> list[str]:
    """The keys of all clips of the storyboard, including shots that are not chosen now: they may have cost hours."""
    _, planned = plan_film(replace(order, only=(), start=None), store, site)
    return [item.key for item in planned]


def _failed(made: Made) -> VideoGenerationError:
    """The first error, or that of the machine: then the shots that were not begun would have failed too."""
    error = made.ended_by or next(iter(made.failures.values()))
    name = next(name for name, failure in made.failures.items() if failure is error)
    if made.ended_by:
        kept = "The finished clips are kept"
        waiting = [item.segment.id for item in made.planned if item.segment.id not in (*made.clips, *made.failures)]
        lines = [f"not started: {', '.join(waiting)}"] if waiting else []
    else:
        kept = "The other clips are kept"
        others = {other: failure for other, failure in made.failures.items() if other != name}
        lines = [f"{other}: {failure.code}: {failure.message}" for other, failure in others.items()]
        lines += [f"{other}: not made, because it continues {cause}" for other, cause in made.blocked.items()]
    advice = f"{error.advice} {kept}: run the same command again to continue.".strip()
    return error_for(error.failure, f"shot {name}: {error.message}", evidence=(*error.evidence, *lines), advice=advice)


@dataclass(frozen=True)
class _FilmClip:
    """A segment of the film with its clip."""

    planned: Planned
    clip: Clip

    @property
    def name(self) -> str:
        return self.planned.segment.id


def _parts(order: FilmOrder, made: Made) -> tuple[_FilmClip, ...]:
    """The clips that the film shows, in order."""
    shots = chosen_shots(order)
    found = (item for item in made.planned if item.segment.shot in shots and item.segment.id in made.clips)
    return tuple(_FilmClip(item, made.clips[item.segment.id]) for item in found)


class _Assembly:
    """Joins, verifies and publishes one film."""

    def __init__(self, order: FilmOrder, made: Made, store: Store, before: Manifest | None) -> None:
        self._order, self._made, self._before = order, made, before
        self._output = workspace.absolute_output(order.output)
        self._clips = _parts(order, made)
        self._segments = [film_clip.planned.segment for film_clip in self._clips]
        self._generative = any(film_clip.clip.manifest.generative for film_clip in self._clips)
        self._sheet = sheet_of(self._output)
        self._store = store

    def manifest(self, estimated: list[str], emit: EmitFilm, cancellation: Cancellation, noting: _Noting) -> Manifest:
        """The manifest of the present film if nothing has changed; otherwise make the film now."""
        key = self._key()
        there = self._output.exists() and self._sheet.exists()
        if self._before is not None and self._before.facts.get("key") == key and there:
            return self._before
        return self._made_now({"key": key, "estimate": estimated}, emit, cancellation, noting)

    @functools.cached_property
    def _sound(self) -> str | None:
        """SHA-256 of the sound file at the time of joining."""
        audio = self._order.board.audio
        return file_digest(audio.file) if audio else None

    def _key(self) -> str:
        board = self._order.board
        return clip_key(
            clips=[(film_clip.clip.manifest.output or {}).get("sha256") for film_clip in self._clips],
            joints=joints(self._segments),
            film=board.model_dump(mode="json", include={"title", "size", "color", "overlap", "finish", "fps"}),
            audio=[str(self._sound), board.audio.fade_s] if board.audio else None,
            codec=self._order.settings.codec,
            engine=RENDERING_VERSION,
        )

    def _made_now(
        self, known: Mapping[str, Any], emit: EmitFilm, cancellation: Cancellation, noting: _Noting
    ) -> Manifest:
        from .editing import joining, proof
        from .editing.artifact_cache import ArtifactCache

        started = datetime.now(UTC)
        run_id = workspace.new_run_id()
        folder = workspace.plan_folder(self._output, run_id)
        with workspace.open_folder(folder):
            folder.attempt(1).mkdir(mode=0o700)
            video, parts, options = folder.video(1), self._join_parts(), self._join_options()

            def joined(done: int, total: int) -> None:
                emit(Joining(done, total))

            cache = ArtifactCache(self._store.cache)
            report = joining.join(parts, video, options, cache, joined, cancellation.check)
            with ThreadPoolExecutor(1, thread_name_prefix="sheet") as pool:
                drawn = pool.submit(self._draw, report, folder.attempt(1) / "sheet.png")
                facts = proof.proven(video, report.promise)
                sheet = drawn.result()
            cancellation.check()
            digest = workspace.file_digest(sheet)
            noting.drawn(sheet)
            check_sheet(self._order, self._output, self._before)  # another file may have taken its name meanwhile
            workspace.place(sheet, self._sheet)
            recorded = {
                **known,
                "sheet": digest,
                "replay": replay_facts(self._order, self._sound),
                **report.to_json(),
                "kept": sorted(cache.used),
                "shots": self._shots(report),
            }
            manifest = self._manifest(run_id, started, recorded, facts.to_json())
            over = self._before is not None or self._order.settings.if_exists == "overwrite"
            workspace.publish(folder, video, manifest, replace=over)
        return manifest

    def _shots(self, report: JoinReport) -> list[dict[str, Any]]:
        """Each clip's entry in the film's manifest: its key, its own manifest, and why it was encoded again."""
        return [
            {
                "segment": film_clip.name,
                "shot": film_clip.planned.segment.shot,
                "key": film_clip.clip.key,
                "goes_on_from": film_clip.planned.segment.upstream,
                "frames": analysis.frames,
                "encoded_again": report.encoded.get(number),
                "manifest": json.loads(film_clip.clip.manifest.to_text()),
            }
            for number, (film_clip, analysis) in enumerate(zip(self._clips, report.promise.analyses, strict=True))
        ]

    def _draw(self, report: JoinReport, target: Path) -> Path:
        from ..media.sheet import film_sheet

        analyses = report.promise.analyses
        film_sheet([film_clip.name for film_clip in self._clips], lambda number: analyses[number].tiles, target)
        return target

    def _join_parts(self) -> list[JoinPart]:
        clips = [film_clip.clip for film_clip in self._clips]
        parts = []
        for index, (part, (chained, _)) in enumerate(
            zip(join_parts(self._segments), joints(self._segments), strict=True)
        ):
            first = clips[index - 1].last_frame if chained else None
            digest = str((clips[index].manifest.output or {})["sha256"])  # `Store.find` has just compared it
            parts.append(replace(part, video=clips[index].video, first_picture=first, digest=digest))
        return parts

    def _join_options(self) -> JoinOptions:
        first = self._clips[0].clip.manifest.output or {}
        how = "a model generated it" if self._generative else "an animatic preview, no model has generated anything"
        tags = {
            "comment": f"Joined by reelwright from {len(self._clips)} clips; {how}.",
            "generative": str(self._generative).lower(),
        }
        size = Size(int(first["width"]), int(first["height"]))
        return replace(join_options(self._order, size, float(first["fps"])), metadata=tags)

    def _manifest(
        self, run_id: str, started: datetime, facts: Mapping[str, Any], output: Mapping[str, Any]
    ) -> Manifest:
        order = self._order
        warnings = list(self._made.warnings)
        shots, everything = chosen_shots(order), [shot.id for shot in order.board.shots]
        if len(shots) < len(everything):
            warnings.append(f"the film holds {len(shots)} of {len(everything)} shots: {', '.join(shots)}")
        for film_clip in self._clips:
            warnings += [f"{film_clip.name}: {text}" for text in film_clip.clip.manifest.warnings]
        warnings += list(facts.get("warnings", ()))
        if self._made.failures:
            warnings.append(f"left out, because they failed: {', '.join([*self._made.failures, *self._made.blocked])}")
        return Manifest(
            run_id=run_id,
            reelwright=__version__,
            generator=", ".join(dict.fromkeys(film_clip.planned.backend.name for film_clip in self._clips)),
            task=TASK,
            generative=self._generative,
            state="completed",
            created_at=started.isoformat(timespec="seconds"),
            requested={
                "prompt": order.board.title,
                "storyboard": board_name(order.source, self._output.parent) or None,
            },
            output={"path": self._output.name, **output},
            seconds=(datetime.now(UTC) - started).total_seconds(),
            degraded=any(film_clip.clip.manifest.degraded for film_clip in self._clips) or bool(self._made.failures),
            warnings=tuple(dict.fromkeys(warnings)),
            facts=facts,
        )


def _result(order: FilmOrder, made: Made, manifest: Manifest) -> FilmResult:
    video, output, facts = workspace.absolute_output(order.output), manifest.output or {}, manifest.facts
    return FilmResult(
        output=video,
        manifest=manifest_path(video),
        sheet=sheet_of(video),
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


def _kept(manifest: Manifest | None) -> tuple[str, ...]:
    """The files in the artifact cache that a film uses."""
    return tuple(manifest.facts.get("kept", ())) if manifest else ()
