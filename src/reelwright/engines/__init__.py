"""Defines the contract of Reelwright's own renderers, which are found by name and imported when needed.

An engine turns the JSON options of a `core.plan.EngineCall` into a clip at ``output``. It emits the events of
`core.events`, calls ``check`` at least once per frame or step, and raises the errors of `core.errors`. It leaves no
process and no open file behind. The runner verifies and publishes the clip. An engine with large weights is a
`ResidentEngine`: it runs in a worker (`serving`) and keeps the weights between calls.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..core.errors import ConfigurationError
from ..core.events import Event, Saved

Emit = Callable[[Event], None]
Check = Callable[[], None]
_MODULES: Mapping[str, str] = {
    "draft": "reelwright.engines.draft",
    "diffusers": "reelwright.engines.diffusers",
}


class Engine(Protocol):
    """One renderer."""

    def generate(self, options: Mapping[str, Any], output: Path, emit: Emit, check: Check) -> Mapping[str, Any]:
        """Render to ``output``; returns facts for the manifest (such as the draft's mode and camera).

        ``check`` raises `core.errors.Cancelled` when the caller cancels.
        """
        ...


class ResidentEngine(Protocol):
    """A renderer that keeps its weights. A worker imports it, perhaps with another interpreter than Reelwright's.

    From this package it imports only this room and the `core` modules that need nothing but the standard library.
    """

    def versions(self) -> Mapping[str, str]:
        """Versions of Python and packages, for the manifest."""
        ...

    def load(self, model: Mapping[str, Any], emit: Emit, check: Check) -> Mapping[str, Any]:
        """Load this model in place of any other; returns facts. A second load of the same model returns at once."""
        ...

    def generate(self, options: Mapping[str, Any], folder: Path, emit: Emit, check: Check) -> Saved:
        """Make a clip; the answer names the file in ``folder`` that holds its frames."""
        ...

    def unload(self) -> None:
        """Free the model's memory."""
        ...


def load_engine(name: str) -> Any:
    """The engine of that name: one of Reelwright's, or ``module:attribute`` from a plugin's plan.

    Raises:
        ConfigurationError: the name is unknown.
    """
    module, _, attribute = name.partition(":") if ":" in name else (_MODULES.get(name, ""), "", "ENGINE")
    if not module:
        raise ConfigurationError(f"there is no engine named {name!r}", advice=f"Known: {', '.join(_MODULES)}.")
    return getattr(importlib.import_module(module), attribute)
