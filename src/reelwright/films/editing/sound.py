"""Adds sound to a film: any audio file becomes AAC of the film's length; the pictures are copied bit for bit.

>>> with_sound(Path("film.mp4"), Path("music.mp3"), fade_s=1.0)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.error import FFmpegError
from numpy.typing import NDArray

from ...core.errors import InvalidInputError
from ...core.files import open_regular, shown
from ...media.checksum_box import append_checksum
from ...media.decoding import decoding, file_problems
from ...media.writer import add_copied, create_container, explained
from .clip_analysis import FILM_LIMIT_S, clip_facts

RATE = 48_000
_CHUNK = 1024  # samples of an AAC frame
_GAP_S = 0.05  # smaller differences come from the codec's delay and from rounded timestamps
_MOST_BROKEN = 10_000
_LOUD = 1.41  # times full scale: 3 dB above it; a lossy codec alone exceeds it by up to 1 dB
# Containers that store the exact length of their sound; others only estimate it.
_EXACT = frozenset({"wav", "w64", "flac", "aiff", "caf", "mov,mp4,m4a,3gp,3g2,mj2"})
_CUT_S = 0.5
#: Containers whose clock may start at any time; a player begins at the first timestamp.
_FREE_CLOCKS = frozenset({"mpegts", "mpeg", "ogg", "flv", "asf"})
Samples = NDArray[np.float32]
_OPTIONS = {"protocol_whitelist": "file"}  # a playlist named music.mp3 must not reach into the network


def check_sound(audio: Path) -> None:
    """Decode the start of an audio file, so that an unusable file is refused before hours of rendering.

    Damage further on does not matter: `with_sound` skips it.

    Raises:
        InvalidInputError: the file does not exist, or holds no sound that can be read.
    """
    if next(_decoded(audio, []), None) is None:
        raise InvalidInputError(f"{shown(audio)} holds no sound", advice="Give an audio file.")


def with_sound(film: Path, audio: Path, fade_s: float) -> tuple[str, ...]:
    """Replace the film by one with sound. The sound is cut or padded with silence to its length, and fades out.

    Returns:
        Notes on the sound: skipped damage, a shortened fade.

    Raises:
        InvalidInputError: the file holds no sound that can be read.
        OutputError: the film cannot be read.
    """
    unfinished = film.with_name(f"{film.stem}.sound.mp4")
    notes: list[str] = []
    try:
        _write(film, audio, fade_s, unfinished, notes)
        append_checksum(unfinished)
        unfinished.replace(film)
    finally:
        unfinished.unlink(missing_ok=True)
    return tuple(notes)


def _write(film: Path, audio: Path, fade_s: float, target: Path, notes: list[str]) -> None:
    """Write pictures and sound in turn, as they are played, so that neither waits in memory for the other."""
    pictures = clip_facts(film)
    seconds = pictures.count / float(pictures.fps)
    if fade_s > seconds:
        notes.append(f"the fade of {fade_s:g} s is longer than the film: it takes the whole film, {seconds:.2f} s")
        fade_s = seconds
    with decoding(film, FILM_LIMIT_S) as source, explained(target):
        assert source.stream is not None  # `clip_facts` has read it
        with create_container(target, source.metadata) as container:
            video = add_copied(container, source.stream)
            sound: Any = container.add_stream("aac", rate=RATE, layout="stereo")
            sound.bit_rate = 192_000
            blocks = _with_peak_noted(_blocks(_decoded(audio, notes), round(seconds * RATE)), audio.name, notes)
            packets = _encoded(blocks, seconds, fade_s, sound)
            for packet in source.packets(source.stream):
                if packet.dts is None:
                    continue
                time = float(packet.dts * (packet.time_base or 0))
                packet.stream = video
                container.mux(packet)
                for sample in packets:
                    container.mux(sample)
                    if sample.dts is not None and float(sample.dts * sample.time_base) >= time:
                        break
            for sample in packets:
                container.mux(sample)


def _encoded(blocks: Iterable[Samples], seconds: float, fade_s: float, sound: Any) -> Iterator[Any]:
    done, length = 0, round(seconds * RATE)
    for block in blocks:
        samples = block * _gain(done, block.shape[1], length, round(fade_s * RATE))
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples, dtype=np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = RATE, done
        yield from sound.encode(frame)
        done += block.shape[1]
    yield from sound.encode(None)


def _with_peak_noted(blocks: Iterable[Samples], name: str, notes: list[str]) -> Iterator[Samples]:
    """The same blocks; ``notes`` receives a sentence if they exceed full scale by much."""
    peak = 0.0
    for block in blocks:
        peak = max(peak, float(np.abs(block).max(initial=0.0)))
        yield block
    if peak > _LOUD:
        notes.append(
            f"{name} is up to {20 * np.log10(peak):.0f} dB louder than full scale in stereo, and distorted there: lower its volume"
        )


def _gain(start: int, count: int, length: int, fade: int) -> Samples:
    left = length - np.arange(start, start + count)
    return np.clip(left / max(1, fade), 0.0, 1.0)


def _blocks(decoded: Iterable[Samples], length: int) -> Iterator[Samples]:
    """Exactly ``length`` samples of stereo, in small blocks; silence where the file is shorter."""
    rest, left = np.zeros((2, 0), dtype=np.float32), length
    for samples in decoded:
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


def _decoded(audio: Path, notes: list[str]) -> Iterator[Samples]:
    """The sound as stereo at `RATE`, each sample at its own time; ``notes`` receives sentences about skipped damage."""
    try:
        with open_regular(audio) as file:  # opening a named pipe would block for ever
            if not file.peek(1):
                raise InvalidInputError(f"{shown(audio)} is empty (0 bytes)", advice="Give an audio file.")
        # An absolute path, because "name:..." would be taken for a protocol.
        with av.open(str(audio.absolute()), options=_OPTIONS) as source:
            if not source.streams.audio:
                why = next(iter(file_problems(audio)), "it has no audio stream")
                raise InvalidInputError(f"{shown(audio)} holds no sound: {why}", advice="Give an audio file.")
            yield from _Timeline(source, notes, audio.name).samples()
    except (FFmpegError, OSError, ValueError) as error:
        found = file_problems(audio) if isinstance(error, FFmpegError) and audio.is_file() else []
        why = next(iter(found), getattr(error, "strerror", None) or str(error))
        raise InvalidInputError(
            f"{shown(audio)} cannot be read as sound: {why}",
            advice="Give an audio file that other players can open.",
        ) from None


class _Timeline:
    """Puts frames of sound at the time at which they are played. Gaps become silence, and overlaps are cut off."""

    def __init__(self, source: Any, notes: list[str], name: str) -> None:
        self._source, self._notes, self._name = source, notes, name
        self._resampler: AudioResampler | None = None
        self._kind: tuple[str, int, str] | None = None
        self._next_s = 0.0  # when the next frame is due
        self._drop = 0  # samples of the output to drop, because their time is already filled
        started = source.start_time
        free = source.format.name in _FREE_CLOCKS and started is not None
        self._base_s = started / av.time_base if free else 0.0

    def samples(self) -> Iterator[Samples]:
        """The sound as stereo at `RATE`."""
        for frame in self._frames():
            yield from self._placed(frame)
        yield from self._flushed()
        stream = self._source.streams.audio[0]
        if self._source.format.name not in _EXACT or not stream.duration:
            return
        says_s = float(((stream.start_time or 0) + stream.duration) * stream.time_base) - self._base_s
        if self._next_s < says_s - _CUT_S:
            self._notes.append(
                f"{self._name} is cut off: its sound ends after {self._next_s:.2f} of {says_s:.2f} s, and silence follows"
            )

    def _frames(self) -> Iterator[AudioFrame]:
        """Every frame that can be decoded; damage is skipped, as players do."""
        broken = 0
        packets = self._source.demux(self._source.streams.audio[0])
        found = False
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                frames = packet.decode()
            except FFmpegError:
                broken += 1
                if broken > _MOST_BROKEN:
                    break
                continue
            found = found or bool(frames)
            yield from frames
        if broken and not found:
            raise ValueError("nothing in it can be decoded")
        if broken:
            self._notes.append(f"{self._name} is damaged: {broken} unreadable pieces of its sound were skipped")

    def _placed(self, frame: AudioFrame) -> Iterator[Samples]:
        at = self._next_s
        if frame.pts is not None and frame.time_base is not None:
            at = float(frame.pts * frame.time_base) - self._base_s
        late = at - self._next_s
        kind = (frame.format.name, frame.sample_rate, frame.layout.name)
        if late > _GAP_S or kind != self._kind:
            yield from self._flushed()
        if late > _GAP_S:
            yield from _silence(round(late * RATE))
        elif late < -_GAP_S:
            self._drop += round(-late * RATE)
        else:
            at = self._next_s  # the timestamp is only rounded; moving samples for that would click
        if self._resampler is None:
            layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
            self._resampler, self._kind = AudioResampler(format="fltp", layout=layout, rate=RATE), kind
        self._next_s = max(self._next_s, at + frame.samples / frame.sample_rate)
        for part in self._resampler.resample(_untimed(frame)):
            yield from self._kept(part)

    def _flushed(self) -> Iterator[Samples]:
        if self._resampler is not None:
            for part in self._resampler.resample(None):
                yield from self._kept(part)
        self._resampler = None

    def _kept(self, part: AudioFrame) -> Iterator[Samples]:
        samples: Samples = np.nan_to_num(part.to_ndarray(), nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
        cut = min(self._drop, samples.shape[1])
        self._drop -= cut
        samples = samples[:, cut:]
        # One channel is copied to both sides: the resampler would lower it by 3 dB.
        yield np.repeat(samples, 2, axis=0) if samples.shape[0] == 1 else samples


def _untimed(frame: AudioFrame) -> AudioFrame:
    """A frame without a time, so that the resampler does not move it."""
    frame.pts = None
    return frame


def _silence(count: int) -> Iterator[Samples]:
    while count > 0:
        part = min(count, RATE)
        yield np.zeros((2, part), dtype=np.float32)
        count -= part
