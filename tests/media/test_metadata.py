"""Copying a video with other tags."""

from __future__ import annotations

from pathlib import Path

import av
import av.logging
import pytest

from reelwright.core.errors import BackendUnavailableError, Failure, OutputError
from reelwright.core.request import Size
from reelwright.media.video import examine
from reelwright.media.writer import write_metadata
from tests.media.clips import (
    FOREIGN,
    a_clip,
    a_foreign_clip,
    cut,
    file_size_limit,
    patched,
    turned,
)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A video by Reelwright's writer, nine frames."""
    return a_clip(tmp_path / "clip.mp4")


@pytest.fixture(scope="module")
def foreign_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video without a checksum, with enough coded data that damage lands in the middle of pictures."""
    return a_foreign_clip(tmp_path_factory.mktemp("foreign") / "foreign.mp4", 12, size=Size(320, 192))


@pytest.mark.parametrize("kind", FOREIGN)
def test_new_tags_leave_pictures_sound_and_timing_alone(tmp_path: Path, kind: str) -> None:
    film = a_foreign_clip(tmp_path / "film.mp4", **FOREIGN[kind])
    write_metadata(film, tmp_path / "tagged.mp4", {"title": "Neu ✓", "seed": "42"})
    before, after = examine(film), examine(tmp_path / "tagged.mp4")
    assert (after.frames_sha256, after.fps, after.problems) == (before.frames_sha256, before.fps, ())
    assert (after.metadata["title"], after.metadata["seed"]) == ("Neu ✓", "42")
    assert _packets(tmp_path / "tagged.mp4") == _packets(film)


def _packets(path: Path) -> list[tuple[str, bytes, object]]:
    with av.open(str(path)) as container:
        found = [(p.stream.type, bytes(p), p.pts * p.time_base) for p in container.demux() if p.pts is not None]
    return sorted(found, key=lambda item: (item[0], item[2]))


def test_a_video_with_new_tags_has_a_checksum(clip: Path, tmp_path: Path) -> None:
    write_metadata(clip, tmp_path / "tagged.mp4", {"title": "x"})
    assert examine(patched(tmp_path / "tagged.mp4", lambda data: data.replace(b"Lavf", b"Lavg"))).problems


def test_new_tags_keep_the_old_ones_and_the_index_in_front(tmp_path: Path) -> None:
    film = a_clip(tmp_path / "film.mp4", metadata={"title": "old", "comment": "kept"})
    write_metadata(film, tmp_path / "tagged.mp4", {"title": "new"})
    tags, data = examine(tmp_path / "tagged.mp4").metadata, (tmp_path / "tagged.mp4").read_bytes()
    assert (tags["title"], tags["comment"]) == ("new", "kept")
    assert data.index(b"moov") < data.index(b"mdat")


def test_new_tags_keep_colour_and_rotation(clip: Path) -> None:
    film = turned(clip)
    write_metadata(film, clip.with_name("tagged.mp4"), {})
    before, after = examine(film), examine(clip.with_name("tagged.mp4"))
    assert (after.colour, after.rotation) == (before.colour, before.rotation)


def test_a_video_is_not_copied_onto_itself(clip: Path) -> None:
    before = clip.read_bytes()
    with pytest.raises(ValueError, match="overwritten"):
        write_metadata(clip, clip, {"title": "x"})
    assert clip.read_bytes() == before


@pytest.mark.parametrize("share", [0.02, 0.7])
def test_a_cut_video_is_not_copied_and_nothing_is_left(foreign_clip: Path, tmp_path: Path, share: float) -> None:
    with pytest.raises(OutputError):
        write_metadata(cut(foreign_clip, share), tmp_path / "copy.mp4", {})
    assert not any(tmp_path.iterdir())


def test_a_copy_that_fails_early_leaves_an_older_target_alone(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "copy.mp4").write_text("older")
    with pytest.raises(OutputError):
        write_metadata(tmp_path / "text.mp4", tmp_path / "copy.mp4", {})
    assert (tmp_path / "copy.mp4").read_text() == "older"


def test_d01_a_full_disk_while_copying_leaves_nothing(foreign_clip: Path, tmp_path: Path) -> None:
    with file_size_limit(10_000), pytest.raises(BackendUnavailableError) as caught:
        write_metadata(foreign_clip, tmp_path / "copy.mp4", {})
    assert caught.value.failure is Failure.DISK
    assert not any(tmp_path.iterdir())
