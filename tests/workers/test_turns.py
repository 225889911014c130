"""Tests the turns of runs: no run gets a GPU before the worker that held it has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reelwright.core.errors import Cancelled
from reelwright.sites.cancellation import Cancellation
from reelwright.sites.local.workers import Workers


class Held:
    """A worker that ends when ``ending`` returns."""

    alive = True

    def __init__(self, ending: Callable[[], None]) -> None:
        self.end = ending


def must_wait(workers: Workers, *gpus: str) -> bool:
    """Whether a run that requests these GPUs now must wait for them."""
    asked = Cancellation()
    asked.request()
    try:
        workers.turn(gpus, asked).close()
    except Cancelled:
        return True
    return False


ENDED_BY: dict[str, Callable[[Workers], object]] = {
    "a script that wants its GPU": lambda workers: workers.release_idle(["GPU-1"]),
    "release": lambda workers: workers.release_idle(),
    "a run on more GPUs": lambda workers: workers.turn(["GPU-1", "GPU-3"], Cancellation()).close(),
    "close": lambda workers: workers.close(),
}


@pytest.mark.parametrize("end", ENDED_BY.values(), ids=ENDED_BY.keys())
def test_no_run_gets_the_gpus_of_a_worker_that_is_ending(end: Callable[[Workers], object]) -> None:
    workers = Workers()
    waited: dict[str, bool] = {}

    def ending() -> None:
        waited.update({name: must_wait(workers, name) for name in ("GPU-1", "GPU-2", "GPU-4")})

    workers.keep(frozenset({"GPU-1", "GPU-2"}), _worker(ending))
    end(workers)
    assert waited == {"GPU-1": True, "GPU-2": True, "GPU-4": False}
    assert not must_wait(workers, "GPU-1"), "it has ended"
    workers.close()


def test_the_gpus_of_a_worker_that_could_not_be_ended_are_not_lost() -> None:
    workers = Workers()

    def ending() -> None:
        raise OSError("the shim is gone")

    workers.keep(frozenset({"GPU-1"}), _worker(ending))
    with pytest.raises(OSError, match="gone"):
        workers.release_idle()
    assert not must_wait(workers, "GPU-1")
    workers.close()


def test_waiting_runs_are_served_in_the_order_of_arrival() -> None:
    workers = Workers()
    with workers.turn(["GPU-1"], Cancellation()):
        assert must_wait(workers, "GPU-1")
        assert must_wait(workers, "GPU-2", "GPU-1")
        assert not must_wait(workers, "GPU-2")
    assert not must_wait(workers, "GPU-1")
    workers.close()


def _worker(ending: Callable[[], None]) -> Any:
    return Held(ending)


def test_a_worker_that_has_a_turn_is_not_idle() -> None:
    workers, ended = Workers(), []
    workers.keep(frozenset({"GPU-1"}), _worker(lambda: ended.append(1)))
    with workers.turn(["GPU-1"], Cancellation()) as turn:
        assert turn.worker is not None
        workers.release_idle()
        assert ended == []
    workers.release_idle()
    assert ended == [1]
    workers.close()
