"""`AssumedModel`: a model as if it were set up, for comparing what a card could run. No file of it exists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.host import Checkout, Checkpoint, Host, Interpreter
from ...core.request import Task

PYTHON, CHECKOUT, WEIGHTS = Path("/imagined/python"), Path("/imagined/checkout"), Path("/imagined/weights")


@dataclass(frozen=True)
class AssumedModel:
    """A model that could be set up.

    Attributes:
        model: Its name in messages.
        task: The task that it would do.
        settings: The settings that name it.
        host: Checkout, interpreter and weights as the probes would find them, without GPUs.
        setup: Instructions for setting it up.
    """

    model: str
    task: Task
    settings: Mapping[str, Any]
    host: Host
    setup: str


def assumed_host(modules: Iterable[str], weights: Iterable[Checkpoint], checkout: Checkout | None = None) -> Host:
    """A machine whose interpreter has every module in its newest version, with these folders."""
    python = Interpreter(PYTHON, modules=dict.fromkeys(modules, "99.0"), cuda_version="12.8")
    return Host(
        interpreters={PYTHON: python},
        checkouts={checkout.directory: checkout} if checkout else {},
        checkpoints={checkpoint.directory: checkpoint for checkpoint in weights},
    )
