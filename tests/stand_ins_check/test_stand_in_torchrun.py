"""The stand-in for torchrun has torchrun's habits; with torch installed the same tests hold the real one to them."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.conftest import eventually, is_running
from tests.stand_ins.checkout import launches, reached
from tests.stand_ins_check.conftest import SPLIT, TWO, Bench

LOGS = Path(__file__).parents[1] / "logs"


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.engine)])
def two(request: pytest.FixtureRequest, bench: Bench) -> Bench:
    """A bench whose interpreter has the stand-in for torchrun, or the real one."""
    if request.param == "real":
        if importlib.util.find_spec("torch") is None:
            pytest.skip("torch is not installed here (make test-engine)")
        bench.python = Path(sys.executable)
    return bench


def _summary(log: str) -> list[str]:
    """The block of ChildFailedError without times, host and pids."""
    block = log[log.rindex("ChildFailedError: ") :].splitlines()[1:]
    cut = [re.sub(r"(time      : |host      : ).*|\d+(?=\))|(?<=PID )\d+", r"\1", line) for line in block]
    return [re.sub(r"^[=-]{20,}$", "line", line) for line in cut]


def _real_summary(case: str) -> list[str]:
    return _summary((LOGS / f"wan21_real_{case}.txt").read_bytes().decode("utf-8"))


def _hanging(bench: Bench) -> list[int]:
    """Pids of two ranks that wait for ever."""
    eventually(lambda: len(reached(bench.checkout, "hang")) == 2, within_s=60, what="both ranks hanging")
    return [int(pid) for _, _, pid, _ in reached(bench.checkout, "hang")]


def test_a_dead_rank_ends_all_with_the_real_summary_and_status_1(two: Bench) -> None:
    two.plan({"rank_die": {"rank": 1, "sig": 9}})
    assert two.run(*SPLIT, launcher=TWO) == 1
    assert _summary(two.stderr) == _real_summary("rank1_killed")
    assert re.search(
        r"W\d{4} [\d:.]+ \d+ torch/distributed/elastic/multiprocessing/api.py:\d+\] Sending process", two.stderr
    )
    assert re.search(r"E\d{4} .*\] failed \(exitcode: -9\) local_rank: 1 \(pid: \d+\) of binary: ", two.stderr)


def test_a_rank_that_refuses_its_arguments_shows_status_2_only_in_the_summary(two: Bench) -> None:
    assert two.run("--no_such_flag", launcher=TWO) == 1
    roots = [line for line in _summary(two.stderr) if "exitcode  : 2 (pid: )" in line]
    assert roots
    assert "generate.py: error: unrecognized arguments: --no_such_flag" in two.stderr


def test_tracebacks_name_their_rank(two: Bench) -> None:
    two.plan({"oom_phase": "dit"})
    assert two.run(*SPLIT, launcher=TWO) == 1
    assert re.search(r"^\[rank[01]\]: torch\.OutOfMemoryError: CUDA out of memory\.", two.stderr, re.MULTILINE)


def test_sigterm_is_handed_on_and_told(two: Bench) -> None:
    two.plan({"hang_at": "step 2"})
    torchrun = two.start(*SPLIT, launcher=TWO)
    ranks = _hanging(two)
    torchrun.terminate()
    assert torchrun.wait(timeout=60) == 1
    assert not any(map(is_running, ranks))
    assert "Received 15 death signal, shutting down workers" in two.stderr
    assert two.stderr.rstrip().endswith(
        f"torch.distributed.elastic.multiprocessing.api.SignalException: Process {torchrun.pid} got signal: 15"
    )


def test_ranks_that_ignore_sigterm_are_killed_after_the_grace(two: Bench) -> None:
    two.plan({"hang_at": "step 2", "ignore_term": True})
    torchrun = two.start(*SPLIT, launcher=(*TWO, "--shutdown-timeout=1"))
    ranks = _hanging(two)
    torchrun.terminate()
    assert torchrun.wait(timeout=60) == 1
    assert not any(map(is_running, ranks))
    assert "forcefully exiting via" in two.stderr


def test_sigkill_orphans_the_ranks_which_have_sessions_of_their_own(two: Bench) -> None:
    two.plan({"hang_at": "step 2"})
    torchrun = two.start(*SPLIT, launcher=TWO)
    ranks = _hanging(two)
    try:
        assert [os.getsid(pid) for pid in ranks] == ranks
        torchrun.kill()
        torchrun.wait(timeout=60)
        assert all(map(is_running, ranks))
    finally:
        for pid in ranks:
            os.kill(pid, signal.SIGKILL)


def test_the_other_ranks_wait_for_one_that_never_comes(two: Bench) -> None:
    two.plan({"ranks_hang": [1]})
    torchrun = two.start(*SPLIT, launcher=TWO)
    eventually(lambda: reached(two.checkout, "hang"), within_s=60, what="rank 1 staying away")
    eventually(lambda: len(reached(two.checkout, "step 1")) == 2, what="rank 0 at the first step")
    assert reached(two.checkout, "step 2") == []
    torchrun.terminate()
    assert torchrun.wait(timeout=60) == 1


def test_a_taken_port_is_told_in_torchs_words(two: Bench) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        launcher = (*TWO[:2], "--nproc_per_node=2", f"--master_port={port}")
        assert two.run(*SPLIT, launcher=launcher) == 1
    assert (
        "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network" in two.stderr
    )
    assert "EADDRINUSE" in two.stderr
    assert launches(two.checkout) == []


def test_ranks_get_what_torchrun_gives_them(two: Bench) -> None:
    assert two.run(*SPLIT, launcher=TWO) == 0
    for entry in launches(two.checkout):
        given = entry["environ"]
        assert (given["LOCAL_RANK"], given["LOCAL_WORLD_SIZE"]) == (given["RANK"], "2")
        assert given["OMP_NUM_THREADS"] == "1"
        assert given["TORCHELASTIC_ERROR_FILE"].endswith(f"/attempt_0/{given['RANK']}/error.json")
        assert {"MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_MAX_RESTARTS"} <= set(given)
