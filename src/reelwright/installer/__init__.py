"""Sets up a framework: its checkout, its Python environment, its weights and the configuration file.

Only this package uses the network, and only for ``reel setup``. `planning.look` returns an `Installation`, which lists
the existing and the missing parts; it changes nothing. `steps.carry_out` installs the missing parts. `recipes` holds
the frameworks and models as data. ``reel doctor`` asks the backends whether a generation can run.

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

#: The origin of a size in bytes: the source itself, Reelwright's table or an estimate.
Origin = Literal["source", "table", "estimate", "nothing"]
#: Free space that a setup leaves on the disk: a full file system breaks other programs.
MARGIN_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True)
class WeightSet:
    """One set of weights.

    Attributes:
        name: The name in ``--models``.
        repository: Its name on the hub.
        key: The setting for its folder.
        task: The kind of request it serves; it decides which files are required.
        known_bytes: Its size, used when the hub cannot be reached.
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
    """A framework that can be set up.

    Attributes:
        name: The generator's name.
        folder: The checkout's folder.
        script: A file that identifies a folder as its checkout.
        git_source, commit: The official repository, and the tested commit.
        checkout_key: The setting for the checkout's folder.
        checkout_bytes: The approximate size of the checkout.
        pythons: Versions of Python that can install its requirements, the preferred one first.
        environment_bytes: The estimated size of its environment.
        left_out: Requirements (normalised names) that are installed only on request.
        flash_attention, multi_gpu: Packages that ``--flash-attn`` and ``--multi-gpu`` install.
        optional_modules: Modules that a run does not need.
        unwanted: Globs of files in the models' repositories that no program reads.
        models: Its weights; without ``--models`` the first one is set up.
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
    """The sources of a setup; ``None`` is the official one.

    Attributes:
        git: URL or path of a repository.
        weights: URL of a hub, or a folder that holds the models' folders.
        pip_options: Options for ``pip install``; they are never shown, because they may hold a password.
    """

    git: str | None = None
    weights: str | None = None
    pip_options: tuple[str, ...] = ()


@dataclass(frozen=True)
class SetupOrder:
    """The parts to set up, and their folder.

    Attributes:
        directory: The absolute path of the folder for all parts.
        commit: The checkout's commit; ``latest`` is the newest one of the default branch.
        python: The interpreter that creates the environment; ``None`` chooses one.
        flash_attention, multi_gpu: Whether to install their packages.
        verify: Whether to hash the existing files too.
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
        """The folder of the setup's notes, logs and lock."""
        return self.directory / ".reelwright-setup"

    def weights(self, model: WeightSet) -> Path:
        """The folder of a model."""
        return self.directory / model.folder

    def settings(self) -> dict[str, str]:
        """The settings for this installation; if two models have the same key, the first one is used."""
        values = {self.recipe.checkout_key: str(self.checkout), "python": str(self.interpreter)}
        for model in self.models:
            values.setdefault(model.key, str(self.weights(model)))
        return values


@dataclass(frozen=True)
class SetupPart:
    """One part of an installation.

    Attributes:
        name: ``checkout``, ``environment``, ``weights NAME`` or ``configuration``.
        target: Its path, before and after the setup.
        source: Its source, for users.
        done: Whether it is complete.
        todo_bytes: The approximate number of bytes left to write.
        there_bytes: The number of bytes that exist already, partial files included.
        origin: The origin of the sizes.
        note: A remark for the user.
        listing: For weights: the repository's files; ``None`` if it cannot be reached.
        model: For weights: the model.
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
        """All fields except the list of files, as JSON values."""
        kept = {name: getattr(self, name) for name in ("name", "source", "done", "todo_bytes", "there_bytes", "note")}
        return {**kept, "target": str(self.target), "sizes_from": self.origin}


@dataclass(frozen=True)
class Space:
    """The bytes that a setup needs on one file system, and the free bytes; ``None`` if they are unknown.

    ``writable`` is false without permission and on a read-only file system, which may report no free space.
    """

    folder: Path
    need_bytes: int
    free_bytes: int | None
    writable: bool = True

    @property
    def enough(self) -> bool:
        """Whether the parts fit; unknown free space counts as enough."""
        return not self.need_bytes or self.free_bytes is None or self.free_bytes >= self.need_bytes + MARGIN_BYTES

    @property
    def obstacle(self) -> Failure | None:
        """The reason against an installation: no permission (even with free space), or too little space."""
        if not self.writable:
            return Failure.PERM
        return None if self.enough else Failure.DISK

    def to_json(self) -> dict[str, Any]:
        """``folder``, ``need_bytes``, ``free_bytes``, ``enough`` and ``writable``."""
        return {**vars(self), "folder": str(self.folder), "enough": self.enough}


@dataclass(frozen=True)
class Installation:
    """The state of every part of a setup; ``--dry-run --json`` prints its `to_json`."""

    order: SetupOrder
    parts: tuple[SetupPart, ...]
    spaces: tuple[Space, ...] = ()

    @property
    def done(self) -> bool:
        """Whether every part is complete."""
        return all(part.done for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
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
    """A message, or the progress of a download in bytes (``total`` above 0)."""

    part: str
    text: str = ""
    done: int = 0
    total: int = 0


Report = Callable[[SetupEvent], None]


@dataclass(frozen=True)
class SetupOutcome:
    """The result of a setup.

    Attributes:
        installation: The state after the setup.
        changed: Names of the parts that were changed.
        config: The configuration file for the settings.
        config_lines: Lines that the user must add to that file, because it existed before.
        warnings: Failures of optional parts, which a run does not need.
    """

    installation: Installation
    changed: tuple[str, ...] = ()
    config: Path | None = None
    config_lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The installation, the changes, the lines to add and the warnings, as JSON values."""
        return {
            **self.installation.to_json(),
            "changed": list(self.changed),
            "config": str(self.config) if self.config else None,
            "config_lines": list(self.config_lines),
            "warnings": list(self.warnings),
        }
