"""Every model of Wan2.1 as if it were set up."""

from __future__ import annotations

from pathlib import Path

from ...core.host import Checkout, Checkpoint, Host, Interpreter
from ...core.request import Task
from .. import AssumedModel
from .checks import MODULES
from .choice import ATTENTION
from .facts import FLF2V_14B, I2V_14B, T2V_1_3B, T2V_14B, Variant

_CHECKOUT, _PYTHON, _WEIGHTS = Path("/imagined/Wan2.1"), Path("/imagined/python"), Path("/imagined/weights")
#: Names of `reel setup wan2.1 --models`.
_MODELS: tuple[tuple[Variant, Task, str], ...] = (
    (I2V_14B, "i2v", "i2v-720p (or i2v-480p)"),
    (FLF2V_14B, "flf2v", "flf2v-720p"),
    (T2V_14B, "t2v", "t2v-14b"),
    (T2V_1_3B, "t2v", "t2v-1.3b"),
)


def assumed_models(files: tuple[str, ...]) -> tuple[AssumedModel, ...]:
    """All four; ``files`` are those by which a checkout is known."""
    return tuple(_sketch(variant, task, name, files) for variant, task, name in _MODELS)


def _sketch(variant: Variant, task: Task, name: str, files: tuple[str, ...]) -> AssumedModel:
    python = Interpreter(_PYTHON, modules=dict.fromkeys((*MODULES, *ATTENTION, "xfuser"), "99.0"), cuda_version="12.8")
    config = {"model_type": variant.model_type, "num_heads": variant.heads}
    host = Host(
        interpreters={_PYTHON: python},
        checkouts={_CHECKOUT: Checkout(_CHECKOUT, files=frozenset(files))},
        checkpoints={_WEIGHTS: Checkpoint(_WEIGHTS, config=config)},
    )
    settings = {"wan2_dir": _CHECKOUT, "python": _PYTHON, variant.key: _WEIGHTS}
    return AssumedModel(f"Wan2.1 {variant.task}", task, settings, host, f"reel setup wan2.1 --models {name}")
