"""Tests the bounded log of an attempt."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelwright.sites.local.log_file import BoundedLog, Masker


def test_a_short_log_is_kept_as_it_is(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log.txt", 1000)
    log.write(b"one\n")
    log.write(b"two\n")
    log.close()
    assert (tmp_path / "log.txt").read_bytes() == b"one\ntwo\n"


@given(st.lists(st.binary(max_size=90), max_size=40), st.integers(8, 200))
def test_the_head_and_the_tail_of_any_stream_are_kept(
    tmp_path_factory: object, chunks: list[bytes], limit: int
) -> None:
    folder = Path(os.environ["HOME"])
    folder.mkdir(exist_ok=True, parents=True)
    log = BoundedLog(folder / "log.txt", limit)
    for chunk in chunks:
        log.write(chunk)
    log.close()
    whole, kept = b"".join(chunks), (folder / "log.txt").read_bytes()
    head = whole[: limit // 2]
    assert kept.startswith(head)
    assert kept.endswith(whole[len(head) :][-(limit // 4) :])
    assert len(kept) <= limit + 60


def test_p15_two_hundred_megabytes_stay_within_the_limit_and_say_what_was_dropped(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    log = BoundedLog(tmp_path / "log.txt", 1_000_000)
    for _ in range(3200):
        log.write(b"x" * 65536)
    log.close()
    content = (tmp_path / "log.txt").read_bytes()
    assert len(content) <= 1_000_100
    assert b"bytes dropped" in content
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000


_LIMITED = """
import resource, signal, sys
from pathlib import Path
from reelwright.sites.local.log_file import BoundedLog, Masker
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
log = BoundedLog(Path(sys.argv[1]), 100_000)
log.write(b"x" * 50_000)
log.close()
print(log.lost)
"""


def test_d02_a_full_disk_loses_log_lines_and_nothing_else(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", _LIMITED, str(tmp_path / "log.txt")]
    child = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert child.stdout.strip() == "True", child.stderr


@pytest.mark.parametrize("cut", range(40))
def test_a_secret_is_masked_wherever_the_stream_is_cut(cut: int) -> None:
    text, masker = b"a secretsecret in secre text secretsecr", Masker(["secretsecret", "text"])
    parts = masker.feed(text[:cut]) + masker.feed(text[cut:])
    assert parts + masker.close() == b"a *** in secre *** secretsecr"


def test_a_bar_is_not_held_back_for_a_secret_it_does_not_begin() -> None:
    assert Masker(["hf_abcdef"]).feed(b"\r 2%|x| 1/50 [00:09]") == b"\r 2%|x| 1/50 [00:09]"
