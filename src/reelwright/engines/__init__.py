"""Our own renderers behind one contract; they are found by name and imported when they are needed.

An engine turns the JSON options of an `core.plan.EngineCall` into a film at ``output``. It emits the events of
`core.events`, asks ``cancellation.check()`` at least once per frame or step, and raises the errors of `core.errors`. It
leaves no process and no open file behind, and it never publishes: the runner verifies and publishes. An engine with
large weights is a `ResidentEngine`: it lives in a worker (`serving`) and keeps them between calls.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..core.errors import ConfigurationError
from ..core.events import Event, Saved

_MODULES: Mapping[str, str] = {
    "draft": "reelwright.engines.draft",
    "diffusers": "reelwright.engines.diffusers",
}


class Engine(Protocol):
    """One renderer."""

    def generate(
        self, options: Mapping[str, Any], output: Path, emit: Callable[[Event], None], check: Callable[[], None]
    ) -> Mapping[str, Any]:
        """Render to ``output``; returns facts for the manifest (the draft's mode and camera, say).

        ``check`` raises `core.errors.Cancelled` when the caller wants to stop.
        """
        ...


class ResidentEngine(Protocol):
    """A renderer that keeps its weights. Imported in the worker's interpreter, which may be another than ours.

    It imports nothing of this package but `core.errors`, `core.events` and this module.
    """

    def versions(self) -> Mapping[str, str]:
        """What it runs on, for the record: Python, torch, the device."""
        ...

    def load(
        self, model: Mapping[str, Any], emit: Callable[[Event], None], check: Callable[[], None]
    ) -> Mapping[str, Any]:
        """Have this model ready, and no other; returns facts. The same model again returns at once."""
        ...

    def generate(
        self, options: Mapping[str, Any], folder: Path, emit: Callable[[Event], None], check: Callable[[], None]
    ) -> Saved:
        """Make a clip; its frames lie in ``folder`` as the answer says."""
        ...

    def unload(self) -> None:
        """Give the model's memory back."""
        ...


def load_engine(name: str) -> Any:
    """The engine of that name: one of ours, or ``module:attribute`` given by a plugin's plan.

    Raises:
        ConfigurationError: no such engine.
    """
    module, _, attribute = name.partition(":") if ":" in name else (_MODULES.get(name, ""), "", "ENGINE")
    if not module:
        raise ConfigurationError(f"there is no engine named {name!r}", advice=f"Known: {', '.join(_MODULES)}.")
    return getattr(importlib.import_module(module), attribute)
