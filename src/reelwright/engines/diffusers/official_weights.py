"""Puts official weight files into empty models: each weight into its place, each place once.

``.pth`` files are pickles, which can carry programs, so they are only read with ``weights_only``. A file is mapped from
the disk where its format allows that, so unused parts (CLIP's text tower) cost no memory. The loader of each component
decides which weight belongs where; this module does not.

    >>> unusable("Wan2.1_VAE.pth", "it is cut off").message
    'Wan2.1_VAE.pth cannot be used: it is cut off.'
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...core.errors import ModelNotFoundError
from ...core.files import read_json

ADVICE = "Download the file again, from the official repository of the model; `reel setup` can do it."
Shapes = Mapping[str, tuple[int, ...]]


class Weight(NamedTuple):
    """One weight of a file, and the name of its parameter in the model."""

    key: str
    place: str
    tensor: Any


def unusable(file: Path | str, reason: str) -> ModelNotFoundError:
    """The error for a damaged or foreign weight file."""
    return ModelNotFoundError(f"{file} cannot be used: {reason}.", advice=ADVICE)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file beside the weights.

    Raises:
        ModelNotFoundError: it is missing, cannot be read or is no object.
    """
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        raise unusable(path, f"it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise unusable(path, "it is not a JSON object")
    return value


def read_pickle(path: Path) -> Mapping[str, Any]:
    """The tensors of an official ``.pth`` file.

    Raises:
        ModelNotFoundError: the file is cut off, holds something else than tensors, or carries a program.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise unusable(path, "it holds more than weights, which Reelwright never loads, or it is damaged") from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise unusable(path, f"it is cut off or damaged ({error})") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise unusable(path, "it is not a table of weights")
    return state


def shapes_of(path: Path, state: Mapping[str, Any], config: Callable[[Shapes], dict[str, Any]], what: str) -> Any:
    """The sizes that ``config`` reads off the shapes of the weights.

    Raises:
        ModelNotFoundError: a weight that decides a size is missing: the file does not hold a ``what``.
    """
    try:
        return config({key: tuple(tensor.shape) for key, tensor in state.items()})
    except (KeyError, IndexError, ValueError) as error:
        raise unusable(path, f"it holds no {what} ({error} is missing)") from error


def empty_model(kind: Callable[[], Any]) -> Any:
    """A model without weights; the tables that no file holds are computed."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        return kind().eval().requires_grad_(False)


def fill(model: Any, weights: Iterable[Weight], source: Path) -> Any:
    """Give an empty model its weights, one by one, and return it.

    Raises:
        ModelNotFoundError: a weight is unknown or has another shape, or a parameter got no weight.
    """
    from torch.nn import Parameter

    places = dict(model.named_parameters())
    for key, place, tensor in weights:
        if place not in places:
            raise unusable(source, f"its weight {key!r} is unknown, or occurs twice")
        shape, there = tuple(places.pop(place).shape), tuple(tensor.shape)
        if there != shape:
            raise unusable(source, f"its weight {key!r} is {_times(there)}, where the model needs {_times(shape)}")
        owner, _, name = place.rpartition(".")
        setattr(model.get_submodule(owner), name, Parameter(tensor, requires_grad=False))
    if places:
        raise unusable(source, f"{len(places)} weights are missing, the first for {min(places)!r}")
    return model


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
