"""The examples in the modules' own words: true where they can be run, and never about names that are gone."""

from __future__ import annotations

import ast
import builtins
import doctest
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

import reelwright
from tests.conftest import REPOSITORY

#: Their examples speak of a picture or a film that a reader has, so they cannot be run as they stand.
NEED_A_FILE = frozenset(
    f"reelwright.{name}"
    for name in (
        "engines.draft", "engines.draft.camera_path", "engines.draft.transitions", "engines.draft.label",
        "engines.draft.passages", "engines.draft.stills", "sites.local.attempt_monitor", "films.prefetch", "media.continuity",
        "media.decoding", "media.verification", "media.video_facts", "media.image", "media.image_decoder",
        "media.image_child", "media.image_colours", "films.editing.clip_analysis", "films.editing.joining", "media.picture_file", "films.editing.segments", "films.editing.proof",
        "media.checksum_box", "media.sheet", "films.editing.artifact_cache", "films.editing.reencode", "films.editing.sound", "films.editing.timing", "media.video", "media.writer",
        "policy.preflight", "core.manifest",
    )
)  # fmt: skip
#: Values of other modules, which an example need not import.
OTHERS_VALUES = {"Path", "Size", "ExpectedVideo"}


def modules() -> list[str]:
    found = pkgutil.walk_packages(reelwright.__path__, "reelwright.")
    return [module.name for module in found if not module.name.endswith("__main__")]


def examples_of(module: ModuleType) -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder()
    return [test for test in finder.find(module, extraglobs={"Path": Path}) if test.examples]


def _unknown_calls(test: doctest.DocTest, module: ModuleType) -> set[str]:
    """Functions that an example calls and that are neither there nor made by it."""
    nodes = [node for example in test.examples for node in ast.walk(ast.parse(example.source))]
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    made = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return called - made - set(vars(module)) - set(vars(builtins)) - OTHERS_VALUES


def test_an_example_is_true_or_at_least_calls_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = []
    for name in modules():
        module = importlib.import_module(name)
        for test in examples_of(module):
            wrong += [f"{test.name}: there is no {called}" for called in _unknown_calls(test, module)]
            if name not in NEED_A_FILE and doctest.DocTestRunner().run(test).failed:
                wrong.append(test.name)
    assert wrong == []


def test_only_modules_with_an_example_are_excused() -> None:
    assert {name for name in NEED_A_FILE if not examples_of(importlib.import_module(name))} == set()


def test_every_module_says_what_it_is_for() -> None:
    assert [name for name in modules() if not importlib.import_module(name).__doc__] == []


@pytest.mark.parametrize("picture", sorted((REPOSITORY / "examples").glob("*.jpg")), ids=lambda path: path.name)
def test_an_example_picture_is_large_enough_to_move_in_small_enough_to_ship_and_says_whose_it_is(picture: Path) -> None:
    with Image.open(picture) as image:
        assert image.width >= 1920
        assert image.height >= 1080
    assert picture.stat().st_size < 600_000
    assert f"`{picture.name}`" in (REPOSITORY / "examples" / "README.md").read_text("utf-8")
