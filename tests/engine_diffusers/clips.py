"""A loaded engine and the clips it is asked for: what the engine's tests have in common.

>>> options = asked("i2v", photo)  # doctest: +SKIP
>>> Engine(tiny.model("wan2.1-i2v", folder)).clip(options, into).frames  # doctest: +SKIP
5
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reelwright.core.events import Event, Log, Phase, Progress, Saved
from reelwright.engines.diffusers.engine import DiffusersEngine

WIDTH, HEIGHT, FRAMES, STEPS = 64, 64, 5, 2


def asked(task: str, photo: Path | None = None, **changes: Any) -> dict[str, Any]:
    """Options of a small clip, as a plan has them."""
    return {
        "task": task, "prompt": "a cat walking", "negative_prompt": "grey", "width": WIDTH, "height": HEIGHT,
        "num_frames": FRAMES, "fps": 16, "steps": STEPS, "guidance_scale": 5.0, "flow_shift": 3.0, "seed": 11,
        "image": str(photo) if task != "t2v" else None, "last_image": str(photo) if task == "flf2v" else None,
        "decode": ["full", "tiled", "cpu"], **changes,
    }  # fmt: skip


class Engine:
    """An engine with a model in it, and all that it said."""

    def __init__(self, model: Mapping[str, Any], engine: DiffusersEngine | None = None) -> None:
        self.engine = engine or DiffusersEngine()
        self.said: list[Event] = []
        self.facts = self.engine.load(model, self.said.append, lambda: None)

    def clip(self, options: Mapping[str, Any], into: Path, check: Callable[[], None] = lambda: None) -> Saved:
        """Make a clip; what was said before is forgotten."""
        into.mkdir(parents=True, exist_ok=True)
        self.said.clear()
        return self.engine.generate(options, into, self.said.append, check)

    def film(self, options: Mapping[str, Any], into: Path) -> bytes:
        """Make a clip; its bytes."""
        return Path(self.clip(options, into).path).read_bytes()

    def phases(self) -> list[str]:
        """Names of the phases, in their order."""
        return [event.name for event in self.said if isinstance(event, Phase)]

    def logs(self) -> list[str]:
        """Lines for the log."""
        return [event.text for event in self.said if isinstance(event, Log)]

    def steps(self) -> list[tuple[int, int]]:
        """Steps done and in all, as they were reported."""
        return [(event.step, event.total) for event in self.said if isinstance(event, Progress)]
