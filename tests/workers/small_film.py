"""Makes a film of twelve shots with the stand-in: four chains of two shots, and four single shots.

A test that kills the film runs `python -m tests.workers.small_film FOLDER [OPTIONS]`, which prints each event as a
line, so that the test can choose the moment.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reelwright import backends, load_settings
from reelwright.films import FilmEvent, FilmResult, SegmentEvent
from reelwright.films.assembly import film
from reelwright.films.render import FilmOrder
from reelwright.films.storyboard import load_storyboard
from reelwright.sites.local.site import LocalSite
from tests.stand_ins.checkout import whole_lines

BACKEND = "tests.stand_ins.resident.backend"
SHOTS = tuple(f"s{number:02}" for number in range(1, 13))
_CHAINED = ("s02", "s05", "s08", "s11")


def set_up(here: Path, shots: Sequence[str] = SHOTS) -> Path:
    """Write the storyboard of these shots and its pictures into a folder, and return the folder."""
    from tests.conftest import a_photo  # here, because the process of a film needs none of what it imports

    here.mkdir(exist_ok=True)
    lines = ["title: Twelve", "size: 64x48", "defaults: {frames: 5, steps: 3, seed: 7}", "shots:"]
    for number, name in enumerate(shots):
        a_photo(here / f"{name}.png", (64 + number, 48))
        image = "" if name in _CHAINED else f", image: {name}.png"
        lines.append(f"  - {{id: {name}, prompt: {name}{image}}}")
    (here / "film.yaml").write_text("\n".join(lines) + "\n")
    return here


def make(
    here: Path,
    listen: Callable[[FilmEvent], None] = lambda _: None,
    *,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> FilmResult:
    """Make the film; ``options`` are those of the stand-in."""
    marks = here / "marks"
    marks.mkdir(exist_ok=True)
    stand_in = {"options": {"notes": str(here / "notes"), "marks": str(marks), **(options or {})}}
    asked = {"generator": "resident", "state_dir": str(here / "state"), "env": {"STAND_IN": json.dumps(stand_in)}}
    order = FilmOrder(
        load_storyboard(here / "film.yaml"),
        load_settings(environ={}, arguments={**asked, "stop_grace_s": 2.0, **settings}),
        here / "film.mp4",
        here / "film.yaml",
    )
    with LocalSite(environ) as site:
        return film(order, listen, site=site)


def notes(here: Path, event: str = "") -> list[dict[str, Any]]:
    """The notes of the stand-in, all or of one kind."""
    found = [json.loads(line) for line in whole_lines(here / "notes")]
    return [note for note in found if event in ("", note["event"])]


def _say(event: FilmEvent) -> None:
    name = type(event.event if isinstance(event, SegmentEvent) else event).__name__
    print(name, flush=True)


if __name__ == "__main__":
    backends._MODULES["resident"] = BACKEND  # type: ignore[index]
    make(Path(sys.argv[1]), _say, options=json.loads("".join(sys.argv[2:]) or "{}"), simulate_gpus="1x80GiB")
