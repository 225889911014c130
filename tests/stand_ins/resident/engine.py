"""Implements the stand-in engine with the standard library only, so that a worker imports it in any interpreter.

Beside the options of a real engine it takes:

* ``notes``: a file to which it appends a line of JSON for every load, step and clip, with its pid;
* ``faults``: {"step": kind} (or "prompt:step"); each strikes once and leaves a file in ``marks``;
* ``gates``: {"step": FIFO} (or "prompt:step"); the step waits until a writer has opened the FIFO and closed it.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reelwright.core.errors import Failure, error_for
from reelwright.core.events import Event, LatentsSaved, Memory, Phase, Progress, Saved


class OutOfMemoryError(RuntimeError):
    """Has the name of torch's own class."""


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _memory() -> None:
    raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def _host_memory() -> None:
    raise MemoryError


def _error() -> None:
    raise ValueError("the stand-in has to fail")


def _gpu() -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def _secret() -> None:
    print("my token is", os.environ["HF_TOKEN"], flush=True)
    raise ValueError(f"cannot log in with {os.environ['HF_TOKEN']}")


def _flood() -> None:
    for _ in range(300):
        sys.stdout.write("x" * 9_999 + "\n")
    sys.stdout.flush()


def _wait_for_ever() -> None:
    while True:
        signal.pause()


FAULTS: Mapping[str, Callable[[], None]] = {
    "crash": _crash,
    "kill": _killed,
    "oom": _memory,
    "host": _host_memory,
    "error": _error,
    "gpu": _gpu,
    "secret": _secret,
    "flood": _flood,
    "hang": _wait_for_ever,
    "exit": lambda: os._exit(0),
    "input": lambda: (_ for _ in ()).throw(error_for(Failure.INPUT, "no such picture", advice="Choose another.")),
}


class Resident:
    """Frames of one colour, from a hash of the options that determine them."""

    def __init__(self) -> None:
        self.model: Mapping[str, Any] | None = None

    def versions(self) -> dict[str, str]:
        return {"python": sys.version.split()[0]}

    def load(self, model: Mapping[str, Any], emit: Callable[[Event], None], check: Callable[[], None]) -> Any:
        emit(Phase("loading transformer"))
        check()
        _note(model, event="load", model=model.get("name"), pydantic=_there("pydantic"))
        self.model = model
        return {"model": model.get("name")}

    def generate(
        self, options: Mapping[str, Any], folder: Path, emit: Callable[[Event], None], check: Callable[[], None]
    ) -> Saved:
        _note(options, event="generate", prompt=options["prompt"])
        emit(Phase("denoising"))
        for step in range(1, options["steps"] + 1):
            check()
            _strike(options, str(step))
            emit(Progress("denoising", step, options["steps"]))
            _note(options, event="step", step=step, prompt=options["prompt"])
            _pass(options, str(step))
        if options.get("latents"):
            Path(options["latents"]).write_bytes(b"latents")
            emit(LatentsSaved(options["latents"]))
        emit(Phase("decoding"))
        emit(Memory(10, 20))
        frames, (width, height) = options["num_frames"], (options["width"], options["height"])
        path = folder / "frames.rgb"
        path.write_bytes(b"".join(_frame(options, index, width * height) for index in range(frames)))
        _note(options, event="saved", prompt=options["prompt"])
        return Saved(str(path), frames, width, height, {"stand_in": True})

    def unload(self) -> None:
        self.model = None


def _there(package: str) -> bool:
    try:
        __import__(package)
    except ImportError:
        return False
    return True


def _frame(options: Mapping[str, Any], index: int, pixels: int) -> bytes:
    first = Path(options["image"]).read_bytes() if options.get("image") else b""
    words = f"{options['prompt']} {options['seed']} {index // 2}".encode()
    colour = hashlib.sha256(words + first).digest()[:3]
    return bytes(64 + byte // 2 for byte in colour) * pixels


def _strike(options: Mapping[str, Any], step: str) -> None:
    kind = _of(options, "faults", step)
    if kind is None:
        return
    try:
        os.close(os.open(Path(options["marks"]) / f"{options['prompt']}-{step}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    FAULTS[kind]()


def _of(options: Mapping[str, Any], what: str, step: str) -> str | None:
    """The fault or gate for this step of this prompt's clip, or of any clip."""
    known: Mapping[str, str] = options.get(what, {})
    return known.get(f"{options['prompt']}:{step}", known.get(step))


def _pass(options: Mapping[str, Any], step: str) -> None:
    gate = _of(options, "gates", step)
    if gate:
        Path(gate).read_bytes()


def _note(options: Mapping[str, Any], **values: Any) -> None:
    if options.get("notes"):
        with Path(options["notes"]).open("a") as file:
            file.write(json.dumps({"pid": os.getpid(), **values}) + "\n")


ENGINE = Resident()
