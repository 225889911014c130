"""What a film shows of clips whose packets cannot be taken: frames in its size, rate and colours, with dissolves.

Frames stream: at most an overlap of them is held.

    >>> for frame in Showing(clips).frames(1):
    ...     film.write(frame)
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from ...media.continuity import ColourMatch
from ...media.decoding import decoding, to_rgb
from .copying import ClipFacts, demand_whole
from .finishing import doubled, fitted
from .joints import FILM_LIMIT_S
from .timing import JoinOptions, Part, kind_of_joint, length_in_film, overlaps, pace
from .upscaling import Upscaler, enlarged, find_upscaler

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Clips:
    """Clips in the order of a film, with what is known of each before any is decoded.

    Attributes:
        colours: How a clip's colours are brought back; ``None`` where nothing is to be matched.
    """

    parts: Sequence[Part]
    options: JoinOptions
    facts: Sequence[ClipFacts]
    colours: Sequence[ColourMatch | None]

    @property
    def lengths(self) -> list[int]:
        """Of each clip, in the film's frames before doubling."""
        return [length_in_film(facts.count, facts.fps, self.options) for facts in self.facts]

    def overlap(self, index: int) -> int:
        """How many of a clip's first frames lie over the one before; there is none after the last."""
        return overlaps(self.parts, self.options)[index] if index < len(self.parts) else 0

    def shown(self, index: int) -> int:
        """How many of a clip's frames come before the next one lies over them."""
        facts = self.facts[index]
        return length_in_film(facts.count, facts.fps, self.options) - self.overlap(index + 1)

    def mixed(self, index: int) -> int:
        """Of how many frames at a clip's beginning the end of the one before is seen as well."""
        overlap = self.overlap(index)
        return 0 if overlap == 1 and kind_of_joint(self.parts[index]) == "chained" else overlap


class Showing:
    """The frames of pieces of a film."""

    def __init__(self, clips: Clips) -> None:
        self._clips = clips
        self._upscale: Upscaler | None = None

    def frames(self, index: int) -> Generator[Pixels]:
        """What the film shows from the beginning of a clip to that of the next one, as it is to be encoded.

        Raises:
            OutputError: a clip cannot be read whole.
        """
        options = self._clips.options
        frames = self._doubled(index) if options.double_fps else self._plain(index)
        if options.upscale > 1:
            # Loaded once for the film: it may be a model.
            self._upscale = self._upscale or find_upscaler(options.upscaler)(options.upscale)
        yield from enlarged(frames, options.upscale, options.upscaler, self._upscale)

    def _doubled(self, index: int) -> Generator[Pixels]:
        """With a frame between each two, the last of which leads to the next clip."""
        shown = self._clips.shown(index)
        if index + 1 == len(self._clips.parts):
            yield from doubled(self._plain(index))
            return
        with contextlib.closing(self._plain(index + 1)) as others:
            following = next(others)
        cuts = {shown} if kind_of_joint(self._clips.parts[index + 1]) == "cut" else set()
        for number, frame in enumerate(doubled(_followed(self._plain(index), following), cuts)):
            if number < 2 * shown:
                yield frame

    def _plain(self, index: int) -> Generator[Pixels]:
        """In the film's size, rate and colours, with the end of the clip before where that is still seen."""
        clips, mixed = self._clips, self._clips.mixed(index)
        before = self._tail(index - 1, mixed) if mixed else deque()
        with contextlib.closing(self._paced(index)) as frames:
            for number, frame in enumerate(frames, 1):
                if number > clips.shown(index):
                    return
                yield _mixed(before.popleft(), frame, number / (mixed + 1)) if before else frame

    def _tail(self, index: int, count: int) -> deque[Pixels]:
        """The last frames of a clip, as the film would show them."""
        return deque(self._paced(index), maxlen=count)

    def _paced(self, index: int) -> Generator[Pixels]:
        """A clip's frames at the film's rate."""
        facts, options = self._clips.facts[index], self._clips.options
        rate, shown, length = pace(facts.fps, options), 0, length_in_film(facts.count, facts.fps, options)
        with contextlib.closing(self._decoded(index)) as frames:
            for number, frame in enumerate(frames):
                while shown < length and min(facts.count - 1, int((shown + Fraction(1, 2)) * rate)) == number:
                    yield frame
                    shown += 1

    def _decoded(self, index: int) -> Generator[Pixels]:
        video, colour, size = self._clips.parts[index].video, self._clips.colours[index], self._clips.options.size
        with decoding(video, FILM_LIMIT_S) as film:
            for frame in film.frames():
                picture = to_rgb(frame)
                yield fitted(picture if colour is None else colour.applied(picture), size.width, size.height)
            demand_whole(video, film.problems)


def _followed(frames: Iterator[Pixels], last: Pixels) -> Iterator[Pixels]:
    yield from frames
    yield last


def _mixed(one: Pixels, other: Pixels, share: float) -> Pixels:
    return np.asarray(cv2.addWeighted(one, 1 - share, other, share, 0), dtype=np.uint8)
