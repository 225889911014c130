"""Joins clips into one film: copies their packets where possible, encodes the rest again, and reports on both.

A chained clip's first frame repeats the last frame of the clip before. The last frame is dropped, because no frame
refers to it: Reelwright's clips have no B-frames. The first frame must stay, because all other frames of its clip
refer to it. Frames are streamed: a film of an hour needs no more memory than one of a second.

    >>> parts = [JoinPart(a), JoinPart(b, first_picture=a_last, chained=True)]
    >>> join(parts, target, options, cache, print, check).num_frames
    161
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ...core.errors import InvalidInputError
from ...core.plan import ExpectedVideo
from ...media.checksum_box import append_checksum
from ...media.decoding import decoding
from ...media.writer import add_copied, create_container, explained
from .artifact_cache import ArtifactCache
from .clip_analysis import FILM_LIMIT_S, ClipAnalysis, demand_whole, difference
from .proof import Promise
from .segments import Segmenting, Stretch
from .sound import with_sound
from .timing import JoinOptions, JoinPart, expected_frames, finished, kind_of_joint, pace, places

_NAMED = 4  # clips that are named in a sentence; `JoinReport.encoded` has all
_JUMP = 3.0
_FLAT = 1 / 3  # levels, for still clips: a jump of less than a level cannot be seen
_ENOUGH = 8  # differences that are enough for a meaningful median


@dataclass(frozen=True)
class JointReport:
    """The joint at the beginning of part ``part``.

    Attributes:
        kind: How the part begins: ``cut``, ``chained`` or ``dissolve``.
        frame: The film's frame at which it begins.
        difference: Mean difference of the two frames that meet, in levels of brightness; the greatest in a crossfade.
        ratio: ``difference`` over the median difference of neighbouring frames in the two clips that meet.
        colour: For a chained clip, the colours that were measured and corrected (`ColourMatch.to_json`).
        jump: Whether a chained joint can be seen: its ratio is over 3.
    """

    part: int
    kind: str
    frame: int
    difference: float
    ratio: float
    colour: Mapping[str, Any] | None
    jump: bool


@dataclass(frozen=True)
class JoinReport:
    """The result of joining.

    Attributes:
        how: A sentence about which clips were copied and which were encoded again.
        encoded: The reason for each clip that was encoded again, by its number from 0.
        promise: `proof` verifies the film against it.
    """

    num_frames: int
    width: int
    height: int
    fps: float
    how: str
    promise: Promise
    encoded: Mapping[int, str]
    joints: tuple[JointReport, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The values for the film's manifest."""
        return {"how": self.how, "joints": [asdict(joint) for joint in self.joints], "warnings": list(self.warnings)}


def join(  # noqa: PLR0913 -- the parts of a film
    parts: Sequence[JoinPart],
    target: Path,
    options: JoinOptions,
    cache: ArtifactCache,
    on_progress: Callable[[int, int], None],
    check: Callable[[], None],
) -> JoinReport:
    """Write the film to ``target``, which must not exist yet; after an error, remove it.

    ``on_progress`` receives the frames done and the total; ``check`` raises when the caller wants to stop. The
    ``cache`` keeps measurements and encoded stretches for the next call.

    Raises:
        OutputError: a clip cannot be read completely.
        InvalidInputError: a clip is too short for its transitions, or the sound cannot be read.
        BackendUnavailableError: the disk is full.
    """
    if not parts:
        raise InvalidInputError("there is no clip to join", advice="Name at least one existing shot.")
    if any(target.exists() and target.samefile(part.video) for part in parts):
        raise ValueError(f"{target} would be overwritten while it is read")
    try:
        return _Join(Segmenting(parts, options, cache, check), on_progress, check).made(target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


class _Join:
    def __init__(
        self, segmenting: Segmenting, on_progress: Callable[[int, int], None], check: Callable[[], None]
    ) -> None:
        self._segmenting, self._clips = segmenting, segmenting.clips
        self._on_progress, self._check = on_progress, check
        self._total = expected_frames(self._clips.lengths, self._clips.parts, self._clips.options)

    def made(self, target: Path) -> JoinReport:
        options = self._clips.options
        tags = {"title": options.title, "generator": "film", **options.metadata}
        stretches = self._segmenting.stretches(self._report)
        _copy(stretches, target, tags, self._check)
        notes: tuple[str, ...] = ()
        if options.audio:
            notes = with_sound(target, options.audio, options.audio_fade_s)
        else:
            append_checksum(target)
        self._on_progress(self._total, self._total)
        size, fps = finished(options)
        analyses = [stretch.analysis for stretch in stretches]
        expected = ExpectedVideo(*size, self._total, fps)
        joints = self._joints(analyses)
        jumps = [f"a jump is visible where clip {joint.part + 1} begins" for joint in joints if joint.jump]
        return JoinReport(
            self._total,
            *size,
            fps,
            _how(stretches),
            Promise(expected, stretches[0].facts.kind, analyses, tags, options.audio is not None),
            {index: stretch.encoded_because for index, stretch in enumerate(stretches) if stretch.encoded_because},
            joints,
            (*self._adjustments(), *jumps, *notes),
        )

    def _report(self, ready: int) -> None:
        self._on_progress(min(ready, self._total - 1), self._total)  # the last frame: after joining

    def _adjustments(self) -> Iterator[str]:
        """Sentences about clips whose size or rate differs from the film's."""
        size, fps = self._clips.options.size, self._clips.options.fps
        for number, facts in enumerate(self._clips.facts, 1):
            if facts.size != tuple(size):
                yield f"clip {number} is {facts.size[0]}x{facts.size[1]}: it is fitted into {size} on black"
            if pace(facts.fps, self._clips.options) != 1:
                change = "frames are left out" if facts.fps > fps else "frames are shown again"
                yield f"clip {number} has {float(facts.fps):g} frames a second, the film {fps:g}: {change}"

    def _joints(self, analyses: Sequence[ClipAnalysis]) -> tuple[JointReport, ...]:
        """The joint at each clip except the first: how much frames differ there, compared with those around it."""
        clips, doubled = self._clips, 2 if self._clips.options.double_fps else 1
        begins = places(clips.lengths, clips.parts, clips.options)
        differences: list[float] = []
        for before, analysis in zip((None, *analyses), analyses, strict=False):
            differences += [difference(before.last, analysis.first)] if before else []
            differences += analysis.differences.tolist()
        joints = []
        for index in range(1, len(begins)):
            begin, mixed = begins[index], clips.mixed(index) * doubled
            most = max(differences[max(0, begin - 1) : begin + mixed], default=0.0)
            end = begins[index + 1] - 1 if index + 1 < len(begins) else len(differences)
            # Only the two clips that meet count: one lively clip must not hide a jump between two quiet ones.
            near = [*differences[begins[index - 1] : begin - 1], *differences[begin + mixed : end]]
            ratio = most / _median(near if len(near) >= _ENOUGH else differences)
            kind, colour = kind_of_joint(clips.parts[index]), clips.colours[index]
            report = colour.to_json() if colour else None
            jump = kind == "chained" and ratio > _JUMP
            joints.append(JointReport(index, kind, begin, round(most, 3), round(ratio, 2), report, jump))
        return tuple(joints)


def _median(differences: Sequence[float]) -> float:
    return max(_FLAT, statistics.median(differences)) if differences else _FLAT


def _copy(stretches: Sequence[Stretch], target: Path, tags: Mapping[str, str], check: Callable[[], None]) -> None:
    """Copy the packets of each stretch into one film without decoding them; ``check`` may raise before each packet.

    Clips of other encoders may have edit lists and other timing; their packets get the timing of the film.

    Raises:
        OutputError: a clip cannot be read completely.
        BackendUnavailableError: the disk is full.
    """
    done, stream = 0, None
    with explained(target), create_container(target, tags) as container:
        for stretch in stretches:
            with decoding(stretch.video, FILM_LIMIT_S, packets_only=stream is not None) as clip:
                assert clip.stream is not None
                stream = stream or add_copied(container, clip.stream)
                step = round(1 / Fraction(clip.stream.average_rate or 1) / Fraction(clip.stream.time_base or 1))
                end = done + stretch.analysis.frames
                for packet in clip.packets(clip.stream):
                    if packet.dts is None or done == end:
                        continue
                    check()
                    packet.pts = packet.dts = done * step
                    packet.duration = step
                    packet.stream = stream
                    container.mux(packet)
                    done += 1
                demand_whole(stretch.video, clip.problems)


def _how(stretches: Sequence[Stretch]) -> str:
    """A sentence about which clips were copied, and which were encoded again and why."""
    reasons: dict[str, list[int]] = {}
    for number, stretch in enumerate(stretches, 1):
        reasons.setdefault(stretch.encoded_because, []).append(number)
    copied = len(reasons.pop("", ()))
    if not reasons:
        return "copied without encoding again"
    whys = [f"{_clips(numbers)} ({why})" for why, numbers in reasons.items()]
    encoded = f"encoded again: {', '.join(whys)}"
    return f"{copied} of {len(stretches)} clips copied; {encoded}" if copied else encoded


def _clips(numbers: Sequence[int]) -> str:
    more = len(numbers) - _NAMED
    named = ", ".join(str(number) for number in numbers[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"clip {named}" if len(numbers) == 1 else f"clips {named}"
