"""A generator in a package of its own: installed, configured, listed and run by the real command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.installed import add_distribution, install

SECRET = "hunter2-is-shown-nowhere"
FILE = f"""\
generators:
  studio:
    lens: 35
    look: a.cube
    api_token: {SECRET}
"""
#: A generator with two keys that exclude each other.
PICKY = """\
from dataclasses import replace
from pydantic import model_validator
from reelwright import Settings
from reelwright.testing import backend

class PickySettings(Settings):
    fast: bool = False
    fine: bool = False

    @model_validator(mode="after")
    def _one(self):
        if self.fast and self.fine:
            raise ValueError("fast and fine exclude each other")
        return self

BACKEND = replace(backend, name="picky", settings=PickySettings, configured=lambda settings: settings.fast)
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, and beside it one that cannot be imported and one whose settings are none."""
    folder = install(tmp_path_factory.mktemp("site"))
    add_distribution(folder, "broken", "1.0", {"broken": "no_such_module:BACKEND"})
    (folder / "odd.py").write_text(
        "from dataclasses import replace\nfrom reelwright.testing import backend\n"
        "BACKEND = replace(backend, name='odd', settings=dict)\n"
    )
    add_distribution(folder, "odd", "1.0", {"odd": "odd:BACKEND"})
    (folder / "picky.py").write_text(PICKY)
    add_distribution(folder, "picky", "1.0", {"picky": "picky:BACKEND"})
    return folder


@pytest.fixture
def run(tmp_path: Path, site: Path) -> Run:
    """``reel`` in a process that has the package on its path."""
    (tmp_path / "c.yaml").write_text(FILE)

    def reel(*words: str, environ: Mapping[str, str] | None = None, program: str = "") -> Any:
        start = [sys.executable, *(["-c", program] if program else ["-m", "reelwright"])]
        own = {"PYTHONPATH": str(site), "HOME": str(tmp_path), "PATH": os.environ["PATH"], **(environ or {})}
        return subprocess.run([*start, *words], capture_output=True, text=True, cwd=tmp_path, env=own, check=False)

    return reel


def test_every_source_sets_a_key_of_the_package_and_no_secret_is_shown(run: Run, tmp_path: Path) -> None:
    environ = {"REELWRIGHT_GENERATORS__STUDIO__GRAIN": "true", "REELWRIGHT_GENERATORS__STUDIO__LENS": "24"}
    done = run("config", "--config", "c.yaml", "--set", "generators.studio.lens=85", "--json", environ=environ)
    rows = {row["key"].removeprefix("generators.studio."): row for row in json.loads(done.stdout)}
    assert SECRET not in done.stdout + done.stderr
    shown = {key: (rows[key]["value"], rows[key]["origin"]) for key in ("lens", "look", "grain", "takes", "api_token")}
    assert shown == {
        "lens": (85, "--set (generators.studio)"),
        "look": (str(tmp_path / "a.cube"), "c.yaml:4 (generators.studio)"),
        "grain": (True, "environment REELWRIGHT_GENERATORS__STUDIO__GRAIN (generators.studio)"),
        "takes": (1, "default"),
        "api_token": ("***", "c.yaml:5 (generators.studio)"),
    }
    assert rows["lens"]["description"] == "focal length, millimetres"


def test_every_mistake_in_the_section_is_said_at_once_with_its_place(run: Run, tmp_path: Path) -> None:
    wrong = f"generators:\n  studio:\n    lens: wide\n    tokes: 3\n    pass_phrase: [{SECRET}]\n"
    (tmp_path / "wrong.yaml").write_text(wrong)
    done = run("config", "--config", "wrong.yaml", "--set", "generators.studio.lense=35")
    assert done.returncode == 11
    for words in (
        "wrong.yaml:3: generators.studio: lens: must be a number, not 'wide'",
        "wrong.yaml:4: generators.studio: there is no setting named 'tokes'",
        "Did you mean takes?",
        "wrong.yaml:5: generators.studio: pass_phrase: must be text",
        "--set: generators.studio: there is no setting named 'lense'",
        "Did you mean lens?",
    ):
        assert words in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_a_broken_package_is_one_line_of_the_doctor_and_stops_nothing(run: Run) -> None:
    rows = json.loads(run("doctor", "--json").stdout)
    plugins = {row["part"]: row["message"] for row in rows if row["code"] == "plugin"}
    assert set(plugins) == {"broken", "odd"}
    assert "cannot be loaded: No module named 'no_such_module'" in plugins["broken"]
    assert "are not a subclass of reelwright.Settings" in plugins["odd"]
    assert any(row["part"] == "studio" and row["code"] == "ready" for row in rows)
    listed = {entry["name"]: entry["available"] for entry in json.loads(run("generators", "--json").stdout)}
    assert (listed["studio"], listed["broken"], listed["draft"]) == (True, False, True)
    noted = run("config", "--set", "generators.broken.lens=3")
    assert (noted.returncode, "generators.broken: the package that provides it" in noted.stderr) == (0, True)


def test_settings_of_several_sources_that_exclude_each_other_stop_only_their_own_generator(
    run: Run, tmp_path: Path
) -> None:
    words, fine = "fast and fine exclude each other", {"REELWRIGHT_GENERATORS__PICKY__FINE": "true"}
    (tmp_path / "both.yaml").write_text("generators:\n  picky: {fast: true}\n" + FILE.partition("\n")[2])
    clip = ("-", "a sea", "--config", "both.yaml", "-o", "sea.mp4")
    done = run("generate", *clip, "--json", environ=fine)
    result = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, result["generator"]) == (0, "studio"), done.stderr
    assert any("picky" in warning and words in warning for warning in result["warnings"])
    rows = json.loads(run("doctor", "--config", "both.yaml", "--json", environ=fine).stdout)
    assert [row["severity"] for row in rows if row["part"] == "picky" and words in row["message"]] == ["error"]
    assert any(row["part"] == "studio" and row["code"] == "ready" for row in rows)
    (tmp_path / "alone.yaml").write_text("generators: {picky: {fast: true}}\n")
    alone = run("plan", "-", "a sea", "--config", "alone.yaml", environ=fine)  # no draft instead
    assert (alone.returncode, words in alone.stderr) == (11, True)


def test_a_clip_by_the_package_has_its_settings_in_the_manifest(run: Run, tmp_path: Path) -> None:
    done = run("generate", "-", "a sea", "--config", "c.yaml", "-o", "sea.mp4", "--seed", "3")  # auto: its token is set
    assert done.returncode == 0, done.stderr
    assert "note: this is not generative; no model has generated anything" in done.stderr
    manifest = json.loads((tmp_path / "sea.reel.json").read_text())
    assert (manifest["generator"], manifest["effective"]["lens"]) == ("studio", 35)
    refused = run("plan", "-", "a sea", "--generator", "studio", "--set", "generators.studio.grain=true")
    assert (refused.returncode, "grain needs an api_token" in refused.stdout + refused.stderr) == (11, True)


def test_a_film_may_have_a_shot_by_the_package(run: Run, tmp_path: Path) -> None:
    text = "size: 64x36\nfps: 16\nshots:\n  - {id: sea, prompt: a sea, seconds: 0.5, generator: studio}\n"
    (tmp_path / "film.yaml").write_text(text)
    done = run("film", "film.yaml", "--config", "c.yaml", "-o", "film.mp4", "--json")
    assert done.returncode == 0, done.stderr
    made = [json.loads(path.read_text()) for path in tmp_path.rglob("*.reel.json")]
    assert ("studio", 35) in {(one["generator"], one.get("effective", {}).get("lens")) for one in made}


def test_the_documented_interface_makes_a_clip_with_it(run: Run) -> None:
    program = (
        "from reelwright import create_video_generator as create\n"
        "studio = create('studio', {'generators': {'studio': {'lens': 28}}, 'sample_steps': 2})\n"
        "print(studio.settings.lens, studio.is_available(), type(studio.settings).__name__)\n"
        "print(studio.generate_video('a sea', '', 'python.mp4', duration=0.5))\n"
    )
    done = run(program=program)
    assert done.stdout.split("\n")[0] == "28.0 True StudioSettings", done.stderr
    assert done.stdout.split("\n")[1].endswith("python.mp4")
