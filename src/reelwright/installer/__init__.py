"""Setting a framework up: its checkout, its own Python environment, its weights and our configuration file.

The only part of Reelwright that uses the network, and only on request (``reel setup``). What there is and what is to
be done is one value, an `Installation`, made by `planning.look` without changing anything and carried out by
`carrying_out.carry_out`. Frameworks and models are data (`recipes`). Not for deciding whether a generation can run:
that is `reel doctor`'s, which asks the backends.

    >>> Space(Path("/models"), need_bytes=82 * 10**9, free_bytes=10**9).enough
    False
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..core.request import Task
from .weight_sources import Listing

#: Where a number of bytes comes from: asked of the source, or what we know or guess.
Origin = Literal["source", "table", "estimate", "nothing"]
#: Kept free beyond what is to be written: a file system that is full to the last byte breaks other things.
MARGIN_BYTES = 512 * 1024 * 1024
STATE_FOLDER = ".reelwright-setup"


# ------------------------------------------------------------------------------------------------- what there can be


@dataclass(frozen=True)
class Model:
    """One set of weights.

    Attributes:
        name: The name that users write.
        repository: Its name on the hub.
        key: The setting that names its folder.
        task: The kind of request it serves; decides which files must be there.
        known_bytes: Its size, for when the hub cannot be asked.
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
        script: The file that shows that a folder is its checkout.
        git_source, commit: The official repository, and the commit that was tried.
        checkout_key: The setting that names the checkout.
        checkout_bytes: Its size, roughly.
        pythons: Versions of Python that its requirements can be installed with, the best first.
        environment_bytes: Size of its environment, an estimate.
        left_out: Requirements that are not installed unless asked for (normalised names).
        flash_attention, multi_gpu: What ``--flash-attn`` and ``--multi-gpu`` install.
        optional_modules: Modules that a run can do without.
        unwanted: Globs of files in the models' repositories that nothing reads.
        models: Its weights; the first one is what is set up when none is named.
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
    models: tuple[Model, ...]
    left_out: tuple[str, ...] = ()
    flash_attention: tuple[str, ...] = ()
    multi_gpu: tuple[str, ...] = ()
    optional_modules: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------ what is asked


@dataclass(frozen=True)
class Sources:
    """Where things come from; ``None`` is the official place.

    Attributes:
        git: URL or path of a repository.
        weights: URL of a hub, or a folder that holds the models' folders.
        pip_options: Options passed on to ``pip install``; never shown, for they may hold a password.
    """

    git: str | None = None
    weights: str | None = None
    pip_options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Order:
    """What to set up, and where.

    Attributes:
        directory: The folder for everything; absolute.
        commit: The checkout's commit; ``latest`` is the newest one of the default branch.
        python: The interpreter to make the environment with; ``None`` chooses one.
        flash_attention, multi_gpu: Install what these need.
        verify: Hash also the files that were there before.
        config: The configuration file; ``None`` is the user's own.
    """

    recipe: Recipe
    models: tuple[Model, ...]
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

    def weights(self, model: Model) -> Path:
        """The folder of a model."""
        return self.directory / model.folder

    @property
    def state(self) -> Path:
        """Our own notes and the lock."""
        return self.directory / STATE_FOLDER

    def settings(self) -> dict[str, str]:
        """The settings that this installation gives; of two models with one key, the first one named."""
        values = {self.recipe.checkout_key: str(self.checkout), "python": str(self.interpreter)}
        for model in self.models:
            values.setdefault(model.key, str(self.weights(model)))
        return values


# --------------------------------------------------------------------------------------------------- what is to be done


@dataclass(frozen=True)
class Part:
    """One part of an installation.

    Attributes:
        name: ``checkout``, ``environment``, ``weights NAME`` or ``configuration``.
        target: Where it is, or will be.
        source: Where it comes from.
        done: Whether nothing is left to do.
        todo_bytes: What is still to be written, about.
        there_bytes: What is there already, partial files included.
        origin: How well the sizes are known.
        note: What else is worth telling.
        listing: For weights: what the repository holds; ``None`` if it could not be asked.
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
    model: Model | None = None

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
    """What one file system has to take."""

    folder: Path
    need_bytes: int
    free_bytes: int | None

    @property
    def enough(self) -> bool:
        """Whether it fits; a file system that does not tell is trusted."""
        return not self.need_bytes or self.free_bytes is None or self.free_bytes >= self.need_bytes + MARGIN_BYTES

    def to_json(self) -> dict[str, Any]:
        """``folder``, ``need_bytes``, ``free_bytes`` and ``enough``."""
        return {
            "folder": str(self.folder),
            "need_bytes": self.need_bytes,
            "free_bytes": self.free_bytes,
            "enough": self.enough,
        }


@dataclass(frozen=True)
class Installation:
    """What is there and what is to be done; `to_json` is what ``--dry-run --json`` prints."""

    order: Order
    parts: tuple[Part, ...]
    spaces: tuple[Space, ...] = ()

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return all(part.done for part in self.parts)

    @property
    def todo_bytes(self) -> int:
        """What is still to be written."""
        return sum(part.todo_bytes for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """The whole plan."""
        return {
            "schema": 1,
            "framework": self.order.recipe.name,
            "directory": str(self.order.directory),
            "done": self.done,
            "todo_bytes": self.todo_bytes,
            "parts": [part.to_json() for part in self.parts],
            "spaces": [space.to_json() for space in self.spaces],
            "settings": self.order.settings(),
        }


@dataclass(frozen=True)
class Told:
    """Something that happened: a line for people, or how far a download is (``total`` above 0)."""

    part: str
    text: str = ""
    done: int = 0
    total: int = 0


Listener = Callable[[Told], None]


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        installation: As it is now.
        changed: Names of the parts that were changed.
        config: The configuration file that holds the settings, or should.
        config_lines: Lines that the user has to add to that file, because it was there before.
        warnings: What did not work and can be done without.
    """

    installation: Installation
    changed: tuple[str, ...] = ()
    config: Path | None = None
    config_lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """The installation, what changed, and what is left to the user."""
        return {
            **self.installation.to_json(),
            "changed": list(self.changed),
            "config": str(self.config) if self.config else None,
            "config_lines": list(self.config_lines),
            "warnings": list(self.warnings),
        }
