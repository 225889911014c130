"""The models of Wan2.1 as if they were set up, for advice."""

from __future__ import annotations

from ...core.host import Checkout, Checkpoint
from ..shared.assumed import CHECKOUT, PYTHON, WEIGHTS, AssumedModel, assumed_host
from .checks import MODULES
from .decision import ATTENTION
from .variants import VARIANTS, Variant


def assumed_models(files: tuple[str, ...]) -> tuple[AssumedModel, ...]:
    """One entry for each variant; ``files`` identify a checkout."""
    return tuple(_assumed(variant, Checkout(CHECKOUT, files=frozenset(files))) for variant in VARIANTS)


def _assumed(variant: Variant, checkout: Checkout) -> AssumedModel:
    weights = Checkpoint(WEIGHTS, config={"model_type": variant.makes, "num_heads": variant.heads})
    return AssumedModel(
        model=f"Wan2.1 {variant.task}",
        task=variant.makes,
        settings={"wan2_dir": CHECKOUT, "python": PYTHON, variant.key: WEIGHTS},
        host=assumed_host((*MODULES, *ATTENTION, "xfuser"), [weights], checkout),
        setup=f"reel setup wan2.1 --models {variant.setup}",
    )
