"""Decodes an untrusted video, and collects every complaint of the decoder.

It streams once over the frames of a local file, in the order in which players show them. Time and memory are limited,
and network, playlists and other files are blocked. It does not seek, and it does not judge the result (`video_facts`,
`video`).

    >>> with decoding(Path("clip.mp4")) as video:
    ...     frames = sum(1 for frame in video.frames())
    >>> frames, video.problems
    (81, ())
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import av.logging
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from ..core.files import open_regular, read_start
from .checksum_box import checksum_problem
from .picture_file import recognised
from .video_facts import quarter_turns

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    Line = tuple[int, str, str]

LIMIT_S = 600.0
MAX_SIDE = 16_384
# 8192 x 8192: a decoder keeps up to 16 reference pictures and one per thread, 30 bytes for each pixel.
MAX_PIXELS = 2**26
MAX_PROBLEMS = 20
# Self-contained formats only: a playlist (concat, hls, dash) named .mp4 opens other files.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,ogg,flv,asf,gif,mxf,yuv4mpegpipe,ivf"
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS, "max_pixels": str(MAX_PIXELS)}
_UNLISTED = "not on whitelist"
_UNSEEN: Any = [{"skip_frame": "all"}]
# PyAV's default, slice threads, never sets the damage flag of a frame: in 0 of 80 H.264 videos with flipped bits.
# Frame threads set it in 76; only 30 made the decoder log an error. More than four threads cost memory.
_THREADS = min(4, len(os.sched_getaffinity(0)))
_BOXES = frozenset(b"ftyp moov mdat free skip wide uuid moof mfra sidx ssix styp meta udta emsg prft pdin pnot".split())
# Encoders that may run in other threads of this process log into the same channel.
_NOT_DECODERS = frozenset({"libx264", "libsvtav1", "mp4", "swscaler"})
# libav has one log and one log level per process: two videos must not be decoded at once.
_LOG_LOCK = threading.Lock()


class Decoding:
    """An open video; `frames` may be iterated once."""

    def __init__(self, path: Path, lines: list[Line], limit_s: float) -> None:
        self._path = path
        self._lines = lines
        self._deadline = time.monotonic() + limit_s
        self._limit_s = limit_s
        self._notes: list[str] = []
        self._container: InputContainer | None = None
        self.stream: VideoStream | None = None
        self.container_format = ""
        self.brand = ""
        self.hidden = 0
        self.has_audio = False
        self.metadata: dict[str, str] = {}

    def open(self, *, packets_only: bool = False) -> None:
        """Open the file and find its video stream; every obstacle becomes a problem."""
        self._notes += file_problems(self._path)
        if not self._path.is_file() or self._path.stat().st_size == 0:  # opening a FIFO would wait for ever
            return
        try:
            # An absolute path, because libav reads "name:..." as a protocol.
            self._container = av.open(
                str(self._path.absolute()),
                options=_OPTIONS,
                stream_options=_UNSEEN if packets_only else None,
                metadata_errors="replace",
                timeout=self._limit_s,
            )
        except (FFmpegError, ValueError) as error:
            unlisted = any(_UNLISTED in text for _, _, text in self._lines)
            self.note(f"it cannot be opened: {self._kind() if unlisted else _reason(error)}")
            return
        self.container_format = self._container.format.name
        self.brand = self._container.metadata.get("major_brand", "")
        self.has_audio = bool(self._container.streams.audio)
        self.metadata = {key: value for key, value in self._container.metadata.items() if key not in _BRANDS}
        self.stream = self._find_stream(self._container)

    def _kind(self) -> str:
        """A description of a file that is not a readable video."""
        with contextlib.suppress(OSError):
            return recognised(self._path, read_start(self._path, 4096))
        return "it is not a video of a supported kind"

    def _find_stream(self, container: InputContainer) -> VideoStream | None:
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            self.note("it holds no video, only sound" if self.has_audio else "it holds no video")
            return None
        stream = streams[0]
        if stream.codec_context is None:
            self.note("no decoder knows its video codec")
            return None
        width, height = stream.codec_context.width, stream.codec_context.height
        if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
            self.note(f"its pictures claim {width}x{height}, more than {MAX_PIXELS:,} pixels: not decoded")
            return None
        return stream

    def frames(self, packets: Iterable[Packet[Any]] | None = None) -> Iterator[VideoFrame]:
        """Every frame that can be decoded, or those of ``packets``; the file's content never raises an error."""
        if self.stream is None:
            return
        decoder = self.stream.codec_context
        decoder.thread_type = "FRAME"
        decoder.thread_count = _THREADS
        decoder.options = {"max_pixels": _OPTIONS["max_pixels"]}
        for packet in self.packets(self.stream) if packets is None else packets:
            try:
                yield from packet.decode()
            except (FFmpegError, ValueError) as error:
                self.note(f"decoding fails: {_reason(error)}")

    def alone(self, packet: Packet[Any]) -> VideoFrame | None:
        """The frame of a packet that needs no other packet; decoding cannot continue after it."""
        found = list(self.frames([packet]))
        try:
            found += self.stream.codec_context.decode(None) if self.stream else []
        except (FFmpegError, ValueError) as error:
            self.note(f"decoding fails: {_reason(error)}")
        return found[0] if found else None

    def packets(self, *streams: VideoStream | AudioStream) -> Iterator[Packet[Any]]:
        """The stored packets of some streams; an empty packet marks the end for a decoder."""
        if self._container is None:
            return
        try:
            for packet in self._container.demux(*streams):
                if packet.is_corrupt:
                    self.note(f"the data at timestamp {packet.pts} is cut off")
                # An edit list hides this packet: it is decoded if others need it, but not shown.
                if packet.is_discard:
                    self.hidden += packet.stream.type == "video"
                yield packet
                if time.monotonic() > self._deadline:
                    self.note(f"reading takes longer than {self._limit_s:g} s: given up")
                    return
        except (FFmpegError, ValueError) as error:
            self.note(f"reading fails: {_reason(error)}")

    @property
    def is_webm(self) -> bool:
        """Whether a Matroska file declares itself as WebM."""
        with contextlib.suppress(OSError), open_regular(self._path) as file:
            return b"webm" in file.read(64)
        return False

    def stored_frames(self) -> int:
        """The number of stored pictures, including those that the edit list of a trimmed video hides from players."""
        options = {**_OPTIONS, "ignore_editlist": "1"}
        try:
            with av.open(
                str(self._path.absolute()), options=options, stream_options=_UNSEEN, timeout=self._limit_s
            ) as all_of_it:
                return sum(1 for packet in all_of_it.demux(video=0) if packet.dts is not None and not packet.is_corrupt)
        except (FFmpegError, ValueError, IndexError):
            return 0

    @property
    def tracks(self) -> tuple[VideoStream | AudioStream, ...]:
        """The video and every sound track."""
        if self._container is None or self.stream is None:
            return ()
        return (self.stream, *self._container.streams.audio)

    def note(self, problem: str) -> None:
        """Add a problem."""
        self._notes.append(problem)

    @property
    def problems(self) -> tuple[str, ...]:
        """All problems in the part of the file read so far: Reelwright's sentences and the decoder's log lines."""
        logged = [
            f"{name}: {text.strip()}"
            for _, name, text in self._lines
            if name not in _NOT_DECODERS and _UNLISTED not in text
        ]
        found = list(dict.fromkeys(self._notes + logged))
        more = len(found) - MAX_PROBLEMS
        return tuple(found[:MAX_PROBLEMS] + ([f"... and {more} more"] if more > 0 else []))

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self.stream is not None and self.stream.codec_context is not None:
            # Freeing a decoder joins its threads under the GIL, which they need to log: flushing makes them idle first.
            self.stream.codec_context.flush_buffers()
        if self._container is not None:
            self._container.close()


@contextmanager
def decoding(path: Path, limit_s: float = LIMIT_S, *, packets_only: bool = False) -> Iterator[Decoding]:
    """Open a video and close it at the end of the block; libav's error lines become the video's problems.

    With ``packets_only``, opening does not decode the first frame for its pixel format: 5 ms instead of 15 at 720p.
    A process opens one video at a time; other threads wait here.
    """
    with _captured_log() as lines:
        video = Decoding(path, lines, limit_s)
        try:
            video.open(packets_only=packets_only)
            yield video
        finally:
            video.close()


@contextmanager
def _captured_log() -> Iterator[list[Line]]:
    with _LOG_LOCK:
        level, repeated = av.logging.get_level(), av.logging.get_skip_repeated()
        # Otherwise libav drops a line equal to the last one, and a damaged video looks complete the second time.
        av.logging.set_skip_repeated(False)
        av.logging.set_level(av.logging.ERROR)
        try:
            with av.logging.Capture(False) as lines:  # False: from every thread, because decoders have their own
                yield lines
        finally:
            av.logging.set_level(level)
            av.logging.set_skip_repeated(repeated)


_BRANDS = frozenset({"major_brand", "minor_version", "compatible_brands"})


def file_problems(path: Path) -> list[str]:
    """The problems visible without decoding: no regular file, empty, incomplete mp4 boxes, or a wrong checksum."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return ["it is not a regular file"]
        if status.st_size == 0:
            return ["it is empty"]
        broken = checksum_problem(path)
        return _box_problems(path, status.st_size) + ([broken] if broken else [])
    except OSError as error:
        return [f"it cannot be read: {error.strerror or error}"]


def _box_problems(path: Path, size: int) -> list[str]:
    """Walk an mp4's top-level boxes: they must end exactly where the file ends, and one must be the index."""
    kinds: list[bytes] = []
    position = 0
    with path.open("rb") as file:
        while position < size:
            file.seek(position)
            header = file.read(16)
            kind, length = header[4:8], _box_length(header, size - position)
            if not kinds and kind != b"ftyp":
                return []  # another container
            if length < 8 or kind not in _BOXES:
                return [f"{size - position:,} bytes at {position:,} belong to no part of the file"]
            if position + length > size:
                missing = position + length - size
                return [f"it is cut off: {missing:,} bytes of its {kind.decode()!r} part are missing"]
            kinds.append(kind)
            position += length
    return [] if b"moov" in kinds else ["its index (moov) is missing: its writer did not finish"]


def _box_length(header: bytes, rest: int) -> int:
    length = int.from_bytes(header[:4])
    if length == 1:
        return int.from_bytes(header[8:16])
    return length or rest  # 0: to the end of the file


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def pixel_aspect(stream: VideoStream) -> Fraction:
    """The ratio of width to height at which a player shows a stored pixel."""
    ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return ratio if ratio and ratio > 0 else Fraction(1)


def to_rgb(frame: VideoFrame, width: int | None = None, height: int | None = None) -> NDArray[np.uint8]:
    """A frame as upright RGB, height x width x 3, optionally scaled (sizes before any rotation).

    The colour matrix is the one that the file names. A file without a tag is read as BT.601, ffmpeg's default for
    every size: BT.709 would shift its colours.
    """
    spaces = {
        1: Colorspace.ITU709,
        4: Colorspace.FCC,
        7: Colorspace.SMPTE240M,
        9: Colorspace.BT2020,
        10: Colorspace.BT2020,
    }
    picture = frame.reformat(
        width=width,
        height=height,
        format="rgb24",
        src_colorspace=spaces.get(frame.colorspace, Colorspace.ITU601),
        dst_color_range=ColorRange.JPEG,
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT,
    ).to_ndarray()
    return np.ascontiguousarray(np.rot90(picture, quarter_turns(frame)), dtype=np.uint8)
