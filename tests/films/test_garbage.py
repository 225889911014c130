"""`reel film gc`: what cost GPU hours goes only if nothing in the folder names it, it is old, and a person says so."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.errors import BusyError, Cancelled, InvalidInputError
from reelwright.core.manifest import Manifest, manifest_path
from reelwright.films import FilmEvent, SegmentState
from reelwright.films.assembly import film
from reelwright.films.garbage import Garbage, find_garbage, remove, store_of
from reelwright.films.records import NO_FILE, Record, Use, read_record
from reelwright.films.render import FilmOrder
from reelwright.films.store import Store
from reelwright.films.storyboard import load_storyboard
from reelwright.sites.cancellation import Cancellation
from tests.films.small import BOARD, draft_settings, make

Reel = Callable[..., subprocess.CompletedProcess[str]]
DAY_S = 86_400.0
ONE, TWO, THREE = "1" * 32, "2" * 32, "3" * 32


def old(path: Path, days: float = 100) -> None:
    """As if every file in a folder was last used so many days ago."""
    for file in path.rglob("*"):
        os.utime(file, (time.time() - days * DAY_S,) * 2, follow_symlinks=False)


def lost(folder: Path, **options: Any) -> Garbage:
    store = store_of(folder)
    with store.all_held():
        return find_garbage(store, draft_settings(), **options)


def clip(store: Store, key: str, prompt: str = "nobody asks for this", gpus: int = 1, seconds: float = 100.0) -> None:
    """The files of a clip with its manifest, without a film that can be seen."""
    store.prepare()
    manifest = Manifest(
        "r",
        "0",
        "wan2.1",
        "i2v",
        True,
        "completed",
        "2026-01-01T00:00:00",
        {"prompt": prompt, "seed": 7, "size": "160x96"},
        output={"path": f"{key}.mp4", "sha256": "0"},
        plan={"gpus": list(range(gpus))},
        seconds=seconds,
    )
    store.video(key).write_bytes(b"film")
    store.last_frame(key).write_bytes(b"frame")
    manifest_path(store.video(key)).write_text(manifest.to_text())
    old(store.clips)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One old clip that nothing names."""
    found = Store(tmp_path)
    clip(found, ONE)
    return found


def keys(found: Garbage) -> set[str]:
    return {item.key for item in found.clips}


# ------------------------------------------------------------------------------------------------- what is named


def test_a_clip_that_nothing_names_goes_with_all_its_files(store: Store) -> None:
    found = lost(store.root.parent)
    assert [path.suffix for path in found.clips[0].files] == [".mp4", ".png", ".json"]
    remove(found)
    assert not list(store.clips.iterdir())


def test_the_clips_of_an_interrupted_film_stay(folder: Path) -> None:
    cancellation = Cancellation()

    def stop_after_one(event: FilmEvent) -> None:
        if isinstance(event, SegmentState) and event.state == "rendered":
            cancellation.request(2)

    board = load_storyboard(folder / "film.yaml")
    with pytest.raises(Cancelled):
        film(
            FilmOrder(board, draft_settings(), folder / "film.mp4", folder / "film.yaml"), stop_after_one, cancellation
        )
    assert list((folder / ".reel" / "clips").glob("*.mp4"))
    (folder / "film.yaml").unlink()  # even so: an unfinished film names them
    old(folder / ".reel")
    assert not lost(folder).clips


def test_nothing_goes_after_the_project_folder_is_moved(folder: Path, tmp_path: Path) -> None:
    make(folder)
    moved = tmp_path / "elsewhere" / "project"
    moved.parent.mkdir()
    folder.rename(moved)
    (moved / "film.mp4").unlink()
    (moved / "film.reel.json").unlink()
    old(moved / ".reel")
    found = lost(moved)
    assert (found.clips, found.cached, found.reasons_to_keep_all) == ((), (), ())
    assert not make(moved)[0].rendered


def test_nothing_goes_after_the_storyboard_is_renamed(folder: Path) -> None:
    make(folder)
    for name in ("film.mp4", "film.reel.json"):
        (folder / name).unlink()
    (folder / "film.yaml").rename(folder / "story.yml")
    old(folder / ".reel")
    assert not lost(folder).clips


def test_a_second_storyboard_with_the_same_output_keeps_the_clips_of_the_first(folder: Path) -> None:
    make(folder)
    first = {path.name for path in (folder / ".reel" / "clips").iterdir()}
    other = BOARD.replace("push in", "push in slow").replace("tilt up", "tilt down").replace("pull out", "pan right")
    (folder / "other.yaml").write_text(other)
    settings = draft_settings().evolve(if_exists="overwrite")
    film(FilmOrder(load_storyboard(folder / "other.yaml"), settings, folder / "film.mp4", folder / "other.yaml"))
    old(folder / ".reel")
    found = lost(folder)
    assert not found.clips
    assert first < {path.name for path in (folder / ".reel" / "clips").iterdir()}
    (folder / "film.yaml").write_text("title: emptied\nshots: [{prompt: hold, image: a.png}]\n")
    assert not lost(folder).clips  # the record of the first storyboard still names them


@pytest.mark.parametrize(
    ("board", "use", "film_there", "kept"),
    [
        ("film.yaml", Use((ONE,)), False, True),  # unfinished, and its storyboard cannot be seen
        ("film.yaml", Use((ONE,), finished=True), True, True),  # its film lies there
        ("../gone/film.yaml", Use((ONE,), finished=True), False, False),
        (NO_FILE, Use((ONE,), finished=True), False, True),  # made by a Python program, which cannot be seen
    ],
)
def test_a_record_names_its_clips_until_film_and_storyboard_are_gone(
    store: Store, board: str, use: Use, film_there: bool, kept: bool
) -> None:
    if film_there:
        (store.root.parent / "final.MP4").write_bytes(b"film")
    store.note("final.MP4", Record("final.MP4", {board: use}))
    assert (not lost(store.root.parent).clips) is kept


def test_a_storyboard_that_was_edited_keeps_what_its_own_record_names_and_nothing_else(store: Store) -> None:
    clip(store, TWO)
    (store.root.parent / "film.yaml").write_text("shots: [{prompt: edited, continues: false}]\n")
    store.note("film", Record("film.mp4", {"film.yaml": Use((TWO,), finished=True)}))
    store.note("other", Record("other.mp4", {"../gone/other.yaml": Use((ONE,), finished=True)}))
    assert keys(lost(store.root.parent)) == {ONE}


def test_a_storyboard_without_a_record_may_be_a_renamed_one(store: Store) -> None:
    store.note("film", Record("film.mp4", {"film.yaml": Use((ONE,), finished=True)}))
    (store.root.parent / "renamed.yaml").write_text("shots: [{prompt: edited, continues: false}]\n")
    assert not lost(store.root.parent).clips


@pytest.mark.parametrize("name", ["film.yaml", "film.YML", "film.json", "boards/film.yaml"])
def test_a_storyboard_names_the_clips_of_its_shots_also_without_their_record(store: Store, name: str) -> None:
    board = '{"size": "160x96", "shots": [{"prompt": "a cat", "seed": 7, "continues": false}]}'
    clip(store, TWO, "a cat")
    path = store.root.parent / name
    path.parent.mkdir(exist_ok=True)
    if path.parent != store.root.parent:  # only the record tells where it is
        store.note("film", Record("film.mp4", {name: Use(())}))
    path.write_text(board)
    assert keys(lost(store.root.parent)) == {ONE}
    for now, before in (("a dog", "a cat"), ("8", "7"), ("128x96", "160x96")):
        path.write_text(board.replace(before, now))
        assert keys(lost(store.root.parent)) == {ONE, TWO}


def test_a_storyboard_that_uses_a_stored_frame_as_its_picture_names_that_clip(store: Store) -> None:
    shutil.copy(Path(__file__).parents[2] / "docs" / "film-sheet.jpg", store.last_frame(ONE))
    old(store.clips)
    picture = f".reel/clips/{ONE}.last.png"
    (store.root.parent / "film.yaml").write_text(f"shots: [{{prompt: a cat, image: {picture}}}]\n")
    assert not lost(store.root.parent).clips


def test_the_manifest_of_a_film_under_any_name_names_its_clips(folder: Path) -> None:
    result, _ = make(folder)
    for path in (result.output, result.manifest):
        path.rename(path.with_name(path.name.replace("film", "final")))
    shutil.rmtree(folder / ".reel" / "films")
    (folder / "film.yaml").unlink()
    old(folder / ".reel")
    found = lost(folder)
    assert (found.clips, found.cached) == ((), ())
    (folder / "final.reel.json").unlink()
    assert len(lost(folder).clips) == 5


def test_a_record_of_an_older_version_names_its_clips_wherever_the_folder_is_now(store: Store, tmp_path: Path) -> None:
    record = {"storyboard": "/before/it/was/moved/film.yaml", "keys": [ONE], "pieces": ["a.npz"]}
    store.films.joinpath("film.json").write_text(json.dumps(record))
    assert not lost(tmp_path).clips
    store.note("film", Record("film.mp4", {"film.yaml": Use((TWO,))}, ("a.npz",)))
    old(store.clips)
    assert keys(lost(tmp_path)) == {ONE}


def test_a_film_of_an_older_version_goes_on_after_its_folder_was_moved(folder: Path) -> None:
    make(folder)
    record = read_record(folder / ".reel" / "films" / "film.json")
    older = {"storyboard": "/before/film.yaml", "keys": sorted(record.keys), "pieces": list(record.cached)}
    (folder / ".reel" / "films" / "film.json").write_text(json.dumps(older))
    assert make(folder)[0].unchanged
    assert list(read_record(folder / ".reel" / "films" / "film.json").uses) == ["film.yaml"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".reel/films/film.json", "{"),
        (".reel/films/film.json", '{"keys": 5}'),
        (".reel/films/film.json", '{"schema": 99}'),
        (".reel/films/film.json", '{"schema": 2, "output": "film.mp4", "uses": {"film.yaml": []}}'),
        ("film.reel.json", "not JSON"),
        ("film.yaml", "shots: [{prompt: a cat, image: gone.png}]"),
        ("film.yaml", "shots: [{promt: a cat}]"),
        ("film.yaml", "shots: [{"),
        ("film.json", '{"shots": [{"prompt": "a cat", "generator": "not there", "continues": false}]}'),
    ],
)
def test_a_file_that_cannot_be_read_may_name_any_clip_so_nothing_is_removed(
    store: Store, name: str, content: str
) -> None:
    path = store.root.parent / name
    path.write_text(content)
    found = lost(store.root.parent)
    assert (found.files, found.young) == ((), 1)
    assert path.name in found.reasons_to_keep_all[0]


def test_a_file_that_may_be_a_storyboard_and_cannot_be_opened_may_name_any_clip(store: Store) -> None:
    (store.root.parent / "film.yaml").symlink_to("film.yaml")
    assert "film.yaml cannot be understood" in lost(store.root.parent).reasons_to_keep_all[0]


def test_a_manifest_is_no_storyboard_however_it_is_written(store: Store) -> None:
    data = Manifest("r", "0", "draft", "film", False, "completed", "2026-01-01", {"prompt": ""}, facts={"shots": []})
    (store.root.parent / "film.reel.json").write_text(json.dumps(json.loads(data.to_text()), indent="\t"))
    assert keys(lost(store.root.parent)) == {ONE}


@pytest.mark.parametrize("content", [b"services: {web: {image: nginx}}\n", b"\xff\xfe shots", b"- shots\n- are fun\n"])
def test_files_that_are_no_storyboards_keep_nothing(store: Store, content: bytes) -> None:
    (store.root.parent / "other.yaml").write_bytes(content)
    assert keys(lost(store.root.parent)) == {ONE}


def test_a_named_pipe_that_is_called_like_a_storyboard_is_not_waited_for(store: Store) -> None:
    os.mkfifo(store.root.parent / "film.yaml")
    assert keys(lost(store.root.parent)) == {ONE}


def test_files_in_the_store_that_are_not_understood_stay(store: Store) -> None:
    (store.clips / "notes.txt").write_text("mine")
    (store.clips / f"{TWO}.mp4").write_bytes(b"a film without its manifest may have cost hours")
    (store.clips / f"{THREE}.mp4").symlink_to(store.root.parent / "elsewhere.mp4")
    (store.clips / f"{THREE}.last.png").write_bytes(b"remains")
    store.cache.mkdir(exist_ok=True)
    (store.cache / "gone.npz").symlink_to("nowhere")
    old(store.root)
    found = lost(store.root.parent)
    assert found.cached == (store.cache / "gone.npz",)
    assert {path.name for path in found.odd} == {"notes.txt", f"{TWO}.mp4", f"{THREE}.mp4"}
    assert keys(found) == {ONE, THREE}


# ------------------------------------------------------------------------------------------------------- the grace


@pytest.mark.parametrize(
    ("days", "grace", "goes"),
    [
        (13, 14, False),
        (15, 14, True),
        (1, 0, True),
        (50, 60, False),
        (-4000, 14, False),  # a wrong clock dated it into the future
        (-4000, 0, True),
    ],
)
def test_what_was_used_within_the_grace_stays(store: Store, days: float, grace: float, goes: bool) -> None:
    old(store.clips, days)
    found = lost(store.root.parent, grace_days=grace)
    assert (len(found.clips), found.young) == ((1, 0) if goes else (0, 1))


def test_the_grace_of_an_old_clip_begins_when_its_storyboard_uses_it_no_longer(store: Store) -> None:
    store.note("film", Record("film.mp4", {"film.yaml": Use((ONE,))}))
    store.note("film", Record("film.mp4", {"film.yaml": Use(())}))
    found = lost(store.root.parent)
    assert (found.clips, found.young) == ((), 1)


def test_a_record_that_cannot_be_read_is_not_written_over(store: Store) -> None:
    store.films.joinpath("film.json").write_text("damaged")
    store.note("film", Record("film.mp4", {"film.yaml": Use((TWO,))}))
    assert store.record("film").keys == {TWO}
    assert lost(store.root.parent).reasons_to_keep_all


def test_pieces_go_that_no_film_uses(folder: Path) -> None:
    make(folder)
    make(folder, BOARD.replace("dissolve 3", "dissolve 2"))
    pieces = folder / ".reel" / "pieces"
    before = set(pieces.iterdir())
    assert not lost(folder).cached
    remove(lost(folder, grace_days=0))
    assert sorted(path.suffix for path in before - set(pieces.iterdir())) == [".json", ".mp4", ".npz", ".npz"]
    (folder / "film.mp4").unlink()
    left = {path: path.stat().st_mtime_ns for path in pieces.iterdir()}
    assert not make(folder, BOARD.replace("dissolve 3", "dissolve 2"))[0].rendered
    assert {path: path.stat().st_mtime_ns for path in pieces.iterdir()} == left


def test_clips_of_shots_that_are_not_wanted_just_now_are_no_garbage(folder: Path) -> None:
    make(folder)
    result, _ = make(folder, start="five")
    assert "the film holds 1 of 5 shots: five" in result.warnings
    assert not lost(folder, grace_days=0).clips


# ---------------------------------------------------------------------------------------------------- who may remove


def test_gc_lists_what_each_clip_cost_and_removes_only_with_yes(store: Store, reel: Reel) -> None:
    clip(store, TWO, "a \x1b[31mcat", gpus=4, seconds=900)
    folder = store.root.parent
    told = reel("film", "gc", folder)
    assert (told.returncode, told.stderr) == (0, "")
    assert f"{TWO}: 60 min of GPU time, 0.0 MB, by wan2.1: 'a \\x1b[31mcat'" in told.stdout
    assert "would be removed; nothing was removed (give --yes)" in told.stdout
    assert len(list(store.clips.iterdir())) == 6
    reel("film", "gc", folder, "--dry-run")
    assert len(list(store.clips.iterdir())) == 6
    data = json.loads(reel("film", "gc", folder, "--json").stdout)
    assert (data["removed"], [item["gpu_seconds"] for item in data["clips"]]) == (False, [100, 3600])
    assert "6 files (0.0 MB) removed" in reel("film", "gc", folder, "--yes").stdout
    assert not list(store.clips.iterdir())


@pytest.mark.parametrize(("answer", "left"), [("n\n", 3), ("\n", 3), ("y\n", 0), ("yes\n", 0)])
def test_at_a_terminal_gc_asks(store: Store, answer: str, left: int) -> None:
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "reelwright", "film", "gc", str(store.root.parent)]
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    assert process.stderr is not None
    assert "[y/N]" in process.stderr.readline()
    os.write(ours, answer.encode())
    assert process.wait(timeout=60) == 0
    process.stderr.close()
    os.close(ours)
    assert len(list(store.clips.iterdir())) == left


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("{folder}/nothing",), 10, "does not exist"),
        (("{folder}/.reel/lock",), 10, "is a file"),
        (("{folder}", "--yes", "--dry-run"), 10, "contradict"),
        (("{folder}", "--grace", "-1"), 10, "not a number of days"),
        (("{folder}", "--grace", "nan"), 10, "not a number of days"),
        (("{folder}/.reel",), 0, "1 more clip that"),
        (("{folder}/empty",), 0, "there is no store of clips"),
    ],
)
def test_gc_names_wrong_arguments(store: Store, reel: Reel, arguments: tuple[str, ...], status: int, said: str) -> None:
    old(store.clips, 1)
    folder = store.root.parent
    (folder / "empty").mkdir()
    with store.held("film"):
        pass
    told = reel("film", "gc", *(text.format(folder=folder) for text in arguments))
    assert (told.returncode, said in told.stdout + told.stderr) == (status, True), told


def test_nothing_is_removed_while_a_film_is_being_made_and_no_film_begins_meanwhile(store: Store) -> None:
    with store.held("film"), pytest.raises(BusyError, match="film is being made by process"):
        lost(store.root.parent)
    with store.all_held(), pytest.raises(BusyError), store.held("other"):
        pass
    with store.held("one"), store.held("two"):
        pass


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        store_of(tmp_path / "nothing")
