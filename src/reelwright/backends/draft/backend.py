"""The backend of the draft generator: it plans the clip that `engines.draft` renders.

The draft needs no GPU, no weights and no network. It moves a camera over the given picture (or from a first
picture to a last one) in about two seconds. It is an animatic, not a generation: nothing in the picture acts,
and only the camera words of the prompt have an effect.

    >>> BACKEND.requires_gpu, BACKEND.generative
    (False, False)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...core.errors import Failure, InvalidInputError
from ...core.host import Host
from ...core.plan import EngineCall, ExpectedVideo, Finding, Plan
from ...core.request import Picture, Size, parse_size
from ...media.framing import parse_anchor
from .. import Backend
from ..shared.capabilities import Capabilities
from ..shared.rules import first
from .camera import MOVES, Camera, parse_camera, read_prompt
from .settings import DraftJob as Job
from .settings import DraftSettings as Settings

DEFAULT_SIZE = Size(1280, 720)
DEFAULT_FRAMES = 81  # at 16 fps the length of a Wan2.1 clip: 5.06 s
DEFAULT_FPS = 16.0
LONGEST_S = 600.0
_SIDE_MIN, _SIDE_MAX = 64, 7680  # SVT-AV1 refuses less than 64; 8K is far more than an animatic needs
_CROP_WARNING = 0.25
_FORCED = ("seed", "codec", "identity_start", "last_frame")  # the last two are for clips that are joined
_MEANINGLESS = ("steps", "guidance_scale", "flow_shift", "negative_prompt")
# Measured on 2 cores with the default encoder: 0.9 s to start and verify, 18 ns per pixel rendered and encoded;
# 0.02-0.08 bytes per pixel of video (0.25 is noise). Resident: 182 MB at 1280x720, 205 at 1920x1080, 542 at
# 3840x2160, and 55 more for a picture of 24 megapixels.
_START_S, _SECONDS_PER_PIXEL = 0.9, 1.8e-8
_VIDEO_BYTES_PER_PIXEL = 0.25
_BASE_BYTES, _BYTES_PER_FRAME_PIXEL, _BYTES_PER_PICTURE_PIXEL = 140_000_000, 55, 4


@dataclass(frozen=True)
class _Shape:
    """The size and length of the clip, both legal."""

    size: Size
    num_frames: int
    fps: float


def plan(job: Job) -> Plan:
    """Plan the clip; a user's mistakes become findings, never exceptions."""
    findings: list[Finding] = []
    shape = _shape(job, findings)
    camera = _camera(job, findings)
    anchor = _anchor(job, findings)
    if job.first is None:
        fix = "The draft needs a picture: give one, or choose a generator that makes video from text."
        findings.append(
            _wrong("image.missing", "the draft moves a camera over a picture, and the request has none", fix)
        )
    else:
        findings.extend(_picture_findings(job, job.first, shape.size))
    for name in _MEANINGLESS:
        if getattr(job.request, name) is not None:
            text = f"{name} is ignored by the draft: no model runs"
            findings.append(Finding("parameter.ignored", "warning", text))
    refused = any(finding.severity == "error" for finding in findings)
    parameters = _parameters(job, shape, camera, anchor)
    pixels = shape.num_frames * shape.size.area
    pictures = sum(picture.size.area for picture in (job.first, job.last, job.depth) if picture)
    return Plan(
        generator="draft",
        task=job.request.task,
        generative=False,
        run=None if refused else EngineCall("draft", _options(job, parameters)),
        expected=None if refused else ExpectedVideo(*shape.size, shape.num_frames, shape.fps),
        parameters=parameters,
        host_bytes=_BASE_BYTES + _BYTES_PER_FRAME_PIXEL * shape.size.area + _BYTES_PER_PICTURE_PIXEL * pictures,
        disk_bytes=int(1_000_000 + _VIDEO_BYTES_PER_PIXEL * pixels + 3.2 * (pictures + shape.size.area)),
        seconds=round(_START_S + _SECONDS_PER_PIXEL * pixels * 2 / max(1, min(2, job.host.cpu_count)), 1),
        findings=tuple(findings),
    )


def _parameters(job: Job, shape: _Shape, camera: Camera, anchor: tuple[float, float]) -> dict[str, Any]:
    request, settings = job.request, job.settings
    base_seed = settings.base_seed if settings.base_seed is not None and settings.base_seed >= 0 else 0
    chosen: dict[str, Any] = {
        "size": shape.size,
        "num_frames": shape.num_frames,
        "fps": shape.fps,
        "seed": request.seed if request.seed is not None else base_seed,
        "fit": request.fit or settings.fit or "cover",
        "anchor": list(anchor),
        "codec": request.codec or settings.codec,
        "label": settings.label if request.label is None else request.label,
    }
    if job.last is None:
        chosen |= {"camera": list(camera.moves), "speed": camera.speed}
    return chosen | {key: value for key, value in job.overrides.items() if key in _FORCED}


def _options(job: Job, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `engines.draft` as plain JSON; the engine decides nothing."""
    size: Size = parameters["size"]
    pictures = {"first": job.first, "last": job.last, "depth": job.depth if job.last is None else None}
    return {
        **{role: str(picture.path) for role, picture in pictures.items() if picture},
        **{key: value for key, value in parameters.items() if key != "size"},
        "width": size.width,
        "height": size.height,
        "metadata": {
            "title": job.request.prompt[:500],
            "comment": "Animatic preview by reelwright's draft generator; not AI generated.",
            "generator": "draft",
            "generative": "false",
        },
    }


def _shape(job: Job, findings: list[Finding]) -> _Shape:
    fps = float(first(job.request.fps, job.settings.fps, DEFAULT_FPS))
    if not 1 <= fps <= 120:
        fix = f"Use {DEFAULT_FPS:g}."
        findings.append(_wrong("fps.range", f"{fps:g} frames per second is outside 1 to 120", fix))
        fps = DEFAULT_FPS
    num_frames = job.overrides.get("num_frames") or _num_frames(job, fps, findings)
    if num_frames / fps > LONGEST_S:
        asked = job.request.seconds or num_frames / fps
        what = f"{asked:g} s is longer than the draft's limit of {LONGEST_S:g} s"
        findings.append(_wrong("frames.limit", what, "Make it shorter, and join several clips."))
        num_frames = DEFAULT_FRAMES
    if job.request.task == "flf2v" and num_frames < 2:
        what = "from a first to a last picture takes at least 2 frames"
        findings.append(_wrong("frames.limit", what, f"Use {DEFAULT_FRAMES} frames."))
    return _Shape(_size(job, findings), num_frames, fps)


def _num_frames(job: Job, fps: float, findings: list[Finding]) -> int:
    seconds = job.request.seconds
    if seconds is None:
        return job.request.num_frames or job.settings.frame_num or DEFAULT_FRAMES
    exact = min(seconds, 1e6) * fps
    num_frames = max(1, math.floor(exact + 0.5))
    if abs(num_frames - exact) > 1e-6:
        what = f"{seconds:g} s at {fps:g} fps becomes {num_frames} frames, {round(num_frames / fps, 3):g} s"
        findings.append(Finding("frames.rounded", "info", what, "Give frames to choose exactly."))
    return num_frames


def _size(job: Job, findings: list[Finding]) -> Size:
    settings = job.settings
    asked = job.overrides.get("size") or job.request.size
    size: Size = asked or (parse_size(settings.size) if settings.size else DEFAULT_SIZE)
    if not all(_SIDE_MIN <= side <= _SIDE_MAX for side in size):
        what = f"{size} has a side outside {_SIDE_MIN} to {_SIDE_MAX} pixels"
        findings.append(_wrong("size.range", what, f"Use {DEFAULT_SIZE}, for example."))
        return DEFAULT_SIZE
    even = Size(size.width + size.width % 2, size.height + size.height % 2)
    if even != size:  # yuv420p halves the colour planes
        what = f"{size} has an odd side, and H.264 videos need even ones"
        findings.append(_wrong("size.odd", what, f"Use {even}."))
    return even


def _camera(job: Job, findings: list[Finding]) -> Camera:
    asked = job.request.camera
    if job.request.task == "flf2v":
        if asked:
            what = "with a last picture the move follows from the two pictures; the camera is ignored"
            findings.append(Finding("camera.ignored", "warning", what, "Leave out the camera or the last picture."))
        return Camera((), 1.0)
    try:
        camera = parse_camera(asked) if asked is not None else read_prompt(job.request.prompt)
    except ValueError as error:
        fix = f"Use some of {', '.join(MOVES)}, with slow or fast."
        findings.append(_wrong("camera.unknown", str(error), fix))
        return read_prompt(job.request.prompt)
    said = f"camera: [{', '.join(camera.moves)}] speed {camera.speed:g}"
    origin = "the draft's own choice: the prompt names no camera move in English words"
    if camera.named:
        origin = "as asked" if asked is not None else "read from the prompt"
    findings.append(Finding("camera.moves", "info", f"{said} ({origin})", "Name a camera to choose another."))
    if "pull_out" in camera.moves and not job.overrides.get("identity_start"):
        what = "a pull-out begins close and ends on the whole picture: there is nothing beyond its edges"
        findings.append(Finding("camera.reversed", "info", what))
    return camera


def _anchor(job: Job, findings: list[Finding]) -> tuple[float, float]:
    text = job.settings.anchor if job.request.anchor is None else job.request.anchor
    try:
        return parse_anchor(text)
    except InvalidInputError as error:
        findings.append(_wrong("anchor.unknown", error.message, error.advice))
        return 0.5, 0.5


def _picture_findings(job: Job, picture: Picture, size: Size) -> list[Finding]:
    found: list[Finding] = []
    aspect, wanted = picture.size.width / picture.size.height, size.width / size.height
    lost = 1 - min(aspect, wanted) / max(aspect, wanted)
    fit = job.request.fit or job.settings.fit or "cover"
    if fit == "cover" and lost > _CROP_WARNING:
        where = "top and bottom" if aspect < wanted else "left and right"
        what = f"{lost:.0%} of the picture ({picture.size}) is cropped away at {where} to fill {size}"
        fix = "Move the crop with an anchor (for example top), show all of it with fit contain, or choose another size."
        found.append(Finding("picture.cropped", "warning", what, fix))
    if fit == "stretch" and lost > _CROP_WARNING:
        what = f"the picture ({picture.size}) is distorted by {lost:.0%} to fill {size}"
        found.append(Finding("picture.stretched", "warning", what, "Use fit cover or contain."))
    enlarged = max(size.width / picture.size.width, size.height / picture.size.height)
    if enlarged > 2.5:
        what = f"the picture ({picture.size}) is enlarged {enlarged:.1f} times and will look soft"
        fix = "Give a larger picture or use a smaller size."
        found.append(Finding("picture.small", "warning", what, fix))
    if job.depth is not None and job.last is not None:
        found.append(Finding("depth.ignored", "warning", "the depth picture is not used between two pictures"))
    return found


def _wrong(code: str, message: str, fix: str) -> Finding:
    return Finding(code, "error", message, fix, Failure.INPUT)


def _capabilities(settings: Settings, host: Host) -> Capabilities:
    del settings
    return Capabilities(
        tasks=("i2v", "flf2v"),
        max_duration=LONGEST_S,
        resolutions=("1280x720", "720x1280", "832x480", "480x832", "1920x1080", "any even size"),
        max_concurrent=max(1, host.cpu_count // 2),
        more={"generative": False, "camera_moves": list(MOVES)},
    )


BACKEND = Backend(
    name="draft",
    title="CPU animatic: camera moves over a picture, or from a first to a last one; not AI generated",
    generative=False,
    requires_gpu=False,
    plan=plan,
    fits_pictures=True,
    capabilities=_capabilities,
    settings=Settings,
    settings_used=frozenset({"fps", "codec"}),
    configuration_hint="Nothing to configure.",
)
