"""What is there, what is to be done, how big it is and whether it fits; nothing is changed.

Sizes are asked of the source. Where it cannot be reached, the recipe's are taken, and that is said. A folder of weights
that the backend's own check finds whole counts as done even then.

    >>> look(order, source, os.environ).todo_bytes  # doctest: +SKIP
    82256000000
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ..backends import load_backend
from ..core.errors import BackendUnavailableError, Failure
from ..core.host import HostQuery
from ..core.request import VideoRequest
from ..sites.local.probes.checkpoints import look_at_checkpoint
from ..sites.local.probes.host import take_disk
from . import Installation, Model, Order, Origin, Part, Space, configuration
from . import environment as environments
from . import git_checkout as checkouts
from .transfer import missing, partial_bytes
from .weight_sources import Interrupted, WeightsSource

FreeBytes = Callable[[Path], int | None]


def free_bytes(folder: Path) -> int | None:
    """Of the file system under a folder; ``None`` if it does not tell."""
    return take_disk(folder).free_bytes


def look(
    order: Order, source: WeightsSource, environ: Mapping[str, str], *, free: FreeBytes = free_bytes
) -> Installation:
    """The whole plan.

    Raises:
        VideoGenerationError: a place is taken by something else, or the source refuses access.
    """
    parts = [
        checkouts.look_at(order),
        environments.look_at(order),
        *(_look_at_weights(order, model, source) for model in order.models),
        configuration.look_at(order, environ),
    ]
    return Installation(order, tuple(parts), tuple(_spaces(parts, free)))


def require_space(installation: Installation) -> None:
    """Refuse what does not fit, before anything is written.

    Raises:
        BackendUnavailableError: a file system is too small.
    """
    for space in installation.spaces:
        if not space.enough:
            raise BackendUnavailableError(
                f"{space.folder} has {gigabytes(space.free_bytes or 0)} free and {gigabytes(space.need_bytes)} are to come",
                failure=Failure.DISK,
                evidence=tuple(
                    f"{part.name}: {gigabytes(part.todo_bytes)}" for part in installation.parts if not part.done
                ),
                advice="Free some space, name fewer --models, or give a --dir on another disk.",
            )


def gigabytes(count: int) -> str:
    """``82.3 GB``; small numbers in MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def checks(order: Order, model: Model) -> HostQuery:
    """What the generator's backend wants to see for a model: the very checks that a run makes."""
    first = None if model.task == "t2v" else Path("first.png")
    last = Path("last.png") if model.task == "flf2v" else None
    request = VideoRequest(prompt="any", image=first, last_image=last, generator=order.recipe.name)
    values = {**order.settings(), model.key: str(order.weights(model))}
    others = {item.key for item in order.models} - {model.key}
    backend = load_backend(order.recipe.name)
    settings = backend.settings(**{key: value for key, value in values.items() if key not in others})  # type: ignore[arg-type]
    return backend.query(request, settings)


def weights_problems(order: Order, model: Model) -> tuple[str, ...]:
    """What the backend's check finds wrong with a model's folder."""
    queries = checks(order, model).checkpoints
    return tuple(problem for query in queries for problem in look_at_checkpoint(query).problems)


# ------------------------------------------------------------------------------------------------------------ weights


def _look_at_weights(order: Order, model: Model, source: WeightsSource) -> Part:
    name, folder = f"weights {model.name}", order.weights(model)
    try:
        listing = source.listing(model.repository)
    except Interrupted as error:
        return _unasked(order, model, source, str(error))
    left = missing(folder, listing)
    begun = partial_bytes(folder, left)
    todo = sum(file.size for file in left) - begun
    # Everything may be there and a mark of an unfinished download too: then there is something left to do.
    whole = not left and not weights_problems(order, model)
    there = listing.total_bytes - todo
    origin: Origin = "nothing" if whole else "source"
    note = "begun; goes on where it stopped" if there and not whole else ""
    return Part(name, folder, f"{source.name} {model.repository}", whole, todo, there, origin, note, listing, model)


def _unasked(order: Order, model: Model, source: WeightsSource, why: str) -> Part:
    name, folder = f"weights {model.name}", order.weights(model)
    there = sum(_file_sizes(folder))
    if folder.is_dir() and not weights_problems(order, model):
        note = f"whole as far as can be told here; {why}"
        return Part(name, folder, f"{source.name} {model.repository}", True, 0, there, note=note, model=model)
    todo = max(0, model.known_bytes - there)
    return Part(name, folder, f"{source.name} {model.repository}", False, todo, there, "table", why, model=model)


def _file_sizes(folder: Path) -> Iterable[int]:
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            if path.is_file():
                yield path.stat().st_size


# -------------------------------------------------------------------------------------------------------------- space


def _spaces(parts: Iterable[Part], free: FreeBytes) -> Iterable[Space]:
    """One for each file system that something is to be written to."""
    needs: dict[int, int] = {}
    folders: dict[int, Path] = {}
    for part in parts:
        if part.todo_bytes:
            folder = take_disk(part.target).folder
            device = folder.stat().st_dev
            folders.setdefault(device, folder)
            needs[device] = needs.get(device, 0) + part.todo_bytes
    return [Space(folders[device], need, free(folders[device])) for device, need in needs.items()]
