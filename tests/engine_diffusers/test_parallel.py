"""One clip over several ranks: real processes, real torch.distributed (gloo), on the CPU.

What a GPU has besides is NCCL instead of gloo, `enable_parallelism` finding the device by itself, and the ring's
kernel; all else is the code that runs there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.errors import AttemptError, Cancelled, ConfigurationError, Failure
from tests.conftest import REPOSITORY, eventually, is_running
from tests.engine_diffusers.denoiser import MODEL, a_pipeline, latents, psnr

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]
torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from reelwright.engines.diffusers import collective, parallel, speed, step_cache  # noqa: E402
from tests.engine_diffusers import other_ranks  # noqa: E402

CACHE = {"preset": "balanced", "cache": {"kind": "first_block", "threshold": 0.2}}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The other ranks find their engines; one thread each, for there are two cores."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def a_model(ulysses: int = 2, ring: int = 1, **more: Any) -> dict[str, Any]:
    return {**MODEL, "ranks": ulysses * ring, "parallel": {"ulysses": ulysses, "ring": ring}, **more}


def pipeline_of(model: dict[str, Any]) -> Any:
    pipeline = a_pipeline()
    speed.apply(pipeline, model)
    return pipeline


def start(model: dict[str, Any], engine: str = "FAITHFUL") -> parallel.Ranks:
    return parallel.Ranks.start(model, engine=f"tests.engine_diffusers.other_ranks:{engine}")


def processes_of(ranks: parallel.Ranks) -> list[int]:
    return [process._process.pid for process in ranks._processes]


def test_two_ranks_compute_what_one_does_clip_after_clip() -> None:
    model = a_model()
    alone, other = latents(a_pipeline()), latents(a_pipeline(), seed=2)
    pipeline = pipeline_of(model)
    with closing(start(model)) as ranks:
        ranks.join(pipeline)
        with ranks.clip():
            assert psnr(latents(pipeline), alone) > 100
        with ranks.clip():
            assert psnr(latents(pipeline, seed=2), other) > 100
        pids = processes_of(ranks)
    assert not any(map(is_running, pids))
    assert torch.equal(latents(pipeline), alone)  # and alone again, as if there had been no others


def test_compiled_ranks_compute_what_one_does() -> None:
    model = a_model(speed={"preset": "exact", "compile": True})
    pipeline = pipeline_of(model)
    with closing(start(model)) as ranks:
        ranks.join(pipeline)
        with ranks.clip():
            found = latents(pipeline)
        with ranks.clip():
            assert torch.equal(latents(pipeline), found)
    assert psnr(found, latents(a_pipeline())) > 100


def a_threshold_that_divides_the_ranks() -> float:
    """Between the changes that the two halves of the sequence see: each rank by itself would decide otherwise."""
    seen: list[tuple[float, float]] = []
    whole = step_cache.CacheDecision._change

    class Watched(step_cache.CacheDecision):
        def _change(self, now: Any, before: Any) -> float:
            halves = zip(now.chunk(2, dim=1), before.chunk(2, dim=1), strict=True)
            first, second = (whole(self, *half) for half in halves)
            seen.append((first, second))
            return 1.0  # compute, so that every pass is compared with the one before

    pipeline = pipeline_of({**MODEL, "speed": CACHE})
    for hook in step_cache._leaders(pipeline.transformer):
        hook._should_compute_remaining_blocks = Watched(hook)
    latents(pipeline)
    return sum(seen[0]) / 2  # at the first decision, which no earlier one can change


def test_a_cache_decides_alike_on_all_ranks_and_as_on_one() -> None:
    cache = {"preset": "balanced", "cache": {"kind": "first_block", "threshold": a_threshold_that_divides_the_ranks()}}
    model = a_model(speed=cache)
    single = pipeline_of({**MODEL, "speed": cache})
    speed.reset(single)
    alone = latents(single)
    pipeline = pipeline_of(model)
    with closing(start(model)) as ranks:
        ranks.join(pipeline)
        for _ in range(2):
            speed.reset(pipeline)
            with ranks.clip():
                found = latents(pipeline)
            assert psnr(found, alone) > 100
            assert speed.observed(pipeline) == speed.observed(single)


def test_a_ring_of_two_computes_what_one_rank_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.models import attention_dispatch

    model = a_model(ulysses=1, ring=2, attention="_native_flash")
    pipeline = pipeline_of(model)
    monkeypatch.setattr(
        attention_dispatch,
        "_native_flash_attention_forward_op",
        attention_dispatch._native_flash_attention_forward_op,  # put back after the test
    )
    other_ranks.ring_on_cpu()
    with closing(start(model)) as ranks:
        ranks.join(pipeline)
        with ranks.clip():
            found = latents(pipeline)
    assert psnr(found, latents(a_pipeline())) > 80


def test_a_cancelled_clip_frees_the_others_for_the_next_one() -> None:
    model = a_model()
    pipeline = pipeline_of(model)

    def cancel(step: int) -> None:
        if step == 1:
            raise Cancelled

    with closing(start(model)) as ranks:
        ranks.join(pipeline)
        with pytest.raises(Cancelled), ranks.clip():
            latents(pipeline, after=cancel)
        with ranks.clip():
            found = latents(pipeline)
    assert psnr(found, latents(a_pipeline())) > 100


@pytest.mark.parametrize(
    ("engine", "failure", "says"),
    [
        ("KILLED", Failure.CRASH, "rank 1 was ended by SIGKILL"),
        ("OUT_OF_MEMORY", Failure.OOM_GPU, "rank 1: .*out of memory"),
    ],
)
def test_a_rank_that_fails_inside_a_step_ends_the_clip_with_its_own_error(
    engine: str, failure: Failure, says: str
) -> None:
    model = a_model()
    pipeline = pipeline_of(model)
    with closing(start(model, engine)) as ranks:
        ranks.join(pipeline)
        pids = processes_of(ranks)
        with pytest.raises(AttemptError, match=says) as caught, ranks.clip():
            latents(pipeline)
        assert caught.value.failure is failure
        assert not any(map(is_running, pids))
        with pytest.raises(AttemptError, match="have ended"), ranks.clip():
            pass
    assert torch.equal(latents(pipeline), latents(a_pipeline()))


def test_an_error_of_rank_0_inside_a_step_ends_the_others() -> None:
    model = a_model()
    pipeline = pipeline_of(model)

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with closing(start(model)) as ranks:
        ranks.join(pipeline)
        pids = processes_of(ranks)
        hook = pipeline.transformer.blocks[2].register_forward_pre_hook(full)
        with pytest.raises(torch.OutOfMemoryError), ranks.clip():
            latents(pipeline)
        hook.remove()
        assert not any(map(is_running, pids))
    assert torch.equal(latents(pipeline), latents(a_pipeline()))


def test_a_rank_that_dies_before_it_joined_is_reported_at_once() -> None:
    model = a_model()
    with closing(start(model, "DEAD_BEFORE_JOINING")) as ranks:
        with pytest.raises(AttemptError, match="rank 1 was ended by SIGKILL") as caught:
            ranks.join(pipeline_of(model))
        assert caught.value.failure is Failure.CRASH


def test_the_others_end_when_the_worker_is_killed(tmp_path: Path) -> None:
    """Their requests come through a pipe; its end is the worker's."""
    program = (
        "import json, sys\n"
        "from tests.engine_diffusers.test_parallel import a_model, start, processes_of\n"
        "ranks = start(a_model())\n"
        "print(json.dumps(processes_of(ranks)), flush=True)\n"
        "sys.stdin.read()\n"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    worker = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        cwd=REPOSITORY,
    )
    assert worker.stdout is not None
    (pid,) = map(int, worker.stdout.readline().strip("[]\n").split(","))
    assert is_running(pid)
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    eventually(lambda: not is_running(pid), within_s=150, what="the other rank's end")


def test_rank_0_ends_with_the_reason_when_it_cannot_be_freed() -> None:
    """As with NCCL, which notices no death: here rank 0 waits for something that never comes."""
    program = (
        "import threading\n"
        "from reelwright.engines.diffusers import collective, parallel\n"
        "from reelwright.core.errors import AttemptError, Failure\n"
        "from pathlib import Path\n"
        "parallel.GRACE_S = 0.2\n"
        "ranks = parallel.Ranks(collective.Rank(0, 2, '', {'device': 'cpu'}), Path('nowhere'), [])\n"
        "ranks._inside.set()\n"
        "error = AttemptError('rank 1 was ended by SIGKILL', failure=Failure.CRASH)\n"
        "threading.Thread(target=ranks._failed, args=(error,)).start()\n"
        "threading.Event().wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == Failure.NCCL.exit_status
    assert "rank 0 cannot be freed after a rank failed: rank 1 was ended by SIGKILL" in done.stderr


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (a_model(ulysses=1, ring=2), "cannot use the attention native"),
        (a_model(ulysses=3), "4 attention heads .* cannot be shared by 3"),
        (a_model() | {"ranks": 4}, "is not the number of ranks, 4"),
    ],
)
def test_what_cannot_be_split_is_refused_before_a_step(model: dict[str, Any], says: str) -> None:
    pipeline = pipeline_of(model)
    with closing(start(model | {"ranks": 1})) as ranks:  # no process is needed to say so
        ranks._rank = collective.Rank(0, model["ranks"], "", model)
        with pytest.raises(ConfigurationError, match=says):
            ranks.join(pipeline)


def test_a_model_without_a_plan_for_splitting_is_refused() -> None:
    """diffusers 0.42.1 has one for Wan and none for HunyuanVideo and HunyuanVideo-1.5."""
    from diffusers import HunyuanVideo15Transformer3DModel, HunyuanVideoTransformer3DModel, WanTransformer3DModel

    found = [HunyuanVideoTransformer3DModel, HunyuanVideo15Transformer3DModel, WanTransformer3DModel]
    assert [bool(model._cp_plan) for model in found] == [False, False, True]
    pipeline = a_pipeline()
    pipeline.transformer._cp_plan = None
    with pytest.raises(ConfigurationError, match="no plan for splitting WanTransformer3DModel"):
        collective.check(collective.Rank(0, 2, "", a_model()), [pipeline.transformer])


def test_a_length_that_cannot_be_shared_evenly_is_refused_by_number() -> None:
    shared = collective.SharedTransformer(a_pipeline().transformer, None, collective.Rank(0, 2, "", a_model()))
    with pytest.raises(ConfigurationError, match="105 tokens cannot be shared evenly by 2 ranks"):
        shared.fit((1, 16, 3, 10, 14))


def test_threads_that_listen_end_with_their_ranks() -> None:
    before = set(threading.enumerate())  # what an earlier test left may end meanwhile
    model = a_model()
    ranks = start(model)
    assert set(threading.enumerate()) - before
    ranks.close()
    ranks.close()
    assert set(threading.enumerate()) - before == set()


def test_a_rank_that_cannot_start_ends_those_before_it_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        parallel.Ranks.start(a_model(), [str(tmp_path / "no-such-program")])
    assert list(tmp_path.iterdir()) == []
