"""One look at a clip, kept for every film it comes into: that it decodes, how it moves, and some small pictures.

A clip is decoded once and then copied into many versions of a film. What a film needs to know of it lies on the
shelf under the clip's own SHA-256: the digest of exactly those packets that were decoded without a complaint, by
which the film is verified (`proof`), the differences of neighbouring frames, from which joints are judged (`joints`),
and the tiles of the contact sheet. Not for: files that nobody has verified.

    >>> glance = looked(Source(clip, digest), 80, shelf)
    >>> glance.frames, len(glance.differences), len(glance.tiles)
    (80, 79, 6)
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import OutputError
from ...core.files import read_bytes
from ...media.decoding import Decoding, decoding, to_rgb
from ...media.sheet import spread
from ...media.video_facts import Tally
from .artifact_cache import ArtifactCache, key_of
from .joints import FILM_LIMIT_S, difference, thinned

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

    Pixels = NDArray[np.uint8]

TILES = 6
_DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, MemoryError, zipfile.BadZipFile)
_MAX_BYTES = 256 * 1024 * 1024
_TILE_AREA = 22_500  # 200x112


@dataclass(frozen=True)
class Source:
    """A clip, and the SHA-256 by which it is known to be the one that was verified."""

    video: Path
    digest: str


@dataclass(frozen=True)
class ClipAnalysis:
    """The first frames of a clip, as many as a film shows. Pictures stay on the disk: a film may have hundreds of clips.

    Attributes:
        frames: How many.
        packets: Digest of their packets, see `PacketDigest`.
        differences: Of each two neighbours, in levels of brightness.
        mean_luma, is_black: As in `VideoFacts`.
        kept: The file on the shelf.
    """

    frames: int
    packets: str
    differences: NDArray[np.float64]
    mean_luma: float
    is_black: bool
    kept: Path

    @property
    def first(self) -> NDArray[np.float32]:
        """Thinned brightness of the first frame."""
        return self._picture("first")

    @property
    def last(self) -> NDArray[np.float32]:
        """Thinned brightness of the last frame."""
        return self._picture("last")

    @property
    def tiles(self) -> Sequence[Pixels]:
        """Small pictures, evenly spread."""
        return tuple(self._picture("tiles"))

    def _picture(self, name: str) -> NDArray[Any]:
        with np.load(self.kept) as parts:
            return np.asarray(parts[name])


class PacketDigest:
    """A digest of packets as a player meets them: what is stored, how much of it, and where playing may begin."""

    def __init__(self) -> None:
        self._content = hashlib.sha256()

    def add(self, packet: Packet[Any]) -> None:
        """Take in the next packet."""
        self._content.update(f"{packet.size} {packet.is_keyframe}\n".encode())
        self._content.update(packet)

    def value(self) -> str:
        """The digest of all so far."""
        return self._content.hexdigest()


def looked(source: Source, frames: int, shelf: ArtifactCache) -> ClipAnalysis:
    """The first ``frames`` of a clip, from the shelf or by decoding them.

    Raises:
        OutputError: they do not decode as they should.
    """
    name = f"{key_of({'glance': 1, 'clip': source.digest, 'frames': frames})}.npz"
    path = shelf.find(name)
    kept = _loaded(path) if path else None
    if kept is None:
        content = _decoded(source.video, frames, name)
        kept = _loaded(shelf.put(name, lambda unfinished: unfinished.write_bytes(content)))
    if kept is None:
        raise OutputError(f"{shelf.folder / name} cannot be read back", advice="Look at the disk.")
    return kept


def _decoded(video: Path, frames: int, name: str) -> bytes:
    """The file of a glance, which says its own name: one that was exchanged for another is as wrong as a damaged one."""
    tally, digest, wanted = Tally(hash_frames=False), PacketDigest(), set(spread(frames, TILES))
    differences: list[float] = []
    tiles: list[Pixels] = []
    first = last = np.zeros((0, 0), np.float32)
    with decoding(video, FILM_LIMIT_S) as film:
        for number, frame in enumerate(film.frames(_first_packets(film, frames, digest))):
            tally.add(frame)
            now = thinned(frame)
            if number == 0:
                first = now
            else:
                differences.append(difference(last, now))
            last = now
            if number in wanted:
                tiles.append(_tile(frame))
        problems = [*film.problems, *tally.problems]
    if tally.count != frames:
        problems.insert(0, f"{tally.count} of {frames} frames can be decoded")
    if problems:
        raise OutputError(f"{video} cannot be read whole", evidence=problems)
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


def _first_packets(film: Decoding, frames: int, digest: PacketDigest) -> Iterator[Packet[Any]]:
    assert film.stream is not None
    taken = 0
    for packet in film.packets(film.stream):
        if packet.dts is None:
            yield packet  # the empty one, with which a decoder gives its last frames
        elif taken < frames:
            digest.add(packet)
            yield packet
            taken += 1


def _tile(frame: VideoFrame) -> Pixels:
    scale = math.sqrt(_TILE_AREA / (frame.width * frame.height))
    return to_rgb(frame, max(2, round(frame.width * scale)), max(2, round(frame.height * scale)))


def _plain_archive(path: Path) -> io.BytesIO:
    """The content of a file that `_decoded` gave: nothing in it is compressed, so nothing in it can swell."""
    content = io.BytesIO(read_bytes(path, _MAX_BYTES))
    with zipfile.ZipFile(content) as archive:
        if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
            raise ValueError("its parts are compressed")
    content.seek(0)
    return content


def _loaded(path: Path) -> ClipAnalysis | None:
    """What `_decoded` gave; ``None`` if the file is damaged (every part of it has a checksum) or is another one."""
    with contextlib.suppress(*_DAMAGED), np.load(_plain_archive(path)) as parts:
        sizes = [parts[name].size for name in ("first", "last", "tiles")]  # reads them whole
        facts, differences = json.loads(parts["facts"].tobytes()), parts["differences"]
        if all(sizes) and facts["name"] == path.name:
            return ClipAnalysis(
                len(differences) + 1, facts["packets"], differences, facts["mean_luma"], facts["is_black"], path
            )
    return None
