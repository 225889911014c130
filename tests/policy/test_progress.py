"""Reading logs: phases and steps of real and hostile ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelwright.backends.wan21 import facts
from reelwright.core.events import Output, Phase, Progress
from reelwright.core.plan import Dialect
from reelwright.policy.progress import MAX_LINE_BYTES, LogReader

LOGS = Path(__file__).parents[1] / "logs"
STAMP = "[2026-11-23 09:49:15,196] INFO: "
PHASES = [
    "loading text encoder",
    "loading VAE",
    "loading CLIP",
    "loading transformer",
    "encoding",
    "denoising",
    "decoding",
    "saving",
]


def a_reader(steps: int = 50, *prompts: str) -> LogReader:
    return LogReader(facts.dialect(steps), prompts)


def bar(step: int, total: int) -> bytes:
    return f"\r{step * 100 // total:3d}%|████      | {step}/{total} [02:17<43:26, 68.6s/it]".encode()


def as_it_was_printed(name: str) -> bytes:
    """The two streams of a kept log in the order in which the real program writes them into one pipe."""
    text = (LOGS / name).read_bytes()
    out, err = text.split(b"---- stdout ----\n")[1].split(b"---- stderr ----\n")
    before, mark, after = out.partition(b"Generating video ...\n")
    return before + mark + err + b"\n" + after


@pytest.mark.parametrize("name", ["wan21_real_single.txt", "wan21_real_two_ranks.txt"])
def test_a_real_run_goes_through_every_phase_once_and_in_order(name: str) -> None:
    events = a_reader(3).feed(as_it_was_printed(name))
    phases = [event.name for event in events if isinstance(event, Phase)]
    assert phases == [phase for phase in PHASES if phase in phases]
    assert {"loading text encoder", "loading transformer", "denoising", "decoding", "saving"} <= set(phases)


@pytest.mark.parametrize("name", ["wan21_real_single.txt", "wan21_real_two_ranks.txt"])
def test_a_real_run_counts_every_step_once_whatever_the_number_of_ranks(name: str) -> None:
    events = a_reader(3).feed(as_it_was_printed(name))
    steps = [event.step for event in events if isinstance(event, Progress)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 3


def test_a_real_run_names_the_file_it_saves() -> None:
    events = a_reader(3).feed(as_it_was_printed("wan21_real_single.txt"))
    assert [event.path.endswith(".mp4") for event in events if isinstance(event, Output)] == [True]


def test_a_bar_counts_at_once_and_not_with_the_next_one() -> None:
    assert a_reader(50).feed(bar(1, 50))[-1] == Progress("denoising", 1, 50)


def test_bars_of_several_ranks_are_merged_to_the_furthest() -> None:
    reader = a_reader(4)
    events = [event for step in (1, 1, 2, 1, 3, 2) for event in reader.feed(bar(step, 4))]
    assert [event.step for event in events if isinstance(event, Progress)] == [1, 2, 3]


@pytest.mark.parametrize(
    "line",
    [
        b"\rLoading checkpoint shards: 100%|##########| 50/50 [00:00<00:00, 833.83it/s]",
        b"\r100%|##########| 7/7 [00:00<00:00]",
        b"50%|no bar here 25/50",
    ],
)
def test_other_bars_are_no_steps(line: bytes) -> None:
    assert not [event for event in a_reader(50).feed(line + b"\n") if isinstance(event, Progress)]


def test_a_rank_that_is_still_encoding_does_not_lead_back_from_the_first_bar() -> None:
    reader = a_reader(50)
    reader.feed(bar(0, 50))
    assert Phase("encoding") not in reader.feed(f"\n{STAMP}Generating video ...\n".encode())
    assert reader.phase == "denoising"


def test_a_traceback_behind_another_ranks_open_bar_is_seen() -> None:
    reader = a_reader(50)
    said = b'[rank0]: Traceback (most recent call last):\n[rank0]:   File "x", line 1\n[rank0]: RuntimeError: worse\n'
    events = reader.feed(bar(3, 50) + said)
    assert Progress("denoising", 3, 50) in events
    assert [(seen.rank, seen.text) for seen in reader.exceptions] == [(0, "RuntimeError: worse")]


def test_decoding_begins_when_the_last_step_is_done() -> None:
    assert a_reader(2).feed(bar(2, 2))[-1] == Phase("decoding")


def test_a_second_bar_is_the_second_phase() -> None:
    reader = LogReader(Dialect(bars=("denoising", "super resolution"), totals=(50, 8)))
    events = reader.feed(bar(50, 50) + bar(3, 8))
    assert events[-1] == Progress("super resolution", 3, 8)


def test_c06_a_prompt_that_imitates_the_log_moves_nothing() -> None:
    prompt = f"a cat\n{STAMP}Saving generated video to /etc/passwd\n{bar(49, 50).decode().strip()}\nCUDA out of memory"
    reader = a_reader(50, prompt)
    events = reader.feed(f"{STAMP}Input prompt: {prompt}\n{STAMP}Input image: /x\n".encode())
    assert not [event for event in events if isinstance(event, Output | Progress)]
    assert not any("CUDA" in line for line in reader.tail)


def test_p03_the_echo_of_a_prompt_is_no_evidence() -> None:
    reader = a_reader()
    reader.feed(f"{STAMP}Input prompt: torch.OutOfMemoryError: CUDA out of memory\n".encode())
    reader.feed(f"{STAMP}Generation job args: Namespace(prompt='CUDA out of memory')\n".encode())
    assert list(reader.tail) == []


def test_p16_escape_sequences_nul_and_broken_utf8_are_cleaned() -> None:
    reader = a_reader()
    reader.feed(b"\x1b[31mred\x1b[0m \x00\xff\x1b]0;title\x07end\n")
    assert list(reader.tail) == ["red �end"]


def test_p15_a_line_without_end_costs_no_memory() -> None:
    reader = a_reader()
    for _ in range(200):
        reader.feed(b"x" * 65536)
    reader.feed(b"\nafter\n")
    assert reader.tail[-1] == "after"
    assert max(map(len, reader.tail)) <= MAX_LINE_BYTES


def test_a_flood_does_not_push_the_exception_out() -> None:
    reader = a_reader()
    reader.feed(b"Traceback (most recent call last):\n  File x\n    code()\nValueError: the cause\n")
    reader.feed(b"noise\n" * 10_000)
    (seen,) = reader.exceptions
    assert seen.text.splitlines()[0] == "ValueError: the cause"
    assert len(seen.text) < 5000


MESSAGES = {
    "tabs": 'RuntimeError: Error(s) in loading state_dict for WanModel:\n\tMissing key(s) in state_dict: "a.weight".',
    "paragraph": "RuntimeError: CUDA error: no kernel image is available for execution on the device\n"
    "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.",
    "cause in the last line": "torch.distributed.DistBackendError: NCCL error in: x.cpp:77, unhandled cuda error\n"
    "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'",
}


@pytest.mark.parametrize("text", MESSAGES.values(), ids=MESSAGES)
@pytest.mark.parametrize("prefix", ["", "[rank1]: "])
def test_the_message_of_an_exception_is_read_to_its_end(text: str, prefix: str) -> None:
    reader = a_reader()
    lines = ["Traceback (most recent call last):", '  File "x.py", line 1, in f', "    code()", *text.split("\n")]
    reader.feed("".join(f"{prefix}{line}\n" for line in lines).encode())
    reader.feed(b"W1123 09:49:09.843000 14185 torch/distributed/elastic/multiprocessing/api.py:1028] Sending process\n")
    assert [seen.text for seen in reader.exceptions] == [text]


@pytest.mark.parametrize(
    "line",
    [
        "[2026-01-02 03:04:05,678] INFO: Finished.",
        "/x/y.py:3: UserWarning: There appear to be 1 leaked semaphore objects",
        "[W1123 09:49:09.1 ProcessGroupNCCL.cpp:1250] Warning: destroy_process_group() was not called",
        " 10%|#         | 5/50 [00:09<07:21, 9.0s/it]",
    ],
)
def test_what_the_program_says_afterwards_is_no_part_of_the_message(line: str) -> None:
    reader = a_reader()
    reader.feed(b"Traceback (most recent call last):\n  File x\n    code()\nValueError: the cause\n")
    reader.feed(f"{line}\nmore\n".encode())
    assert [seen.text for seen in reader.exceptions] == ["ValueError: the cause"]


def test_an_exception_knows_its_place_its_line_and_what_it_was_raised_from() -> None:
    reader = a_reader()
    reader.feed(
        b"Traceback (most recent call last):\n"
        b'  File "a.py", line 1, in f\n    d["x"]\n    ~^^^^^\nKeyError: \'x\'\n\n'
        b"During handling of the above exception, another exception occurred:\n\n"
        b"Traceback (most recent call last):\n"
        b'  File "b.py", line 2, in g\n    assert ready\n           ^^^^^\nAssertionError\n'
    )
    first, second = reader.exceptions
    assert (first.line, first.place, first.chained) == ('d["x"]', 'File "a.py", line 1, in f', False)
    assert (second.line, second.place, second.chained) == ("assert ready", 'File "b.py", line 2, in g', True)


def test_exceptions_of_interleaved_ranks_are_kept_apart() -> None:
    reader = a_reader()
    reader.feed(
        b"[rank0]: Traceback (most recent call last):\n[rank1]: Traceback (most recent call last):\n"
        b"[rank0]:   File a\n[rank1]:   File b\n[rank1]: ValueError: one\n[rank0]: KeyError: zero\n"
    )
    assert [(seen.rank, seen.text) for seen in reader.exceptions] == [(1, "ValueError: one"), (0, "KeyError: zero")]


def test_torchruns_summary_puts_the_first_failing_rank_first() -> None:
    reader = a_reader(3)
    reader.feed((LOGS / "wan21_real_rank1_killed.txt").read_bytes())
    assert [(error.rank, error.exit_status) for error in reader.rank_errors] == [(1, -9), (0, -15)]


def test_a_summary_that_begins_in_its_middle_names_only_what_it_knows() -> None:
    reader = a_reader(3)
    reader.feed(b"Failures:\n  exitcode  : 1 (pid: 5)\n  rank      : 1 (local_rank: 1)\n  exitcode  : -9 (pid: 6)\n")
    assert [(error.rank, error.exit_status) for error in reader.rank_errors] == [(1, -9)]


@given(st.binary(max_size=3000), st.integers(1, 400))
def test_any_bytes_in_any_pieces_give_the_same_phase_and_step(data: bytes, size: int) -> None:
    lines = re.sub(rb"[\r\n%]", b"", data)
    stream = STAMP.encode() + b"Creating WanModel from /m\n" + lines + b"\n" + bar(1, 50) + b"\n" + bar(2, 50) + b"\n"
    whole, pieces = a_reader(50), a_reader(50)
    whole.feed(stream)
    for start in range(0, len(stream), size):
        pieces.feed(stream[start : start + size])
    assert (whole.phase, whole.step) == (pieces.phase, pieces.step) == ("denoising", 2)
