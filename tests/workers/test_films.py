"""Tests that a film keeps its engine warm from the first shot to the last, and never makes it wait for an encoder."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from reelwright import backends
from reelwright.core.events import AttemptStarted, Phase, Progress
from reelwright.films import FilmEvent, SegmentEvent
from reelwright.launchers import shim
from reelwright.sites.local.leases import Leases, lease_directory
from tests import warm
from tests.conftest import REPOSITORY, a_home, eventually
from tests.workers.small_film import BACKEND, SHOTS, make, notes, set_up

_WAIT_S = 100.0
#: Enough for four films and their ends on the slowest machine.
_FILMS_S = 900
#: Two chains of two shots, and two single shots: half of the film, for tests that make it several times.
HALF = SHOTS[:6]
SEEDS = range(int(os.environ.get("CAMPAIGN", "4")))


def _is_gone(pid: int) -> bool:
    return shim.start_time(pid) is None


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(backends._MODULES, "resident", BACKEND)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return set_up(tmp_path / "film")


@pytest.fixture
def half(here: Path) -> Path:
    """The folder of `here` with half of its shots."""
    return set_up(here, HALF)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the film of ``half`` without interruption."""
    folder = set_up(tmp_path_factory.mktemp("undisturbed") / "film", HALF)
    with pytest.MonkeyPatch.context() as patch, a_home(tmp_path_factory.mktemp("undisturbed-home")):
        patch.setitem(backends._MODULES, "resident", BACKEND)
        make(folder)
    return _digest(folder)


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / "film.mp4").read_bytes()).hexdigest()


def _pids(folder: Path) -> list[int]:
    return list(dict.fromkeys(note["pid"] for note in notes(folder)))


def _check_gone(folder: Path) -> None:
    """Wait until every worker has ended and no lease is held."""
    for pid in _pids(folder):
        eventually(functools.partial(_is_gone, pid), what=f"the end of {pid}")
    leases = Leases(lease_directory(os.environ))
    eventually(lambda: not leases.holders(), what="the end of every lease")


def test_twelve_shots_have_one_worker_that_loads_once_and_ends_with_the_film(here: Path) -> None:
    result = make(here)
    assert len(result.rendered) == len(SHOTS)
    assert len(_pids(here)) == 1
    assert len(notes(here, "load")) == 1
    assert len(notes(here, "generate")) == len(SHOTS)
    _check_gone(here)


def _events_of(segment: str, act: Callable[[object], None]) -> Callable[[FilmEvent], None]:
    return lambda event: act(event.event) if isinstance(event, SegmentEvent) and event.segment == segment else None


def test_the_next_clip_is_made_while_the_one_before_is_verified(here: Path) -> None:
    overlapped = threading.Event()

    def verifying(event: object) -> None:
        if event == Phase("verifying"):
            eventually(lambda: "s03" in _prompts(here), within_s=_WAIT_S, what="the next clip's beginning")
            overlapped.set()

    make(here, _events_of("s01", verifying))
    assert overlapped.is_set()


def test_the_next_clip_is_prepared_while_the_one_before_is_made(here: Path) -> None:
    prepared, overlapped = threading.Event(), threading.Event()

    def step(event: object) -> None:
        if event == Progress("denoising", 1, 3):
            assert prepared.wait(_WAIT_S), "the next clip was not prepared"
            overlapped.set()

    def listen(event: FilmEvent) -> None:
        _events_of("s01", step)(event)
        _events_of("s03", lambda said: prepared.set() if isinstance(said, AttemptStarted) else None)(event)

    make(here, listen)
    assert overlapped.is_set()


def test_clips_that_continue_others_wait_for_them(here: Path) -> None:
    make(here)
    order = _prompts(here)
    assert sorted(order) == list(SHOTS)
    for first, second in (("s01", "s02"), ("s04", "s05"), ("s07", "s08"), ("s10", "s11")):
        assert order.index(first) < order.index(second)


def _prompts(folder: Path) -> list[str]:
    return [note["prompt"] for note in notes(folder, "generate")]


def test_each_gpu_has_its_worker_and_each_worker_its_share(here: Path) -> None:
    make(here, simulate_gpus="2x80GiB", parallel_segments=2)
    assert len(_pids(here)) == 2
    assert len(notes(here, "load")) == 2
    assert len(notes(here, "generate")) == len(SHOTS)


def test_a_film_survives_three_kills_of_its_worker_with_the_same_bytes(half: Path, undisturbed: str) -> None:
    faults = {"s02:2": "kill", "s04:1": "crash", "s06:3": "kill"}
    result = make(half, options={"faults": faults})
    assert len(_pids(half)) == 4
    assert _digest(half) == undisturbed
    assert not result.degraded


# ------------------------------------------------------------------------------------------------- the film is killed


def _started(folder: Path, **options: object) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "tests.workers.small_film", str(folder), json.dumps(options)]
    return warm.start(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _gate(folder: Path) -> tuple[str, int]:
    """A gate of the stand-in and its writer, a descriptor; the film waits at the gate until the writer is closed."""
    path = folder.parent / "gate"
    os.mkfifo(path)
    return str(path), os.open(path, os.O_RDWR)


@pytest.mark.long
@pytest.mark.timeout(_FILMS_S)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_film_leaves_no_worker_and_no_lease_and_ends_with_the_same_bytes(
    half: Path, undisturbed: str, seed: int
) -> None:
    dice = random.Random(seed)
    for _ in range(3):
        process = _started(half)
        assert process.stdout is not None
        for _ in range(dice.randint(5, 35)):
            process.stdout.readline()
        select.select([], [], [], dice.uniform(0, 0.05))  # a random moment; nothing is awaited
        process.kill()
        process.communicate()
        _check_gone(half)
    process = _started(half)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert _digest(half) == undisturbed
    _check_gone(half)


@pytest.mark.timeout(_FILMS_S)
def test_a_stopped_film_leaves_nothing(here: Path) -> None:
    gate, held = _gate(here)
    process = _started(here, gates={"1": gate})
    assert process.stdout is not None
    for line in process.stdout:
        if "Progress" in line:
            break
    process.send_signal(signal.SIGINT)
    os.close(held)
    process.communicate(timeout=300)
    _check_gone(here)
    assert not list(here.rglob(".reelwright-*"))


@pytest.mark.timeout(_FILMS_S)
def test_the_next_run_ends_the_worker_that_a_killed_film_and_a_killed_shim_leave(half: Path, undisturbed: str) -> None:
    gate, held = _gate(half)
    process = _started(half, gates={"1": gate})
    assert process.stdout is not None
    for line in process.stdout:
        if "Progress" in line:
            break
    (worker,) = _pids(half)
    supervisor = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGSTOP)  # otherwise it would end when its pipes close; a hanging worker does not
    os.kill(process.pid, signal.SIGSTOP)  # otherwise it would end the worker when its shim dies
    os.kill(supervisor, signal.SIGKILL)
    process.kill()
    process.communicate()
    os.close(held)
    process = _started(half)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert _digest(half) == undisturbed
    _check_gone(half)
