"""`reel film --dry-run` shows what would be made and runs nothing; no option of `reel film` is accepted and ignored."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from reelwright import load_settings
from reelwright.cli import build_parser, main
from reelwright.cli.film import USED
from reelwright.films.preview import preview
from reelwright.films.render import FilmOrder
from reelwright.films.storyboard import load_storyboard
from reelwright.sites.local.site import LocalSite
from tests.films.small import BOARD
from tests.stand_ins.checkout import launches
from tests.wan21.conftest import WanMachine

WAN_BOARD = """\
title: Wan
size: 832x480
defaults: {frames: 5, steps: 3}
shots:
  - {id: one, prompt: a cat, image: photo.png}
  - {id: two, prompt: it runs}
  - {id: three, prompt: a dog, image: photo.png}
"""


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder, with its time and size."""
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def planned(capsys: pytest.CaptureFixture[str], *argv: Any) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON of a dry run in this process."""
    status = main(["film", *map(str, argv), "--dry-run", "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_a_dry_run_says_what_is_stored_and_what_is_to_make_and_writes_nothing(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (made / "film.yaml").write_text(BOARD.replace("prompt: pan left", "prompt: pan right"))
    before = everything(made)
    argv = [made / "film.yaml", "--set", "generator=draft"]
    status, plan = planned(capsys, *argv)
    assert (status, plan["to_make"]) == (0, 1)
    (time,) = plan["times"]
    as_long_as_the_first_ones_took_here = r"clip after clip: about \d+ (s|min) \(estimated\)"
    assert re.fullmatch(as_long_as_the_first_ones_took_here, time)
    assert [(item["severity"], item["concerns"]) for item in plan["findings"]] == [("info", "shot two")]
    assert [(clip["segment"], clip["stored"]) for clip in plan["clips"]] == [
        ("one", True),
        ("two", False),
        ("three", True),
        ("four", True),
        ("five", True),
    ]
    two = plan["clips"][1]
    assert (two["frames"], two["goes_on_from"], two["generator"]) == (9, "one", "draft")
    assert two["seconds"] > 0
    assert two["host_bytes"] > 0
    assert main(["film", *map(str, argv), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "one: 9 frames by draft: stored" in text
    assert "two: 9 frames by draft, continues one: to make, about" in text
    assert everything(made) == before


def test_a_dry_run_in_a_new_folder_leaves_nothing_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything(folder)
    status, plan = planned(capsys, folder / "film.yaml", "--draft")
    assert (status, plan["to_make"], plan["generative"]) == (0, 5, False)
    assert everything(folder) == before


def test_a_dry_run_lists_settings_that_the_generators_of_the_shots_do_not_have(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, plan = planned(capsys, folder / "film.yaml", "--draft", "--set", "sample_steps=8")
    found = {(item["code"], item["concerns"], item["message"]) for item in plan["findings"]}
    text = "--set: sample_steps is ignored: the generator draft has no such setting"
    assert (status, ("setting.unused", "every shot", text) in found) == (0, True)


def test_a_dry_run_says_all_that_stands_in_the_way_with_the_status_of_the_first(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "b.png").write_bytes(b"no picture")
    (folder / "film.mp4").write_bytes(b"mine")
    status, plan = planned(capsys, folder / "film.yaml", "--set", "generator=draft")
    errors = [(item["failure"], item["concerns"]) for item in plan["findings"] if item["severity"] == "error"]
    assert errors == [("EXISTS", ""), ("INPUT", "shots three, five")]
    assert status == 32


def test_a_picture_that_cannot_be_read_is_a_finding_of_every_shot_that_has_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shots = "".join(f"  - {{id: {name}, prompt: hold, image: b.png, frames: 3}}\n" for name in ("one", "two"))
    (folder / "film.yaml").write_text(
        f"size: 96x64\nshots:\n  - {{id: zero, prompt: hold, image: a.png, frames: 3}}\n{shots}"
    )
    (folder / "b.png").write_bytes(b"no picture")
    _, plan = planned(capsys, folder / "film.yaml", "--draft")
    assert [item["concerns"] for item in plan["findings"] if item["severity"] == "error"] == ["shots one, two"]


def test_a_dry_run_of_a_film_by_a_framework_says_time_and_memory(wan: WanMachine) -> None:
    (wan.folder / "film.yaml").write_text(WAN_BOARD)
    order = FilmOrder(load_storyboard(wan.folder / "film.yaml"), wan.settings(), wan.output)
    plan = preview(order, wan.site)
    assert not plan.errors
    assert len(plan.missing) == 3
    assert all((clip.planned.plan.gpu_bytes or 0) > 2**30 for clip in plan.clips)
    assert "Wan2.1's published figures" in plan.times[0]
    assert not launches(wan.checkout)


#: What is given for each option, so that a dry run shows another plan than without it.
GIVEN: dict[str, list[str]] = {
    "output": ["-o", "{folder}/other.mp4"],
    "draft": ["--draft"],
    "only": ["--only", "three"],
    "start": ["--from", "three"],
    "parallel": ["--parallel", "2"],
    "keep_going": ["--keep-going"],
    "overwrite": ["--overwrite"],
    "gpus": ["--gpus", "1,"],
    "simulate_gpus": ["--simulate-gpus", "3x80GiB"],
    "simulate_memory": ["--simulate-memory", "512GiB"],
    "strict_quality": ["--strict-quality"],
    "allow_degrade": ["--allow-degrade", "frames,size"],
    "config": ["--config", "{other}"],
    "assignments": ["--set", "sample_shift=4"],
}
#: Options whose whole effect is how or whether something is shown or removed.
SHOWN = {"json", "dry_run", "watch", "target", "yes", "grace"}


def options() -> dict[str, str]:
    """Every option of ``reel film``, by its name in a namespace."""
    found: dict[str, tuple[str, Any]] = build_parser().parse_args(["film", "film.yaml"]).options
    return {name: text for name, (text, _) in found.items()}


def test_every_option_of_reel_film_is_used_by_a_way_of_calling_it_and_has_an_example_here() -> None:
    used = {name for names in USED.values() for name in names}
    assert used == set(options()) == set(GIVEN) | SHOWN


@pytest.mark.parametrize("name", [name for name in GIVEN if name not in ("config", "draft")])
def test_every_option_of_a_film_changes_its_plan(
    wan: WanMachine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (wan.folder / "film.yaml").write_text(WAN_BOARD)
    for variable, value in wan.environ.items():
        monkeypatch.setenv(variable, value)
    argv = [wan.folder / "film.yaml", "--config", wan.config_file(gpu_count=None)]
    _, plain = planned(capsys, *argv)
    _, changed = planned(capsys, *argv, *(text.format(folder=wan.folder) for text in GIVEN[name]))
    assert changed != plain


_VALUE = {"target": ["x"], "watch": ["--watch"], "yes": ["--yes"], "grace": ["--grace", "3"]}
_CALLS = {
    "reel film": ["{folder}/film.yaml"],
    "reel film --draft": ["{folder}/film.yaml", "--draft"],
    "reel film --dry-run": ["{folder}/film.yaml", "--dry-run"],
    "reel film --watch": ["{folder}/film.yaml", "--watch"],
    "reel film status": ["status", "{folder}/film.yaml"],
    "reel film gc": ["gc", "{folder}"],
}


_GIVEN = {**GIVEN, **_VALUE, "dry_run": ["--dry-run"]}
#: With these an order is another way of calling it.
_OTHER_WAY = {("reel film", name) for name in ("draft", "dry_run", "watch")} | {
    ("reel film --draft", "watch"),
    ("reel film --draft", "dry_run"),
}


@pytest.mark.parametrize(
    ("way", "name"),
    [
        (way, name)
        for way, names in USED.items()
        for name in _GIVEN
        if name not in names and (way, name) not in _OTHER_WAY
    ],
)
def test_an_option_without_an_effect_is_refused_and_nothing_is_done(
    folder: Path, capsys: pytest.CaptureFixture[str], way: str, name: str
) -> None:
    before = everything(folder)
    call = _CALLS[way]
    argv = [*call[:1], *_GIVEN[name], *call[1:]] if name == "target" else [*call, *_GIVEN[name]]
    argv = [text.format(folder=folder, other="x") for text in argv]
    assert main(["film", *argv]) == 10
    told = capsys.readouterr().err
    assert "no effect" in told or "two files are named" in told
    assert everything(folder) == before


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--parallel", "0"], "CONFIG"),
        (["--parallel", "-1"], "CONFIG"),
        (["--gpus", ""], "INPUT"),
        (["--allow-degrade", ""], "CONFIG"),
        (["--from", ""], "INPUT"),
        (["--only", ""], "INPUT"),
        (["--only", "one", "--from", "two"], "INPUT"),
        (["--set", "size=640x384"], "INPUT"),
        (["--set", "frame_num=9"], "INPUT"),
        (["--set", "base_seed=3"], "INPUT"),
        (["--set", "fps=9"], "INPUT"),
        (["--set", "fps=12"], "INPUT"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_and_not_ignored(
    folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str], code: str
) -> None:
    assert main(["film", str(folder / "film.yaml"), "--dry-run", "--json", *argv]) != 0
    assert json.loads(capsys.readouterr().out)["code"] == code


def test_a_film_without_an_output_goes_where_the_settings_say(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, plan = planned(capsys, folder / "film.yaml", "--draft", "--set", f"output_dir={tmp_path}")
    assert plan["output"] == str(tmp_path / "film.draft.mp4")


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("prompt: push in", "prompt: push in slow", {"one", "two"}),
        ("image: a.png, frames: 9}", "image: a.png, frames: 9, negative_prompt: blur}", {"one", "two"}),
        ("title: Small", "title: Small\ncolor: joint", {"two", "four"}),
        ("title: Small", "title: Small\nseed: 5", {"one", "two", "three", "four", "five"}),
        ("size: 160x96", "size: 192x96", {"one", "two", "three", "four", "five"}),
    ],
)
def test_the_key_of_a_clip_changes_with_all_that_determines_it_and_with_nothing_else(
    folder: Path, old: str, new: str, changed: set[str]
) -> None:
    def keys(text: str) -> dict[str, str]:
        (folder / "film.yaml").write_text(text)
        settings = load_settings(environ={}, arguments={"generator": "draft"})
        plan = preview(FilmOrder(load_storyboard(folder / "film.yaml"), settings, folder / "film.mp4"), LocalSite())
        return {clip.id: clip.planned.key for clip in plan.clips}

    before, after = keys(BOARD), keys(BOARD.replace(old, new, 1))
    assert {name for name in before if before[name] != after[name]} == changed
