"""Tests several runs with one worker: side by side, one after the other, and with other runs that want its GPU."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.events import Event, Phase, Progress
from reelwright.core.manifest import Result
from reelwright.core.request import VideoRequest
from reelwright.runs.order import Order
from reelwright.runs.runner import generate
from tests.conftest import REPOSITORY
from tests.workers.conftest import Machine

_WAIT_S = 100.0


class Beside:
    """A run in a separate thread."""

    def __init__(self, machine: Machine, name: str, listen: Callable[[Event], None], **values: Any) -> None:
        self.result: Result | None = None
        request = VideoRequest(prompt=name, seed=1)
        self._order = Order(
            request,
            machine.settings(**values),
            machine.folder / f"{name}.mp4",
        )
        self._listen, self._site = listen, machine.site
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.result = generate(self._order, self._listen, site=self._site)

    def join(self) -> Result:
        self._thread.join(_WAIT_S)
        assert self.result is not None
        return self.result


def test_while_one_clip_is_encoded_the_worker_makes_the_next(machine: Machine) -> None:
    encoding, made = threading.Event(), threading.Event()

    def first(event: Event) -> None:
        if event == Phase("saving") and not encoding.is_set():
            encoding.set()
            assert made.wait(_WAIT_S), "the next clip waited for the first one's film"

    one = Beside(machine, "one", lambda event: first(event) if machine.noted("saved") else None)
    assert encoding.wait(_WAIT_S)
    two = Beside(machine, "two", lambda event: made.set() if event == Phase("decoding") else None)
    one.join()
    two.join()
    assert len(machine.pids) == 1
    prompts = [note["prompt"] for note in machine.noted("generate")]
    assert prompts == ["one", "two"]


def test_a_worker_that_crashes_under_one_run_is_replaced_while_another_still_encodes(machine: Machine) -> None:
    encoding, made = threading.Event(), threading.Event()

    def first(event: Event) -> None:
        if event == Phase("saving") and machine.noted("saved"):
            encoding.set()
            made.wait(_WAIT_S)

    one = Beside(machine, "one", first, simulate_gpus="1x80GiB")
    assert encoding.wait(_WAIT_S)
    crash = {"options": {"faults": {"1": "crash"}}}
    two = Beside(machine, "two", lambda _: None, simulate_gpus="1x80GiB", stand_in=crash)
    result = two.join()  # its new worker takes the lock of the GPU, which the first run has released
    made.set()
    one.join()
    assert result.attempts == 2
    assert len(machine.pids) == 2


def test_two_runs_never_compute_at_once(machine: Machine) -> None:
    runs = [Beside(machine, name, lambda _: None) for name in ("one", "two", "three")]
    for run in runs:
        run.join()
    order = [note["prompt"] for note in machine.notes if note["event"] in ("generate", "step", "saved")]
    assert order == [name for name in dict.fromkeys(order) for _ in range(5)]
    assert len(machine.pids) == 1


def test_a_run_that_waits_for_the_worker_can_be_stopped(machine: Machine) -> None:
    from reelwright.core.errors import Cancelled
    from reelwright.sites.cancellation import Cancellation

    cancellation = Cancellation()
    cancellation.request(2)
    with machine.workers.turn((), Cancellation()):
        assert isinstance(machine.fails("a.mp4", cancellation), Cancelled)


def test_a_script_gets_the_gpu_of_an_idle_worker_of_its_site(machine: Machine) -> None:
    machine.run("a.mp4", simulate_gpus="1x80GiB")
    error = machine.fails("b.mp4", simulate_gpus="1x80GiB", stand_in={"script": "exit 7"}, retry_policy="none")
    assert error.code != "BUSY"
    assert machine.workers.gpus == frozenset()
    machine.check_gone()


def test_the_next_plan_counts_the_memory_of_its_sites_worker_as_free(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reelwright.core.host import GpuProcess
    from reelwright.sites.local.probes import host as probes

    machine.run("a.mp4", simulate_gpus="2x80GiB")
    real = probes.take_host

    def as_the_driver_tells(query: Any, **asked: Any) -> Any:
        host = real(query, **asked)
        used = GpuProcess(4_000_000, 79 * 2**30, None)  # the worker's pid on the host, as a container sees it
        first, *others = host.gpus or ()
        return host.__class__(**{**vars(host), "gpus": (_filled(first, used), *others)})

    monkeypatch.setattr(probes, "take_host", as_the_driver_tells)
    machine.run("b.mp4", simulate_gpus="2x80GiB", stand_in={"gpu_bytes": 70 * 2**30})
    assert len(machine.pids) == 1
    assert machine.leased() == {"GPU-simulated-0"}


def _filled(gpu: Any, process: Any) -> Any:
    return gpu.__class__(**{**vars(gpu), "free_bytes": gpu.total_bytes - process.used_bytes, "processes": (process,)})


# --------------------------------------------------------------------------------------------- the Python interface


def test_calls_of_one_python_process_share_a_worker_until_it_is_released(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import reelwright
    from reelwright import api

    monkeypatch.setattr(api, "local_site", lambda: machine.site)
    monkeypatch.setenv("TMPDIR", machine.environ["TMPDIR"])
    settings = machine.settings()
    reelwright.generate("sea", output=machine.folder / "a.mp4", settings=settings, seed=1)
    made = api.create_video_generator("resident", settings).generate_video(
        "sea", "", str(machine.folder / "b.mp4"), num_frames=5, seed=1
    )
    assert Path(made).read_bytes() == (machine.folder / "a.mp4").read_bytes()
    assert len(machine.pids) == 1
    reelwright.release()
    machine.check_gone()
    reelwright.generate("land", output=machine.folder / "c.mp4", settings=settings, seed=1)
    assert len(machine.pids) == 2


_PROGRAM = """
import os, sys
from reelwright import backends, generate, load_settings
backends._MODULES["resident"] = "tests.stand_ins.resident.backend"
asked = load_settings(environ={}, arguments=eval(sys.argv[1]))
for name in "ab":
    generate("sea", output=f"{sys.argv[2]}/{name}.mp4", settings=asked, seed=1)
if os.fork() == 0:
    sys.exit(0)  # a fork runs atexit too, and must not end its parent's worker
os.wait()
generate("sea", output=f"{sys.argv[2]}/c.mp4", settings=asked, seed=1)
"""


def test_a_worker_ends_with_its_python_process_and_not_with_a_fork_of_it(machine: Machine) -> None:
    stand_in = json.dumps({"options": {"notes": str(machine.folder / "notes")}})
    asked = {"generator": "resident", "state_dir": str(machine.folder / "state"), "env": {"STAND_IN": stand_in}}
    argv = [sys.executable, "-c", _PROGRAM, repr(asked), str(machine.folder)]
    done = subprocess.run(argv, cwd=REPOSITORY, env=machine.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(machine.pids) == 1
    assert len(machine.noted("generate")) == 3
    machine.check_gone()


def test_releasing_does_not_disturb_a_clip_that_is_being_made(machine: Machine) -> None:
    released = threading.Event()

    def listen(event: Event) -> None:
        if event == Progress("denoising", 2, 3) and not released.is_set():
            machine.workers.release_idle()
            released.set()

    assert Beside(machine, "one", listen).join().attempts == 1
    assert released.is_set()
