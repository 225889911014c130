from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import reelwright
from reelwright.core.errors import BackendUnavailableError, BusyError, Cancelled
from reelwright.core.host import Gpu, Host
from reelwright.core.plan import Plan
from reelwright.media.child_starts import starting
from reelwright.sites import Claim
from reelwright.sites.cancellation import Cancellation
from reelwright.sites.local.leases import Leases, lease_directory
from reelwright.sites.local.site import LocalSite
from tests.conftest import eventually, opened_below

NOW: dict[str, Any] = {"wait_s": 0, "owner": {"run": "r2"}}


@pytest.fixture
def leases(tmp_path: Path) -> Leases:
    return Leases(tmp_path / "leases", poll_s=0.01)


class Claimant:
    """A process that runs tests/sites/claimant.py."""

    def __init__(self, folder: Path, environ: Mapping[str, str], *words: str) -> None:
        program = Path(__file__).with_name("claimant.py")
        self.process = subprocess.Popen(
            [sys.executable, program, folder, *words],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def line(self, deadline_s: float = 60.0) -> str:
        """The process's next line; fails at the deadline instead of hanging."""
        assert select.select([self.stdout], [], [], deadline_s)[0], "it says nothing"
        return self.stdout.readline().strip()

    def order(self, word: str) -> str:
        self.stdin.write(word + "\n")
        return self.line()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.stdin.close()
        self.stdout.close()


StartClaimant = Callable[..., Claimant]


@pytest.fixture
def a_claimant(tmp_path: Path, python_environ: dict[str, str]) -> Iterator[StartClaimant]:
    started: list[Claimant] = []

    def start(*words: str) -> Claimant:
        started.append(Claimant(tmp_path, python_environ, *words))
        return started[-1]

    yield start
    for claimant in started:
        claimant.end()


def test_a_lease_holds_a_descriptor_per_gpu(leases: Leases) -> None:
    with leases.claim(["GPU-b", "GPU-a", "GPU-a"], **NOW) as lease:
        assert lease.uuids == ("GPU-a", "GPU-b")
        fds = lease.fds
        assert len(fds) == 2
        assert not any(os.get_inheritable(fd) for fd in fds)
    assert lease.fds == ()
    lease.close()


def test_no_gpu_needs_no_lock(leases: Leases) -> None:
    with leases.claim([], **NOW) as lease:
        assert lease.fds == ()


def test_g01_the_second_run_learns_which_run_has_the_gpu(leases: Leases, a_claimant: StartClaimant) -> None:
    first = a_claimant("r1", "claim", "GPU-1,GPU-2", "0")
    assert first.line() == "got r1"
    with pytest.raises(BusyError) as caught:
        leases.claim(["GPU-0", "GPU-2"], **NOW)
    pattern = rf"GPU-2 is in use by run r1 \(process {first.process.pid}, since 20\d\d-.*\)"
    assert re.fullmatch(pattern, caught.value.message)
    assert caught.value.code == "BUSY"
    assert leases.holders().keys() == {"GPU-1", "GPU-2"}
    assert leases.holders()["GPU-1"]["run"] == "r1"
    leases.claim(["GPU-0"], **NOW).close()  # the refused claim keeps no GPU


def test_g01_a_waiting_run_gets_the_gpu_when_it_is_free(leases: Leases, a_claimant: StartClaimant) -> None:
    with leases.claim(["GPU-1"], **NOW):
        second = a_claimant("r3", "claim", "GPU-1", "600")
        assert second.line().startswith("waiting GPU-1 is in use by run r2")
    assert second.line() == "got r3"


def test_g01_waiting_ends_at_its_deadline(leases: Leases) -> None:
    with leases.claim(["GPU-1"], **NOW):
        started = time.monotonic()
        with pytest.raises(BusyError, match="GPU-1 is in use"):
            leases.claim(["GPU-1"], wait_s=0.15, owner={})
        assert 0.1 < time.monotonic() - started < 50


def test_g01_waiting_runs_are_served_in_the_order_of_their_arrival(leases: Leases, a_claimant: StartClaimant) -> None:
    first = leases.claim(["GPU-1", "GPU-2"], **NOW)
    waiting = []
    for number, uuids in enumerate(["GPU-1,GPU-2", "GPU-1", "GPU-2,GPU-3", "GPU-1"]):
        waiting.append(a_claimant(f"w{number}", "claim", uuids, "600"))
        assert waiting[-1].line().startswith("waiting")
    first.close()
    assert waiting[0].line() == "got w0"
    assert not select.select([claimant.stdout for claimant in waiting[1:]], [], [], 0.2)[0]
    waiting[0].order("release")
    assert waiting[1].line() == "got w1"
    assert waiting[2].line() == "got w2"
    assert not select.select([waiting[3].stdout], [], [], 0.2)[0]
    waiting[1].order("release")
    assert waiting[3].line() == "got w3"


def test_g01_no_run_takes_a_free_gpu_that_another_run_has_waited_for_longer(
    leases: Leases, a_claimant: StartClaimant
) -> None:
    with leases.claim(["GPU-1"], **NOW):
        both = a_claimant("w0", "claim", "GPU-1,GPU-2", "600")
        assert both.line().startswith("waiting")
        with pytest.raises(BusyError, match=r"GPU-2 is already reserved for run w0 .*, which waits in the queue"):
            leases.claim(["GPU-2"], **NOW)
        with pytest.raises(BusyError, match="waits in the queue"):
            leases.claim(["GPU-2"], wait_s=0.1, owner={})
        leases.claim(["GPU-3"], **NOW).close()
    assert both.line() == "got w0"


def test_g01_a_run_that_died_while_waiting_delays_no_other_run(leases: Leases, a_claimant: StartClaimant) -> None:
    with leases.claim(["GPU-1"], **NOW):
        dead = a_claimant("w0", "claim", "GPU-1,GPU-2", "600")
        assert dead.line().startswith("waiting")
        dead.process.kill()
        dead.process.wait()
        leases.claim(["GPU-2"], **NOW).close()
    leases.claim(["GPU-1"], **NOW).close()
    assert not list(leases.directory.glob("ticket-*"))


def test_g01_a_killed_runner_frees_its_gpus_at_once(leases: Leases, a_claimant: StartClaimant) -> None:
    first = a_claimant("r1", "claim", "GPU-1", "0")
    assert first.line() == "got r1"
    first.process.kill()
    first.process.wait()
    leases.claim(["GPU-1"], **NOW).close()


def test_g01_the_lease_outlives_the_runner_while_the_shim_lives(leases: Leases, a_claimant: StartClaimant) -> None:
    first = a_claimant("r1", "claim", "GPU-1", "0")
    assert first.line() == "got r1"
    shim = int(first.order("shim").split()[1])
    watched = os.pidfd_open(shim)
    first.process.kill()
    first.process.wait()
    with pytest.raises(BusyError, match="run r1"):
        leases.claim(["GPU-1"], **NOW)
    first.stdin.close()  # the shim reads end of file and ends
    assert select.select([watched], [], [], 60)[0]
    os.close(watched)
    leases.claim(["GPU-1"], **NOW).close()


def test_g01_releasing_does_not_unlock_a_gpu_that_another_process_still_holds(leases: Leases) -> None:
    own = leases.claim(["GPU-1"], **NOW)
    of_the_shim = os.dup(own.fds[0])
    own.close()
    with pytest.raises(BusyError):
        leases.claim(["GPU-1"], **NOW)
    os.close(of_the_shim)
    leases.claim(["GPU-1"], **NOW).close()


@contextlib.contextmanager
def a_copy_of(fds: tuple[int, ...]) -> Iterator[None]:
    """A child that has copies of the descriptors inside ``with``, as one that stands between fork and exec has."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=fds):
        yield


def test_a_released_gpu_is_free_although_a_child_was_about_to_start(leases: Leases) -> None:
    lease = leases.claim(["GPU-1"], **NOW)
    begun, free = threading.Event(), threading.Event()
    found: list[Any] = []

    def start_a_program() -> None:
        with starting(), a_copy_of(lease.fds):
            begun.set()
            free.wait()

    def release_and_claim() -> None:
        lease.close()
        try:
            found.append(leases.claim(["GPU-1"], **NOW))
        except BusyError as error:
            found.append(error)

    threads = [threading.Thread(target=start_a_program), threading.Thread(target=release_and_claim)]
    threads[0].start()
    begun.wait()
    threads[1].start()
    threads[1].join(1)  # without the wait in `close` the claim has failed by now
    free.set()
    for thread in threads:
        thread.join()
    assert not isinstance(found[0], BusyError)
    found[0].close()


def test_a_look_at_the_locks_leaves_none_although_a_child_was_about_to_start(
    leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases.claim(["GPU-1"], **NOW).close()
    with contextlib.ExitStack() as children:
        flock = fcntl.flock

        def lock_and_start(fd: int, operation: int) -> None:
            flock(fd, operation)
            if operation & fcntl.LOCK_EX:
                children.enter_context(a_copy_of((fd,)))

        monkeypatch.setattr(fcntl, "flock", lock_and_start)
        assert leases.holders() == {}
        monkeypatch.setattr(fcntl, "flock", flock)
        leases.claim(["GPU-1"], **NOW).close()


def test_every_program_that_a_run_starts_is_counted_until_it_has_begun() -> None:
    """Else `Lease.close` would not wait for it. An installer and a worker hold no lease."""
    source = Path(reelwright.__file__).parent
    starts = [path for path in source.rglob("*.py") if re.search(r"\bPopen\(", path.read_text())]
    uncounted = [
        path.relative_to(source).as_posix()
        for path in starts
        if len(re.findall(r"with starting\(\):\s+(?:return |\S+ = )subprocess\.Popen\(", path.read_text()))
        != path.read_text().count("Popen(")
    ]
    assert sorted(uncounted) == ["engines/diffusers/rank_process.py", "installer/programs.py"]


def test_a_fork_of_this_process_holds_no_gpu(leases: Leases) -> None:
    """As in a program that uses multiprocessing while it makes a clip."""
    lease = leases.claim(["GPU-1"], **NOW)
    (runs, running), (ends, end) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(end)
        os.write(running, b"x")
        os.read(ends, 1)
        os._exit(0)
    try:
        os.read(runs, 1)
        assert leases.holders().keys() == {"GPU-1"}
        lease.close()
        leases.claim(["GPU-1"], **NOW).close()
    finally:
        for fd in (runs, running, ends, end):
            os.close(fd)
        os.waitpid(pid, 0)


def test_g02_random_rounds_of_three_runs_neither_deadlock_nor_share_a_gpu(a_claimant: StartClaimant) -> None:
    runs = [a_claimant(f"r{seed}", "rounds", str(seed), "70") for seed in range(3)]
    assert [run.line(deadline_s=100) for run in runs] == ["done"] * 3


def test_g02_opposite_orders_do_not_deadlock(leases: Leases) -> None:
    failures: list[BusyError] = []

    def run(uuids: list[str]) -> None:
        try:
            for _ in range(100):
                leases.claim(uuids, wait_s=60, owner={}).close()
        except BusyError as error:
            failures.append(error)

    quick = [threading.Thread(target=run, args=(uuids,)) for uuids in (["0", "1"], ["1", "0"])]
    leases._poll_s = 0.001
    for thread in quick:
        thread.start()
    for thread in quick:
        thread.join(60)
    assert not any(thread.is_alive() for thread in quick)
    assert not failures


def test_a_request_to_stop_ends_the_waiting_at_once(tmp_path: Path) -> None:
    cancellation = Cancellation()
    waiting = Leases(tmp_path / "leases", poll_s=60, on_wait=lambda holder: cancellation.request(signal.SIGTERM))
    with waiting.claim(["GPU-1"], **NOW):
        started = time.monotonic()
        with pytest.raises(Cancelled) as caught:
            waiting.claim(["GPU-1"], wait_s=60, owner={}, cancellation=cancellation)
    assert time.monotonic() - started < 50
    assert caught.value.exit_status == 143
    cancellation.close()
    assert not list(waiting.directory.glob("ticket-*"))


def test_a_lock_on_a_file_that_a_cleaner_deletes_meanwhile_is_never_taken_for_a_lease(leases: Leases) -> None:
    leases.claim(["GPU-1"], **NOW).close()
    file = leases.directory / "GPU-1.gpu"
    clean = (  # deletes only unlocked files, as such programs do
        "import contextlib, fcntl, os, sys\n"
        "while True:\n"
        "    with contextlib.suppress(OSError), open(sys.argv[1]) as opened:\n"
        "        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "        os.unlink(sys.argv[1])\n"
    )
    cleaner = subprocess.Popen([sys.executable, "-I", "-S", "-c", clean, file])
    try:
        eventually(lambda: not file.exists(), what="the cleaner's first deletion")
        for _ in range(3000):
            with contextlib.suppress(BusyError), leases.claim(["GPU-1"], **NOW) as lease:
                assert os.fstat(lease.fds[0]).st_ino == file.stat().st_ino
    finally:
        cleaner.kill()
        cleaner.wait()


def test_p30_without_descriptors_the_claim_fails_cleanly_and_leaves_nothing_open(
    tmp_path: Path, python_environ: dict[str, str]
) -> None:
    code = (
        "import os, resource, sys; from pathlib import Path\n"
        "from reelwright.core.errors import BackendUnavailableError\n"
        "from reelwright.sites.local.leases import Leases\n"
        "leases, failed, free = Leases(Path(sys.argv[1])), 0, 0\n"
        "count = lambda: [os.path.exists(f'/proc/self/fd/{fd}') for fd in range(64)].count(True)\n"
        "before = count()\n"
        "while True:\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (before + free, 4096))\n"
        "    try:\n"
        "        lease = leases.claim(['a', 'b', 'c'], wait_s=1, owner={})\n"
        "        break\n"
        "    except BackendUnavailableError as error:\n"
        "        failed += 'Too many open files' in error.message\n"
        "    assert count() == before, free\n"
        "    free += 1\n"
        "print(failed, len(lease.fds), count() - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "leases")]
    said = subprocess.run(command, env=python_environ, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["6", "3", "3"]


@pytest.mark.parametrize("uuid", ["MIG-GPU-1/7/0", "../../etc/passwd", "GPU-simulated-0", "a b\n"])
def test_any_name_of_a_gpu_becomes_one_file_in_the_folder(leases: Leases, tmp_path: Path, uuid: str) -> None:
    with leases.claim([uuid], **NOW), pytest.raises(BusyError):
        leases.claim([uuid], **NOW)
    with leases.claim([uuid], **NOW):
        assert leases.holders().keys() == {uuid}
    assert sorted(path.name for path in tmp_path.rglob("*.gpu")) == [
        path.name for path in leases.directory.glob("*.gpu")
    ]


def test_only_this_user_can_open_the_folder(leases: Leases) -> None:
    leases.claim(["GPU-1"], **NOW).close()
    assert leases.directory.stat().st_mode & 0o777 == 0o700
    assert (leases.directory / "GPU-1.gpu").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("trap", ["link", "writable", "foreign", "file"])
def test_a_folder_that_another_user_may_have_prepared_is_refused(tmp_path: Path, trap: str) -> None:
    folder = tmp_path / "leases"
    if trap == "link":
        (tmp_path / "real").mkdir()
        folder.symlink_to("real")
    elif trap == "file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777 if trap == "writable" else 0o700)
    if trap == "foreign":
        if os.geteuid() != 0:
            pytest.skip("needs root to give a folder away")
        os.chown(folder, 65534, 65534)
    with pytest.raises(BackendUnavailableError) as caught:
        Leases(folder).claim(["GPU-1"], **NOW)
    assert caught.value.code == "PERM"


def test_a_link_in_the_place_of_a_lock_is_not_followed(leases: Leases, tmp_path: Path) -> None:
    leases.claim(["GPU-2"], **NOW).close()
    (leases.directory / "GPU-1.gpu").symlink_to(tmp_path / "victim")
    with pytest.raises(BackendUnavailableError, match=os.strerror(errno.ELOOP)):
        leases.claim(["GPU-1"], **NOW)
    assert not (tmp_path / "victim").exists()


def test_damage_in_a_lock_file_does_no_harm(leases: Leases) -> None:
    with leases.claim(["GPU-1"], **NOW):
        (leases.directory / "GPU-1.gpu").write_bytes(b"\xff{")
        with pytest.raises(BusyError, match="run unknown"):
            leases.claim(["GPU-1"], **NOW)


def test_nothing_is_left_open(leases: Leases) -> None:
    with leases.claim(["GPU-1", "GPU-2"], **NOW):
        with pytest.raises(BusyError):
            leases.claim(["GPU-1"], wait_s=0.02, owner={})
        assert len(opened_below(leases.directory)) == 2
    leases.holders()
    assert opened_below(leases.directory) == []


def test_a_reservation_keeps_its_gpus_over_attempts_and_gives_them_back_for_others(tmp_path: Path) -> None:
    environ = {"TMPDIR": str(tmp_path)}
    others = Leases(lease_directory(environ))
    host = Host(gpus=tuple(Gpu(index, f"GPU-{index}", "card", 1, 1) for index in range(4)))
    with LocalSite(environ).reserve(Claim("r1")) as reservation:

        def hold(*gpus: int) -> tuple[int, ...]:
            reservation.hold(Plan("stand-in", "t2v", True, None, None, gpus=gpus), host, Cancellation())
            return reservation.lease_fds

        fds = hold(1)
        assert hold(1) == fds
        assert others.holders()["GPU-1"]["run"] == "r1"
        assert len(hold(2, 3)) == 2
        assert others.holders().keys() == {"GPU-2", "GPU-3"}
        assert hold() == ()
        assert others.holders() == {}
        hold(1)
    assert others.holders() == {}


def test_the_folder_does_not_depend_on_the_login_session() -> None:
    assert lease_directory({"XDG_RUNTIME_DIR": "/run/user/1"}) == Path(f"/tmp/reelwright-{os.geteuid()}")
    assert lease_directory({"TMPDIR": "/scratch"}) == Path(f"/scratch/reelwright-{os.geteuid()}")
