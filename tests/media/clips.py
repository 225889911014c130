"""Tiny films made on the spot: each frame carries its number, so that no frame can be mistaken for another.

Whole ones by `VideoWriter` (`a_clip`) or by libav directly (`a_foreign_clip`), and ways to break them.
"""

from __future__ import annotations

import random
import resource
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from reelwright.core.plan import ExpectedVideo
from reelwright.core.request import Size
from reelwright.media import verification
from reelwright.media.video_facts import VideoFacts
from reelwright.media.writer import Encoding, VideoWriter

Picture = NDArray[np.uint8]
SMALL = Size(96, 64)
PROMISE = ExpectedVideo(96, 64, 9, 16.0)  # of `a_clip` and `a_foreign_clip` without arguments
FOREIGN: dict[str, dict[str, Any]] = {
    "constant rate": {},
    "B-frames": {"options": {"bf": "3", "preset": "medium"}},
    "uneven timing": {"times": (0, 1, 2, 3, 7, 8, 12, 13, 20)},
    "uneven timing and B-frames": {"times": (0, 1, 2, 3, 7, 8, 12, 13, 20), "options": {"bf": "3"}},
    "sound": {"sound": True},
}
_BITS = 8


def a_picture(number: int, size: Size = SMALL) -> Picture:
    """A moving gradient with grain under a strip of eight black or white blocks: the number in binary."""
    rows, columns = np.mgrid[: size.height, : size.width]
    grain = np.random.default_rng(number).integers(0, 24, (size.height, size.width))
    waves = [128 + 80 * np.sin((columns + rows * slope + 3 * number) / 9) + grain for slope in (0.3, 1.0, -0.6)]
    picture: Picture = np.clip(np.stack(waves, axis=-1), 0, 255).astype(np.uint8)
    block = size.width // _BITS
    for bit in range(_BITS):
        picture[: size.height // 4, bit * block : (bit + 1) * block] = 255 if number >> bit & 1 else 0
    return picture


def verify(path: Path, expected: ExpectedVideo) -> VideoFacts:
    """The facts of a video that `verification` accepts."""
    return VideoFacts.from_json(verification.verify(path, expected, apart=False))


def number_in(picture: Picture) -> int:
    """The number that `a_picture` painted."""
    height, width = picture.shape[:2]
    block = width // _BITS
    row = picture[height // 8, :, 1]
    return sum(int(row[bit * block + block // 2] > 127) << bit for bit in range(_BITS))


def a_clip(
    path: Path,
    frames: int = 9,
    *,
    size: Size = SMALL,
    fps: Fraction | float = 16,
    encoding: Encoding | None = None,
    metadata: Mapping[str, str] | None = None,
    pictures: Iterable[Picture] | None = None,
) -> Path:
    """A video by Reelwright's writer."""
    with VideoWriter(path, size, fps, encoding or Encoding(), metadata or {}) as film:
        for picture in pictures or (a_picture(number, size) for number in range(frames)):
            film.write(picture)
    return path


def a_foreign_clip(
    path: Path,
    frames: int = 9,
    *,
    size: Size = SMALL,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    times: Sequence[int] | None = None,
    sound: bool = False,
    movflags: str = "+faststart",
    file_format: str | None = None,
    fps: Fraction = Fraction(16),
) -> Path:
    """A video by libav, at ``fps`` unless `times` (in frames at that rate) says otherwise."""
    with av.open(
        str(path), "w", file_format, options={"movflags": movflags} if movflags and path.suffix == ".mp4" else {}
    ) as container:
        # The bytes of x264 depend on its threads, whose number would be that of this machine's processors.
        stream: Any = container.add_stream(codec, fps, {"threads": "2", **(options or {})})
        stream.width, stream.height, stream.pix_fmt = size.width, size.height, pix_fmt
        stream.codec_context.time_base = 1 / fps
        if sound:
            _add_sound(container)
        for number, time in zip(range(frames), times or range(frames), strict=False):
            frame = av.VideoFrame.from_ndarray(a_picture(number, size), format="rgb24")
            frame.pts, frame.time_base = time, 1 / fps
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _add_sound(container: av.container.OutputContainer) -> None:
    stream = container.add_stream("aac", 48_000)
    for number in range(12):
        tone = np.sin(np.arange(1024) / (9 + number)).astype(np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48_000, number * 1024
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def patched(path: Path, change: Callable[[bytearray], Any]) -> Path:
    """A copy beside the film whose bytes went through `change` (in place, or it returns the new bytes)."""
    data = bytearray(path.read_bytes())
    target = path.with_name(f"patched-{path.name}")
    target.write_bytes(change(data) or data)
    return target


def cut(path: Path, share: float) -> Path:
    """Only the first part of the file is there."""
    return patched(path, lambda data: data[: int(len(data) * share)])


def with_flipped_bit(path: Path, seed: int, *, anywhere: bool = False) -> Path:
    """One bit in the coded pictures, or anywhere in the file, is another."""
    return patched(path, lambda data: _flip(data, random.Random(seed), 0 if anywhere else _first_picture(data)))


def with_random_bytes(path: Path, seed: int, count: int = 400) -> Path:
    """Some bytes in a row within the coded pictures are noise."""

    def scribble(data: bytearray) -> None:
        chance = random.Random(seed)
        start = chance.randrange(_first_picture(data), len(data) - count)
        data[start : start + count] = chance.randbytes(count)

    return patched(path, scribble)


def turned(path: Path) -> Path:
    """Players show it turned by 90 degrees: the matrix of the track header (the second one) is a rotation."""
    plain = b"".join(number.to_bytes(4) for number in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
    turn = b"".join(number.to_bytes(4, signed=True) for number in (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30))
    assert len(plain) == len(turn)

    def turn_track(data: bytearray) -> None:
        if data[-52:-48] == b"uuid":
            del data[-56:]  # the checksum: this video is another program's
        at = data.index(plain, data.index(plain) + 1)
        data[at : at + len(turn)] = turn

    return patched(path, turn_track)


def _first_picture(data: bytearray) -> int:
    return data.index(b"mdat") + 4


def _flip(data: bytearray, chance: random.Random, start: int) -> None:
    data[chance.randrange(start, len(data))] ^= 1 << chance.randrange(8)


def numbers_in(path: Path) -> list[int]:
    """The number of every frame of a film."""
    with av.open(str(path)) as container:
        return [
            number_in(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)) for frame in container.decode(video=0)
        ]


def open_files() -> set[tuple[str, str]]:
    """The numbers of the open descriptors of this process, and what each is open on."""
    return {(link.name, str(link.readlink())) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Stands for a full disk: no file of this process may grow beyond the limit (the kernel says EFBIG)."""
    before, writes_none = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    # Python leaves a .pyc that was cut off by the limit, and no process can import that module any more.
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = writes_none


def trimmed(path: Path, frames: int, *, until: int | None = None) -> Path:
    """The film without its first ``frames`` (and those from ``until`` on), as editors trim without encoding: an edit list."""
    target = path.with_name(f"trimmed-{path.name}")
    with av.open(str(path)) as source, av.open(str(target), "w") as copy:
        track = copy.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.dts is None or packet.pts is None:
                continue
            ticks = round(frames / 16 / packet.time_base)
            last = until is not None and packet.pts >= round(until / 16 / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts - ticks, packet.dts - ticks, track
            if not last:
                copy.mux(packet)
    return target
