"""The generators we know, as data: a record per backend and a registry that imports them on demand.

A backend is one frozen `Backend` value with two pure functions: ``query`` (what it needs to know about the
machine) and ``plan``. Listing the names imports nothing heavy. Other packages add a backend through the entry
point group ``reelwright.backends``; a broken one is reported by ``reel doctor`` and never breaks the others.

    >>> sorted(names())
    ['diffusers', 'draft', 'hunyuan', 'wan2.1']
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ..config.settings import Settings
from ..core.errors import ConfigurationError, guess
from ..core.host import Host, HostQuery
from ..core.plan import Plan
from ..core.request import Size, VideoRequest
from .shared.assumed import AssumedModel
from .shared.capabilities import Capabilities
from .shared.job import Job

#: Entry points of other packages' backends.
ENTRY_POINT_GROUP = "reelwright.backends"
_MODULES: Mapping[str, str] = {
    "wan2.1": "reelwright.backends.wan21.backend",
    "hunyuan": "reelwright.backends.hunyuan.backend",
    "diffusers": "reelwright.backends.diffusers.backend",
    "draft": "reelwright.backends.draft.backend",
}
#: The generators of this package.
GENERATORS = tuple(_MODULES)


@dataclass(frozen=True)
class ClipRules:
    """What a generator's single clip can be, for films that are longer.

    Attributes:
        fps: Its frame rate; ``None`` where the request chooses.
        max_frames: Frames of the longest clip it makes well.
        multiple: Frames are ``multiple * n + 1``.
    """

    fps: float | None = None
    max_frames: int = 9600
    multiple: int = 1


@dataclass(frozen=True)
class Backend:
    """One generator.

    Attributes:
        name: The name users write.
        title: One line for ``reel generators``.
        generative: Whether a model invents the picture.
        requires_gpu: Whether it needs a CUDA device.
        query: What it needs to know about the machine for a request.
        plan: The pure decision; see `core.plan.Plan`. It never raises for what a user can cause: it returns findings.
        frame: The size to which pictures are brought before planning; ``None`` leaves them as they are. A last
            picture is always brought to the size of the first one.
        fits_pictures: Whether it crops or pads pictures itself, as the request's ``fit`` says; they stay as they are then.
        configured: Whether the settings name it (its keys are set), for ``generator: auto``.
        capabilities: What it can do with these settings on this machine.
        configuration_hint: What to set to make it available.
        clip: What a single clip can be.
        clip_of: The same where it depends on the settings.
        assumed_models: Its models, as if they were set up.
        settings: The class of its settings: a subclass of `Settings` with its own keys, each with a default. Their
            values are in ``job.settings``.
        settings_used: Keys of `Settings` that it uses, beside those that every generator has (`policy.unused`) and
            its own; ``None``: it does not say, and nothing is said about settings that it ignores.
        execution: Names of effective parameters that say how it is computed, not what is seen: two clips that differ
            only in these are the same shot of a film.
        resident: Whether a worker keeps its weights between clips; a film then prepares the next clip meanwhile.
    """

    name: str
    title: str
    generative: bool
    requires_gpu: bool
    query: Callable[[VideoRequest, Any], HostQuery]
    plan: Callable[[Job[Any]], Plan]
    capabilities: Callable[[Any, Host], Capabilities]
    frame: Callable[[VideoRequest, Any], Size | None] = lambda _request, _settings: None
    configured: Callable[[Any], bool] = lambda _settings: False
    configuration_hint: str = ""
    clip: ClipRules = ClipRules()
    execution: frozenset[str] = frozenset()
    resident: bool = False
    clip_of: Callable[[Any], ClipRules] | None = None
    assumed_models: Callable[[], tuple[AssumedModel, ...]] = tuple
    settings_used: frozenset[str] | None = None
    settings: type[Settings] = Settings
    fits_pictures: bool = False

    def clip_rules(self, settings: Settings) -> ClipRules:
        """What a single clip can be, under these settings."""
        return self.clip_of(settings.for_generator(self.name)) if self.clip_of else self.clip


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def names() -> tuple[str, ...]:
    """Names of all backends, ours first; nothing is imported."""
    return (*_MODULES, *(name for name in _entry_points() if name not in _MODULES))


def load_backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        ConfigurationError: unknown name, a name that two packages claim, or a package that cannot be imported.
    """
    if name in _MODULES:
        backend: Backend = importlib.import_module(_MODULES[name]).BACKEND
        return backend
    point = _entry_points().get(name)
    if point is None:
        advice = guess(name, names(), "Known generators")
        raise ConfigurationError(f"there is no generator named {name!r}", advice=advice)
    try:
        loaded = point.load()
    except Exception as error:  # a package of somebody else may raise anything; it must not break the others
        raise ConfigurationError(
            f"the generator {name!r} of {point.value} cannot be loaded: {error}",
            advice="Reinstall or remove the package that provides it.",
        ) from error
    if not isinstance(loaded, Backend) or loaded.name != name:
        raise ConfigurationError(f"the entry point {name!r} ({point.value}) is not a Backend of that name")
    if wrong := _wrong_settings(loaded.settings):
        raise ConfigurationError(
            f"the settings of the generator {name!r} ({point.value}) {wrong}",
            advice="Update or remove the package that provides it.",
        )
    return loaded


def _wrong_settings(model: Any) -> str:
    """What keeps a class from being a backend's settings, or an empty text."""
    if not isinstance(model, type) or not issubclass(model, Settings):
        return "are not a subclass of reelwright.Settings"
    without = [key for key, field in model.model_fields.items() if field.is_required()]
    return f"have no default for {', '.join(without)}" if without else ""


def _loadable() -> Iterator[Backend]:
    """All backends but those of broken packages, which `reel doctor` reports."""
    for name in names():
        with contextlib.suppress(ConfigurationError):
            yield load_backend(name)


def candidates(generator: str, settings: Settings) -> tuple[Backend, ...]:
    """The backends to consider for ``generator``, best first; never empty.

    ``auto`` gives those whose keys are configured, in the order of the configuration, and the draft only when
    nothing is configured at all: a configured GPU generator is never silently replaced by it.

    Raises:
        ConfigurationError: no backend has that name.
    """
    if generator != "auto":
        return (load_backend(generator),)
    configured = tuple(backend for backend in _loadable() if backend.configured(settings.for_generator(backend.name)))
    if not configured:
        return (load_backend("draft"),)
    order = {name: place for place, name in enumerate(settings.configured_order)}
    return tuple(sorted(configured, key=lambda backend: order.get(backend.name, len(order))))
