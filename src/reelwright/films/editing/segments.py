"""What each clip becomes in a film: its own packets where that is possible, else a piece that is encoded, and kept.

A piece is a clip without what the next one lies over: it begins where the clip begins, with the dissolve or crossfade
from the clip before if there is one, and ends where the next clip begins. The film is its pieces, one after the
other, so that a change costs only the pieces that it touches. An encoded one lies on the shelf under a key of all
that determines it.

    >>> pieces = Cutting(parts, options, shelf, check).pieces(told)
    >>> [piece.encoded_because for piece in pieces]
    ['', 'it dissolves in']
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2

from ...core.errors import OutputError
from ...core.files import open_regular
from ...media.checksum_box import sealed
from ...media.continuity import ColourMatch, match_given
from ...media.writer import Encoding, VideoWriter
from .artifact_cache import ArtifactCache, key_of
from .clip_analysis import ClipAnalysis, Source, looked
from .copying import ClipFacts, clip_facts
from .reencode import Clips, Showing
from .timing import JoinOptions, Part, demand_room, finished, overlaps, pace

_RECIPE = 1  # of pieces; another one makes other bytes of the same clips
_CRF = {"h264": 15, "av1": 24}  # finer than clips (`writer.Encoding`): this is their second encoding


@dataclass(frozen=True)
class Piece:
    """One clip's share of the film.

    Attributes:
        video: Where its packets are: the clip itself, or what it was encoded to.
        facts: Of that file.
        glance: What was seen in the packets that are taken.
        encoded_because: Why it was encoded; empty where the clip's own packets are taken.
    """

    video: Path
    facts: ClipFacts
    glance: ClipAnalysis
    encoded_because: str = ""


class Cutting:
    """Clips to pieces.

    Args:
        parts, options: See `timing`.
        shelf: Where what was seen and encoded is kept.
        check: Raises when the caller wants to stop.
    """

    def __init__(
        self, parts: Sequence[Part], options: JoinOptions, shelf: ArtifactCache, check: Callable[[], None]
    ) -> None:
        self._shelf, self._check = shelf, check
        self._sources = [Source(part.video, part.digest or _digest(part.video)) for part in parts]
        facts = [known_facts(source, shelf) for source in self._sources]
        self.clips = Clips(parts, options, facts, self._matches(parts, options))
        demand_room(self.clips.lengths, overlaps(parts, options))
        self._showing = Showing(self.clips)

    def pieces(self, told: Callable[[int], None]) -> tuple[Piece, ...]:
        """Every piece, in the film's order; ``told`` hears how many of the film's frames are ready.

        Raises:
            OutputError: a clip cannot be read whole.
            BackendUnavailableError: the disk is full.
        """
        reasons, facts = self._reasons(), self.clips.facts
        found: dict[int, Piece] = {}
        ready = 0

        def written(frames: int) -> None:
            self._check()
            told(ready + frames)

        # What is encoded comes first: how it is coded says which clips can be copied beside it.
        for index in sorted(range(len(reasons)), key=lambda index: not reasons[index]):
            kind = next((piece.facts.kind for piece in found.values()), facts[index].kind)
            reason = reasons[index] or ("" if facts[index].kind == kind else "it is coded in another way")
            found[index] = self._encoded(index, reason, written) if reason else self._copied(index)
            ready += found[index].glance.frames
            written(0)
        return tuple(found[index] for index in range(len(reasons)))

    # --- what is to be done

    def _matches(self, parts: Sequence[Part], options: JoinOptions) -> list[ColourMatch | None]:
        """For each part, how its colours differ from those of its chain's beginning."""
        found: list[ColourMatch | None] = []
        for part, source in zip(parts, self._sources, strict=True):
            self._check()
            before = found[-1] if found and part.chained and options.color == "joint" else None
            if part.first_picture is None or options.color == "off":
                found.append(None)
            else:
                found.append(self._match(part.first_picture, source, before))
        return found

    def _match(self, given: Path, source: Source, before: ColourMatch | None) -> ColourMatch:
        lacking = before.matrix if before else None
        handed = lacking.tolist() if lacking is not None else None
        material = {"match": 1, "given": _digest(given), "clip": source.digest, "before": handed}

        def made() -> dict[str, Any]:
            return match_given(given, source.video, lacking).kept()

        return ColourMatch.taken(self._shelf.value(f"{key_of(material)}.json", made))

    def _reasons(self) -> list[str]:
        """For each clip why its own packets cannot be taken; empty where they can."""
        facts = self.clips.facts
        found = [self._why_not_copied(index) for index in range(len(facts))]
        odd = [index for index in range(len(facts)) if facts[index].kind != facts[0].kind]
        if odd and not any(found):
            found[odd[0]] = "it is coded in another way than the first"
        return found

    def _why_not_copied(self, index: int) -> str:
        options, facts, colour = self.clips.options, self.clips.facts[index], self.clips.colours[index]
        reasons = {
            "it dissolves in": self.clips.parts[index].dissolve > 0,
            "it is crossfaded": self.clips.mixed(index) > 0,
            "the frame rate is doubled": options.double_fps,
            "the film is enlarged": options.upscale > 1,
            "its colours are corrected": colour is not None and colour.corrects,
            "it has B-frames": facts.b_frames,
            "it has another size than the film": facts.size != tuple(options.size),
            "it has another frame rate than the film": pace(facts.fps, options) != 1,
        }
        return next((text for text, holds in reasons.items() if holds), "")

    def _copied(self, index: int) -> Piece:
        glance = looked(self._sources[index], self.clips.shown(index), self._shelf)
        return Piece(self._sources[index].video, self.clips.facts[index], glance)

    # --- encoding

    def _encoded(self, index: int, reason: str, written: Callable[[int], None]) -> Piece:
        """The piece as it lies on the shelf, if that is whole, or as it is encoded now."""
        name = f"{key_of(self._material(index))}.mp4"
        path = self._shelf.find(name)
        if path is None or not (sealed(path) and _says(path, name)):
            path = self._shelf.put(name, lambda unfinished: self._encode(index, unfinished, written, name))
        source = Source(path, _digest(path))
        facts = known_facts(source, self._shelf)
        return Piece(path, facts, looked(source, facts.count, self._shelf), reason)

    def _material(self, index: int) -> dict[str, Any]:
        """Everything that determines an encoded piece."""
        options, mixed, last = self.clips.options, self.clips.mixed(index), index + 1 == len(self._sources)
        following = self._seen(index + 1) if options.double_fps and not last else []
        return {
            "piece": _RECIPE,
            "libraries": [av.__version__, cv2.__version__],
            "clip": self._seen(index),
            "shown": self.clips.shown(index),
            "over": [self._seen(index - 1), mixed] if mixed else [],
            "next": following,
            "film": [*options.size, options.fps, options.double_fps, options.upscale, options.upscaler, options.codec],
        }

    def _seen(self, index: int) -> list[Any]:
        """A clip's pixels as the film shows them."""
        colour = self.clips.colours[index]
        return [self._sources[index].digest, colour.matrix.tolist() if colour and colour.corrects else None]

    def _encode(self, index: int, target: Path, written: Callable[[int], None], name: str) -> None:
        options = self.clips.options
        size, fps = finished(options)
        with (
            VideoWriter(
                target, size, fps, Encoding(codec=options.codec, crf=_CRF[options.codec]), {"comment": name}
            ) as film,
            contextlib.closing(self._showing.frames(index)) as frames,
        ):
            for done, frame in enumerate(frames, 1):
                film.write(frame)
                written(done)


def known_facts(source: Source, shelf: ArtifactCache) -> ClipFacts:
    """What a clip's header says, read once."""
    name = f"{key_of({'facts': 1, 'clip': source.digest})}.json"
    return ClipFacts.from_json(shelf.value(name, lambda: clip_facts(source.video).to_json()))


def look_ahead(source: Source, shown: int, shelf: ArtifactCache) -> None:
    """Do now what a film will ask of a clip whose packets it takes, up to ``shown`` frames."""
    known_facts(source, shelf)
    looked(source, shown, shelf)


def _says(path: Path, name: str) -> bool:
    """Whether a piece is the one of that name, and not another one that was put there."""
    try:
        with av.open(str(path)) as piece:
            return piece.metadata.get("comment") == name
    except av.FFmpegError:
        return False


def _digest(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror or error}") from error
