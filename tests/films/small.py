"""A storyboard of five small shots: made in this process, or by `reel film` in one of its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from reelwright import Settings, load_settings
from reelwright.films import FilmEvent, FilmResult, SegmentState
from reelwright.films.assembly import film
from reelwright.films.render import FilmOrder
from reelwright.films.storyboard import load_storyboard
from tests import warm
from tests.conftest import a_photo

BOARD = """\
title: Small
size: 160x96
shots:
  - {id: one, prompt: push in, image: a.png, frames: 9}
  - {id: two, prompt: pan left, frames: 9}
  - {id: three, prompt: tilt up, image: b.png, frames: 9, transition: dissolve 3}
  - {id: four, prompt: hold, frames: 9}
  - {id: five, prompt: pull out, image: a.png, last_image: b.png, frames: 9}
"""


def set_up(here: Path) -> Path:
    """The storyboard with its pictures in a folder."""
    here.mkdir(exist_ok=True)
    a_photo(here / "a.png", (320, 192))
    a_photo(here / "b.png", (300, 200))
    (here / "film.yaml").write_text(BOARD)
    return here


def draft_settings(**values: Any) -> Settings:
    """Settings of a film by the draft generator; the state folder is that of the test."""
    return load_settings(environ={}, arguments={"generator": "draft", **values})


def make(folder: Path, text: str = BOARD, **options: Any) -> tuple[FilmResult, dict[str, str]]:
    """The film, and the last state of each of its clips."""
    (folder / "film.yaml").write_text(text)
    settings = draft_settings(**options.pop("settings", {}))
    order = FilmOrder(
        load_storyboard(folder / "film.yaml"), settings, folder / "film.mp4", folder / "film.yaml", **options
    )
    states: dict[str, str] = {}

    def listen(event: FilmEvent) -> None:
        if isinstance(event, SegmentState):
            states[event.segment] = event.state

    return film(order, listen), states


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "film.mp4").read_bytes()).hexdigest()


def _argv(folder: Path, *more: str) -> list[str]:
    film, output = str(folder / "film.yaml"), str(folder / "film.mp4")
    return [sys.executable, "-m", "reelwright", "film", film, "-o", output, "--json", *more]


def started(folder: Path, *more: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return warm.start(_argv(folder, *more), stdout=pipe, stderr=pipe, text=True, env={**os.environ, **(env or {})})


def held_back(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    """`reel film` that stands still, however fast it is, once it has said 4 KiB that nobody has read."""
    pipe = subprocess.PIPE
    return subprocess.Popen(_argv(folder, *more), 0, stdout=pipe, stderr=pipe, pipesize=4096)


def finished(folder: Path, *more: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    process = started(folder, *more, env=env)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return dict(json.loads(out.splitlines()[-1]))
