"""Whole films on the draft and on the stand-in Wan2.1: nothing is made twice, nothing is lost, the bytes are the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reelwright import load_settings
from reelwright.cli.film import _stamp
from reelwright.core.errors import VideoGenerationError
from reelwright.films.assembly import film
from reelwright.films.editing import joining
from reelwright.films.joinable import join_findings
from reelwright.films.preview import preview
from reelwright.films.render import FilmOrder, look, make_clips, plan_film
from reelwright.films.store import Store
from reelwright.films.storyboard import load_storyboard
from reelwright.sites.cancellation import Cancellation
from reelwright.sites.local.site import LocalSite
from tests import warm
from tests.conftest import a_photo
from tests.films.small import BOARD, digest, draft_settings, finished, held_back, make, set_up, started
from tests.stand_ins.checkout import launches
from tests.wan21.conftest import WanMachine


def test_a_film_has_every_shot_once_and_a_record_of_each(folder: Path) -> None:
    result, _ = make(folder)
    assert (result.width, result.height, result.num_frames) == (160, 96, 5 * 9 - 1 - 3 - 1)
    manifest = json.loads(result.manifest.read_text())
    assert [shot["segment"] for shot in manifest["facts"]["shots"]] == ["one", "two", "three", "four", "five"]
    assert [joint["kind"] for joint in manifest["facts"]["joints"]] == ["chained", "dissolve", "chained", "cut"]
    assert result.sheet.exists()


def test_chained_joints_cannot_be_seen(folder: Path) -> None:
    result, _ = make(folder)
    assert all(joint["ratio"] <= 3 for joint in result.joints if joint["kind"] == "chained")


def test_nothing_is_made_again_when_nothing_changed(folder: Path) -> None:
    make(folder)
    before = (folder / "film.mp4").stat().st_mtime_ns
    result, states = make(folder)
    assert result.unchanged
    assert set(states.values()) == {"stored"}
    assert (folder / "film.mp4").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("old", "new", "again"),
    [
        ("prompt: pan left", "prompt: pan right", {"two"}),
        ("prompt: push in", "prompt: push in fast", {"one", "two"}),
        ("transition: dissolve 3", "transition: cut", set()),
        ("title: Small", "title: Other", set()),
        ("title: Small", "title: Small\ncolor: joint", {"two", "four"}),
        ("frames: 9, transition", "frames: 13, transition", {"three", "four"}),
    ],
)
def test_d12_only_what_changed_and_what_continues_it_is_made_again(
    made: Path, old: str, new: str, again: set[str]
) -> None:
    result, _ = make(made, BOARD.replace(old, new))
    assert set(result.rendered) == again
    assert not result.unchanged


@pytest.mark.parametrize("more", ["color: joint", "overlap: 2"])
def test_a_film_is_joined_again_when_only_the_joining_changes(folder: Path, more: str) -> None:
    text = "size: 96x64\nshots:\n  - {id: one, prompt: hold, image: a.png, frames: 3}\n"
    make(folder, text)
    result, _ = make(folder, f"{more}\n{text}")
    assert (result.rendered, result.unchanged) == ((), False)


def test_d12_a_damaged_or_missing_clip_is_made_again_and_gives_the_same_film(made: Path) -> None:
    before, clips = digest(made), sorted((made / ".reel" / "clips").glob("*.mp4"))
    clips[0].write_bytes(clips[0].read_bytes()[:-100])
    clips[1].unlink()
    (made / "film.mp4").unlink()
    result, _ = make(made)
    assert len(result.rendered) == 2
    assert digest(made) == before


def test_d12_a_clip_whose_manifest_is_damaged_is_known_by_its_film_and_else_made_again_with_a_warning(
    folder: Path,
) -> None:
    text = "size: 96x64\nshots:\n  - {id: one, prompt: hold, image: a.png, frames: 3}\n"
    make(folder, text)
    manifest = next((folder / ".reel" / "clips").glob("*.reel.json"))
    manifest.write_text("{}")
    (folder / "film.mp4").unlink()
    result, _ = make(folder, text)
    assert (result.rendered, result.warnings) == ((), ())
    for path in (manifest, folder / "film.reel.json"):
        path.write_text("{}")
    (folder / "film.reel.json").unlink()
    (folder / "film.mp4").unlink()
    (folder / "film.yaml").write_text(text)
    order = FilmOrder(load_storyboard(folder / "film.yaml"), draft_settings(), folder / "film.mp4")
    assert [item.whom for item in preview(order, LocalSite()).findings if item.finding.code == "store.clip"] == [
        "clip one"
    ]
    result, _ = make(folder, text)
    assert result.rendered == ("one",)
    assert result.warnings == ("the clip of one was damaged in the store and was made again",)


def test_d12_another_picture_under_the_same_name_is_noticed(made: Path) -> None:
    a_photo(made / "b.png", (302, 200))
    result, _ = make(made)
    assert set(result.rendered) == {"three", "four", "five"}


def test_a_changed_shot_touches_no_other_piece_of_the_film(made: Path) -> None:
    pieces = made / ".reel" / "pieces"
    before = {path.name: path.stat().st_mtime_ns for path in pieces.iterdir()}
    result, _ = make(made, BOARD.replace("prompt: pull out", "prompt: push in slow"))
    assert {name: (pieces / name).stat().st_mtime_ns for name in before} == before
    new = sorted(path.suffix for path in pieces.iterdir() if path.name not in before)
    assert new == [".json", ".npz"]  # what was seen in the changed clip
    assert len(result.rendered) == 1


def test_clips_are_checked_while_others_are_being_made_so_that_joining_has_only_to_copy(folder: Path) -> None:
    settings = load_settings(environ={}, arguments={"generator": "draft"})
    board = load_storyboard(folder / "film.yaml")
    store = Store(folder)
    store.prepare()
    order = FilmOrder(board, settings, folder / "film.mp4")
    make_clips(order, store, LocalSite(), lambda _: None, Cancellation(), look(order, store, LocalSite()))
    pieces = folder / ".reel" / "pieces"
    seen = {path.name for path in pieces.iterdir()}
    make(folder)
    new = {path.name for path in pieces.iterdir()} - seen
    # What is made of the third clip, which dissolves in, and the colours of what goes on from another.
    assert sorted(Path(name).suffix for name in new) == [".json", ".json", ".json", ".json", ".mp4", ".npz"]


def test_the_manifest_says_which_clips_were_encoded_again_and_how_long_each_is(folder: Path) -> None:
    result, _ = make(folder)
    shots = json.loads(result.manifest.read_text())["facts"]["shots"]
    assert [shot["encoded_again"] for shot in shots] == [None, None, "it dissolves in", None, None]
    assert [shot["frames"] for shot in shots] == [8, 6, 8, 9, 9]
    assert result.how == "4 of 5 clips copied; encoded again: clip 3 (it dissolves in)"


def test_d12_damaged_pieces_are_made_again_and_give_the_same_film(made: Path) -> None:
    before = digest(made)
    for path in (made / ".reel" / "pieces").iterdir():
        path.write_bytes(path.read_bytes()[:-50])
    (made / "film.mp4").unlink()
    result, _ = make(made)
    assert not result.rendered
    assert digest(made) == before


def test_a_film_that_was_damaged_while_it_was_written_is_not_published(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = joining.join

    def damaged(parts: Any, target: Path, *others: Any, **more: Any) -> joining.JoinReport:
        report = whole(parts, target, *others, **more)
        data = bytearray(target.read_bytes())
        data[len(data) // 2] ^= 1
        target.write_bytes(data)
        return report

    monkeypatch.setattr(joining, "join", damaged)
    with pytest.raises(VideoGenerationError, match="does not match its plan"):
        make(folder)
    assert not (folder / "film.mp4").exists()


def test_only_and_from_choose_shots_and_what_they_need(folder: Path) -> None:
    result, _ = make(folder, only=("two",))
    assert set(result.rendered) == {"one", "two"}
    assert result.num_frames == 9
    result, _ = make(folder, start="four")
    assert set(result.rendered) == {"three", "four", "five"}
    assert result.num_frames == 18


@pytest.mark.parametrize("option", [{"only": ("none",)}, {"start": "none"}])
def test_a_missing_shot_is_reported_with_the_existing_ones(folder: Path, option: dict[str, Any]) -> None:
    with pytest.raises(VideoGenerationError, match="no shot 'none'") as caught:
        make(folder, **option)
    assert "one, two, three" in caught.value.advice


def test_a_mistake_in_any_shot_is_reported_before_any_clip_is_made(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"no picture")
    with pytest.raises(VideoGenerationError, match="shots three, five"):
        make(folder)
    assert not list((folder / ".reel" / "clips").glob("*.mp4"))


def test_what_is_wrong_with_several_shots_is_reported_once(wan: WanMachine, wan_film: Path) -> None:
    with pytest.raises(VideoGenerationError) as caught:
        film(wan_order(wan, wan2_dir=None, size=None), site=wan.site)
    told = [caught.value.message, *(error.message for error in caught.value.also)]
    assert "every shot: wan2_dir is not set" in told
    assert len(told) == len(set(told))
    between = "image: photo.png, last_image: photo.png, frames: 81}"
    (wan_film / "film.yaml").write_text(WAN_BOARD.replace("image: photo.png}", between))
    with pytest.raises(VideoGenerationError, match="shots one, three: flf2v_model_dir is not set"):
        film(wan_order(wan, flf2v_model_dir=None), site=wan.site)


SMALLEST = "size: 160x96\nshots: [{prompt: hold, image: a.png, frames: 3}]\n"


@pytest.mark.parametrize("made", [False, True], ids=["a file of another kind", "a film that was edited"])
def test_a_file_that_reelwright_did_not_make_is_not_replaced(folder: Path, made: bool) -> None:
    if made:
        make(folder, SMALLEST)
    (folder / "film.mp4").write_bytes(b"mine")
    with pytest.raises(VideoGenerationError) as caught:
        make(folder, SMALLEST)
    assert caught.value.code == "EXISTS"
    assert (folder / "film.mp4").read_bytes() == b"mine"


# ---------------------------------------------------------------------------------------------------- interrupted


def test_p22_ctrl_c_keeps_what_is_made_and_the_same_command_goes_on(folder: Path, tmp_path: Path) -> None:
    text = BOARD.replace("b.png, frames: 9}", "b.png, frames: 81}")  # the last clip alone says more than a pipe holds
    (folder / "film.yaml").write_text(text)
    process = held_back(folder, "--draft")
    assert process.stdout is not None
    for line in iter(process.stdout.readline, b""):
        if b'"rendered"' in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130
    assert b'"state": "failed"' not in out
    assert b"run the same command again to continue" in err + out
    result = finished(folder, "--draft")
    assert 1 <= len(result["stored"]) < 5
    undisturbed = set_up(tmp_path / "undisturbed")
    make(undisturbed, text)
    assert digest(folder) == digest(undisturbed)


def test_watching_makes_the_draft_at_every_save_and_ends_quietly_with_ctrl_c(folder: Path) -> None:
    argv = [sys.executable, "-m", "reelwright", "film", str(folder / "film.yaml"), "--watch"]
    process = warm.start(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def heard() -> list[str]:
        lines: list[str] = []
        while not lines or not lines[-1].startswith("watching"):
            assert process.stderr is not None
            lines.append(process.stderr.readline())
            assert lines[-1], f"it ended after {lines}"
        return lines

    def save(text: str) -> None:
        (folder / "written").write_text(text)
        (folder / "written").replace(folder / "film.yaml")  # in one step: an empty file would be a mistake of its own

    assert "one: rendered\n" in heard()
    save(BOARD.replace("push in", "psh in").replace("prompt: hold", "promt: hold"))
    assert any("did you mean prompt?" in line for line in heard())
    save(BOARD.replace("pull out", "push in"))
    lines = heard()
    assert "one: stored\n" in lines
    assert "five: rendered\n" in lines
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    assert (folder / "film.draft.mp4").exists()


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_watching_a_file_that_does_not_exist_says_so_and_waits_for_it(folder: Path, form: tuple[str, ...]) -> None:
    argv = [sys.executable, "-m", "reelwright", "film", str(folder / "later.yaml"), "--watch", *form]
    process = warm.start(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stderr.readline() if not form else json.loads(process.stdout.readline())["message"]
    assert "later.yaml cannot be read: it does not exist" in line
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=100)
    assert process.returncode == 0


def test_a_storyboard_that_is_written_in_the_tick_in_which_it_was_emptied_is_another_one(tmp_path: Path) -> None:
    board, stamps = tmp_path / "film.yaml", set()
    for text in ("", BOARD):
        board.write_text(text)
        os.utime(board, ns=(1, 1))
        stamps.add(_stamp(board))
    assert len(stamps) == 2


def test_two_calls_for_one_film_do_not_get_into_each_others_way(folder: Path) -> None:
    first = held_back(folder, "--draft")
    assert first.stdout is not None
    first.stdout.readline()
    second = started(folder, "--draft")
    out, _ = second.communicate(timeout=100)
    assert (second.returncode, json.loads(out.splitlines()[-1])["code"]) == (33, "BUSY")
    first.communicate(timeout=100)
    assert first.returncode == 0


# --------------------------------------------------------------------------------------------------- the frameworks

FULL = (
    "Traceback (most recent call last):\n"
    '  File "generate.py", line 1, in <module>\n'
    "OSError: [Errno 28] No space left on device"
)
WAN_BOARD = """\
title: Wan
size: 832x480
defaults: {frames: 5, steps: 3}
shots:
  - {id: one, prompt: a cat, image: photo.png}
  - {id: two, prompt: it runs}
  - {id: three, prompt: a dog, image: photo.png}
"""


@pytest.fixture
def wan_film(wan: WanMachine) -> Path:
    (wan.folder / "film.yaml").write_text(WAN_BOARD)
    return wan.folder


def wan_order(wan: WanMachine, **values: Any) -> FilmOrder:
    board = load_storyboard(wan.folder / "film.yaml")
    keep_going = values.pop("keep_going", False)
    settings = wan.settings(**values)
    return FilmOrder(board, settings, wan.output, keep_going=keep_going)


def test_a_size_that_the_generator_makes_otherwise_is_said_before(wan: WanMachine, wan_film: Path) -> None:
    order = wan_order(wan)
    _, planned = plan_film(order, Store(wan.output.parent), wan.site)
    said = {item.finding.code: item for item in join_findings(order, planned)}["film.size"]
    assert said.message == "every shot: the storyboard asks for 832x480; the clip will be 832x464"


def test_a_film_by_the_framework_continues_the_last_frame(wan: WanMachine, wan_film: Path) -> None:
    wan.script({})
    result = film(wan_order(wan), site=wan.site)
    assert (result.num_frames, result.width, result.height) == (14, 832, 464)
    assert result.generative
    images = [word for entry in launches(wan.checkout) for word in entry["argv"] if word.startswith("--image=")]
    assert len(images) == 3


def test_d12_other_weights_of_the_same_size_are_noticed(wan: WanMachine, wan_film: Path) -> None:
    wan.script({})
    film(wan_order(wan), site=wan.site)
    path = next(Path(wan.values["i2v_model_dir"]).glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert set(film(wan_order(wan, if_exists="overwrite"), site=wan.site).rendered) == {"one", "two", "three"}


def test_a_draft_reports_what_the_real_film_would_take_first_from_published_figures_then_from_history(
    wan: WanMachine, wan_film: Path
) -> None:
    def told() -> tuple[str, ...]:
        order = wan_order(wan)
        return film(replace(order, draft=True, output=wan.folder / "out" / "draft.mp4"), site=wan.site).estimate

    size, time = told()
    assert size.startswith("the real film by wan2.1: 3 clips, about ")
    assert time.startswith("clip after clip: about ")
    assert "an estimate for 1 x H100 from Wan2.1's published figures" in time
    wan.script({})
    film(wan_order(wan), site=wan.site)
    assert told()[1].endswith(" (from this machine's history)")


def test_a_draft_does_not_take_the_place_of_a_film_that_a_model_made(wan: WanMachine, wan_film: Path) -> None:
    wan.script({})
    film(wan_order(wan), site=wan.site)
    before = wan.output.read_bytes()
    with pytest.raises(VideoGenerationError, match="a draft would replace it"):
        film(replace(wan_order(wan), draft=True), site=wan.site)
    assert wan.output.read_bytes() == before
    assert not film(replace(wan_order(wan, if_exists="overwrite"), draft=True), site=wan.site).generative


def test_a_draft_reports_in_a_few_lines_why_the_real_film_cannot_be_made_here(folder: Path) -> None:
    result, _ = make(folder, BOARD.replace("title: Small", "title: Small\ngenerator: wan2.1"), draft=True)
    asked = [line for line in result.estimate if line.startswith("for the real film this must change: ")]
    assert any("cannot make 160x96" in line for line in asked)
    (lacking,) = [line for line in result.estimate if line.startswith("it cannot be made on this machine now: ")]
    assert lacking.endswith("more (`reel storyboard check` lists all)")


def test_independent_shots_run_on_their_own_gpus(wan: WanMachine, wan_film: Path) -> None:
    wan.script({"load_s": 0.2})
    film(wan_order(wan, gpu_count=None, parallel_segments=2, total_gpus=2), site=wan.site)
    manifest = json.loads((wan.folder / "out" / "clip.reel.json").read_text())
    assert {tuple(shot["manifest"]["plan"]["gpus"]) for shot in manifest["facts"]["shots"]} == {(0,), (1,)}


def test_a_failed_shot_stops_what_needs_it_and_the_rest_is_made(wan: WanMachine, wan_film: Path) -> None:
    wan.script({"exit": 1}, {})
    with pytest.raises(VideoGenerationError, match="shot one") as caught:
        film(wan_order(wan, retry_policy="none"), site=wan.site)
    assert any("two: not made, because it continues one" in line for line in caught.value.evidence)
    assert len(list((wan.folder / "out" / ".reel" / "clips").glob("*.mp4"))) == 1
    assert not wan.output.exists()
    wan.script({})
    result = film(
        wan_order(wan, gpu_count=None, simulate_gpus="1x8GiB,1x80GiB"), site=wan.site
    )  # the card on which it fits, as planned
    assert set(result.rendered) == {"one", "two"}


def test_with_keep_going_a_film_is_made_of_the_existing_clips_and_says_so(wan: WanMachine, wan_film: Path) -> None:
    wan.script({"exit": 1}, {})
    result = film(wan_order(wan, retry_policy="none", keep_going=True), site=wan.site)
    assert result.degraded
    assert result.failed == ("one", "two")
    assert any("left out" in warning for warning in result.warnings)
    assert result.num_frames == 5


def test_a_lowered_quality_is_that_of_all_later_shots_and_is_reported(wan: WanMachine, wan_film: Path) -> None:
    wan.script({"oom_phase": "dit"}, {})
    result = film(wan_order(wan, retry_policy="documented"), site=wan.site)
    manifest = json.loads((wan.folder / "out" / "clip.reel.json").read_text())
    steps = [shot["manifest"]["effective"]["steps"] for shot in manifest["facts"]["shots"]]
    assert steps == [2, 2, 2]
    assert any("lower quality" in warning for warning in result.warnings)


def test_d11_after_a_full_disk_in_the_middle_the_same_command_continues(wan: WanMachine, wan_film: Path) -> None:
    wan.script({}, {"traceback": FULL}, {})
    with pytest.raises(VideoGenerationError) as caught:
        film(wan_order(wan), site=wan.site)
    assert caught.value.code == "DISK"
    assert caught.value.evidence[-1] == "not started: three"
    wan.script({})
    result = film(wan_order(wan), site=wan.site)
    assert result.rendered == ("two", "three")
    assert len(launches(wan.checkout)) == 4
