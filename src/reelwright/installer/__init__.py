"""Sets a framework up: its checkout, its own Python environment, its weights and the configuration file.

Only this part of Reelwright uses the network, and only for ``reel setup``. `planning.look` makes an `Installation`, which
says what exists and what is missing, without changing anything; `steps.carry_out` carries it out. Frameworks and models
are data (`recipes`). `reel doctor` decides whether a generation can run, by asking the backends.

    >>> Space(Path("/models"), need_bytes=82 * 10**9, free_bytes=10**9).enough
    False
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..core.errors import Failure
from ..core.request import Task
from .weight_sources import Listing

#: Where a number of bytes comes from: the source itself, or our table or estimate.
Origin = Literal["source", "table", "estimate", "nothing"]
#: Kept free beyond what is written: a file system that is full to the last byte breaks other things.
MARGIN_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True)
class WeightSet:
    """One set of weights.

    Attributes:
        name: The name that users write.
        repository: Its name on the hub.
        key: The setting that names its folder.
        task: The kind of request it serves; decides which files must exist.
        known_bytes: Its size, for when the hub cannot be reached.
        aliases: Other names.
    """

    name: str
    repository: str
    key: str
    task: Task
    known_bytes: int
    aliases: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The name of its folder: the repository's without its owner."""
        return self.repository.rpartition("/")[2]


@dataclass(frozen=True)
class Recipe:
    """One framework.

    Attributes:
        name: The generator's name.
        folder: The checkout's folder.
        script: A file by which a folder is recognised as its checkout.
        git_source, commit: The official repository, and the commit that was tested.
        checkout_key: The setting that names the checkout.
        checkout_bytes: Its size, roughly.
        pythons: Versions of Python that its requirements can be installed with, the best first.
        environment_bytes: Size of its environment, an estimate.
        left_out: Requirements that are only installed on request (normalised names).
        flash_attention, multi_gpu: Packages that ``--flash-attn`` and ``--multi-gpu`` install.
        optional_modules: Modules that a run can do without.
        unwanted: Globs of files in the models' repositories that nothing reads.
        models: Its weights; the first one is set up when none is named.
    """

    name: str
    folder: str
    script: str
    git_source: str
    commit: str
    checkout_key: str
    checkout_bytes: int
    pythons: tuple[str, ...]
    environment_bytes: int
    models: tuple[WeightSet, ...]
    left_out: tuple[str, ...] = ()
    flash_attention: tuple[str, ...] = ()
    multi_gpu: tuple[str, ...] = ()
    optional_modules: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sources:
    """Where things come from; ``None`` is the official place.

    Attributes:
        git: URL or path of a repository.
        weights: URL of a hub, or a folder that holds the models' folders.
        pip_options: Options passed on to ``pip install``; never shown, because they may hold a password.
    """

    git: str | None = None
    weights: str | None = None
    pip_options: tuple[str, ...] = ()


@dataclass(frozen=True)
class SetupOrder:
    """What to set up, and where.

    Attributes:
        directory: The folder for everything; absolute.
        commit: The checkout's commit; ``latest`` is the newest one of the default branch.
        python: The interpreter that makes the environment; ``None`` chooses one.
        flash_attention, multi_gpu: Install the packages for these.
        verify: Hash the existing files too.
        config: The configuration file; ``None`` is the user's own.
    """

    recipe: Recipe
    models: tuple[WeightSet, ...]
    directory: Path
    sources: Sources = Sources()
    commit: str | None = None
    python: Path | None = None
    flash_attention: bool = False
    multi_gpu: bool = False
    verify: bool = False
    config: Path | None = None

    @property
    def checkout(self) -> Path:
        """The folder of the checkout."""
        return self.directory / self.recipe.folder

    @property
    def environment(self) -> Path:
        """The folder of the virtual environment."""
        return self.directory / "venv"

    @property
    def interpreter(self) -> Path:
        """The environment's Python."""
        return self.environment / "bin" / "python"

    @property
    def state(self) -> Path:
        """The folder of the setup's own notes, logs and lock."""
        return self.directory / ".reelwright-setup"

    def weights(self, model: WeightSet) -> Path:
        """The folder of a model."""
        return self.directory / model.folder

    def settings(self) -> dict[str, str]:
        """The settings for this installation; of two models with one key, the first one counts."""
        values = {self.recipe.checkout_key: str(self.checkout), "python": str(self.interpreter)}
        for model in self.models:
            values.setdefault(model.key, str(self.weights(model)))
        return values


@dataclass(frozen=True)
class SetupPart:
    """One part of an installation.

    Attributes:
        name: ``checkout``, ``environment``, ``weights NAME`` or ``configuration``.
        target: Where it is, or will be.
        source: Where it comes from.
        done: Whether nothing is left to do.
        todo_bytes: About how much is still to be written.
        there_bytes: How much exists already, partial files included.
        origin: Where the sizes come from.
        note: A remark for the user.
        listing: For weights: the repository's files; ``None`` if it could not be reached.
        model: For weights: which.
    """

    name: str
    target: Path
    source: str
    done: bool
    todo_bytes: int = 0
    there_bytes: int = 0
    origin: Origin = "nothing"
    note: str = ""
    listing: Listing | None = None
    model: WeightSet | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything but the list of files."""
        return {
            "name": self.name,
            "target": str(self.target),
            "source": self.source,
            "done": self.done,
            "todo_bytes": self.todo_bytes,
            "there_bytes": self.there_bytes,
            "sizes_from": self.origin,
            "note": self.note,
        }


@dataclass(frozen=True)
class Space:
    """The bytes that one file system must take, and has free; ``None``: it does not say.

    ``writable`` is false on a read-only file system (which may report no free space), or without permission.
    """

    folder: Path
    need_bytes: int
    free_bytes: int | None
    writable: bool = True

    @property
    def enough(self) -> bool:
        """Whether it fits; a file system that does not say is trusted."""
        return not self.need_bytes or self.free_bytes is None or self.free_bytes >= self.need_bytes + MARGIN_BYTES

    @property
    def obstacle(self) -> Failure | None:
        """Why nothing can be installed here: no permission, or no space. Free space on a read-only disk says nothing."""
        if not self.writable:
            return Failure.PERM
        return None if self.enough else Failure.DISK

    def to_json(self) -> dict[str, Any]:
        """``folder``, ``need_bytes``, ``free_bytes``, ``enough`` and ``writable``."""
        return {
            "folder": str(self.folder),
            "need_bytes": self.need_bytes,
            "free_bytes": self.free_bytes,
            "enough": self.enough,
            "writable": self.writable,
        }


@dataclass(frozen=True)
class Installation:
    """What exists and what is missing; ``--dry-run --json`` prints its `to_json`."""

    order: SetupOrder
    parts: tuple[SetupPart, ...]
    spaces: tuple[Space, ...] = ()

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return all(part.done for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """The whole plan."""
        return {
            "schema": 1,
            "framework": self.order.recipe.name,
            "directory": str(self.order.directory),
            "done": self.done,
            "todo_bytes": sum(part.todo_bytes for part in self.parts),
            "parts": [part.to_json() for part in self.parts],
            "spaces": [space.to_json() for space in self.spaces],
            "settings": self.order.settings(),
        }


@dataclass(frozen=True)
class SetupEvent:
    """A line for people, or the progress of a download (``total`` above 0)."""

    part: str
    text: str = ""
    done: int = 0
    total: int = 0


Report = Callable[[SetupEvent], None]


@dataclass(frozen=True)
class SetupOutcome:
    """The result of a setup.

    Attributes:
        installation: Its state now.
        changed: Names of the parts that were changed.
        config: The configuration file that holds the settings, or should.
        config_lines: Lines that the user must add to that file, because it existed before.
        warnings: Failures that a run can do without.
    """

    installation: Installation
    changed: tuple[str, ...] = ()
    config: Path | None = None
    config_lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The installation, the changes, and what the user must do."""
        return {
            **self.installation.to_json(),
            "changed": list(self.changed),
            "config": str(self.config) if self.config else None,
            "config_lines": list(self.config_lines),
            "warnings": list(self.warnings),
        }
