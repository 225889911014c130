"""Tests that an engine stays warm from one run to the next, and ends when it must."""

from __future__ import annotations

import hashlib
import sys
import threading

import pytest

from reelwright.core.errors import BusyError
from reelwright.core.events import LatentsSaved, Memory, Phase
from reelwright.runs.history import load_manifest
from reelwright.runs.order import Order
from reelwright.runs.runner import generate
from reelwright.sites.cancellation import Cancellation
from reelwright.sites.local.site import LocalSite
from tests.workers.conftest import Machine


def _digest(machine: Machine, name: str) -> str:
    return hashlib.sha256((machine.folder / name).read_bytes()).hexdigest()


def test_two_runs_share_one_worker_that_loads_once(machine: Machine) -> None:
    first = machine.run("a.mp4")
    machine.run("b.mp4", prompt="land")
    assert len(machine.noted("load")) == 1
    assert len(machine.pids) == 1
    assert len(machine.noted("generate")) == 2
    assert first.generative
    assert (first.width, first.height, first.num_frames) == (64, 48, 5)


def test_the_same_request_gives_the_same_bytes_fresh_and_warm(machine: Machine) -> None:
    machine.run("a.mp4")
    machine.run("b.mp4", prompt="land")
    machine.run("c.mp4")
    machine.workers.close()
    machine.run("d.mp4")
    assert len(machine.pids) == 2
    assert _digest(machine, "a.mp4") == _digest(machine, "c.mp4") == _digest(machine, "d.mp4")
    assert _digest(machine, "a.mp4") != _digest(machine, "b.mp4")


def test_another_model_is_loaded_in_the_same_process(machine: Machine) -> None:
    machine.run("a.mp4")
    machine.run("b.mp4", stand_in={"model": "two"})
    machine.run("c.mp4", stand_in={"model": "two"})
    assert [note["model"] for note in machine.noted("load")] == ["one", "two"]
    assert len(machine.pids) == 1


def test_another_program_is_another_worker(machine: Machine) -> None:
    machine.run("a.mp4")
    machine.environ["HOME"] = str(machine.folder)
    machine.run("c.mp4")
    assert len(machine.pids) == 2


def test_without_an_owner_the_worker_ends_with_the_run(machine: Machine) -> None:
    from reelwright.core.request import VideoRequest

    order = Order(VideoRequest(prompt="sea", seed=1), machine.settings(), machine.folder / "a.mp4")
    with LocalSite(machine.environ) as site:
        generate(order, site=site)
    machine.check_gone()


def test_its_events_and_facts_reach_the_listener_and_the_manifest(machine: Machine) -> None:
    latents = machine.folder / "latents.safetensors"
    result = machine.run("a.mp4", stand_in={"options": {"latents": str(latents)}})
    phases = [event.name for event in machine.events if isinstance(event, Phase)]
    assert phases == [
        "starting", "loading transformer", "denoising", "decoding", "saving", "verifying", "publishing", "done"
    ]  # fmt: skip
    assert Memory(10, 20) in machine.events
    assert LatentsSaved(str(latents)) in machine.events
    assert not latents.exists()  # deleted after publishing
    manifest = load_manifest(result.manifest)
    assert manifest.facts["stand_in"] is True
    assert "python" in manifest.facts["versions"]
    assert manifest.plan is not None
    assert manifest.plan["engine"]["model"]["name"] == "one"
    assert manifest.plan["engine"]["worker"]["argv"][0] == sys.executable


def test_the_latents_of_a_run_that_failed_are_kept(machine: Machine) -> None:
    latents = machine.folder / "latents.safetensors"
    options = {"latents": str(latents), "num_frames": 4}
    assert machine.fails("a.mp4", stand_in={"options": options}, retry_policy="none").code == "OUTPUT"
    assert latents.exists()


def test_a_warm_worker_holds_its_gpu_until_it_ends(machine: Machine) -> None:
    machine.run("a.mp4", simulate_gpus="2x80GiB")
    assert machine.leased() == {"GPU-simulated-0"}
    machine.workers.release_idle(["GPU-simulated-1"])
    assert machine.leased() == {"GPU-simulated-0"}
    machine.workers.release_idle(["GPU-simulated-0"])
    assert machine.leased() == set()
    machine.check_gone()


def test_another_owner_finds_the_gpu_busy(machine: Machine) -> None:
    from reelwright.core.request import VideoRequest

    machine.run("a.mp4", simulate_gpus="1x80GiB")
    settings = machine.settings(simulate_gpus="1x80GiB")
    with pytest.raises(BusyError), LocalSite(machine.environ) as site:
        generate(Order(VideoRequest(prompt="sea", seed=1), settings, machine.folder / "b.mp4"), site=site)


def test_a_worker_of_two_gpus_ends_for_one_that_wants_half_of_them(machine: Machine) -> None:
    machine.run("a.mp4", simulate_gpus="2x80GiB", gpus=(0, 1))
    machine.run("b.mp4", simulate_gpus="2x80GiB", gpus=(1,))
    assert len(machine.pids) == 2
    assert machine.leased() == {"GPU-simulated-1"}


def test_one_turn_at_a_time_in_the_order_of_arrival(machine: Machine) -> None:
    workers, order = machine.workers, []
    first = workers.turn(["g"], Cancellation())
    other = workers.turn(["h"], Cancellation())  # another GPU: no wait
    other.close()

    def wait(name: str, arrived: threading.Event) -> None:
        arrived.set()
        with workers.turn(["g"], Cancellation()):
            order.append(name)

    threads = []
    for name in "ab":
        arrived = threading.Event()
        threads.append(threading.Thread(target=wait, args=(name, arrived)))
        before = len(workers._turns)
        threads[-1].start()
        while len(workers._turns) == before:
            arrived.wait(0.01)
    assert order == []
    first.close()
    for thread in threads:
        thread.join(60)
    assert order == ["a", "b"]


def test_waiting_for_a_turn_can_be_cancelled(machine: Machine) -> None:
    from reelwright.core.errors import Cancelled

    cancellation = Cancellation()
    cancellation.request(15)
    with machine.workers.turn(["g"], Cancellation()), pytest.raises(Cancelled):
        machine.workers.turn(["g"], cancellation)
    machine.workers.turn(["g"], Cancellation()).close()
