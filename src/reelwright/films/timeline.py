"""Splits a storyboard's shots into clips that a generator can make, and decides their seeds and joints.

A shot of 10 s needs two clips of Wan2.1 (81 frames at 16 fps). The second one begins with the last frame of the first.
A draft of the same storyboard has the same clips, lengths and joints.

    >>> [part.request.num_frames for part in segments(board, rules=WAN)]  # doctest: +SKIP
    [81, 81]
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..backends import ClipRules
from ..core.request import VideoRequest
from .storyboard import Shot, Storyboard

DEFAULT_FRAMES = 81
DEFAULT_FPS = 16.0
#: Placeholder for the last frame of the clip before, until that clip exists.
PENDING = Path("last-frame-of-the-clip-before.png")


@dataclass(frozen=True)
class Segment:
    """One clip of the film.

    Attributes:
        id: ``opening``, or ``opening.2`` for the second clip of a shot.
        shot: The shot's id.
        request: The request to the generator; ``image`` is `PENDING` if it begins with the end of ``upstream``.
        upstream: The segment whose last frame is the first picture of this one.
        dissolve: Frames of the dissolve from the segment before; 0 is a cut.
    """

    id: str
    shot: str
    request: VideoRequest
    upstream: str | None = None
    dissolve: int = 0


def segments(board: Storyboard, rules_of: Callable[[str], ClipRules], *, draft: bool = False) -> tuple[Segment, ...]:
    """The clips in the order of the film. With ``draft``, the draft generator makes the same ones."""
    found: list[Segment] = []
    rules = {name: rules_of(name) for name in dict.fromkeys(shot.generator or board.generator for shot in board.shots)}
    for index, shot in enumerate(board.shots):
        chained = index > 0 and shot.image is None and shot.continues is not False
        upstream = found[-1].id if chained else None
        found += _clips_of(board, shot, rules[shot.generator or board.generator], upstream, draft=draft)
    return tuple(found)


def joints(shown: Sequence[Segment]) -> list[tuple[bool, int]]:
    """For each clip that a film shows, whether it continues the one before it, and the frames of its dissolve."""
    later = [(after.upstream == before.id, after.dissolve) for before, after in itertools.pairwise(shown)]
    return [(False, 0), *later]


def _clips_of(board: Storyboard, shot: Shot, rules: ClipRules, upstream: str | None, *, draft: bool) -> list[Segment]:
    fps = rules.fps or board.fps or DEFAULT_FPS
    lengths = split(_frames(shot, fps, rules), rules, keyframed=shot.last_image is not None)
    clips: list[Segment] = []
    for number, length in enumerate(lengths, 1):
        first, last = number == 1, number == len(lengths)
        name = shot.id if len(lengths) == 1 else f"{shot.id}.{number}"
        begins_with = upstream if first else clips[-1].id
        request = VideoRequest(
            prompt=shot.prompt,
            image=PENDING if begins_with else shot.image,
            last_image=shot.last_image if last else None,
            generator="draft" if draft else shot.generator or board.generator,
            size=board.frame,
            num_frames=length,
            fps=fps if rules.fps is None or draft else None,
            steps=shot.steps,
            guidance_scale=shot.guidance_scale,
            flow_shift=shot.flow_shift,
            seed=_seed(board, shot, number),
            negative_prompt=shot.negative_prompt,
            camera=shot.camera,
            fit=None if begins_with else shot.fit,  # it has the film's size: fitting it would zoom at every joint
            anchor=shot.anchor,
            label=shot.label,
            depth_image=shot.depth_image if first and shot.last_image is None else None,
        )
        clips.append(Segment(name, shot.id, request, begins_with, shot.dissolve if first else 0))
    return clips


def _frames(shot: Shot, fps: float, rules: ClipRules) -> int:
    if shot.frames is not None:
        return shot.frames
    if shot.seconds is not None:
        return max(1, round(shot.seconds * fps))
    return min(rules.max_frames, DEFAULT_FRAMES) if rules.multiple == 1 else rules.max_frames


def split(frames: int, rules: ClipRules, *, keyframed: bool = False) -> Sequence[int]:
    """The lengths of the clips that show ``frames`` frames together; each shared frame counts once.

    Lengths are ``multiple * n + 1``, and the sum is the nearest that these can give. With ``keyframed``, the last of
    several clips is as long as a clip can be.
    """
    steps = max(rules.multiple, round((frames - 1) / rules.multiple) * rules.multiple) if frames > 1 else 0
    most = rules.max_frames - 1
    count = max(1, math.ceil(steps / most))
    if count > 1 and keyframed:
        return (*split(steps - most + 1, rules), most + 1)
    cuts = [round(steps * number / count / rules.multiple) * rules.multiple for number in range(count + 1)]
    return tuple(end - begin + 1 for begin, end in itertools.pairwise(cuts))


def _seed(board: Storyboard, shot: Shot, number: int) -> int:
    """The shot's own seed for its first clip; otherwise a derived one, which stays the same as long as the id does."""
    if shot.seed is not None and number == 1:
        return shot.seed
    text = f"{board.seed if shot.seed is None else shot.seed}:{shot.id}:{number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
