"""Finds problems of joining from the plans, before the first clip is made.

`storyboard check`, ``film --dry-run`` and every film call `join_findings`. The rules are those of the joining code:
`timing.crowded`, `writer.size_problem`, `sound.check_sound`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.yamlfile import read_yaml
from ..core.errors import Failure, VideoGenerationError
from ..core.host import GIB
from ..core.plan import Finding, counted
from ..core.request import Size
from .editing.timing import JoinOptions, JoinPart, crowded, expected_frames, finished, length_in_film, overlaps
from .planning import Planned, ShotFinding, grouped
from .timeline import Segment, joints

if TYPE_CHECKING:
    from .render import FilmOrder

#: Frames that an encoder holds at once: its look-ahead, the frames that wait for it, and the one being encoded.
_HELD_FRAMES = 56


def join_findings(order: FilmOrder, planned: Sequence[Planned]) -> Iterator[ShotFinding]:
    """The findings about the joined film, each with its shot and its line.

    If a clip's plan has an error, only the sound is checked: that clip's own findings say more.
    """
    shown = [item for item in planned if item.plan.expected is not None and not item.plan.errors]
    yield from _sound(order)
    if not shown or len(shown) < len(planned):
        return
    yield from _other_sizes(order, shown)
    videos = [item.plan.expected for item in shown if item.plan.expected]
    options = join_options(order, Size(videos[0].width, videos[0].height), videos[0].fps)
    lengths = [length_in_film(video.num_frames, video.fps, options) for video in videos]
    parts = join_parts([item.segment for item in shown])
    yield from _transitions(order, shown, lengths, overlaps(parts, options))
    yield from _size(order, options)
    yield from _fade(order, expected_frames(lengths, parts, options) / finished(options)[1])


def join_options(order: FilmOrder, size: Size, fps: float) -> JoinOptions:
    """How the clips of an order are joined, if the first one has this size and rate."""
    board, audio = order.board, order.board.audio
    return JoinOptions(
        size,
        fps,
        title=board.title,
        color=board.color,
        overlap=board.overlap,
        double_fps=board.finish.double_fps,
        upscale=board.finish.upscale,
        audio=audio.file if audio else None,
        audio_fade_s=audio.fade_s if audio else 1.0,
        codec=order.settings.codec,
    )


def join_parts(shown: Sequence[Segment]) -> list[JoinPart]:
    """The clips as parts of the film; each has the segment's name instead of a file."""
    return [
        JoinPart(Path(segment.id), chained=chained and not dissolve, dissolve=dissolve)
        for segment, (chained, dissolve) in zip(shown, joints(shown), strict=True)
    ]


def _transitions(
    order: FilmOrder, shown: Sequence[Planned], lengths: Sequence[int], over: Sequence[int]
) -> Iterator[ShotFinding]:
    for index in crowded(lengths, over):
        before, after = over[index], (*over[1:], 0)[index]
        taken = " and ".join(
            f"{counted(frames, 'frame')} {where}"
            for frames, where in ((before, "over the clip before"), (after, "under the clip after"))
            if frames
        )
        text = f"clip {shown[index].segment.id} has {counted(lengths[index], 'frame')}, too few for its transitions ({taken})"
        fix = "Make the shot longer, or its dissolve, the next one's, or `overlap` shorter."
        yield _at_shot(order, shown[index].segment.shot, text, fix)


def _other_sizes(order: FilmOrder, shown: Sequence[Planned]) -> Iterator[ShotFinding]:
    """Warnings about clips of another size than the film's: a generator may derive the size from area and aspect."""
    wanted = order.board.frame
    found: list[tuple[str, Finding]] = []
    for item in shown:
        expected = item.plan.expected
        size = Size(expected.width, expected.height) if expected else wanted
        if size != wanted:
            text = f"the storyboard asks for {wanted}; the clip will be {size}"
            fix = f"Write size: {size} to match the clip."
            found.append((item.segment.shot, Finding("film.size", "warning", text, fix)))
    yield from grouped(found, [item.segment.shot for item in shown])


def _size(order: FilmOrder, options: JoinOptions) -> Iterator[ShotFinding]:
    from ..media.writer import size_problem
    from ..sites.local.probes.memory import take_memory

    size, _ = finished(options)
    problem = size_problem(size, options.codec)
    if problem:
        fix = "Lower finish.upscale or the size." if options.upscale > 1 else "Choose another size."
        yield _at(order, ("finish", "upscale") if options.upscale > 1 else ("size",), problem, fix)
    total, need = take_memory().total_bytes, size.width * size.height * 3 // 2 * _HELD_FRAMES
    if not problem and options.upscale > 1 and total is not None and need > total:
        text = f"encoding {size} takes about {need / GIB:.0f} GiB of memory; this machine has {total / GIB:.0f} GiB"
        yield _at(order, ("finish", "upscale"), text, "Lower finish.upscale or the size.")


def _sound(order: FilmOrder) -> Iterator[ShotFinding]:
    from .editing.sound import check_sound

    if order.board.audio is None:
        return
    try:
        check_sound(order.board.audio.file)
    except VideoGenerationError as error:
        yield _at(order, ("audio", "file"), error.message, error.advice, error.failure)


def _fade(order: FilmOrder, seconds: float) -> Iterator[ShotFinding]:
    audio = order.board.audio
    if audio is not None and audio.fade_s > seconds:
        text = f"the fade of {audio.fade_s:g} s is longer than the film ({seconds:.2f} s): it takes the whole film"
        finding = Finding("film.fade", "warning", text, "Lower audio.fade_s.")
        yield ShotFinding(finding, _line(order, ("audio", "fade_s")))


def _at_shot(order: FilmOrder, shot: str, text: str, fix: str) -> ShotFinding:
    """The finding about a transition that does not fit, at the key of the shot that explains it best."""
    index = next(number for number, item in enumerate(order.board.shots) if item.id == shot)
    keys = [("shots", index, key) for key in ("transition", "frames", "seconds", "prompt")]
    line = next((found for place in keys if (found := _line(order, place))), "")
    whom = f"shot {shot}, {line}" if line else f"shot {shot}"
    return ShotFinding(Finding("film.transition", "error", text, fix, Failure.INPUT), whom)


def _at(
    order: FilmOrder, place: tuple[str | int, ...], text: str, fix: str, failure: Failure = Failure.CONFIG
) -> ShotFinding:
    return ShotFinding(Finding("film.join", "error", text, fix, failure), _line(order, place))


def _line(order: FilmOrder, place: tuple[Any, ...]) -> str:
    """The place in the storyboard's file, such as ``line 12``; empty without a file or such a key."""
    if order.source is None:
        return ""
    try:
        places = _places(order.source, order.source.stat().st_mtime_ns)
    except (VideoGenerationError, OSError):
        return ""
    return f"line {places[place]}" if place in places else ""


@functools.lru_cache(maxsize=1)
def _places(source: Path, changed_ns: int) -> Mapping[tuple[str | int, ...], int]:  # noqa: ARG001 -- part of the cache's key
    """The lines of all keys in the file as saved at that time; read once for all findings."""
    return read_yaml(source).places
