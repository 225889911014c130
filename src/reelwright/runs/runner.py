"""Runs one generation from request to result; read this file first.

`generate` is a set of rings, each of which calls only the next:

    generate        checks the output's name and folder, and recovers dead runs
      _recorded     records every end of a run, in this one place
        _generate
          prepare             pictures -> site -> plan (pure) -> preflight; before any GPU (`runs.prepare`)
          attempt_until_good  reserve -> run -> verify, or diagnose -> decide -> next plan (`runs.attempts`)
          publish             the atomic move to the final name (`runs.workspace`)

It does not know any framework or flag, and does not decode.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config.settings import Settings
from ..core.errors import (
    BackendUnavailableError,
    Cancelled,
    Failure,
    Interrupted,
    InvalidInputError,
    OutputError,
    StateError,
    VideoGenerationError,
    all_of,
)
from ..core.events import Log, Phase
from ..core.files import refusals, shown
from ..core.manifest import Manifest, Result, manifest_of, manifest_path
from ..policy import preflight
from ..sites import LAST_FRAME, Emit, Site, unreported
from ..sites.cancellation import Cancellation
from . import history, workspace
from .attempts import Run, attempt_until_good
from .journal import Journal
from .order import Order
from .output_paths import refuse_inputs_of
from .prepare import Preparer
from .recovery import recover

_MANY_PICTURES, _LARGE_PICTURE = 500, 256 * 1024 * 1024  # limits of the search for a moved picture


@refusals()
def generate(
    order: Order, emit: Emit = unreported, cancellation: Cancellation | None = None, site: Site | None = None
) -> Result:
    """Make the clip of an order, verify it and publish it with its manifest.

    It blocks until the clip is at ``order.output``, or the run has failed and its private folder is removed. A
    cancelled run leaves no unfinished file. Two calls with the same output cannot both succeed unless the settings say
    ``overwrite``.

    Args:
        order: The clip to make, and its path.
        emit: Receives every event.
        cancellation: Requests a stop.
        site: The site that runs it, whose workers stay warm. By default this machine, and no worker stays.

    Raises:
        VideoGenerationError: see `core.errors`; the exception's class says what a caller can do.
    """
    cancellation = cancellation or Cancellation()
    with contextlib.ExitStack() as stack:
        if site is None:
            from ..sites.local.site import LocalSite

            site = stack.enter_context(LocalSite())
        preparer = Preparer(site)
        try:
            output = workspace.absolute_output(order.output)
            workspace.check_folder(output)
            for recovery in recover(output.parent, check=cancellation.check):
                if recovery.output:
                    emit(Log(f"finished publishing {recovery.output} of an interrupted run", "warning"))
            settled = workspace.settle_output(output, order.settings.if_exists)
        except (InvalidInputError, BackendUnavailableError) as error:
            raise all_of([error, *preparer.mistakes(order)]) from None
        if settled is None:
            return _skipped(output)
        refuse_inputs_of(order.request, settled)
        run_id = workspace.new_run_id()
        folder = workspace.plan_folder(settled, run_id)
        journal = Journal(run_id, order.request, emit)
        return _recorded(Run(order, folder, journal, cancellation, site, preparer))


def _recorded(run: Run) -> Result:
    """Run, and leave one record: beside the clip, or in the state folder if the run gave no clip."""
    try:
        with workspace.open_folder(run.folder, keep=run.unfinished):
            try:
                with refusals():
                    return _generate(run)
            except VideoGenerationError as error:
                _record_failure(run, error)
                raise
            except KeyboardInterrupt:
                cancelled = Cancelled()
                _record_failure(run, cancelled)
                raise Interrupted(cancelled) from None
            except Exception as error:
                internal = StateError(f"{type(error).__name__}: {error}", failure=Failure.INTERNAL)
                _record_failure(run, internal)
                raise
    finally:
        run.journal(Phase("done"))


def _generate(run: Run) -> Result:
    prepared = run.preparer.prepare(run.order, run.folder, run.journal)
    preflight.raise_for(prepared.plan.findings)
    run.cancellation.check()
    overwrite = run.order.settings.if_exists == "overwrite"
    run.order = replace(run.order, settings=prepared.job.settings)  # with the settings of this generator
    video, facts = attempt_until_good(run, prepared)
    run.cancellation.check()  # the last check for a stop: a published clip stays
    run.journal.output = {"path": run.folder.output.name, **facts}
    run.journal(Phase("publishing"))
    run.journal.output = {**run.journal.output, **_hand_over(run, video)}
    manifest = run.journal.manifest()
    try:
        workspace.publish(run.folder, video, manifest, replace=overwrite)
    except VideoGenerationError as error:
        _rescue(run, video, error)
        raise
    run.published = True
    if run.latents is not None:
        run.latents.unlink(missing_ok=True)
    return _result(manifest, run.folder.output)


def _rescue(run: Run, video: Path, error: VideoGenerationError) -> None:
    """Keep a verified clip that cannot be published: it may have cost hours of GPU time."""
    run.journal.output = None
    if kept := run.keep(video, "unpublished.mp4"):
        error.advice = f"{error.advice} The finished clip is kept as {kept}."


def _hand_over(run: Run, video: Path) -> dict[str, Any]:
    """Move the last frame to the order's path before the clip is published; returns facts for the manifest."""
    target = run.order.last_frame
    known = {"key": run.order.key} if run.order.key else {}
    if target is None:
        return known
    from ..media import verification
    from ..media.continuity import content_digest, correct_last_frame

    frame = video.with_name(LAST_FRAME)
    if not frame.exists():
        verification.save_last_frame(video, frame)
    if run.order.match_last_frame_to:
        correct_last_frame(run.order.match_last_frame_to, video, frame)
    digests = {"sha256": workspace.file_digest(frame), "content": content_digest(frame)}
    workspace.place(frame, target)
    return {**known, "last_frame": digests}


def _record_failure(run: Run, error: VideoGenerationError) -> None:
    history.keep_record(run.order.settings.state_dir, run.journal.manifest(error), run.journal.warn_at_once)


def _result(manifest: Manifest, output: Path, *, skipped: bool = False) -> Result:
    facts = manifest.output or {}
    if lacking := [name for name in ("width", "height", "frames", "fps", "seconds") if name not in facts]:
        raise OutputError(f"the manifest of {output} lacks the clip's {', '.join(lacking)}")
    return Result(
        output=output,
        manifest=manifest_path(output),
        width=facts["width"],
        height=facts["height"],
        num_frames=facts["frames"],
        fps=facts["fps"],
        seconds=facts["seconds"],
        attempts=len(manifest.attempts),
        degraded=manifest.degraded,
        warnings=manifest.warnings,
        generator=manifest.generator,
        generative=manifest.generative,
        seed=manifest.seed,
        skipped=skipped,
    )


def _skipped(output: Path) -> Result:
    if not manifest_of(output).exists():
        raise InvalidInputError(
            f"{output} exists without its manifest, so it cannot be checked",
            failure=Failure.EXISTS,
            advice="Choose another name, or give --overwrite or --set if_exists=rename.",
        )
    manifest = history.load_manifest(manifest_of(output))
    if manifest.output is None:
        raise OutputError(f"{output} exists, but its manifest describes no clip")
    return _result(manifest, output, skipped=True)


def replay_order(manifest: Manifest, settings: Settings, output: Path, *, beside: Path | None = None) -> Order:
    """The order that makes a clip again: the recorded request, with the recorded seed.

    Args:
        beside: The manifest's folder. It is searched by content for a picture that is not at its recorded path,
            because a project may have been moved or renamed.

    Raises:
        InvalidInputError: an input picture is gone or has changed.
    """
    sources: dict[str, Path] = {}
    for item in manifest.inputs:
        found = find_picture(item, beside)
        if found is None:
            raise InvalidInputError(
                f"{shown(str(item.get('path')))} is missing or has changed since {manifest.created_at}",
                advice="Restore the picture at the path in the manifest, or put it beside the manifest.",
            )
        sources[str(item.get("role"))] = found
    request = manifest.request.evolve(
        seed=manifest.seed,
        generator=manifest.generator,
        image=sources.get("first"),
        last_image=sources.get("last"),
        depth_image=sources.get("depth"),
    )
    return Order(request, settings, output)


def find_picture(item: Mapping[str, Any], beside: Path | None) -> Path | None:
    """The picture of a manifest at its path, else a file with the same content beside the manifest; else ``None``."""
    path, digest = Path(str(item.get("path"))), item.get("sha256")
    if not digest:
        return None
    if workspace.file_digest(path) == digest:
        return path
    there = sorted(_pictures_in(beside), key=lambda file: file.name != path.name) if beside else []
    return next((file for file in there[:_MANY_PICTURES] if workspace.file_digest(file) == digest), None)


def _pictures_in(folder: Path) -> list[Path]:
    """The files of a folder that are small enough to be pictures."""
    try:
        with os.scandir(folder) as entries:
            files = [Path(entry) for entry in entries if entry.is_file() and entry.stat().st_size <= _LARGE_PICTURE]
    except OSError:
        return []
    return sorted(files)
