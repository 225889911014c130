"""Draws the picture of ``reel show --plot``: GPU memory, GPU load and host memory over time (extra: plot)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import BackendUnavailableError, Failure, InvalidInputError
from ..core.host import GIB


def draw_metrics(metrics: Mapping[str, Any], target: Path) -> None:
    """Draw the measurements of the monitor into a PNG or SVG.

    Raises:
        InvalidInputError: the run was not monitored (the draft is not), or the target exists.
        BackendUnavailableError: matplotlib is not installed.
    """
    curve = metrics.get("curve") or {}
    if not curve.get("at_s"):
        raise InvalidInputError("this run has no measured curve to draw", advice="Only GPU generators are monitored.")
    if os.path.lexists(target):
        raise InvalidInputError(f"{target} exists already", failure=Failure.EXISTS, advice="Give another name.")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BackendUnavailableError(
            "drawing needs matplotlib", failure=Failure.ENV, advice="pip install 'reelwright[plot]'"
        ) from None
    figure = Figure(figsize=(9, 5), layout="constrained")
    memory, load = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    seconds = curve["at_s"]
    for uuid, rows in curve.get("gpus", {}).items():
        memory.plot(seconds, [_gib(row[0]) for row in rows], label=f"GPU {uuid[:12]}")
        load.plot(seconds, [row[1] for row in rows])
    memory.plot(seconds, [_gib(row[1]) for row in curve["usage"]], label="host", linestyle="--")
    memory.set_ylabel("memory, GiB")
    memory.set_ylim(bottom=0)
    memory.legend(loc="lower right")
    load.set_ylabel("GPU load, %")
    load.set_ylim(0, 105)
    load.set_xlabel("seconds since the start of the last attempt")
    figure.savefig(target, dpi=120)


def _gib(value: int | None) -> float | None:
    return None if value is None else value / GIB
