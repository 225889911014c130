"""Makes each clip's stretch of a film: the clip's own packets where possible, otherwise an encoded file in the cache.

A stretch begins where a clip begins and ends where the next clip begins. It includes the dissolve or crossfade from the
clip before. A film is its stretches, one after the other, so a change costs only the stretches that it touches. An
encoded stretch has a key of everything that determines it.

    >>> stretches = Segmenting(parts, options, cache, check).stretches(on_progress)
    >>> [stretch.encoded_because for stretch in stretches]
    ['', 'it dissolves in']
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2

from ...core.errors import OutputError
from ...core.files import sha256_of
from ...media.checksum_box import has_valid_checksum
from ...media.continuity import ColourMatch, match_given
from ...media.writer import Encoding, VideoWriter
from .artifact_cache import ArtifactCache, cache_key
from .clip_analysis import ClipAnalysis, ClipFacts, VerifiedClip, analyse, cached_facts
from .reencode import FilmClips
from .timing import JoinOptions, JoinPart, demand_room, finished, overlaps, pace

_RECIPE = 1  # version of how stretches are encoded; another one makes other bytes of the same clips
_CRF = {"h264": 15, "av1": 24}  # finer than clips (`writer.Encoding`): this is their second encoding


@dataclass(frozen=True)
class Stretch:
    """One clip's share of the film.

    Attributes:
        video: The file with its packets: the clip itself, or the encoded file.
        facts: The facts of that file.
        analysis: The analysis of the packets that the film takes.
        encoded_because: Why it was encoded; empty if the clip's own packets are taken.
    """

    video: Path
    facts: ClipFacts
    analysis: ClipAnalysis
    encoded_because: str = ""


class Segmenting:
    """Makes the stretches of a film.

    Args:
        parts, options: See `timing`.
        cache: Keeps measurements and encoded stretches.
        check: Raises when the caller wants to stop.
    """

    def __init__(
        self, parts: Sequence[JoinPart], options: JoinOptions, cache: ArtifactCache, check: Callable[[], None]
    ) -> None:
        self._cache, self._check = cache, check
        self._sources = [VerifiedClip(part.video, part.digest or _digest(part.video)) for part in parts]
        facts = [cached_facts(source, cache) for source in self._sources]
        self.clips = FilmClips(parts, options, facts, self._matches(parts, options))
        demand_room(self.clips.lengths, overlaps(parts, options))

    def stretches(self, on_progress: Callable[[int], None]) -> tuple[Stretch, ...]:
        """Make every stretch, in the film's order; ``on_progress`` receives how many of the film's frames are ready.

        Raises:
            OutputError: a clip cannot be read completely.
            BackendUnavailableError: the disk is full.
        """
        reasons, facts = self._reasons(), self.clips.facts
        found: dict[int, Stretch] = {}
        ready = 0

        def written(frames: int) -> None:
            self._check()
            on_progress(ready + frames)

        # Encoded stretches come first: their kind decides which clips can be copied beside them.
        for index in sorted(range(len(reasons)), key=lambda index: not reasons[index]):
            kind = next((stretch.facts.kind for stretch in found.values()), facts[index].kind)
            reason = reasons[index] or ("" if facts[index].kind == kind else "it is encoded differently")
            found[index] = self._encoded(index, reason, written) if reason else self._copied(index)
            ready += found[index].analysis.frames
            written(0)
        return tuple(found[index] for index in range(len(reasons)))

    # --- decisions

    def _matches(self, parts: Sequence[JoinPart], options: JoinOptions) -> list[ColourMatch | None]:
        """For each part, how its colours differ from those at the beginning of its chain; ``None`` without matching."""
        found: list[ColourMatch | None] = []
        for part, source in zip(parts, self._sources, strict=True):
            self._check()
            before = found[-1] if found and part.chained and options.color == "joint" else None
            if part.first_picture is None or options.color == "off":
                found.append(None)
            else:
                found.append(self._match(part.first_picture, source, before))
        return found

    def _match(self, given: Path, source: VerifiedClip, before: ColourMatch | None) -> ColourMatch:
        lacking = before.matrix if before else None
        handed = lacking.tolist() if lacking is not None else None
        key = cache_key(match=1, given=_digest(given), clip=source.digest, before=handed)

        def make() -> dict[str, Any]:
            return match_given(given, source.video, lacking).to_cache()

        return ColourMatch.from_cache(self._cache.value(f"{key}.json", make))

    def _reasons(self) -> list[str]:
        """For each clip, why its own packets cannot be copied; empty if they can."""
        facts = self.clips.facts
        found = [self._why_not_copied(index) for index in range(len(facts))]
        odd = [index for index in range(len(facts)) if facts[index].kind != facts[0].kind]
        if odd and not any(found):
            found[odd[0]] = "it is encoded differently from the first"
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

    def _copied(self, index: int) -> Stretch:
        analysis = analyse(self._sources[index], self.clips.visible(index), self._cache)
        return Stretch(self._sources[index].video, self.clips.facts[index], analysis)

    # --- encoding

    def _encoded(self, index: int, reason: str, written: Callable[[int], None]) -> Stretch:
        """The stretch from the cache, if its file is complete and has the right name; otherwise encode it now."""
        name = f"{cache_key(**self._material(index))}.mp4"
        path = self._cache.find(name)
        if path is None or not (has_valid_checksum(path) and _is_named(path, name)):
            path = self._cache.put(name, lambda unfinished: self._encode(index, unfinished, written, name))
        source = VerifiedClip(path, _digest(path))
        facts = cached_facts(source, self._cache)
        return Stretch(path, facts, analyse(source, facts.count, self._cache), reason)

    def _material(self, index: int) -> dict[str, Any]:
        """Everything that determines an encoded stretch."""
        options, mixed, last = self.clips.options, self.clips.mixed(index), index + 1 == len(self._sources)
        return {
            "stretch": _RECIPE,
            "libraries": [av.__version__, cv2.__version__],
            "clip": self._pixels(index),
            "frames": self.clips.visible(index),
            "over": [self._pixels(index - 1), mixed] if mixed else [],
            "next": self._pixels(index + 1) if options.double_fps and not last else [],
            "film": [*options.size, options.fps, options.double_fps, options.upscale, options.codec],
        }

    def _pixels(self, index: int) -> list[Any]:
        """Everything that determines a clip's pixels in the film."""
        colour = self.clips.colours[index]
        return [self._sources[index].digest, colour.matrix.tolist() if colour and colour.corrects else None]

    def _encode(self, index: int, target: Path, written: Callable[[int], None], name: str) -> None:
        options = self.clips.options
        size, fps = finished(options)
        encoding = Encoding(codec=options.codec, crf=_CRF[options.codec])
        with (
            VideoWriter(target, size, fps, encoding, {"comment": name}) as film,
            contextlib.closing(self.clips.stretch(index)) as frames,
        ):
            for done, frame in enumerate(frames, 1):
                film.write(frame)
                written(done)


def _is_named(path: Path, name: str) -> bool:
    """Whether an encoded file has this name in its metadata; another file may have been put in its place."""
    try:
        with av.open(str(path)) as video:
            return video.metadata.get("comment") == name
    except av.FFmpegError:
        return False


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror or error}") from error
