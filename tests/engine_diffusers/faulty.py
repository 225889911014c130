"""The real engine, struck where the environment says: imported by a worker as ``tests.engine_diffusers.faulty:ENGINE``.

FAULTS is JSON, {"prompt:step": "kill"}, "stop" (waits there for the clip to be stopped) or "step memory" (the GPU's
memory is out in that step), or {"prompt:decoding": "memory"} (in the decoder). Each strikes once, for which a file is
made in the folder that MARKS names. NOTES names a file that gets a line for each clip and step with their process.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reelwright.core.errors import Cancelled
from reelwright.core.events import Event, Phase, Progress, Saved
from reelwright.engines.diffusers.engine import DiffusersEngine


class Faulty(DiffusersEngine):
    """See the module."""

    def generate(
        self, options: Mapping[str, Any], folder: Path, emit: Callable[[Event], None], check: Callable[[], None]
    ) -> Saved:
        prompt = options["prompt"]

        def watched(event: Event) -> None:
            emit(event)
            if isinstance(event, Progress):
                _note(prompt, step=event.step)
                self.strike(prompt, str(event.step), check)
            elif event == Phase("decoding"):
                self.strike(prompt, "decoding", check)

        _note(prompt)
        return super().generate(options, folder, watched, check)

    def strike(self, prompt: str, moment: str, check: Callable[[], None]) -> None:
        """The fault at this moment of this clip, the first time that it comes."""
        kind = json.loads(os.environ.get("FAULTS", "{}")).get(f"{prompt}:{moment}")
        if kind is None or not _first_time(f"{prompt}-{moment}"):
            return
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "stop":
            _wait_for_stop(check)
        elif kind == "step memory":
            _no_memory()
        else:
            _no_memory_once(self)


def _first_time(mark: str) -> bool:
    try:
        os.close(os.open(Path(os.environ["MARKS"]) / mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _wait_for_stop(check: Callable[[], None]) -> None:
    """Until a request to stop the clip; the engine's own next check is to see it."""
    end, never = time.monotonic() + 120, threading.Event()
    while time.monotonic() < end:
        try:
            check()
        except Cancelled:
            return
        never.wait(0.01)


def _no_memory() -> None:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")


def _no_memory_once(engine: DiffusersEngine) -> None:
    """The next call of the VAE's decoder finds no memory."""
    assert engine._loaded is not None
    vae = next(iter(engine._loaded.pipelines.values())).vae
    original = vae.decode

    def decode(*_given: Any, **_more: Any) -> Any:
        vae.decode = original
        _no_memory()

    vae.decode = decode


def _note(prompt: str, **more: Any) -> None:
    with Path(os.environ["NOTES"]).open("a") as file:
        file.write(json.dumps({"pid": os.getpid(), "prompt": prompt, **more}) + "\n")


ENGINE = Faulty()
