"""`Capabilities`: the abilities of a generator as one value; `Capabilities.to_json` has the documented keys.

>>> Capabilities(("i2v",), 5.0, ("1280x720",)).to_json()["input_types"]
['image_to_video']
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...core.request import Task

#: A task -> its documented name in ``input_types``, and the key that says whether it is supported.
_NAMES: Mapping[Task, tuple[str, str]] = {
    "i2v": ("image_to_video", "supports_image_to_video"),
    "t2v": ("text_to_video", "supports_text_to_video"),
    "flf2v": ("first_last_frame_to_video", "supports_first_last_frame"),
}


@dataclass(frozen=True)
class Capabilities:
    """The abilities of a generator with its settings on this machine.

    Attributes:
        tasks: The tasks that it can do.
        max_duration: The length of its longest clip, in seconds.
        resolutions: Its sizes, as text.
        requires_gpu: Whether it needs a CUDA device.
        max_concurrent: The number of clips that it can make at a time on this machine.
        models: Its models that are set up.
        more: Further keys that only this generator has.
    """

    tasks: Collection[Task]
    max_duration: float
    resolutions: tuple[str, ...] = ()
    requires_gpu: bool = False
    max_concurrent: int = 1
    models: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The documented mapping, then the keys in ``more``."""
        return {
            "max_duration": self.max_duration,
            "supported_resolutions": list(self.resolutions),
            "supported_formats": ["mp4"],
            "input_types": [name for task, (name, _) in _NAMES.items() if task in self.tasks],
            "requires_gpu": self.requires_gpu,
            "cost_per_second": 0.0,
            "max_concurrent": self.max_concurrent,
            **{key: task in self.tasks for task, (_, key) in _NAMES.items()},
            "models": list(self.models),
            **self.more,
            "api_based": False,
        }
