"""Our own renderers behind one contract; they are found by name and imported when they are needed.

An engine turns the JSON options of an `plan.EngineCall` into a film at ``output``. It emits the events of
`protocol`, asks ``cancellation.check()`` at least once per frame or step, and raises the errors of `errors`. It
leaves no process and no open file behind, and it never publishes: the runner verifies and publishes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..errors import ConfigurationError
from ..protocol import Event

_MODULES: Mapping[str, str] = {"draft": "reelwright.engines.draft"}


class Engine(Protocol):
    """One renderer."""

    def generate(
        self, options: Mapping[str, Any], output: Path, emit: Callable[[Event], None], check: Callable[[], None]
    ) -> Mapping[str, Any]:
        """Render to ``output``; returns facts for the manifest (the draft's mode and camera, say).

        ``check`` raises `errors.Cancelled` when the caller wants to stop.
        """
        ...


def load_engine(name: str) -> Engine:
    """The engine of that name: one of ours, or ``module:attribute`` given by a plugin's plan.

    Raises:
        ConfigurationError: no such engine.
    """
    module, _, attribute = name.partition(":") if ":" in name else (_MODULES.get(name, ""), "", "ENGINE")
    if not module:
        raise ConfigurationError(f"there is no engine named {name!r}", advice=f"Known: {', '.join(_MODULES)}.")
    engine: Engine = getattr(importlib.import_module(module), attribute)
    return engine
