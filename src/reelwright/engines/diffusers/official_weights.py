"""Official weight files into an empty model: each weight to its place, each place once, and nothing run.

`.pth` files are pickles, which can carry programs: they are read with ``weights_only`` and never otherwise. What can be
mapped from the disk is mapped, so that a file's parts that no model wants (CLIP's text tower) cost no memory.

Not for finding out which weight belongs where: the loaders of each component know that.

    >>> explain("Wan2.1_VAE.pth", "it is cut off").message
    'Wan2.1_VAE.pth cannot be used: it is cut off.'
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...core.errors import ModelNotFoundError

ADVICE = "Download the file again, from the official repository of the model; `reel setup` can do it."


class Weight(NamedTuple):
    """One weight of a file, and its place in our model."""

    key: str
    place: str
    tensor: Any


def explain(file: Path | str, reason: str) -> ModelNotFoundError:
    """The error for a file of weights that is not what it should be."""
    return ModelNotFoundError(f"{file} cannot be used: {reason}.", advice=ADVICE)


def read_pickle(path: Path) -> Mapping[str, Any]:
    """The tensors of an official ``.pth``, mapped from the disk where its format allows that.

    Raises:
        ModelNotFoundError: it is cut off, no table of tensors, or carries a program.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise explain(path, "it carries more than weights, which is never loaded, or it is damaged") from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise explain(path, f"it is cut off or damaged ({error})") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise explain(path, "it is not a table of weights")
    return state


def empty_model(kind: Callable[[], Any]) -> Any:
    """A model whose weights are not there yet; its tables that no file holds are."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        return kind().eval().requires_grad_(False)


def fill(model: Any, weights: Iterable[Weight], source: Path) -> Any:
    """Give an empty model its weights, one by one, and return it.

    Raises:
        ModelNotFoundError: a weight has no place or another shape, or a place got no weight.
    """
    places = dict(model.named_parameters())
    for key, place, tensor in weights:
        if place not in places:
            raise explain(source, f"its weight {key!r} is not known, or it is there twice")
        shape, there = tuple(places.pop(place).shape), tuple(tensor.shape)
        if there != shape:
            raise explain(source, f"its weight {key!r} is {_times(there)}, where the model needs {_times(shape)}")
        _put(model, place, tensor)
    if places:
        raise explain(source, f"{len(places)} weights are missing, the first for {min(places)!r}")
    return model


def _put(model: Any, place: str, tensor: Any) -> None:
    from torch.nn import Parameter

    owner, _, name = place.rpartition(".")
    setattr(model.get_submodule(owner), name, Parameter(tensor, requires_grad=False))


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
