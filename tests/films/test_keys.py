"""What a clip of a film is known by: everything that determines it, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reelwright import load_settings
from reelwright.films.planning import Planned
from reelwright.films.render import FilmOrder, plan_film
from reelwright.films.store import Store
from reelwright.films.storyboard import Storyboard
from reelwright.sites.local.site import LocalSite
from tests.conftest import a_photo
from tests.wan21.conftest import WanMachine

SHOTS = (
    {"id": "one", "prompt": "push in", "image": "a.png", "frames": 9},
    {"id": "two", "prompt": "pan left", "frames": 9},
)


def keys(
    folder: Path, first: dict[str, Any] | None = None, second: dict[str, Any] | None = None, **film: Any
) -> list[str]:
    """The keys of both clips, with changes to the first shot, the second one or the film."""
    folder.mkdir(exist_ok=True)
    if not (folder / "a.png").exists():
        a_photo(folder / "a.png", (320, 192))
    shots = [{**SHOTS[0], **(first or {})}, {**SHOTS[1], **(second or {})}]
    shots = [{**shot, "image": folder / shot["image"]} if "image" in shot else shot for shot in shots]
    board = Storyboard.model_validate({"size": "160x96", "shots": shots, **film})
    settings = load_settings(environ={}, arguments={"generator": "draft"})
    order = FilmOrder(board, settings, folder / "film.mp4")
    return [item.key for item in plan_film(order, Store(folder), LocalSite({}))[1]]


CHANGES: dict[str, tuple[dict[str, Any], list[bool]]] = {
    "the prompt": ({"first": {"prompt": "pull out"}}, [True, True]),
    "the negative prompt": ({"first": {"negative_prompt": "rain"}}, [True, True]),
    "the length": ({"first": {"frames": 10}}, [True, True]),
    "the seed of the second shot": ({"second": {"seed": 7}}, [False, True]),
    "the negative prompt of the second shot": ({"second": {"negative_prompt": "rain"}}, [False, True]),
    "the size": ({"size": "96x64"}, [True, True]),
    "the way with colours": ({"color": "off"}, [False, True]),
    "a beginning of its own": ({"second": {"image": "a.png"}}, [False, True]),
    "the title": ({"title": "another"}, [False, False]),
    "the transition": ({"second": {"transition": "dissolve 2"}}, [False, False]),
}


@pytest.mark.parametrize(("change", "other"), CHANGES.values(), ids=CHANGES.keys())
def test_a_clip_has_another_key_exactly_where_something_that_determines_it_changes(
    tmp_path: Path, change: dict[str, Any], other: list[bool]
) -> None:
    before, after = keys(tmp_path), keys(tmp_path, **change)
    assert [one != two for one, two in zip(before, after, strict=True)] == other


@pytest.mark.parametrize(
    ("shot", "setting", "other"),
    [
        ({"fit": "contain"}, {}, True),
        ({"anchor": "top"}, {}, True),
        ({}, {"fit": "stretch"}, True),
        ({}, {"anchor": "0.2,0.5"}, True),
        ({"fit": "cover", "anchor": "center"}, {}, False),
        ({"fit": "cover"}, {"fit": "contain"}, False),
        ({"camera": "pan_left"}, {}, False),
    ],
)
def test_how_a_picture_is_brought_to_the_size_is_part_of_a_frameworks_key(
    wan: WanMachine, shot: dict[str, Any], setting: dict[str, Any], other: bool
) -> None:
    def planned(more: dict[str, Any], **settings: Any) -> list[Planned]:
        first = {**SHOTS[0], "image": wan.folder / "photo.png", **more}
        board = Storyboard.model_validate({"size": "832x480", "generator": "wan2.1", "shots": [first, SHOTS[1]]})
        order = FilmOrder(board, wan.settings(**settings), wan.output)
        return list(plan_film(order, Store(wan.output.parent), wan.site)[1])

    before, after = planned({}), planned(shot, **setting)
    assert [one.key != two.key for one, two in zip(before, after, strict=True)] == [other, other]
    assert after[1].segment.request.fit is None  # the frame that it begins with has the film's size
    assert before[1].plan.expected == after[1].plan.expected


def test_another_picture_under_the_same_name_gives_another_key(tmp_path: Path) -> None:
    before = keys(tmp_path)
    a_photo(tmp_path / "a.png", (320, 190))
    assert all(one != two for one, two in zip(before, keys(tmp_path), strict=True))


def test_the_same_film_in_another_folder_has_the_same_keys(tmp_path: Path) -> None:
    assert keys(tmp_path / "here") == keys(tmp_path / "there")
