"""Rules that every framework shares: the requested size and length, effective parameters, and their findings. Pure.

This module knows no process, GPU or folder (`launch` does). The needs of a single framework, such as its sizes, stay in
its backend.

    >>> nearest_4n1(120)
    121
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...config.settings import Settings
from ...core.errors import Failure
from ...core.plan import ExpectedVideo, Finding
from ...core.request import Size, VideoRequest, parse_size
from .job import Job

DEFAULT_SIZE = "1280x720"
#: A prompt with more characters per token is surely too long: a token rarely has more than four.
_CHARACTERS_PER_TOKEN = 4


def first(*values: Any) -> Any:
    """The first value that is set."""
    return next(value for value in values if value is not None)


def largest(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest number from 1 to ``limit`` for which ``fits`` holds; 1 if it holds for none."""
    return max((number for number in range(1, limit + 1) if fits(number)), default=1)


def requested_size(request: VideoRequest, settings: Settings, overrides: Mapping[str, Any]) -> Size:
    """The requested size; a retry's override comes first."""
    chosen = overrides.get("size") or request.size or settings.size or DEFAULT_SIZE
    return parse_size(chosen) if isinstance(chosen, str) else Size(*chosen)


def picture_frame(request: VideoRequest, settings: Settings) -> Size | None:
    """The size that pictures get if a fit is requested; ``None`` keeps their aspect, as the frameworks do."""
    if request.fit is None and settings.fit is None:
        return None
    return requested_size(request, settings, {})


def nearest_4n1(frames: float) -> int:
    """The number of the form 4n+1 (n >= 0) nearest to ``frames``; the smaller one in a tie."""
    below = max(0, int((frames - 1) // 4)) * 4 + 1
    return below if frames - below <= below + 4 - frames else below + 4


def requested_frames(job: Job, fps: float, default: int) -> int:
    """The requested number of frames; seconds become the nearest 4n+1."""
    request = job.request
    if job.overrides.get("num_frames"):
        return int(job.overrides["num_frames"])
    if request.num_frames is not None:
        return request.num_frames
    if request.seconds is not None:
        return nearest_4n1(request.seconds * fps)
    return job.settings.frame_num or default


def forced(parameters: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with the overrides of a retry; size, length and GPUs already include them."""
    decided = ("size", "num_frames", "gpu_count")
    return {**parameters, **{k: value for k, value in overrides.items() if k in parameters and k not in decided}}


def disk_bytes(settings: Settings, expected: ExpectedVideo | None) -> int:
    """Bytes on disk for the log's limit and the video; imageio stayed below 0.25 per pixel in every clip so far."""
    pixels = expected.width * expected.height * expected.num_frames if expected else 0
    return pixels // 4 + settings.log_limit_mb * 1024 * 1024


@dataclass(frozen=True)
class Length:
    """The limits on the length of a framework's clip.

    Attributes:
        name: The framework's name in messages.
        fps: Its frame rate.
        trained: The number of frames it was trained for.
        longest_s: The length of the longest clip, in seconds.
    """

    name: str
    fps: float
    trained: int
    longest_s: float


def length_findings(request: VideoRequest, frames: int, length: Length) -> Iterator[Finding]:
    """Report a number of frames that cannot be made, and how requested seconds are rounded."""
    if frames % 4 != 1:
        fix = f"Use {nearest_4n1(frames)}, or another number of the form 4n+1."
        yield Finding("frames.4n1", "error", f"{length.name} makes 4n+1 frames, not {frames}", fix)
        return
    seconds = frames / length.fps
    too_long = tuple(too_long_findings(request, length))
    yield from too_long
    if not too_long and frames > length.trained:
        text = f"{frames} frames are more than the {length.trained} that the model was trained for: expect flicker and drift"
        yield Finding("frames.long", "warning", text, f"Use {length.trained} frames per clip.")
    if request.seconds and abs(request.seconds - seconds) > 0.01:
        text = f"{request.seconds:g} s become {frames} frames, {seconds:.2f} s: {length.name} makes 4n+1 frames at {length.fps:g} fps"
        yield Finding("frames.rounded", "info", text)


def too_long_findings(request: VideoRequest, length: Length) -> Iterator[Finding]:
    """Report more requested seconds than one clip can have; this needs no weights."""
    if request.seconds and request.seconds > length.longest_s + 2 / length.fps:
        most = nearest_4n1(length.longest_s * length.fps)
        text = f"one clip is at most {most} frames, {length.longest_s:.2f} s; {request.seconds:g} s are requested"
        fix = f"Use at most {length.longest_s:.0f} s per clip, and chain clips into a film."
        yield Finding("frames.too_long", "error", text, fix)


_DRAFT_OPTIONS = {"camera": "--camera", "depth_image": "--depth", "label": "--no-label"}


def request_findings(
    request: VideoRequest, name: str, fps: float, *, tokens: int, encodes: bool = False
) -> Iterator[Finding]:
    """Report parts of a request that are refused or ignored: a frame rate, the draft's options, a long prompt.

    ``tokens`` is the number that the text encoder reads. ``encodes``: Reelwright encodes the frames in the requested
    codec.
    """
    if request.fps not in (None, fps):
        yield Finding(
            "fps.fixed", "error", f"{name} makes {fps:g} fps; {request.fps:g} fps cannot be chosen", "Leave out --fps."
        )
    for field, option in _DRAFT_OPTIONS.items():
        if getattr(request, field) is not None:
            text = f"{option} is for the draft generator: {name} ignores it"
            yield Finding(f"ignored.{field}", "warning", text, f"Leave out {option}.")
    if request.codec is not None and not encodes:
        text = f"{name} writes its video itself, as H.264: --codec is ignored"
        yield Finding("ignored.codec", "warning", text, "Leave out --codec.")
    if len(request.prompt) > _CHARACTERS_PER_TOKEN * tokens:
        text = f"the prompt is very long: the text encoder reads {tokens} tokens and drops the rest"
        yield Finding("prompt.long", "warning", text, "Put what matters first.")


def is_illegal(findings: Sequence[Finding]) -> bool:
    """Whether the request cannot have a command; if only the machine lacks something, the command is still shown."""
    codes = (Failure.CONFIG, Failure.INPUT)
    return any(item.severity == "error" and item.failure in codes for item in findings)
