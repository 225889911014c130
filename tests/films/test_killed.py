"""Campaign D13: films killed at random moments, again and again, end with the bytes of one that nobody disturbed.

Six seeds of each kind belong to every run of the tests; ``CAMPAIGN=100 pytest tests/films/test_killed.py`` tries a
hundred. Seeds are fixed: a failure can be tried again.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests import warm
from tests.conftest import eventually
from tests.films.small import digest, finished, started
from tests.wan21.conftest import WanMachine

# A dozen films, which a busy machine makes slowly.
pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
SEEDS = range(int(os.environ.get("CAMPAIGN", "6")))
#: Lines that a film like these says from beginning to end, and the longest time between two of them.
_LINES, _WAN_LINES, _STEP_S = 110, 70, 0.2


def killed(process: subprocess.Popen[str], dice: random.Random, lines: int) -> bool:
    """Kill a process after some of its lines; false if it ended by itself before."""
    assert process.stdout is not None
    for _ in range(dice.randint(1, lines)):
        if not process.stdout.readline():
            process.communicate()
            return False
    select.select([], [], [], dice.uniform(0, _STEP_S))  # any moment is as good as another: nothing is waited for
    process.kill()
    process.communicate()
    return True


def whole_or_absent(output: Path) -> None:
    """What has the film's name is the film that its manifest describes, if that is there yet."""
    record = output.with_suffix(".reel.json")
    if output.exists() and record.exists():
        sha256 = json.loads(record.read_text())["output"]["sha256"]
        assert hashlib.sha256(output.read_bytes()).hexdigest() == sha256


@pytest.mark.parametrize("seed", SEEDS)
def test_d13_a_film_killed_at_random_moments_ends_with_the_same_bytes(
    folder: Path, undisturbed: str, seed: int
) -> None:
    dice = random.Random(seed)
    while killed(started(folder, "--draft"), dice, _LINES):
        whole_or_absent(folder / "film.mp4")
    finished(folder, "--draft")
    assert digest(folder) == undisturbed
    assert not [path for path in folder.iterdir() if path.name.startswith(".reelwright-")]


WAN_BOARD = """\
title: Wan
size: 832x480
defaults: {frames: 5, steps: 3}
shots:
  - {id: one, prompt: a cat, image: photo.png}
  - {id: two, prompt: it runs}
  - {id: three, prompt: a dog, image: photo.png, transition: dissolve 2}
"""


def wan_started(wan: WanMachine, name: str = "clip.mp4") -> subprocess.Popen[str]:
    """`reel film` of three shots by the stand-in, two at a time."""
    (wan.folder / "film.yaml").write_text(WAN_BOARD)
    config = wan.config_file(gpu_count=None, total_gpus=2, parallel_segments=2, stop_grace_s=0.3, lease_timeout_s=100)
    board, output = str(wan.folder / "film.yaml"), str(wan.output.with_name(name))
    argv = [sys.executable, "-m", "reelwright", "film", board, "-o", output, "--config", str(config), "--json"]
    pipe = subprocess.PIPE
    return warm.start(argv, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **wan.environ})


def wan_finished(wan: WanMachine, name: str = "clip.mp4") -> str:
    """The film's digest."""
    process = wan_started(wan, name)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return hashlib.sha256(wan.output.with_name(name).read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def undisturbed_wan() -> dict[str, str]:
    """The digest of the film that nobody interrupts, noted by the first who makes it."""
    return {}


@pytest.mark.parametrize("seed", SEEDS)
def test_d13_a_film_by_a_framework_killed_at_random_moments_ends_with_the_same_bytes(
    wan: WanMachine, undisturbed_wan: dict[str, str], seed: int
) -> None:
    dice = random.Random(seed)
    wan.script({"load_s": 0.1, "step_s": 0.05, "ignore_term": seed % 2 == 0})
    while killed(wan_started(wan), dice, _WAN_LINES):
        whole_or_absent(wan.output)
    found = wan_finished(wan)
    eventually(lambda: not wan.survivors(), what="the end of every process")
    assert not [path for path in wan.output.parent.iterdir() if path.name.startswith(".reelwright-")]
    if not undisturbed_wan:
        (wan.output.parent / ".reel").rename(wan.folder / "elsewhere")
        undisturbed_wan["film"] = wan_finished(wan, "again.mp4")
    assert found == undisturbed_wan["film"]
