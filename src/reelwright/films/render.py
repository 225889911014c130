"""Plans the clips of a film, finds the stored ones, and makes the missing ones.

Like `make`, the same command continues where it stopped, and after an edit only changed clips are made again.
`runs.runner.generate` makes each clip and publishes it into the store; several run at once if GPUs are free. A
kill at any moment loses at most the unfinished clips. `assembly` joins them.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import backends
from ..config.settings import Settings
from ..core.errors import Cancelled, Failure, InvalidInputError, VideoGenerationError, all_of, error_for, guess
from ..core.events import Event
from ..core.files import system_error
from ..core.request import VideoRequest
from ..runs import runner
from ..runs.order import Order
from ..sites import Place, Site
from ..sites.cancellation import Cancellation
from . import EmitFilm, SegmentEvent, SegmentState
from .last_frames import is_whole, mended
from .planning import Planned, Planner, overrides_for, raise_for
from .prefetch import Prefetch
from .schedule import Schedule
from .store import Clip, Store
from .storyboard import Shot, Storyboard
from .timeline import Segment, segments

#: Parameters that a retry may lower. Later clips of the film get the lower value too, so that they look alike.
_QUALITY = ("steps", "guidance_scale")
#: Failures of the machine or the settings: the next shot would fail in the same way.
OF_THE_MACHINE = frozenset({Failure.ENV, Failure.MODEL, Failure.DISK, Failure.PERM, Failure.CONFIG})


@dataclass(frozen=True)
class FilmOrder:
    """A storyboard with everything about where and how the film is made.

    Attributes:
        board: The storyboard.
        settings: The settings, as for a single clip.
        output: The film's file.
        source: The storyboard's file, for the record.
        draft: Make it with the draft generator, with the same clips and joints.
        only: Make only these shots, by id.
        start: Make only this shot and those after it.
        keep_going: Join the clips that succeed although a shot fails.
    """

    board: Storyboard
    settings: Settings
    output: Path
    source: Path | None = None
    draft: bool = False
    only: tuple[str, ...] = ()
    start: str | None = None
    keep_going: bool = False

    def __post_init__(self) -> None:
        """Take ``fit`` from the settings for shots that do not give it; a chained clip must not get it."""
        shots = (shot if shot.fit else shot.model_copy(update={"fit": self._fit(shot)}) for shot in self.board.shots)
        object.__setattr__(self, "board", self.board.model_copy(update={"shots": tuple(shots)}))
        object.__setattr__(self, "settings", self.settings.evolve(fit=None))

    def _fit(self, shot: Shot) -> str:
        return self.settings.for_generator(shot.generator or self.board.generator).fit or "cover"


@dataclass
class Made:
    """The clips of a film: stored, rendered now, failed, or blocked by a failure.

    ``ended_by`` is a failure of the machine; no clip was started after it, because it would have failed too.
    """

    planned: tuple[Planned, ...]
    clips: dict[str, Clip] = field(default_factory=dict)
    rendered: list[str] = field(default_factory=list)
    failures: dict[str, VideoGenerationError] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    ended_by: VideoGenerationError | None = None
    warnings: list[str] = field(default_factory=list)


def plan_film(order: FilmOrder, store: Store, site: Site) -> tuple[Planner, tuple[Planned, ...]]:
    """Plan every segment of the order's shots, and the segments that these continue. Pictures are not opened.

    Raises:
        InvalidInputError: ``only`` or ``start`` names an unknown shot.
        ConfigurationError: a generator is unknown.
    """
    folder = store.root.parent if store.root.parent.exists() else Path.cwd()
    planner = Planner(order.settings, folder, site, order.board.color)
    everything = segments(order.board, lambda name: rules(name, order.settings), draft=order.draft)
    return planner, planner.plan(_wanted(everything, order))


@dataclass
class Looked:
    """A film's clips before any is made.

    Attributes:
        planner, planned: The plan of each clip.
        clips: Clips that are stored and intact, by segment.
        frames: Segments with a stored clip whose last frame is needed and damaged.
        damaged: Segments whose stored clip cannot be verified.
    """

    planner: Planner
    planned: tuple[Planned, ...]
    clips: dict[str, Clip]
    frames: tuple[str, ...]
    damaged: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[Planned, ...]:
        """The clips that have to be made."""
        return tuple(item for item in self.planned if item.segment.id not in self.clips)


def look(order: FilmOrder, store: Store, site: Site) -> Looked:
    """Plan a film and find which of its clips are stored; nothing is written. The errors are those of `plan_film`."""
    planner, planned = plan_film(order, store, site)
    found = {item.segment.id: store.find(item.key) for item in planned}
    clips = {name: clip for name, clip in found.items() if clip is not None}
    needed = dict.fromkeys(item.segment.upstream for item in planned if item.segment.upstream)
    frames = tuple(name for name in needed if name in clips and not is_whole(clips[name]))
    damaged = (item for item in planned if item.segment.id not in clips and os.path.lexists(store.video(item.key)))
    return Looked(planner, planned, clips, frames, tuple(item.segment.id for item in damaged))


def rules(generator: str, settings: Settings) -> backends.ClipRules:
    """The limits of a generator's single clip; `auto` is the first that is configured."""
    name = generator if generator != "auto" else settings.generator
    return backends.candidates(name, settings)[0].clip_rules(settings)


def _wanted(everything: Sequence[Segment], order: FilmOrder) -> tuple[Segment, ...]:
    """The segments of the chosen shots, and all that they continue."""
    shots = [shot.id for shot in order.board.shots]
    unknown = [name for name in (*order.only, *([order.start] if order.start is not None else [])) if name not in shots]
    if unknown:
        raise all_of(
            [
                InvalidInputError(f"there is no shot {name!r}", advice=guess(name, shots, "The shots are"))
                for name in unknown
            ]
        )
    chosen = set(chosen_shots(order))
    if not chosen:
        raise InvalidInputError(
            f"no shot of {', '.join(order.only)} comes at or after {order.start}",
            advice=f"The shots are, in this order: {', '.join(shots)}.",
        )
    needed: set[str] = set()
    for segment in reversed(everything):
        if segment.shot in chosen or segment.id in needed:
            needed |= {segment.id, *([segment.upstream] if segment.upstream else [])}
    return tuple(segment for segment in everything if segment.id in needed)


def chosen_shots(order: FilmOrder) -> tuple[str, ...]:
    """The shots that the film will hold."""
    shots = [shot.id for shot in order.board.shots]
    first = shots.index(order.start) if order.start in shots else 0
    return tuple(name for name in shots[first:] if not order.only or name in order.only)


def make_clips(  # noqa: PLR0913 -- the parts of a film
    order: FilmOrder,
    store: Store,
    site: Site,
    emit: EmitFilm,
    cancellation: Cancellation,
    looked: Looked,
) -> Made:
    """Take every clip of the film from the store or make it. Failures of single shots are in the result.

    Args:
        order, store: The film's order and its store.
        site: Where the clips run.
        emit: Receives the state of every clip.
        cancellation: Requests a stop.
        looked: The result of `look`; the caller has refused its mistakes.

    Raises:
        VideoGenerationError: a picture of a clip that was to be taken from the store has a mistake.
        Cancelled: a stop was requested; finished clips stay in the store.
    """
    made = Made(looked.planned, dict(looked.clips))
    made.warnings += [f"the clip of {name} was damaged in the store and was made again" for name in looked.damaged]
    for item in looked.planned:
        if item.segment.id in looked.frames:
            _mend_frame(order, item, made)
        if item.segment.id in made.clips:
            emit(SegmentState(item.segment.id, "stored"))
    missing = [item for item in looked.planned if item.segment.id not in made.clips]
    if missing:
        raise_for(looked.planner.findings([item for item in missing if item.segment.id in looked.clips]))
        _Making(order, store, site, made, emit, cancellation).run(missing)
    return made


def _mend_frame(order: FilmOrder, item: Planned, made: Made) -> None:
    """Extract a clip's last frame again, or drop the clip, so that it is made again."""
    name, upstream = item.segment.id, item.segment.upstream
    beginning = made.clips.get(upstream) if upstream else None
    known = upstream is None or beginning is not None
    if known and mended(made.clips[name], _colours(order, item, beginning.last_frame if beginning else None)):
        made.warnings.append(f"the last frame of {name} was damaged in the store and was taken from its clip again")
        return
    del made.clips[name]
    made.warnings.append(
        f"the last frame of {name} was damaged in the store and cannot be taken from its clip: the clip was made again"
    )


def _colours(order: FilmOrder, item: Planned, given: Path | None) -> Path | None:
    """The picture whose colours a clip's last frame gets: the one that it was made from, which is already matched."""
    wanted = item.backend.generative and order.board.color == "anchor"  # a draft begins exactly with its picture
    return given if item.segment.upstream is not None and wanted else None


class _Making:
    """Makes the missing clips, several at once."""

    def __init__(  # noqa: PLR0913 -- the parts of a film
        self, order: FilmOrder, store: Store, site: Site, made: Made, emit: EmitFilm, cancellation: Cancellation
    ) -> None:
        self._order, self._store, self._site, self._made = order, store, site, made
        self._emit, self._cancellation = emit, cancellation
        self._quality: dict[str, Any] = {}
        self._prefetch = Prefetch(order.board, made.planned, store)
        self._ended: queue.SimpleQueue[tuple[str, Place, VideoGenerationError | None]] = queue.SimpleQueue()

    def run(self, missing: Sequence[Planned]) -> None:
        host = next((item.host for item in missing if item.host.gpus), missing[0].host)
        free = list(self._site.places([item.plan for item in missing], host, self._order.settings))
        by_id = {item.segment.id: item for item in missing}
        needs = {name: item.segment.upstream for name, item in by_id.items()}
        schedule = Schedule({name: need if need in by_id else None for name, need in needs.items()}, len(free))
        with ThreadPoolExecutor(len(free), thread_name_prefix="clip") as pool:
            while not schedule.idle:
                while (name := schedule.start()) is not None:
                    pool.submit(self._make, by_id[name], free.pop(0))
                name, place, error = self._next_ended()
                free.append(place)
                self._note(schedule, name, error)
        if self._cancellation.requested:
            raise Cancelled(signal_number=self._cancellation.signal_number or 2)

    def _next_ended(self) -> tuple[str, Place, VideoGenerationError | None]:
        """Wait for the next clip to end. Ctrl-C stops the others, and the pool waits for their end."""
        try:
            return self._ended.get()
        except KeyboardInterrupt:
            self._cancellation.request()
            raise

    def _note(self, schedule: Schedule, name: str, error: VideoGenerationError | None) -> None:
        if error is None:
            schedule.finished(name)
            self._made.rendered.append(name)
            self._emit(SegmentState(name, "rendered"))
            return
        if isinstance(error, Cancelled):
            schedule.stop()
        if self._cancellation.requested:
            schedule.fail(name)
            self._emit(SegmentState(name, "stopped"))
            return
        self._made.failures[name] = error
        self._emit(SegmentState(name, "failed", f"{error.code}: {error.message}"))
        if error.failure in OF_THE_MACHINE:
            self._made.ended_by = self._made.ended_by or error
            schedule.stop()  # running clips may still succeed
        for lost in schedule.fail(name):
            self._made.blocked[lost] = name
            self._emit(SegmentState(lost, "blocked", f"it continues {name}, which failed"))

    def _make(self, item: Planned, place: Place) -> None:
        name, error = item.segment.id, None
        try:
            self._emit(SegmentState(name, "rendering", _gpus(place)))
            self._made.clips[name] = self._generate(item, place)
        except VideoGenerationError as caught:
            error = caught
        except Exception as bug:  # noqa: BLE001 -- a thread's exception would be lost; the film ends with it
            error = system_error(bug) or error_for(Failure.INTERNAL, f"{type(bug).__name__}: {bug}")
        finally:
            self._ended.put((name, place, error))

    def _generate(self, item: Planned, place: Place) -> Clip:
        store, segment = self._store, item.segment
        request = self._request(segment)
        listed = {"gpus": place.gpus} if self._order.settings.gpus and place.gpus else {}
        settings = self._order.settings.evolve(if_exists="overwrite", **listed)
        order = Order(
            request,
            settings,
            store.video(item.key),
            overrides=overrides_for(segment),
            gpus=place.gpus,
            last_frame=store.last_frame(item.key),
            match_last_frame_to=_colours(self._order, item, request.image),
            key=item.key,
        )

        def listen(event: Event) -> None:
            self._emit(SegmentEvent(segment.id, event))

        runner.generate(order, listen, self._cancellation, self._site)
        clip = store.find(item.key)
        if clip is None:
            raise error_for(Failure.INTERNAL, f"the clip {item.key} is missing from {store.root}")
        self._watch_quality(item, clip)
        self._prefetch.analyse(segment.id, clip)
        return clip

    def _request(self, segment: Segment) -> VideoRequest:
        """The segment's request with the picture that it continues, and the film's quality."""
        request = segment.request.evolve(**self._quality)
        if segment.upstream is None:
            return request
        return request.evolve(image=self._made.clips[segment.upstream].last_frame)

    def _watch_quality(self, item: Planned, clip: Clip) -> None:
        """Use a clip's lowered quality for all clips that start later, so that the film looks alike."""
        if not clip.manifest.degraded:
            return
        lowered = {
            name: clip.manifest.effective[name]
            for name in _QUALITY
            if clip.manifest.effective.get(name) != item.plan.parameters.get(name)
        }
        self._quality.update(lowered)
        changes = ", ".join(f"{name} {value}" for name, value in lowered.items()) or "frames or size"
        self._made.warnings.append(
            f"shot {item.segment.shot} was made with lower quality ({changes}); the shots after it get the same"
        )


def _gpus(place: Place) -> str:
    return f"GPU {', '.join(map(str, place.gpus))}" if place.gpus else ""
