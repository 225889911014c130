"""A joined film is verified by its packets: whatever is not the packets that were decoded, in their place, is seen."""

from __future__ import annotations

import random
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pytest

from reelwright.core.errors import OutputError, VideoGenerationError
from reelwright.films.editing.artifact_cache import ArtifactCache
from reelwright.films.editing.joining import JoinReport
from reelwright.films.editing.proof import proven
from reelwright.films.editing.sound import with_sound
from reelwright.films.editing.timing import JoinOptions, JoinPart
from reelwright.media.checksum_box import append_checksum
from reelwright.media.decoding import decoding
from reelwright.media.video import examine
from reelwright.media.writer import Encoding, add_copied, create_container
from tests.media.clips import a_foreign_clip
from tests.media.parts import OPTIONS, SIZE, a_chain, a_coded_clip, a_grey_clip, join, packets, read

CHECKSUM_BYTES = 56


@pytest.fixture
def film(tmp_path: Path) -> tuple[Path, JoinReport]:
    """A film of three clips, and what was promised of it."""
    return tmp_path / "film.mp4", join(a_chain(tmp_path), tmp_path / "film.mp4", OPTIONS)


def changed(path: Path, change: Callable[[bytearray], None]) -> Path:
    """The film as if the disk had written something else, before its checksum was taken."""
    data = bytearray(path.read_bytes()[:-CHECKSUM_BYTES])
    change(data)
    other = path.with_name("changed.mp4")
    other.write_bytes(data)
    append_checksum(other)
    return other


def flip(position: int, bit: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[position] ^= 1 << bit

    return change


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_the_facts_are_those_of_a_full_decode(tmp_path: Path, codec: Literal["h264", "av1"]) -> None:
    clips = [a_coded_clip(tmp_path / f"{n}.mp4", range(9 * n, 9 * n + 9), Encoding(codec=codec)) for n in range(2)]
    path = tmp_path / "film.mp4"
    report = join([JoinPart(clips[0]), JoinPart(clips[1], chained=True)], path, OPTIONS)
    found, decoded = proven(path, report.promise), examine(path)
    assert found.mean_luma == pytest.approx(decoded.mean_luma, abs=1e-3)
    assert replace(decoded, frames_sha256="", mean_luma=found.mean_luma) == found


def test_a_bit_that_flipped_in_any_picture_is_seen(film: tuple[Path, JoinReport]) -> None:
    path, report = film
    data, dice = path.read_bytes(), random.Random(5)
    for number, packet in enumerate(packets(path)):
        place = data.index(packet) + dice.randrange(len(packet))
        with pytest.raises(OutputError):
            proven(changed(path, flip(place, number % 8)), report.promise)


def test_a_bit_that_flipped_after_the_checksum_is_seen_wherever_it_is(film: tuple[Path, JoinReport]) -> None:
    path, report = film
    data, dice = bytearray(path.read_bytes()), random.Random(6)
    for _ in range(60):
        place = dice.randrange(len(data))
        data[place] ^= 4
        path.write_bytes(data)
        with pytest.raises(OutputError):
            proven(path, report.promise)
        data[place] ^= 4


def test_what_is_not_seen_in_the_index_does_not_change_the_film(film: tuple[Path, JoinReport]) -> None:
    path, report = film
    whole, dice = examine(path), random.Random(7)
    end = path.read_bytes().index(b"mdat") - 4
    unseen = 0
    for _ in range(200):
        other = changed(path, flip(dice.randrange(end), dice.randrange(8)))
        try:
            proven(other, report.promise)
        except VideoGenerationError:
            continue
        unseen += 1  # names of handlers, times of making, reserved bits
        facts = examine(other)
        assert (facts.problems, facts.frames_sha256, facts.fps) == ((), whole.frames_sha256, whole.fps)
        assert (facts.width, facts.height, facts.rotation, facts.colour) == (128, 96, 0, whole.colour)
    assert 0 < unseen < 150


def test_a_frame_at_another_time_is_seen(film: tuple[Path, JoinReport], tmp_path: Path) -> None:
    path, report = film
    late = tmp_path / "late.mp4"
    with decoding(path) as source, create_container(late, source.metadata) as container:
        assert source.stream is not None
        copy = add_copied(container, source.stream)
        for number, packet in enumerate(source.packets(source.stream)):
            if packet.dts is not None and packet.pts is not None:
                packet.stream = copy
                packet.pts = packet.dts = packet.pts + (300 if number == 5 else 0)
                container.mux(packet)
    with pytest.raises(OutputError, match="frame 5 is not shown at its time"):
        proven(late, report.promise)


@pytest.mark.parametrize(
    ("kept_s", "problem"),
    [(10.0, None), (1.7, "its sound ends after 1.7"), (0.3, "its sound ends after 0.3"), (0.0, "sound")],
)
def test_sound_that_ends_before_the_pictures_is_seen(
    film: tuple[Path, JoinReport], tmp_path: Path, kept_s: float, problem: str | None
) -> None:
    path, report = film
    with wave.open(str(tmp_path / "noise.wav"), "wb") as noise:
        noise.setparams((1, 2, 22_050, 0, "NONE", ""))
        noise.writeframes(random.Random(1).randbytes(2 * 5 * 22_050))
    with_sound(path, tmp_path / "noise.wav", 0.0)
    cut = tmp_path / "cut.mp4"
    with av.open(str(path)) as source, create_container(cut, dict(source.metadata)) as container:
        copies = {
            stream: container.add_stream_from_template(stream)
            for stream in (*source.streams.video, *source.streams.audio)
        }
        for packet in source.demux():
            late = packet.stream.type == "audio" and float((packet.pts or 0) * packet.time_base) >= kept_s
            if packet.dts is not None and not late:
                packet.stream = copies[packet.stream]
                container.mux(packet)
    promise = replace(report.promise, sound=True)
    if problem is None:
        assert proven(cut, promise).has_audio
        return
    with pytest.raises(OutputError, match=problem):
        proven(cut, promise)


@pytest.mark.parametrize(
    ("order", "what"),
    [((0, 1), "frames"), ((0, 2, 1), "clip 2"), ((0, 1, 2, 2), "belong to no clip"), ((1, 1, 2), "clip 1")],
)
def test_clips_that_are_missing_swapped_or_duplicated_are_seen(
    film: tuple[Path, JoinReport], tmp_path: Path, order: tuple[int, ...], what: str
) -> None:
    chain = [tmp_path / f"{n}.mp4" for n in range(3)]
    parts = [JoinPart(chain[n], chained=place > 0) for place, n in enumerate(order)]
    join(parts, tmp_path / "other.mp4", OPTIONS)
    with pytest.raises(OutputError) as caught:
        proven(tmp_path / "other.mp4", film[1].promise)
    assert any(what in line for line in caught.value.evidence)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (JoinOptions(SIZE, 16.0, "Another"), "title"),
        (JoinOptions(SIZE, 32.0, "Film"), "coded"),
    ],
)
def test_another_title_or_pace_is_seen(
    film: tuple[Path, JoinReport], tmp_path: Path, options: JoinOptions, what: str
) -> None:
    join([JoinPart(tmp_path / f"{n}.mp4", chained=n > 0) for n in range(3)], tmp_path / "other.mp4", options)
    with pytest.raises(OutputError) as caught:
        proven(tmp_path / "other.mp4", film[1].promise)
    assert any(what in line for line in caught.value.evidence)


def test_the_film_has_sound_if_and_only_if_the_storyboard_has(film: tuple[Path, JoinReport], tmp_path: Path) -> None:
    path, report = film
    music = a_foreign_clip(tmp_path / "music.mp4", sound=True)
    heard = join(a_chain(tmp_path), tmp_path / "heard.mp4", replace(OPTIONS, audio=music))
    assert proven(tmp_path / "heard.mp4", heard.promise).has_audio
    for wrong, promise in ((tmp_path / "heard.mp4", report.promise), (path, heard.promise)):
        with pytest.raises(OutputError, match="sound"):
            proven(wrong, promise)


def test_a_clip_that_became_another_since_it_was_seen_is_not_taken_for_it(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path / "cache")
    parts = [replace(part, digest=f"digest of {number}") for number, part in enumerate(a_chain(tmp_path))]
    join(parts, tmp_path / "film.mp4", OPTIONS, cache=cache)
    a_coded_clip(parts[1].video, range(40, 51))
    report = join(parts, tmp_path / "again.mp4", OPTIONS, cache=cache)
    with pytest.raises(OutputError, match="not those of clip 2"):
        proven(tmp_path / "again.mp4", report.promise)


# ----------------------------------------------------------------------------------------------- the pieces of films

DISSOLVES = [JoinPart(Path(f"{n}.mp4"), dissolve=3 if n == 2 else 0) for n in range(5)]


def dissolving(folder: Path) -> list[JoinPart]:
    """Five clips, the third of which dissolves in."""
    return [
        replace(part, video=a_coded_clip(folder / part.video, range(20 * n, 20 * n + 12)))
        for n, part in enumerate(DISSOLVES)
    ]


def test_only_the_clip_that_dissolves_in_is_encoded_again(tmp_path: Path) -> None:
    parts = dissolving(tmp_path)
    report = join(parts, tmp_path / "film.mp4", OPTIONS)
    assert report.how == "4 of 5 clips copied; encoded again: clip 3 (it dissolves in)"
    assert dict(report.encoded) == {2: "it dissolves in"}
    film = packets(tmp_path / "film.mp4")
    assert film[:21] == packets(parts[0].video) + packets(parts[1].video)[:-3]
    assert film[33:] == packets(parts[3].video) + packets(parts[4].video)
    numbers = read(tmp_path / "film.mp4")
    assert numbers[:21] == [*range(12), *range(20, 29)]
    assert numbers[24:] == [*range(43, 52), *range(60, 72), *range(80, 92)]
    assert examine(tmp_path / "film.mp4").problems == ()
    proven(tmp_path / "film.mp4", report.promise)


def test_clips_that_cannot_lie_beside_what_is_encoded_are_encoded_as_well(tmp_path: Path) -> None:
    parts = dissolving(tmp_path)[:3]
    a_coded_clip(parts[0].video, range(12), Encoding(codec="av1"))
    report = join(parts, tmp_path / "film.mp4", OPTIONS)
    assert dict(report.encoded) == {0: "it is encoded differently", 2: "it dissolves in"}
    assert read(tmp_path / "film.mp4")[:21] == [*range(12), *range(20, 29)]
    proven(tmp_path / "film.mp4", report.promise)


def test_a_second_film_of_the_same_clips_decodes_and_encodes_nothing(tmp_path: Path) -> None:
    parts, cache = dissolving(tmp_path), ArtifactCache(tmp_path / "cache")
    join(parts, tmp_path / "film.mp4", OPTIONS, cache=cache)
    before = {path.name: path.stat().st_mtime_ns for path in cache.folder.iterdir()}
    cache = ArtifactCache(tmp_path / "cache")
    join(parts, tmp_path / "again.mp4", OPTIONS, cache=cache)
    assert {path.name: path.stat().st_mtime_ns for path in cache.folder.iterdir()} == before
    assert cache.used == set(before)
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "film.mp4").read_bytes()


def test_one_changed_clip_is_checked_and_the_others_are_not(tmp_path: Path) -> None:
    parts, cache = dissolving(tmp_path), ArtifactCache(tmp_path / "cache")
    join(parts, tmp_path / "film.mp4", OPTIONS, cache=cache)
    before = set(cache.folder.iterdir())
    a_coded_clip(parts[4].video, range(100, 112))
    join(parts, tmp_path / "again.mp4", OPTIONS, cache=cache)
    assert sorted(path.suffix for path in set(cache.folder.iterdir()) - before) == [".json", ".npz"]
    assert read(tmp_path / "again.mp4")[-12:] == list(range(100, 112))


@pytest.mark.parametrize("suffix", [".npz", ".json", ".mp4"])
@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-40], lambda data: b"", lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:], None],
    ids=["cut", "empty", "flipped", "a whole clip"],
)
def test_d12_what_is_damaged_on_the_cache_is_made_again(
    tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes] | None
) -> None:
    parts, cache = dissolving(tmp_path), ArtifactCache(tmp_path / "cache")
    join(parts, tmp_path / "film.mp4", OPTIONS, cache=cache)
    for path in sorted(cache.folder.glob(f"*{suffix}")):
        path.write_bytes(damage(path.read_bytes()) if damage else parts[0].video.read_bytes())
    report = join(parts, tmp_path / "again.mp4", OPTIONS, cache=ArtifactCache(tmp_path / "cache"))
    proven(tmp_path / "again.mp4", report.promise)
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "film.mp4").read_bytes()


def test_what_a_killed_process_left_on_the_cache_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".4194999-1-ab.npz.part").write_bytes(b"half")
    (tmp_path / ".1-1-ab.npz.part").write_bytes(b"another process writes this now")
    ArtifactCache(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".1-1-ab.npz.part"]


def test_a_clip_whose_pictures_do_not_decode_is_not_copied(tmp_path: Path) -> None:
    clip = a_coded_clip(tmp_path / "a.mp4", range(12))
    data, packet = bytearray(clip.read_bytes()[:-CHECKSUM_BYTES]), packets(clip)[5]
    place = data.index(packet) + 8
    data[place : place + 40] = np.random.default_rng(1).bytes(40)
    clip.write_bytes(data)  # without a checksum: as another program's clip
    with pytest.raises(OutputError, match=r"a\.mp4 cannot be read completely"):
        join([JoinPart(clip)], tmp_path / "film.mp4", OPTIONS)


@pytest.mark.parametrize("change", ["clip 1", "clip 2", "cut"])
@pytest.mark.parametrize(
    ("joint", "options"),
    [({"dissolve": 4}, OPTIONS), ({"chained": True}, replace(OPTIONS, double_fps=True))],
    ids=["dissolve", "doubled"],
)
def test_a_kept_stretch_is_not_used_where_something_else_lies_beside_it(
    tmp_path: Path, change: str, joint: dict[str, Any], options: JoinOptions
) -> None:
    clips, cache = [tmp_path / "0.mp4", tmp_path / "1.mp4"], ArtifactCache(tmp_path / "kept")
    parts = [JoinPart(clips[0]), JoinPart(clips[1], **joint)]
    for number, clip in enumerate(clips):
        a_grey_clip(clip, range(9 * number, 9 * number + 9))
    join(parts, tmp_path / "before.mp4", options, cache=cache)
    if change == "cut":
        parts[1] = JoinPart(clips[1])
    else:
        clip = clips[int(change[-1]) - 1]
        clip.unlink()
        a_grey_clip(clip, range(4, 13))
    join(parts, tmp_path / "with.mp4", options, cache=cache)
    join(parts, tmp_path / "without.mp4", options)
    assert packets(tmp_path / "with.mp4") == packets(tmp_path / "without.mp4")
