"""Sound under a film: any audio file becomes AAC of the film's length; the pictures are taken over bit for bit.

>>> with_sound(Path("film.mp4"), Path("music.mp3"), fade_s=1.0)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.error import FFmpegError

from ..errors import InvalidInputError, OutputError
from ..files import open_regular
from .decoding import decoding
from .joints import FILM_LIMIT_S
from .seal import seal
from .writer import add_copied, create_container, explained

RATE = 48_000
_CHUNK = 1024  # samples of an AAC frame
_OPTIONS = {"protocol_whitelist": "file"}  # a playlist named music.mp3 must not reach into the network


def check_sound(audio: Path) -> None:
    """Decode the first moment of an audio file: before hours of rendering, not after.

    Raises:
        InvalidInputError: it is not there, or holds no sound that can be read.
    """
    if next(_decoded(audio), None) is None:
        raise InvalidInputError(f"{audio} holds no sound", advice="Give an audio file.")


def with_sound(film: Path, audio: Path, fade_s: float) -> None:
    """Replace the film by one with sound, trimmed or padded with silence to its length, faded out at the end.

    Raises:
        InvalidInputError: the file holds no sound that can be read.
        OutputError: the film cannot be read.
    """
    unfinished = film.with_name(f"{film.stem}.sound.mp4")
    try:
        _write(film, audio, fade_s, unfinished)
        seal(unfinished)
        unfinished.replace(film)
    finally:
        unfinished.unlink(missing_ok=True)


def _write(film: Path, audio: Path, fade_s: float, target: Path) -> None:
    """Pictures and sound in turn, as they are played: neither waits in memory for the other."""
    seconds = _seconds(film)
    with decoding(film, FILM_LIMIT_S) as source, explained(target):
        if source.stream is None:
            raise OutputError(f"{film} cannot be read", evidence=source.problems)
        with create_container(target, source.metadata) as container:
            video = add_copied(container, source.stream)
            sound: Any = container.add_stream("aac", rate=RATE, layout="stereo")
            sound.bit_rate = 192_000
            packets = _encoded(audio, round(seconds * RATE), fade_s, sound)
            for packet in source.packets(source.stream):
                if packet.dts is None:
                    continue
                time = float(packet.dts * (packet.time_base or 0))
                packet.stream = video
                container.mux(packet)
                for heard in packets:
                    container.mux(heard)
                    if heard.dts is not None and float(heard.dts * heard.time_base) >= time:
                        break
            for heard in packets:
                container.mux(heard)


def _seconds(film: Path) -> float:
    with decoding(film, FILM_LIMIT_S) as source:
        if source.stream is None:
            raise OutputError(f"{film} cannot be read", evidence=source.problems)
        count = sum(1 for packet in source.packets(source.stream) if packet.dts is not None)
        return count / float(source.stream.average_rate or 1)


def _encoded(audio: Path, length: int, fade_s: float, sound: Any) -> Iterator[Any]:
    done = 0
    for block in _blocks(audio, length):
        samples = block * _gain(done, block.shape[1], length, round(fade_s * RATE))
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples, dtype=np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = RATE, done
        yield from sound.encode(frame)
        done += block.shape[1]
    yield from sound.encode(None)


def _gain(start: int, count: int, length: int, fade: int) -> np.ndarray[Any, Any]:
    left = length - np.arange(start, start + count)
    return np.clip(left / max(1, fade), 0.0, 1.0)


def _blocks(audio: Path, length: int) -> Iterator[np.ndarray[Any, Any]]:
    """Exactly ``length`` samples of stereo, in small blocks; silence where the file is shorter."""
    rest, left = np.zeros((2, 0), dtype=np.float32), length
    for samples in _decoded(audio):
        rest = np.concatenate([rest, samples], axis=1)
        while rest.shape[1] >= _CHUNK and left > 0:
            count = min(_CHUNK, left)
            yield rest[:, :count]
            rest, left = rest[:, _CHUNK:], left - count
        if left <= 0:
            return
    while left > 0:
        count = min(_CHUNK, left)
        block = np.zeros((2, count), dtype=np.float32)
        block[:, : min(count, rest.shape[1])] = rest[:, :count]
        rest, left = rest[:, count:], left - count
        yield block


def _decoded(audio: Path) -> Iterator[np.ndarray[Any, Any]]:
    resampler = AudioResampler(format="fltp", layout="stereo", rate=RATE)
    try:
        open_regular(audio).close()  # opening a named pipe would wait for ever
        # An absolute path, because "name:..." would be taken for a protocol.
        with av.open(str(audio.absolute()), options=_OPTIONS) as source:
            if not source.streams.audio:
                raise InvalidInputError(f"{audio} holds no sound", advice="Give an audio file.")
            for frame in source.decode(audio=0):
                for part in resampler.resample(frame):
                    yield part.to_ndarray()
            for part in resampler.resample(None):
                yield part.to_ndarray()
    except (FFmpegError, OSError, ValueError) as error:  # ValueError: its format changes on the way
        raise InvalidInputError(
            f"{audio} cannot be read as sound: {getattr(error, 'strerror', None) or error}",
            advice="Give an audio file that other players can open.",
        ) from None
