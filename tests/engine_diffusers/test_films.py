"""Films by the real engine in real workers: one worker for all shots, and the same bytes whatever happens to it."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelwright import Settings, load_settings
from reelwright.backends.diffusers import backend
from reelwright.core.errors import Cancelled
from reelwright.core.events import Progress
from reelwright.core.request import VideoRequest
from reelwright.films import FilmEvent, FilmResult, SegmentEvent
from reelwright.films.assembly import film
from reelwright.films.render import FilmOrder
from reelwright.films.storyboard import load_storyboard
from reelwright.launchers import shim
from reelwright.runs.history import load_manifest
from reelwright.runs.order import Order
from reelwright.runs.runner import generate
from reelwright.sites.cancellation import Cancellation
from reelwright.sites.local.site import LocalSite
from tests.conftest import REPOSITORY, a_photo, eventually

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]
pytest.importorskip("torch")
pytest.importorskip("diffusers")

SHOTS = tuple(f"s{number:02}" for number in range(1, 13))
_CHAINED = ("s02", "s08")


def _is_gone(pid: int) -> bool:
    return shim.start_time(pid) is None


class Studio:
    """A folder with a storyboard, settings for the tiny model, and the engine with its faults."""

    def __init__(self, folder: Path, model: Path) -> None:
        folder.mkdir()
        self.folder, self.model = folder, model
        self.marks, self.notes = folder / "marks", folder / "notes"
        self.marks.mkdir()
        a_photo(folder / "photo.png", (96, 64))

    def board(self, shots: tuple[str, ...]) -> None:
        lines = ["title: Tiny", "size: 64x64", "defaults: {frames: 5, steps: 2, seed: 7}", "shots:"]
        for name in shots:
            image = "" if name in _CHAINED else ", image: photo.png"
            lines.append(f"  - {{id: {name}, prompt: {name}{image}}}")
        (self.folder / "film.yaml").write_text("\n".join(lines) + "\n")

    def settings(self, faults: dict[str, str]) -> Settings:
        env = {
            "PYTHONPATH": str(REPOSITORY),
            "MARKS": str(self.marks),
            "NOTES": str(self.notes),
            "FAULTS": json.dumps(faults),
            "PYTHONWARNINGS": "ignore",
        }
        state = str(self.folder / "state")
        asked = {"generator": "diffusers", "weights": str(self.model), "engine_device": "cpu", "python": sys.executable}
        return load_settings(environ={}, arguments={**asked, "state_dir": state, "env": env})

    def film(
        self,
        faults: dict[str, str] | None = None,
        listen: Callable[[FilmEvent], None] = lambda _: None,
        cancellation: Cancellation | None = None,
    ) -> FilmResult:
        board = load_storyboard(self.folder / "film.yaml")
        order = FilmOrder(board, self.settings(faults or {}), self.folder / "film.mp4")
        return film(order, listen, cancellation)

    def pids(self) -> list[int]:
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return list(dict.fromkeys(json.loads(line)["pid"] for line in lines))

    def digest(self, name: str = "film.mp4") -> str:
        return hashlib.sha256((self.folder / name).read_bytes()).hexdigest()

    def check_gone(self) -> None:
        for pid in self.pids():
            eventually(functools.partial(_is_gone, pid), what=f"the end of {pid}")
        assert not list((self.folder / "state").glob("latents/*"))


@pytest.fixture
def studio_in(
    tmp_path: Path, folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Studio]:
    monkeypatch.setattr(backend, "ENGINE", "tests.engine_diffusers.faulty:ENGINE")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return lambda name: Studio(tmp_path / name, folder_of("wan2.1-i2v"))


def test_a_film_of_twelve_shots_survives_three_kills_and_a_decode_without_memory_with_the_same_bytes(
    studio_in: Callable[[str], Studio],
) -> None:
    quiet, struck = studio_in("quiet"), studio_in("struck")
    quiet.board(SHOTS)
    quiet.film()
    assert len(quiet.pids()) == 1
    quiet.check_gone()
    struck.board(SHOTS)
    faults = {"s03:1": "kill", "s06:decoding": "memory", "s08:2": "kill", "s12:decoding": "kill"}
    result = struck.film(faults)
    assert {path.name for path in struck.marks.iterdir()} == {key.replace(":", "-") for key in faults}
    assert len(struck.pids()) == 4
    assert struck.digest() == quiet.digest()
    assert not result.degraded
    struck.check_gone()


def test_a_clip_of_a_film_has_the_bytes_that_it_has_alone(studio_in: Callable[[str], Studio]) -> None:
    studio = studio_in("one")
    studio.board(("s01", "s03", "s04"))
    studio.film()
    request = VideoRequest(
        prompt="s04", image=studio.folder / "photo.png", num_frames=5, steps=2, seed=7, fit="cover", **_size()
    )
    generate(Order(request, studio.settings({}), studio.folder / "alone.mp4", overrides={"last_frame": True}))
    clips = [hashlib.sha256(path.read_bytes()).hexdigest() for path in studio.folder.rglob("clips/*.mp4")]
    assert len(clips) == 3
    assert studio.digest("alone.mp4") in clips


def _size() -> dict[str, Any]:
    from reelwright.core.request import Size

    return {"size": Size(64, 64)}


def test_a_stopped_film_ends_before_the_next_step_and_leaves_nothing(studio_in: Callable[[str], Studio]) -> None:
    studio, cancellation, steps = studio_in("one"), Cancellation(), []
    studio.board(SHOTS[:4])
    waits = {f"{name}:1": "stop" for name in SHOTS[:4]}  # whichever is first waits until it has heard of the stop

    def listen(event: FilmEvent) -> None:
        if isinstance(event, SegmentEvent) and isinstance(event.event, Progress):
            steps.append(event.event)
            cancellation.request()

    with pytest.raises(Cancelled):
        studio.film(waits, listen, cancellation)
    assert len(steps) == 1
    studio.check_gone()


def test_another_placement_of_the_same_weights_is_no_other_model(studio_in: Callable[[str], Studio]) -> None:
    studio = studio_in("one")
    picture = studio.folder / "photo.png"
    request = VideoRequest(prompt="s01", image=picture, num_frames=5, steps=2, seed=7, **_size())
    loads: list[Any] = []
    with LocalSite() as site:
        for place in ("resident", "encoders_off", "resident"):
            settings = studio.settings({}).evolve(placement=place)
            order = Order(request, settings, studio.folder / f"{len(loads)}.mp4")
            facts = load_manifest(generate(order, site=site).manifest).facts
            loads.append((facts["placement"], facts["load_seconds"]))
    assert [place for place, _ in loads] == ["resident", "encoders_off", "resident"]
    assert len({seconds for _, seconds in loads}) == 1
    assert len({studio.digest(f"{number}.mp4") for number in range(3)}) == 1
