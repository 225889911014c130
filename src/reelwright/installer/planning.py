"""Plans an installation without changing anything: existing parts, missing parts, their sizes and the free space.

Sizes come from the source. If the source cannot be reached, the recipe's sizes are used, and the plan says so. Even
then, a folder of weights that passes the backend's check counts as complete.

    >>> look(order, source, os.environ).parts[2].todo_bytes  # doctest: +SKIP
    82256000000
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ..backends import load_backend
from ..core.errors import BackendUnavailableError, Failure
from ..core.host import Disk, HostQuery
from ..core.request import VideoRequest
from ..sites.local.probes.checkpoints import look_at_checkpoint
from ..sites.local.probes.host import take_disk
from . import Installation, Origin, SetupOrder, SetupPart, Space, WeightSet, configuration, environment, git_checkout
from .transfer import missing, partial_bytes
from .weight_sources import TransferInterrupted, WeightsSource

TakeDisk = Callable[[Path], Disk]


def look(
    order: SetupOrder, source: WeightsSource, environ: Mapping[str, str], *, disk: TakeDisk = take_disk
) -> Installation:
    """The state of all parts, and the space that they need.

    Raises:
        VideoGenerationError: a part's folder holds something else, or the source refuses access.
    """
    parts = [
        git_checkout.look_at(order),
        environment.look_at(order),
        *(_look_at_weights(order, model, source) for model in order.models),
        configuration.look_at(order, environ),
    ]
    return Installation(order, tuple(parts), tuple(_spaces(parts, disk)))


def require_space(installation: Installation) -> None:
    """Refuse an installation that cannot be written or does not fit, before anything is written.

    Raises:
        BackendUnavailableError: a file system is too small, or cannot be written.
    """
    for space in installation.spaces:
        if space.obstacle is Failure.PERM:
            raise BackendUnavailableError(
                f"{space.folder} cannot be written: it is read-only, or permission was denied",
                failure=Failure.PERM,
                advice="Give another --dir, or change the rights of that folder.",
            )
        if space.obstacle is Failure.DISK:
            raise BackendUnavailableError(
                f"{space.folder} has {gigabytes(space.free_bytes or 0)} free and needs {gigabytes(space.need_bytes)}",
                failure=Failure.DISK,
                evidence=tuple(
                    f"{part.name}: {gigabytes(part.todo_bytes)}" for part in installation.parts if not part.done
                ),
                advice="Free some space, name fewer --models, or give a --dir on another disk.",
            )


def gigabytes(count: int) -> str:
    """A size as text, such as ``82.3 GB``; small sizes in MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def checks(order: SetupOrder, model: WeightSet) -> HostQuery:
    """The query about the host that the generator's backend makes before a run with this model."""
    first = None if model.task == "t2v" else Path("first.png")
    last = Path("last.png") if model.task == "flf2v" else None
    request = VideoRequest(prompt="any", image=first, last_image=last, generator=order.recipe.name)
    values = {**order.settings(), model.key: str(order.weights(model))}
    others = {item.key for item in order.models} - {model.key}
    backend = load_backend(order.recipe.name)
    settings = backend.settings(**{key: value for key, value in values.items() if key not in others})  # type: ignore[arg-type]
    return backend.query(request, settings)


def weights_problems(order: SetupOrder, model: WeightSet) -> tuple[str, ...]:
    """The problems that the backend's check finds in a model's folder."""
    queries = checks(order, model).checkpoints
    return tuple(problem for query in queries for problem in look_at_checkpoint(query).problems)


def _look_at_weights(order: SetupOrder, model: WeightSet, source: WeightsSource) -> SetupPart:
    folder, where = order.weights(model), f"{source.name} {model.repository}"
    name = f"weights {model.name}"
    try:
        listing = source.listing(model.repository)
    except TransferInterrupted as error:
        there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if folder.is_dir() and not weights_problems(order, model):
            note = f"complete as far as can be checked without the source; {error}"
            return SetupPart(name, folder, where, True, 0, there, note=note, model=model)
        todo = max(0, model.known_bytes - there)
        return SetupPart(name, folder, where, False, todo, there, "table", str(error), model=model)
    left = missing(folder, listing)
    todo = sum(file.size for file in left) - partial_bytes(folder, left)
    # All files may exist beside the mark of an unfinished download: the weights are not complete then.
    whole = not left and not weights_problems(order, model)
    there = listing.total_bytes - todo
    note = "started; continues where it stopped" if there and not whole else ""
    origin: Origin = "nothing" if whole else "source"
    return SetupPart(name, folder, where, whole, todo, there, origin, note, listing, model)


def _spaces(parts: Iterable[SetupPart], disk: TakeDisk) -> Iterable[Space]:
    """The needed and the free space of each file system that the setup writes to."""
    needs: dict[int, int] = {}
    disks: dict[int, Disk] = {}
    for part in parts:
        if part.todo_bytes:
            found = disk(part.target)
            device = found.folder.stat().st_dev
            disks.setdefault(device, found)
            needs[device] = needs.get(device, 0) + part.todo_bytes
    return [
        Space(disks[device].folder, need, disks[device].free_bytes, disks[device].writable is not False)
        for device, need in needs.items()
    ]
