"""Writes an mp4: encodes pictures while they are rendered, or copies a video with other tags.

It does not verify the result (`verification`), and it does not publish it.

    >>> with VideoWriter(path, Size(1280, 720), 16, Encoding(), {"title": "Sea"}) as video:
    ...     for picture in pictures:
    ...         video.write(picture)  # RGB, uint8, height x width x 3
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, cast

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from ..core.errors import ConfigurationError, Failure, OutputError, error_for
from ..core.files import path_error
from .checksum_box import append_checksum
from .decoding import Decoding, decoding

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from ..core.request import Size

    Codec = Literal["h264", "av1"]

_MOVFLAGS = {"movflags": "+faststart+use_metadata_tags"}
_MOST = {"h264": (16384, 16384), "av1": (16384, 8704)}
_MARGIN, _MOST_AREA = 128, 2**28  # pixels: libav's limit for the area, with a margin on both sides
_AHEAD = 4  # frames that wait for the encoder: 11 MB at 1280x720


@dataclass(frozen=True)
class Encoding:
    """The settings of an encoder.

    81 frames of a noisy panned 1280x720 picture, 2 cores, crf 18, no B-frames: x264 superfast 0.74 s,
    45.5 dB, 4.3 MB; veryfast 1.20 s, 44.3 dB, 3.6 MB; ultrafast 0.75 s, 46.1 dB, 11 MB.

    Attributes:
        codec: ``h264`` (libx264, GPL) or ``av1`` (SVT-AV1, BSD).
        preset, crf: ``None`` is Reelwright's default for the codec.
        threads: Fixed, because x264's bytes depend on it, and a replay on another machine must give the same bytes.
    """

    codec: Codec = "h264"
    preset: str | None = None
    crf: int | None = None
    threads: int = 4

    @property
    def encoder(self) -> str:
        """libav's name of the encoder."""
        return {"h264": "libx264", "av1": "libsvtav1"}[self.codec]

    def options(self) -> dict[str, str]:
        """The encoder's private options."""
        preset, crf = {"h264": ("superfast", 18), "av1": ("9", 30)}[self.codec]
        options = {"preset": self.preset or preset, "crf": str(crf if self.crf is None else self.crf)}
        if self.codec == "av1":
            return {**options, "svtav1-params": f"lp={max(1, self.threads // 2)}"}
        # Without B-frames the last frame shown is the last one stored: clips can be joined by dropping it, without
        # encoding again (with B-frames, other frames referred to it in 8 of 8 cases). Stitchable: the decoder's
        # settings are equal for every crf (else x264 stores it there as pic_init_qp), so a film may mix crf values.
        return {**options, "bf": "0", "x264-params": "stitchable=1"}


def size_problem(size: Size, codec: Codec) -> str:
    """The reason why a codec cannot encode a size; empty if it can.

    Both sides must be even, because yuv420p stores colours at half the size. libx264 takes up to 16384 pixels a side,
    SVT-AV1 up to 16384x8704 (tried with both). libav opens no encoder above an area (av_image_check_size2).
    """
    if size.width % 2 or size.height % 2 or min(size) < 2:
        return f"a video of {size} cannot be encoded: both sides must be even"
    width, height = _MOST[codec]
    if size.width > width or size.height > height:
        return f"a video of {size} cannot be encoded: the limit of {codec} is {width}x{height}"
    if (size.width + _MARGIN) * (size.height + _MARGIN) >= _MOST_AREA:
        return f"a video of {size} cannot be encoded: libav takes about 16250x16250 at most"
    return ""


class VideoWriter:
    """Writes an mp4; the encoder works in another thread while the caller renders.

    Leaving the ``with`` block closes the video; leaving it by an exception aborts it, which removes the file.
    Errors of the encoder and the disk surface at the next `write` or at `close`, and the file is then removed.
    `close` and `abort` may be called twice and after each other.
    """

    def __init__(
        self, path: Path, size: Size, fps: Fraction | float, encoding: Encoding, metadata: Mapping[str, str]
    ) -> None:
        problem = size_problem(size, encoding.codec)
        if problem:
            raise ConfigurationError(problem, advice="Choose another size.")
        if encoding.codec == "av1":
            os.environ.setdefault("SVT_LOG", "1")  # otherwise SVT-AV1 writes 15 lines about itself to stderr
        self._path = path
        self._shape = (size.height, size.width, 3)
        self._tick = 1 / Fraction(fps).limit_denominator(1001)
        self._count = 0
        self._open = True
        self._reformatter = VideoReformatter()
        self._pending: deque[Future[None]] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder")
        try:
            with explained(path):
                self._container = create_container(path, metadata)
                stream = self._container.add_stream(encoding.encoder, 1 / self._tick, encoding.options())
                self._stream = cast("VideoStream", stream)
                self._prepare(size, encoding)
                self._container.start_encoding()
        except BaseException:
            self.abort()
            raise

    def _prepare(self, size: Size, encoding: Encoding) -> None:
        encoder = self._stream.codec_context
        encoder.width, encoder.height, encoder.pix_fmt = size.width, size.height, "yuv420p"
        encoder.color_range = ColorRange.MPEG
        encoder.colorspace = Colorspace.ITU709
        encoder.color_primaries = ColorPrimaries.BT709
        encoder.color_trc = ColorTrc.BT709
        if encoding.codec == "h264":
            encoder.thread_count = encoding.threads

    def write(self, picture: NDArray[np.uint8]) -> None:
        """Add a frame: RGB, uint8, height x width x 3. It is copied, so the array may be reused at once."""
        if not self._open:
            raise ValueError("the video is closed")
        if picture.shape != self._shape or picture.dtype != np.uint8:
            raise ValueError(f"a frame must be uint8 {self._shape}, not {picture.dtype} {picture.shape}")
        self._settle(_AHEAD - 1)
        frame = VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = self._count, self._tick
        self._count += 1
        self._pending.append(self._thread.submit(self._encode, frame))

    def _settle(self, limit: int) -> None:
        """Wait until the encoder has at most ``limit`` frames left, and raise its errors."""
        try:
            while self._pending and (len(self._pending) > limit or self._pending[0].done()):
                with explained(self._path):
                    self._pending.popleft().result()
        except BaseException:
            self.abort()
            raise

    def _encode(self, frame: VideoFrame | None) -> None:
        if frame is not None:
            # swscale's default matrix is BT.601 for every size: the colours would shift more with each chained clip.
            frame = self._reformatter.reformat(
                frame, format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        if frame is None:
            self._container.close()
            append_checksum(self._path)

    def close(self) -> None:
        """Finish the video.

        Raises:
            OutputError: no frame was written.
            BackendUnavailableError: the disk is full or cannot be written.
        """
        if not self._open:
            return
        if not self._count:
            self.abort()
            raise OutputError(f"{self._path} was closed without a single frame")
        self._pending.append(self._thread.submit(self._encode, None))
        self._settle(0)
        self._open = False
        self._thread.shutdown()

    def abort(self) -> None:
        """Stop, close all files and remove the unfinished one; after `close` it does nothing."""
        if not self._open:
            return
        self._open = False
        self._thread.shutdown(cancel_futures=True)
        if hasattr(self, "_container"):
            with contextlib.suppress(FFmpegError, OSError, ValueError):
                self._container.close()
            self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def create_container(path: Path, metadata: Mapping[str, str]) -> OutputContainer:
    """An mp4 to write into, with disk space for its header already reserved."""
    with path.open("wb") as file:
        try:  # space for the header: libav never closes a file whose header it could not write
            file.write(bytes(4096))
            file.flush()
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
            raise
    container = av.open(str(path.absolute()), "w", format="mp4", options=_MOVFLAGS)
    container.metadata.update(metadata)
    return container


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of libav and the system while a file is written into `VideoGenerationError`."""
    try:
        yield
    except (FFmpegError, OSError) as error:
        why = error.strerror or str(error)
        found = path_error(OSError(error.errno, why), path, "be written")
        if found.failure is Failure.INPUT:  # the name is Reelwright's and not at fault
            found = error_for(Failure.CRASH, f"{path} cannot be written: {why}")
        raise found from error


def write_metadata(source: Path, target: Path, metadata: Mapping[str, str]) -> None:
    """Copy a video with more tags; pictures and sound stay unchanged and are not encoded again.

    Raises:
        OutputError: the source cannot be read.
        BackendUnavailableError: the target cannot be written; it is removed.
        ValueError: the target is the source.
    """
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} would be overwritten while it is read")
    with decoding(source) as video, explained(target):
        if video.stream is None:
            raise OutputError(f"{source} cannot be copied", evidence=video.problems)
        container = create_container(target, {**video.metadata, **metadata})
        try:
            with container:
                _copy_tracks(video, container)
            if video.problems:
                raise OutputError(f"{source} cannot be copied completely", evidence=video.problems)
            append_checksum(target)
        except BaseException:
            # A confined process cannot remove a file: the process that created it does.
            with contextlib.suppress(OSError):
                target.unlink()
            raise


def add_copied(container: OutputContainer, track: VideoStream | AudioStream) -> VideoStream | AudioStream:
    """Add a track for another video's packets. Opaque: else PyAV looks for an encoder libdav1d, which is a decoder."""
    return container.add_stream_from_template(track, opaque=True)


def _copy_tracks(video: Decoding, container: OutputContainer) -> None:
    copies = {track.index: add_copied(container, track) for track in video.tracks}
    for packet in video.packets(*video.tracks):
        if packet.dts is not None:  # the empty packet at the end has none
            packet.stream = copies[packet.stream.index]
            container.mux(packet)
