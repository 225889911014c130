"""Defines the contract of a site: `SiteContract` runs the same tests against every implementation of `Site`.

The test module of a new site subclasses it and gives the fixture ``world``:

    class TestMySite(SiteContract):
        @pytest.fixture
        def world(self, tmp_path): ...
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reelwright import Settings
from reelwright.core.errors import BusyError, Cancelled
from reelwright.core.events import Event, Log, Phase, Progress
from reelwright.core.host import Host, HostQuery
from reelwright.core.plan import Command, EngineCall, ExpectedVideo, Plan
from reelwright.policy import Evidence
from reelwright.sites import Claim, Site, Work
from reelwright.sites.cancellation import Cancellation
from tests.conftest import REPOSITORY, eventually, is_running
from tests.stand_ins.checkout import whole_lines
from tests.stand_ins.resident.backend import ENGINE, LAUNCHER

_WAIT_S = 100.0


@dataclass
class World:
    """A site with two GPUs, and another program's view of the same site.

    Attributes:
        site: The site under test.
        other: The same GPUs as another process sees them; its reservations are not those of ``site``.
        settings: Settings with two GPUs.
        folder: For files of the test.
    """

    site: Site
    other: Site
    settings: Settings
    folder: Path
    attempts: int = 0
    reports: list[Log] = field(default_factory=list)

    @property
    def host(self) -> Host:
        return self.site.look(HostQuery(gpus=True), self.settings)

    def work(self) -> Work:
        self.attempts += 1
        private = self.folder / f"attempt-{self.attempts}"
        private.mkdir()
        return Work(private, private / "clip.mp4", private / "log", stop_grace_s=2.0)

    def claim(self, wait_s: float = 0.0) -> Claim:
        return Claim("the-run", wait_s, self.reports.append)

    def script(self, code: str, *gpus: int) -> Plan:
        """A plan with a framework's command that runs a line of shell on these GPUs."""
        command = Command(("/bin/sh", "-c", code), self.folder, env_names=("PATH",), quiet_limits_s={"": _WAIT_S})
        return self._plan(command, gpus)

    def engine(self, *gpus: int, **options: Any) -> Plan:
        """A plan for a clip of the resident stand-in, which records its steps."""
        marks = self.folder / "marks"
        marks.mkdir(exist_ok=True)
        wanted = {"prompt": "sea", "width": 64, "height": 48, "num_frames": 5, "steps": 3, "seed": 1}
        kept = {"notes": str(self.folder / "notes"), "marks": str(marks), "image": None}
        worker = Command(
            (sys.executable, str(LAUNCHER), ENGINE),
            REPOSITORY,
            env={"PYTHONPATH": str(REPOSITORY)},
            env_names=("PATH", "HOME", "TMPDIR"),
            quiet_limits_s={"": _WAIT_S},
        )
        return self._plan(EngineCall(ENGINE, {**wanted, **kept, **options}, {"name": "one"}, worker), gpus)

    def _plan(self, run: Command | EngineCall, gpus: tuple[int, ...]) -> Plan:
        return Plan("stand-in", "t2v", True, run, ExpectedVideo(64, 48, 5, 16.0), gpus=gpus)

    def run(
        self,
        plan: Plan,
        *,
        on: Callable[[Event], None] = lambda _event: None,
        cancellation: Cancellation | None = None,
    ) -> tuple[Evidence, Work]:
        """Reserve GPUs for a plan, run it once, and release them."""
        work, cancellation = self.work(), cancellation or Cancellation()
        with self.site.reserve(self.claim()) as reservation:
            reservation.hold(plan, self.host, cancellation)
            return self.site.run(plan, reservation, work, on, cancellation), work

    def holds(self, plan: Plan, wait_s: float = 0.0) -> bool:
        """Whether another program can reserve these GPUs now."""
        with self.other.reserve(Claim("other-run", wait_s)) as reservation:
            try:
                reservation.hold(plan, self.host, Cancellation())
            except BusyError:
                return False
            return True

    @property
    def pids(self) -> list[int]:
        """The processes that made clips so far, each once."""
        found = [json.loads(line)["pid"] for line in whole_lines(self.folder / "notes")]
        return list(dict.fromkeys(found))


@dataclass
class _Waiting:
    """A thread that waits for a reservation; ``order`` receives its name when it has one."""

    name: str
    thread: threading.Thread
    reported: threading.Event
    let_go: threading.Event

    @classmethod
    def start(cls, world: World, name: str, plan: Plan, order: list[str]) -> _Waiting:
        reported, let_go = threading.Event(), threading.Event()
        host = world.host

        def report(_log: Log) -> None:
            reported.set()

        def hold() -> None:
            with world.other.reserve(Claim(name, _WAIT_S, report)) as reservation:
                reservation.hold(plan, host, Cancellation())
                order.append(name)
                let_go.wait(_WAIT_S)

        thread = threading.Thread(target=hold, daemon=True)
        thread.start()
        return cls(name, thread, reported, let_go)


class SiteContract:
    """The tests of every site; a subclass gives ``world``."""

    # ------------------------------------------------------------------------------------------------ look

    def test_a_look_answers_the_query_and_nothing_else(self, world: World) -> None:
        seen = world.site.look(HostQuery(gpus=True, disks=(world.folder,)), world.settings)
        assert [gpu.index for gpu in seen.gpus or ()] == [0, 1]
        assert len({gpu.uuid for gpu in seen.gpus or ()}) == 2
        assert seen.disks[0].writable
        assert seen.checkpoints == {}

    def test_every_place_holds_gpus_that_the_site_has_and_no_card_is_in_two_of_them(self, world: World) -> None:
        plans = [world.script("true", 0), world.script("true", 0)]
        places = world.site.places(plans, world.host, world.settings.evolve(parallel_segments=2))
        assert sorted(index for place in places for index in place.gpus) == [0, 1]
        assert len(world.site.places([world.script("true")], world.host, world.settings)) >= 1

    # ------------------------------------------------------------------------------------------------ reserve

    def test_a_reserved_gpu_is_unavailable_to_others_until_its_release(self, world: World) -> None:
        plan = world.script("true", 0)
        with world.site.reserve(world.claim()) as reservation:
            reservation.hold(plan, world.host, Cancellation())
            assert not world.holds(plan)
            assert world.holds(world.script("true", 1))
            assert {gpu.uuid for gpu in world.host.gpus or () if gpu.index == 0} == world.other.busy_gpus()
            reservation.close()
            reservation.close()
            assert world.holds(plan)
        assert world.other.busy_gpus() == frozenset()

    def test_other_gpus_than_before_are_held_after_the_first_are_given_back(self, world: World) -> None:
        first, second = world.script("true", 0), world.script("true", 1)
        with world.site.reserve(world.claim()) as reservation:
            reservation.hold(first, world.host, Cancellation())
            reservation.hold(second, world.host, Cancellation())
            assert world.holds(first)
            assert not world.holds(second)

    def test_a_plan_without_gpus_needs_no_reservation(self, world: World) -> None:
        with world.site.reserve(world.claim()) as reservation:
            reservation.hold(world.script("true"), world.host, Cancellation())
            assert world.holds(world.script("true", 0, 1))

    def test_waiting_runs_are_served_in_the_order_of_arrival(self, world: World) -> None:
        plan = world.script("true", 0)
        order: list[str] = []
        with world.site.reserve(world.claim()) as reservation:
            reservation.hold(plan, world.host, Cancellation())
            first = _Waiting.start(world, "first", plan, order)
            assert first.reported.wait(_WAIT_S)
            second = _Waiting.start(world, "second", plan, order)
            assert second.reported.wait(_WAIT_S)
            assert order == []
        eventually(lambda: order == ["first"], what="the first one's turn", within_s=_WAIT_S)
        first.let_go.set()
        eventually(lambda: order == ["first", "second"], what="the second one's turn", within_s=_WAIT_S)
        second.let_go.set()
        for waiting in (first, second):
            waiting.thread.join(_WAIT_S)

    def test_a_stop_that_is_requested_ends_the_waiting_and_keeps_no_place(self, world: World) -> None:
        plan, cancellation = world.script("true", 0), Cancellation()
        with world.other.reserve(Claim("other-run")) as held:
            held.hold(plan, world.host, Cancellation())
            claim = Claim("the-run", _WAIT_S, lambda _log: cancellation.request())
            with world.site.reserve(claim) as reservation, pytest.raises(Cancelled):
                reservation.hold(plan, world.host, cancellation)
        assert world.holds(plan)

    # ------------------------------------------------------------------------------------------------ run

    def test_a_script_runs_once_and_its_end_log_and_phases_are_evidence(self, world: World) -> None:
        events: list[Event] = []
        evidence, work = world.run(world.script("echo made; exit 3", 0), on=events.append)
        assert (evidence.exit_status, evidence.kill_reason, evidence.output_exists) == (3, None, False)
        assert "made" in evidence.tail
        assert work.log.read_text().strip() == "made"
        assert any(isinstance(event, Phase) for event in events)
        assert world.holds(world.script("true", 0))

    def test_an_engine_stays_warm_for_the_next_run_and_keeps_its_gpu(self, world: World) -> None:
        plan = world.engine(0)
        first, work = world.run(plan)
        again, _ = world.run(plan)
        assert first.ran_to_end
        assert again.ran_to_end
        assert work.video.stat().st_size > 0
        assert len(world.pids) == 1
        assert not world.holds(plan)  # the worker has it
        assert world.site.busy_gpus() == frozenset()  # and the site owns the worker, so the GPU does not count as busy
        world.site.release_idle()
        assert world.holds(plan, _WAIT_S)

    def test_a_gpu_serves_others_while_the_frames_of_the_clip_before_are_encoded(self, world: World) -> None:
        plan = world.engine(0)
        given: list[bool] = []

        def on(event: Event) -> None:
            if event == Phase("saving"):
                world.site.release_idle()
                given.append(world.holds(plan))

        evidence, work = world.run(plan, on=on)
        assert (evidence.ran_to_end, work.video.exists()) == (True, True)
        assert given[-1:] == [True]

    def test_a_script_gets_a_gpu_on_which_a_worker_is_idle(self, world: World) -> None:
        world.run(world.engine(0))
        evidence, _ = world.run(world.script("true", 0))
        assert evidence.exit_status == 0
        assert not any(is_running(pid) for pid in world.pids)

    # ------------------------------------------------------------------------------------------------ cancel

    @pytest.mark.parametrize("kind", ["script", "engine"])
    def test_a_stop_that_is_requested_ends_the_attempt_and_gives_the_gpu_back(self, world: World, kind: str) -> None:
        cancellation, ready = Cancellation(), world.folder / "ready"
        os.mkfifo(ready)

        def on(event: Event) -> None:
            if isinstance(event, Progress) and event.step == 1:
                cancellation.request()

        if kind == "script":

            def stop_when_it_runs() -> None:
                ready.read_bytes()
                cancellation.request()

            plan = world.script(f"echo $$ > {world.folder}/pid; : > {ready}; exec sleep 1000", 0)
            stopper = threading.Thread(target=stop_when_it_runs, daemon=True)
            stopper.start()
        else:
            plan = world.engine(0, steps=1000, gates={"2": str(ready)})
        evidence, work = world.run(plan, on=on, cancellation=cancellation)
        assert evidence.kill_reason == "cancelled"
        assert not work.video.exists()
        world.site.release_idle()
        assert world.holds(plan, _WAIT_S)
        if kind == "script":
            assert not is_running(int((world.folder / "pid").read_text()))

    # ------------------------------------------------------------------------------------------------ loss

    @pytest.mark.parametrize("kind", ["script", "engine"])
    def test_a_program_that_is_killed_is_a_crash_and_the_site_goes_on(self, world: World, kind: str) -> None:
        lost = world.script("kill -9 $$", 0) if kind == "script" else world.engine(0, faults={"2": "kill"})
        evidence, work = world.run(lost)
        assert not evidence.ran_to_end
        assert evidence.signal_number == signal.SIGKILL
        assert not work.video.exists()
        assert world.holds(lost, _WAIT_S)
        again, _ = world.run(world.engine(0))
        assert again.ran_to_end

    def test_a_program_that_cannot_start_is_evidence_and_no_exception(self, world: World) -> None:
        plan = dataclasses.replace(world.script("true", 0), run=Command(("/no/such/program",), world.folder))
        evidence, _ = world.run(plan)
        assert evidence.start_errno
        assert not evidence.ran_to_end

    # ------------------------------------------------------------------------------------------------ give back

    def test_close_ends_every_worker_and_gives_every_gpu_back(self, world: World) -> None:
        world.run(world.engine(0))
        world.run(world.engine(1))
        world.site.close()
        world.site.close()
        assert not any(is_running(pid) for pid in world.pids)
        assert world.holds(world.script("true", 0, 1), _WAIT_S)

    def test_leaving_a_reservation_by_an_exception_gives_its_gpus_back(self, world: World) -> None:
        plan = world.script("true", 0)

        def fail() -> None:
            with world.site.reserve(world.claim()) as reservation:
                reservation.hold(plan, world.host, Cancellation())
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert world.holds(plan)


@contextmanager
def two_gpus(make: Callable[[Mapping[str, str]], Site], folder: Path) -> Iterator[World]:
    """A world of two simulated GPUs; ``make`` makes a site for an environment."""
    environ = {**os.environ, "TMPDIR": str(folder)}
    settings = Settings(simulate_gpus="2x80GiB", state_dir=folder / "state")
    site, other = make(environ), make(environ)
    try:
        yield World(site, other, settings, folder)
    finally:
        site.close()
        other.close()
