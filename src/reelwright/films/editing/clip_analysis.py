"""Analyses a clip for a film: its header, whether it decodes, how it moves, and some small pictures.

A clip is decoded once and then copied into many versions of a film, so the result is cached under the clip's SHA-256.
It has the digest of exactly those packets that decoded without an error (`proof` verifies the film with it), the
differences of neighbouring frames (`joining` judges joints by them), and the tiles of the contact sheet. Only verified
files may be analysed.

    >>> analysis = analyse(VerifiedClip(clip, digest), 80, cache)
    >>> analysis.frames, len(analysis.differences), len(analysis.tiles)
    (80, 79, 6)
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...core.errors import OutputError
from ...core.files import read_bytes
from ...media.decoding import Decoding, decoding, to_rgb
from ...media.sheet import spread
from ...media.video_facts import Tally
from .artifact_cache import ArtifactCache, cache_key

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    Pixels = NDArray[np.uint8]

#: Reading a complete film may take long; this limit only stops a read that would never end.
FILM_LIMIT_S = 24 * 3600.0
_TILES = 6
_TILE_AREA = 22_500  # 200x112
_BLOCK = 8  # pixels a side
_MAX_BYTES = 256 * 1024 * 1024
_DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, MemoryError, zipfile.BadZipFile)


@dataclass(frozen=True)
class VerifiedClip:
    """A verified clip and its SHA-256."""

    video: Path
    digest: str


# --- the header


@dataclass(frozen=True)
class ClipFacts:
    """The facts in a clip's header and timestamps, read without decoding.

    Attributes:
        kind: The properties that must be equal for two clips to share one track: codec, size, pixel format, colours,
            the decoder's settings (they differ between qualities of one encoder), clock and frame rate.
        size: Width and height in pixels.
        fps: Frames per second.
        b_frames: Whether frames are stored in another order than they are shown.
        count: Number of frames.
    """

    kind: tuple[str, ...]
    size: tuple[int, int]
    fps: Fraction
    b_frames: bool
    count: int

    def to_json(self) -> dict[str, Any]:
        """The facts as JSON values."""
        return {**asdict(self), "fps": str(self.fps)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClipFacts:
        """The facts that `to_json` gave."""
        width, height = data["size"]
        return cls(tuple(data["kind"]), (width, height), Fraction(data["fps"]), data["b_frames"], data["count"])


def cached_facts(source: VerifiedClip, cache: ArtifactCache) -> ClipFacts:
    """A clip's `ClipFacts`, from the cache or read now."""
    name = f"{cache_key(facts=1, clip=source.digest)}.json"
    return ClipFacts.from_json(cache.value(name, lambda: clip_facts(source.video).to_json()))


def clip_facts(video: Path) -> ClipFacts:
    """Read a clip's header and the timestamps of its packets.

    Raises:
        OutputError: it cannot be read.
    """
    with decoding(video, FILM_LIMIT_S) as clip:
        stream = clip.stream
        if stream is None or not stream.average_rate:
            raise OutputError(f"{video} cannot be joined", evidence=clip.problems)
        stamps = [(packet.pts, packet.dts) for packet in clip.packets(stream) if packet.dts is not None]
        demand_whole(video, clip.problems)
        shuffled = any(pts != dts for pts, dts in stamps)
        size = (stream.codec_context.width, stream.codec_context.height)
        return ClipFacts(kind_of(stream), size, Fraction(stream.average_rate), shuffled, len(stamps))


def kind_of(stream: VideoStream) -> tuple[str, ...]:
    """See `ClipFacts.kind`; the clock and the frame rate come last."""
    codec = stream.codec_context
    colours = (codec.color_range, codec.colorspace, codec.color_primaries, codec.color_trc)
    return (
        codec.name,
        f"{codec.width}x{codec.height}",
        str(codec.pix_fmt),
        " ".join(str(int(value)) for value in colours),
        bytes(codec.extradata or b"").hex(),
        str(stream.time_base),
        str(stream.average_rate),
    )


def demand_whole(video: Path, problems: tuple[str, ...] | list[str]) -> None:
    """Raise `OutputError` if a clip has problems."""
    if problems:
        raise OutputError(f"{video} cannot be read completely", evidence=problems)


# --- the pictures


@dataclass(frozen=True)
class ClipAnalysis:
    """The analysis of the first frames of a clip, as many as a film shows.

    Its pictures stay on disk, because a film may have hundreds of clips.

    Attributes:
        frames: Number of frames.
        packets: Digest of their packets, see `PacketDigest`.
        differences: Differences of neighbouring frames, in levels of brightness.
        mean_luma, is_black: As in `VideoFacts`.
        file: The cached file.
    """

    frames: int
    packets: str
    differences: NDArray[np.float64]
    mean_luma: float
    is_black: bool
    file: Path

    @property
    def first(self) -> NDArray[np.float32]:
        """Brightness of the blocks of the first frame."""
        return self._picture("first")

    @property
    def last(self) -> NDArray[np.float32]:
        """Brightness of the blocks of the last frame."""
        return self._picture("last")

    @property
    def tiles(self) -> Sequence[Pixels]:
        """Small pictures, evenly spread."""
        return tuple(self._picture("tiles"))

    def _picture(self, name: str) -> NDArray[Any]:
        with np.load(self.file) as arrays:
            return np.asarray(arrays[name])


class PacketDigest:
    """A digest of packets as a player reads them: their bytes, their sizes, and where playing may begin."""

    def __init__(self) -> None:
        self._content = hashlib.sha256()

    def add(self, packet: Packet[Any]) -> None:
        """Add the next packet."""
        self._content.update(f"{packet.size} {packet.is_keyframe}\n".encode())
        self._content.update(packet)

    def value(self) -> str:
        """The digest of all packets so far."""
        return self._content.hexdigest()


def analyse(source: VerifiedClip, frames: int, cache: ArtifactCache) -> ClipAnalysis:
    """The analysis of the first ``frames`` of a clip, from the cache or by decoding them.

    Raises:
        OutputError: they do not all decode without errors, or the cached file cannot be read back.
    """
    name = f"{cache_key(analysis=1, clip=source.digest, frames=frames)}.npz"
    path = cache.find(name)
    found = _loaded(path) if path else None
    if found is None:
        content = _decoded(source.video, frames, name)
        found = _loaded(cache.put(name, lambda unfinished: unfinished.write_bytes(content)))
    if found is None:
        raise OutputError(f"{cache.folder / name} cannot be read back", advice="Check the disk.")
    return found


def _decoded(video: Path, frames: int, name: str) -> bytes:
    """Decode the frames; return the content of the cached file.

    The content includes the file's name, so that a file that was swapped with another counts as damaged.
    """
    tally, digest, wanted = Tally(hash_frames=False), PacketDigest(), set(spread(frames, _TILES))
    differences: list[float] = []
    tiles: list[Pixels] = []
    first = last = np.zeros((0, 0), np.float32)
    with decoding(video, FILM_LIMIT_S) as clip:
        for number, frame in enumerate(clip.frames(_first_packets(clip, frames, digest))):
            tally.add(frame)
            now = _block_means(frame)
            if number == 0:
                first = now
            else:
                differences.append(difference(last, now))
            last = now
            if number in wanted:
                tiles.append(_tile(frame))
        problems = [*clip.problems, *tally.problems]
    if tally.count != frames:
        problems.insert(0, f"{tally.count} of {frames} frames can be decoded")
    demand_whole(video, problems)
    measured = tally.measured(None)
    facts = {"name": name, "packets": digest.value(), **{key: measured[key] for key in ("mean_luma", "is_black")}}
    target = io.BytesIO()
    np.savez(
        target,
        facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
        differences=np.array(differences, np.float64),
        first=first,
        last=last,
        tiles=np.stack(tiles),
    )
    return target.getvalue()


def _first_packets(clip: Decoding, frames: int, digest: PacketDigest) -> Iterator[Packet[Any]]:
    assert clip.stream is not None
    taken = 0
    for packet in clip.packets(clip.stream):
        if packet.dts is None:
            yield packet  # the empty packet, after which a decoder returns its last frames
        elif taken < frames:
            digest.add(packet)
            yield packet
            taken += 1


def _tile(frame: VideoFrame) -> Pixels:
    scale = math.sqrt(_TILE_AREA / (frame.width * frame.height))
    return to_rgb(frame, max(2, round(frame.width * scale)), max(2, round(frame.height * scale)))


def _block_means(frame: VideoFrame) -> NDArray[np.float32]:
    """The mean brightness of each block of a frame. Grain and coding noise, which differ between clips, cancel out."""
    plane = frame.planes[0]
    luma = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:, : plane.width]
    size = (max(1, plane.width // _BLOCK), max(1, plane.height // _BLOCK))
    return np.asarray(cv2.resize(luma.astype(np.float32), size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The mean difference of the blocks of two frames, in levels of brightness."""
    return float(np.abs(one - other).mean())


def _plain_archive(path: Path) -> io.BytesIO:
    """The content of a cached file. A file with compressed parts is refused, because they could expand."""
    content = io.BytesIO(read_bytes(path, _MAX_BYTES))
    with zipfile.ZipFile(content) as archive:
        if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
            raise ValueError("its parts are compressed")
    content.seek(0)
    return content


def _loaded(path: Path) -> ClipAnalysis | None:
    """The analysis in a cached file; ``None`` if it is damaged (every part has a checksum) or of another name."""
    with contextlib.suppress(*_DAMAGED), np.load(_plain_archive(path)) as arrays:
        sizes = [arrays[name].size for name in ("first", "last", "tiles")]  # reads them completely
        facts, differences = json.loads(arrays["facts"].tobytes()), arrays["differences"]
        if all(sizes) and facts["name"] == path.name:
            return ClipAnalysis(
                len(differences) + 1, facts["packets"], differences, facts["mean_luma"], facts["is_black"], path
            )
    return None
