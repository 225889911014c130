"""The models of the resident engine as if they were set up, for advice."""

from __future__ import annotations

from ..shared.assumed import PYTHON, WEIGHTS, AssumedModel, assumed_host
from .decision import MODULES
from .models import MODELS, published_folder


def assumed_models() -> tuple[AssumedModel, ...]:
    """One entry for each task of each model."""
    return tuple(
        AssumedModel(
            model=f"{model.name} {task}",
            task=task,
            settings={"weights": WEIGHTS, "python": PYTHON},
            host=assumed_host(MODULES, [published_folder(model, WEIGHTS)]),
            setup="download it in diffusers' layout, set weights to it (docs/engine.md)",
        )
        for model in MODELS.values()
        for task in model.tasks
    )
