"""Clips become one film: copied packet by packet where that is possible, encoded again where not, and told which.

Where a clip goes on from the one before, its first frame repeats the last frame of that one, which is dropped: the
last one of the clip before, because nothing refers to it (our clips have no B-frames), while the first one is what
all others of its clip refer to. Frames stream: a film of an hour needs no more memory than one of a second.

    >>> join([Part(a), Part(b, first_picture=a_last, chained=True)], target, options).num_frames
    161
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...core.errors import InvalidInputError
from ...core.plan import ExpectedVideo
from ...media.checksum_box import seal
from .artifact_cache import ArtifactCache
from .clip_analysis import ClipAnalysis
from .copying import copy
from .joints import Joint, Place, measured
from .proof import Promise
from .segments import Cutting, Piece
from .sound import with_sound
from .timing import JoinOptions, Part, expected_frames, finished, kind_of_joint, length_in_film, pace, places

__all__ = ["JoinOptions", "JoinReport", "Part", "expected_frames", "join", "length_in_film", "places"]
_NAMED = 4  # clips that are named in a sentence; the list has all


@dataclass(frozen=True)
class JoinReport:
    """What was made of the clips.

    Attributes:
        how: Which were copied and which encoded again, in a sentence.
        encoded: For each clip that was encoded again (from 0) why.
        promise: By which the film can be verified, see `proof`.
        tiles: Small pictures of each clip, as the film shows it.
    """

    num_frames: int
    width: int
    height: int
    fps: float
    how: str
    promise: Promise
    encoded: Mapping[int, str]
    joints: tuple[Joint, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def glances(self) -> Sequence[ClipAnalysis]:
        """What was seen in each clip."""
        return self.promise.pieces

    def to_json(self) -> dict[str, Any]:
        """For the film's manifest."""
        return {"how": self.how, "joints": [asdict(joint) for joint in self.joints], "warnings": list(self.warnings)}


def _silent(done: int, total: int) -> None:
    """Nobody listens."""


def join(  # noqa: PLR0913 -- the last one by name only
    parts: Sequence[Part],
    target: Path,
    options: JoinOptions,
    emit: Callable[[int, int], None] = _silent,
    check: Callable[[], None] = lambda: None,
    *,
    shelf: ArtifactCache | None = None,
) -> JoinReport:
    """Write the film to ``target``, which does not exist yet; it is removed if anything goes wrong.

    ``emit`` hears the frames done and in all; ``check`` raises when the caller wants to stop. What was seen in the
    clips and what had to be encoded is kept on the ``shelf`` for the next time.

    Raises:
        OutputError: a clip cannot be read whole.
        InvalidInputError: a clip is too short for its transitions, or the sound cannot be read.
        BackendUnavailableError: the disk is full.
    """
    if not parts:
        raise InvalidInputError("there is no clip to join", advice="Name at least one shot that is there.")
    if any(target.exists() and target.samefile(part.video) for part in parts):
        raise ValueError(f"{target} would be written over while it is read")
    with _kept_on(shelf, target) as kept:
        try:
            return _Join(Cutting(parts, options, kept, check), emit, check).made(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _kept_on(shelf: ArtifactCache | None, target: Path) -> Iterator[ArtifactCache]:
    """The shelf, or one that is gone afterwards."""
    if shelf is not None:
        yield shelf
        return
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.stem}-") as folder:
        yield ArtifactCache(Path(folder))


class _Join:
    def __init__(self, cutting: Cutting, emit: Callable[[int, int], None], check: Callable[[], None]) -> None:
        self._cutting, self._clips = cutting, cutting.clips
        self._emit, self._check = emit, check
        self._total = expected_frames(self._clips.lengths, self._clips.parts, self._clips.options)

    def made(self, target: Path) -> JoinReport:
        options = self._clips.options
        pieces = self._cutting.pieces(self._told)
        copy([(piece.video, piece.glance.frames) for piece in pieces], target, self._tags(), self._check)
        heard: tuple[str, ...] = ()
        if options.audio:
            heard = with_sound(target, options.audio, options.audio_fade_s)
        else:
            seal(target)
        self._emit(self._total, self._total)
        size, fps = finished(options)
        joints = measured([piece.glance for piece in pieces], self._places())
        jumps = [f"a jump can be seen where clip {joint.part + 1} begins" for joint in joints if joint.jump]
        return JoinReport(
            self._total,
            *size,
            fps,
            _how(pieces),
            self._promise(pieces),
            {index: piece.encoded_because for index, piece in enumerate(pieces) if piece.encoded_because},
            joints,
            (*self._adjusted(), *jumps, *heard),
        )

    def _told(self, ready: int) -> None:
        self._emit(min(ready, self._total - 1), self._total)  # the film is there when its packets are

    def _tags(self) -> dict[str, str]:
        options = self._clips.options
        return {"title": options.title, "generator": "film", **options.metadata}

    def _promise(self, pieces: Sequence[Piece]) -> Promise:
        size, fps = finished(self._clips.options)
        expected = ExpectedVideo(size.width, size.height, self._total, fps)
        glances = [piece.glance for piece in pieces]
        return Promise(expected, pieces[0].facts.kind, glances, self._tags(), self._clips.options.audio is not None)

    def _adjusted(self) -> Iterator[str]:
        """What was done to clips that are not as the film is."""
        size, fps = self._clips.options.size, self._clips.options.fps
        for number, facts in enumerate(self._clips.facts, 1):
            if facts.size != tuple(size):
                yield f"clip {number} is {facts.size[0]}x{facts.size[1]}: it is fitted into {size} on black"
            if pace(facts.fps, self._clips.options) != 1:
                change = "frames are left out" if facts.fps > fps else "frames are shown again"
                yield f"clip {number} has {float(facts.fps):g} frames a second, the film {fps:g}: {change}"

    def _places(self) -> list[Place]:
        clips, times = self._clips, 2 if self._clips.options.double_fps else 1
        begins = places(clips.lengths, clips.parts, clips.options)
        return [
            Place(kind_of_joint(part), begin, clips.mixed(index) * times, colour.to_json() if colour else None)
            for index, (part, begin, colour) in enumerate(zip(clips.parts, begins, clips.colours, strict=True))
        ]


def _how(pieces: Sequence[Piece]) -> str:
    """Which clips were copied and which encoded again, and why."""
    reasons: dict[str, list[int]] = {}
    for number, piece in enumerate(pieces, 1):
        reasons.setdefault(piece.encoded_because, []).append(number)
    copied = len(reasons.pop("", ()))
    if not reasons:
        return "copied without encoding again"
    whys = [f"{_clips(numbers)} ({why})" for why, numbers in reasons.items()]
    encoded = f"encoded again: {', '.join(whys)}"
    return f"{copied} of {len(pieces)} clips copied; {encoded}" if copied else encoded


def _clips(numbers: Sequence[int]) -> str:
    more = len(numbers) - _NAMED
    named = ", ".join(str(number) for number in numbers[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"clip {named}" if len(numbers) == 1 else f"clips {named}"
