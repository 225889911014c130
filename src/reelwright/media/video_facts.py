"""Computes the facts of a video from its decoded frames.

`VideoFacts` is compared with an expectation, stored in the manifest and printed by ``reel probe``. `decoding` opens and
decodes the video.

    >>> facts.num_frames, facts.codec, facts.problems
    (81, 'h264', ())
    >>> facts.differences(ExpectedVideo(1280, 720, 81, 16.0))
    ()
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from av.video.frame import supported_np_pix_fmts

from .plain_frames import Plainness

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from numpy.typing import NDArray

    from ..core.plan import ExpectedVideo

#: The common names of containers, by the start of libav's name.
CONTAINERS = {
    "mov": "MP4",
    "matroska": "Matroska",
    "avi": "AVI",
    "mpegts": "MPEG-TS",
    "mpeg": "MPEG-PS",
    "ogg": "Ogg",
    "flv": "Flash Video (FLV)",
    "asf": "Windows Media (ASF, WMV)",
    "gif": "animated GIF",
    "mxf": "MXF",
    "yuv4mpegpipe": "YUV4MPEG2 (Y4M)",
    "ivf": "IVF",
}
#: The common names of codecs, by libav's name.
CODECS = {
    "h264": "H.264 (AVC)",
    "hevc": "H.265 (HEVC)",
    "vvc": "H.266 (VVC)",
    "av1": "AV1",
    "vp8": "VP8",
    "vp9": "VP9",
    "mpeg1video": "MPEG-1",
    "mpeg2video": "MPEG-2",
    "mpeg4": "MPEG-4 Part 2 (DivX, Xvid)",
    "msmpeg4v3": "MPEG-4 of Microsoft (DivX 3)",
    "flv1": "Sorenson Spark (H.263)",
    "h263": "H.263",
    "vp6f": "VP6",
    "wmv1": "Windows Media Video 7",
    "wmv2": "Windows Media Video 8",
    "wmv3": "Windows Media Video 9",
    "vc1": "VC-1",
    "mjpeg": "Motion JPEG",
    "prores": "ProRes",
    "dnxhd": "DNxHD, DNxHR",
    "ffv1": "FFV1",
    "theora": "Theora",
    "gif": "GIF",
    "rawvideo": "uncompressed",
}
FPS_TOLERANCE = 0.001  # 24000/1001 differs from 24 by more, a millisecond clock (Matroska) by less
_NAMES = {
    1: "bt709",
    0: "rgb",
    2: "",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "linear",
    9: "bt2020",
    10: "bt2020c",
    11: "dci-p3",
    12: "display-p3",
    13: "srgb",
    16: "smpte2084 (PQ)",
    18: "arib-std-b67 (HLG)",
}
_SAMPLING = 4  # every 4th pixel of every 4th row is enough for brightness
_BLACK = 0.035  # of the range: 8 steps above black
_FINE = 8  # ticks of the clock per frame: fewer cannot separate one rate from another


@dataclass(frozen=True)
class VideoFacts:
    """The result of a full decode.

    Attributes:
        width, height: As shown, after any rotation.
        num_frames: Decoded frames.
        fps: From the timestamps of the first and last frame; the file's nominal rate if it matches them after rounding.
        seconds: ``num_frames / fps``.
        codec, pix_fmt: libav's names; `CODECS` has the common ones.
        container: Its common name.
        pixel_aspect: Width to height of one pixel as shown (SAR); ``1:1`` is square.
        trimmed: Stored frames that an edit list keeps players from showing.
        colour: ``space``, ``primaries``, ``transfer``, ``range``; empty if the file does not declare them.
        rotation: Degrees by which a player turns the pictures.
        constant_rate: Whether every interval is within a quarter of the mean.
        has_audio: Whether there is a sound track (it is not decoded).
        metadata: The tags of the file.
        bytes, sha256: Of the file.
        frames_sha256: Of the decoded planes in order: equal for the same pictures in another container.
        mean_luma: 0 (black) to 1 (white), over the whole video.
        is_black: Whether no pixel of any frame is brighter than black.
        problems: Reasons not to trust the video; empty for a complete one.
        warnings: Remarks that a person should check.
    """

    width: int = 0
    height: int = 0
    num_frames: int = 0
    fps: float = 0.0
    seconds: float = 0.0
    codec: str = ""
    pix_fmt: str = ""
    colour: Mapping[str, str] = field(default_factory=dict)
    rotation: int = 0
    constant_rate: bool = True
    has_audio: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    bytes: int = 0
    sha256: str = ""
    frames_sha256: str = ""
    mean_luma: float = 0.0
    is_black: bool = False
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    container: str = ""
    pixel_aspect: str = "1:1"
    trimmed: int = 0

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height as a player shows them on square pixels."""
        wide, high = (int(part) for part in self.pixel_aspect.split(":"))
        if self.rotation % 180:
            wide, high = high, wide
        return round(self.width * wide / high), self.height

    def differences(self, expected: ExpectedVideo) -> tuple[str, ...]:
        """The differences from an expectation, one sentence each."""
        found = []
        if self.num_frames != expected.num_frames:
            found.append(f"it has {self.num_frames} frames instead of {expected.num_frames}")
        if (self.width, self.height) != (expected.width, expected.height):
            found.append(f"it is {self.width}x{self.height} instead of {expected.width}x{expected.height}")
        if abs(self.fps - expected.fps) > FPS_TOLERANCE * expected.fps:
            found.append(f"it runs at {self.fps:g} fps instead of {expected.fps:g}")
        if not self.constant_rate:
            found.append("its frames are not evenly spaced in time")
        if abs(self.shown[0] - self.width) > 0.02 * self.width:
            found.append(
                f"its pixels are not square ({self.pixel_aspect}): players show {self.shown[0]}x{self.shown[1]}"
            )
        if self.rotation:
            found.append(f"players turn it by {self.rotation} degrees")
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values; ``num_frames`` is called ``frames`` as everywhere in JSON."""
        data = asdict(self)
        data["frames"] = data.pop("num_frames")
        return {**data, "problems": list(self.problems), "warnings": list(self.warnings)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> VideoFacts:
        """The facts that `to_json` wrote; missing fields take their defaults, unknown ones are ignored."""
        known = {item.name for item in fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        for key in ("problems", "warnings"):
            values[key] = tuple(values.get(key, ()))
        return cls(**values, **({"num_frames": data["frames"]} if "frames" in data else {}))


class Tally:
    """Counts, times and hashes the frames of one video while it is decoded."""

    def __init__(self, *, hash_frames: bool, in_order: bool = False) -> None:
        """With ``in_order`` the file has no display times (AVI): the sorted times belong to the frames in order."""
        self._in_order = in_order
        self._tick = Fraction(0)
        self._hash = hashlib.sha256() if hash_frames else None
        self._luma_sum = 0.0
        self._peak = 0.0
        self._plainness = Plainness()
        self._times: list[Fraction | None] = []
        self._damaged: list[int] = []
        self._shape = (0, 0, "")
        self._problems: list[str] = []
        self.first: VideoFrame | None = None

    @property
    def count(self) -> int:
        """The number of frames so far."""
        return len(self._times)

    def add(self, frame: VideoFrame) -> None:
        """Add the next frame."""
        shape = (frame.width, frame.height, frame.format.name)
        if self.first is None:
            self.first = frame
            self._tick = frame.time_base or self._tick
        elif shape != self._shape:
            self._problems.append(f"frame {self.count} is {shape}, the one before is {self._shape}")
        if self._hash and shape != self._shape:
            self._hash.update(f"{shape}\n".encode())
        self._shape = shape
        if frame.is_corrupt:
            self._damaged.append(self.count)
        self._times.append(frame.pts * frame.time_base if frame.pts is not None and frame.time_base else None)
        mean, least, peak, luma = _brightness(frame)
        self._luma_sum += mean
        self._peak = max(self._peak, peak)
        self._plainness.add(frame, peak - least, luma)
        if self._hash:
            for pixels in _pixels(frame):
                self._hash.update(pixels.data)

    @property
    def problems(self) -> tuple[str, ...]:
        """Damage that the decoder hid, and timestamps that do not increase."""
        found = list(self._problems)
        if self._damaged:
            found.append(f"{len(self._damaged)} frames are damaged, the first is frame {self._damaged[0]}")
        if None in self._times:
            found.append(f"frame {self._times.index(None)} has no timestamp")
        else:
            falling = [n for n, step in enumerate(self._steps(), 1) if step <= 0]
            found += [f"the timestamp of frame {n} does not rise" for n in falling[:3]]
        return tuple(found)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Remarks that a person should check; they do not refuse a video."""
        return self._plainness.warnings()

    def _steps(self) -> list[Fraction]:
        times = [time for time in self._times if time is not None]
        if self._in_order:
            times.sort()
        return [after - before for before, after in pairwise(times)]

    def measured(self, nominal_fps: Fraction | None) -> dict[str, Any]:
        """The fields of `VideoFacts` that come from all frames; a single frame has the nominal rate."""
        steps, fps = self._steps(), float(nominal_fps or 0)
        mean = sum(steps, Fraction(0)) / max(1, len(steps))
        if mean > 0 and not self._is_rounded(nominal_fps, sum(steps, Fraction(0))):
            fps = float(1 / mean)
        return {
            "num_frames": self.count,
            "fps": fps,
            "seconds": self.count / fps if fps else 0.0,
            "constant_rate": all(abs(step - mean) <= mean / 4 for step in steps),
            "frames_sha256": self._hash.hexdigest() if self._hash and self.count else "",
            "mean_luma": round(self._luma_sum / max(1, self.count), 4),
            "is_black": self.count > 0 and self._peak <= _BLACK,
        }

    def _is_rounded(self, fps: Fraction | None, span: Fraction) -> bool:
        """Whether frames that take ``span`` seconds from first to last run at ``fps``, as far as the clock is exact."""
        if not fps or self._tick * _FINE * fps > 1:
            return False
        return abs(span - (self.count - 1) / fps) <= self._tick


def look_of(frame: VideoFrame) -> dict[str, Any]:
    """The fields of `VideoFacts` that come from one frame: size as shown, pixel format, colour tags, rotation."""
    turns = quarter_turns(frame)
    turned = turns % 2 != 0
    return {
        "width": frame.height if turned else frame.width,
        "height": frame.width if turned else frame.height,
        "pix_fmt": frame.format.name,
        "rotation": 90 * turns,
        "colour": {
            "space": _name(frame.colorspace),
            "primaries": _name(frame.color_primaries),
            "transfer": _name(frame.color_trc),
            "range": {1: "tv", 2: "pc"}.get(frame.color_range, ""),
        },
    }


def quarter_turns(frame: VideoFrame) -> int:
    """The quarter turns to the left that a player gives a frame; any other rotation is damage and counts as 0."""
    turns = round(frame.rotation / 90)
    return turns % 4 if abs(frame.rotation - 90 * turns) <= 1 else 0


def _name(code: int) -> str:
    return _NAMES.get(int(code), str(int(code)))


def _pixels(frame: VideoFrame) -> Iterator[NDArray[Any]]:
    """The visible pixels of every plane; the padding of a row is undefined and differs between runs."""
    parts = frame.format.components
    if len(parts) != len(frame.planes):
        simple = frame if frame.format.name in supported_np_pix_fmts else frame.reformat(format="rgb24")
        yield np.ascontiguousarray(simple.to_ndarray())
        return
    for plane, part in zip(frame.planes, parts, strict=True):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)
        yield np.ascontiguousarray(rows[:, : plane.width * ((part.bits + 7) // 8)])


def _brightness(frame: VideoFrame) -> tuple[float, float, float, NDArray[np.uint8]]:
    """Mean, least and greatest luma, from 0 to 1 of the frame's range; and the sampled luma, in levels.

    The least and the greatest are those of all pixels, because a star may be a single pixel.
    """
    full = frame.color_range == 2 or frame.format.name.startswith("yuvj")
    if not frame.format.name.startswith("yuv") or frame.format.components[0].bits != 8:
        frame, full = frame.reformat(format="gray"), True
    plane = frame.planes[0]
    whole = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)[:, : plane.width]
    luma = whole[::_SAMPLING, ::_SAMPLING]
    black, span = (0, 255) if full else (16, 219)
    mean, least, peak = (max(0.0, float(level) - black) / span for level in (luma.mean(), whole.min(), whole.max()))
    return mean, least, peak, luma
