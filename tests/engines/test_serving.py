"""A worker seen from its owner: each request, whatever it holds, has an answer or ends the worker; nothing hangs."""

from __future__ import annotations

import fcntl
import json
import os
import random
import select
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reelwright.core.events import (
    Cancel,
    Failed,
    Generate,
    Hello,
    Load,
    Loaded,
    Message,
    Phase,
    Progress,
    Saved,
    Unload,
    decode,
    encode,
)
from reelwright.core.line_channel import MAX_LINE_BYTES
from reelwright.engines.serving import failed
from reelwright.launchers import resident
from tests.conftest import REPOSITORY, eventually

ENGINE = "tests.stand_ins.resident.engine:ENGINE"
_DEADLINE_S = 60.0


class Served:
    """A worker in a process of its own, with our ends of its pipes."""

    def __init__(self, folder: Path, engine: str = ENGINE) -> None:
        theirs_in, self.requests = os.pipe()
        self.answers, theirs_out = os.pipe()
        self.folder, self._rest = folder, b""
        self.errors = folder / "errors"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, resident.__file__, engine, str(theirs_in), str(theirs_out)],
                pass_fds=(theirs_in, theirs_out),
                env={"PYTHONPATH": str(REPOSITORY)},
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        os.close(theirs_in)
        os.close(theirs_out)

    def send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.requests, data) :]

    def be_heard(self) -> None:
        """Return when all that was sent is taken and acted on: its thread has come back for more, and taken a space."""
        for more in (b"", b" "):
            self.send(more)
            eventually(lambda: not self._unread(), what="the requests being taken")

    def _unread(self) -> int:
        """Bytes of requests that the worker has not taken yet."""
        return int.from_bytes(fcntl.ioctl(self.requests, termios.FIONREAD, bytes(4)), sys.byteorder)

    def ask(self, request: Message) -> Message:
        """The answer, without the events before it."""
        self.send((encode(request) + "\n").encode())
        return self.answer()

    def answer(self) -> Message:
        while isinstance(message := self.message(), Phase | Progress) or type(message).__name__ == "Memory":
            continue
        return message

    def message(self) -> Message:
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self.answers], [], [], _DEADLINE_S)
            assert ready, "no answer"
            data = os.read(self.answers, 65536)
            assert data, f"it ended: {self.errors.read_text()}"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return decode(line.decode("ascii"))

    def options(self, **more: object) -> dict[str, object]:
        size = {"width": 8, "height": 6, "num_frames": 2, "steps": 2}
        return {"prompt": "sea", "seed": 1, "marks": str(self.folder), **size, **more}

    def clip(self, **more: object) -> Message:
        return self.ask(Generate(self.options(**more), str(self.folder)))

    def close(self) -> None:
        for fd in (self.requests, self.answers):
            os.close(fd)
        self.process.wait(_DEADLINE_S)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A worker that has greeted."""
    worker = Served(tmp_path)
    hello = worker.message()
    assert isinstance(hello, Hello)
    assert (hello.protocol, hello.engine) == (1, ENGINE)
    assert set(hello.versions) == {"python"}
    yield worker
    worker.close()


def test_every_request_has_its_answer(served: Served) -> None:
    assert served.ask(Load({"name": "one"})) == Loaded({"model": "one"})
    saved = served.clip()
    assert isinstance(saved, Saved)
    assert Path(saved.path).stat().st_size == 2 * 8 * 6 * 3
    served.send((encode(Unload()) + "\n").encode())
    assert served.process.wait(_DEADLINE_S) == 0


GARBAGE = {
    "empty": b"",
    "words": b"make me a film",
    "binary": bytes(byte for byte in range(256) if byte != 10),
    "deep": b"[" * 100_000,
    "a long number": b"9" * 10_000,
    "no kind": b'{"event":"Dance"}',
    "a list for a kind": b'{"event":["Load"]}',
    "a field too many": b'{"event":"Load","model":{},"now":1}',
    "a field too few": b'{"event":"Generate","options":{}}',
    "a wrong type": b'{"event":"Load","model":3}',
    "no object": b"[1,2]",
    "half a line": encode(Load({"name": "one"})).encode()[:-5],
    "too long": b"x" * (MAX_LINE_BYTES + 70_000),
    "an answer": encode(Loaded({})).encode(),
    "an event": encode(Phase("denoising")).encode(),
    "a greeting": encode(Hello(1, "x")).encode(),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_no_request_is_answered_as_such_and_the_next_one_is_served(served: Served, name: str) -> None:
    served.send(GARBAGE[name] + b"\n")
    answer = served.answer()
    assert isinstance(answer, Failed)
    assert answer.failure == "STATE"
    assert isinstance(served.clip(), Saved)


@pytest.mark.parametrize("seed", range(5))
def test_any_bytes_have_one_answer_a_line(served: Served, seed: int) -> None:
    dice = random.Random(seed)
    lines = [encode(Load({"name": "one"})), encode(Generate({"prompt": "sea"}, "")), encode(Cancel())]
    asked = 0
    for _ in range(200):
        line = bytearray(dice.choice(lines).encode())
        for _ in range(dice.randint(0, 4)):
            line[dice.randrange(len(line))] = dice.choice([byte for byte in range(256) if byte != 10])
        asked += line != lines[2].encode() and not _cancels(bytes(line))
        served.send(bytes(line) + b"\n")
    for _ in range(asked):
        served.answer()
    assert isinstance(served.clip(), Saved)


def _cancels(line: bytes) -> bool:
    try:
        return isinstance(decode(line.decode()), Cancel)
    except ValueError:
        return False


def test_a_cancellation_without_a_request_stops_nothing_that_comes_later(served: Served) -> None:
    served.send((encode(Cancel()) + "\n").encode() * 3)
    assert isinstance(served.clip(), Saved)


def test_cancelled_in_a_step_it_answers_before_the_next_one(served: Served) -> None:
    gate = served.folder / "gate"
    os.mkfifo(gate)
    request = Generate(served.options(steps=50, gates={"2": str(gate)}), str(served.folder))
    served.send((encode(request) + "\n").encode())
    while served.message() != Progress("denoising", 2, 50):
        continue
    served.send((encode(Cancel()) + "\n").encode())
    served.be_heard()
    os.close(os.open(gate, os.O_WRONLY))  # it goes on only now
    answer: Message = Phase("")
    steps = 0
    while not isinstance(answer, Failed):
        answer = served.message()
        steps += isinstance(answer, Progress)
    assert answer.failure == "CANCELLED"
    assert steps <= 1
    assert isinstance(served.clip(), Saved)


@pytest.mark.parametrize(
    ("kind", "failure"), [("oom", "OOM_GPU"), ("error", "FRAMEWORK"), ("input", "INPUT"), ("host", "OOM_HOST")]
)
def test_what_the_engine_raises_is_named_with_its_phase_and_leaves_it_usable(
    served: Served, kind: str, failure: str
) -> None:
    answer = served.clip(faults={"2": kind})
    assert isinstance(answer, Failed)
    assert (answer.failure, answer.phase) == (failure, "denoising")
    assert isinstance(served.clip(), Saved)


def _refuses() -> None:
    raise AssertionError


@pytest.mark.parametrize(
    ("raiser", "line"), [(_refuses, "raise AssertionError"), (lambda: int("x"), "ValueError: invalid literal")]
)
def test_the_evidence_is_the_exception_and_no_source_but_that_of_a_bare_assertion(
    raiser: Callable[[], object], line: str
) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- whatever it is
        raiser()
    evidence = failed(caught.value, "denoising").evidence
    assert evidence[-1].startswith(line)
    assert not [text for text in evidence if text.lstrip().startswith(("Traceback", "File "))]


def test_what_the_engine_prints_never_comes_between_the_answers(served: Served) -> None:
    assert isinstance(served.clip(faults={"1": "flood"}), Saved)


def test_it_ends_at_once_when_its_owner_is_gone_whatever_it_is_doing(tmp_path: Path) -> None:
    worker = Served(tmp_path)
    worker.message()
    request = Generate(worker.options(faults={"1": "hang"}), str(tmp_path))
    worker.send((encode(request) + "\n").encode())
    while worker.message() != Phase("denoising"):
        continue
    worker.close()
    assert worker.process.returncode == 0


def test_an_engine_that_cannot_be_had_is_told_before_the_greeting(tmp_path: Path) -> None:
    worker = Served(tmp_path, "nowhere:ENGINE")
    answer = worker.message()
    assert isinstance(answer, Failed)
    assert answer.failure == "ENV"
    assert "nowhere" in answer.message
    worker.close()
    assert worker.process.returncode != 0


def test_a_line_holds_no_text_that_could_forge_another() -> None:
    line = encode(Failed("STATE", 'a\n{"event":"Saved"}\u2028\x85'))
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert json.loads(line)["message"].startswith("a\n")
