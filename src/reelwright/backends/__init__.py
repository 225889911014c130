"""The registry of generators: one record per backend, imported on demand.

A backend is one frozen `Backend` value with two pure functions: ``query`` (the facts that it needs about the
machine) and ``plan``. Listing the names imports nothing heavy. Other packages add a backend through the entry
point group ``reelwright.backends``. ``reel doctor`` reports a broken one; it never breaks the others.

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
from ..core.errors import ConfigurationError, VideoGenerationError, all_of, guess
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
    """The limits of one clip of a generator; a longer video needs a film of several clips.

    Attributes:
        fps: Its frame rate; ``None`` if the request chooses it.
        max_frames: The longest clip that it makes well, in frames.
        multiple: Frames are ``multiple * n + 1``.
    """

    fps: float | None = None
    max_frames: int = 9600
    multiple: int = 1


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One generator.

    Attributes:
        name: The name that users write.
        title: One line for ``reel generators``.
        plan: Turns a job into a `core.plan.Plan`. It is pure. It returns a user's mistakes as findings and never raises
            for them.
        capabilities: Its abilities with these settings on this machine.
        query: Returns the facts about the machine that a request needs: none by default.
        generative: Whether a model generates the picture.
        requires_gpu: Whether it needs a CUDA device.
        frame: The size that pictures get before planning; ``None`` keeps their own size. A last picture always gets
            the size of the first.
        fits_pictures: Whether it crops or pads pictures itself, by the request's ``fit``. Reelwright then leaves them
            unchanged.
        configured: Whether the settings configure it (its keys are set); ``generator: auto`` uses this.
        configuration_hint: The settings that make it available, in a sentence.
        clip: The limits of one clip.
        clip_of: The same limits, if they depend on the settings.
        assumed_models: Its models as if they were set up, for advice.
        settings: The class of its settings: a subclass of `Settings` with its own keys, each with a default. Their
            values are in ``job.settings``.
        settings_used: Keys of `Settings` that it uses, besides its own and those that every generator has
            (`policy.unused`). With ``None``, no warning names a setting that it ignores.
        execution: Names of effective parameters that change how a clip is computed but not its picture. Two clips
            that differ only in these are the same shot of a film.
        resident: Whether a worker keeps its weights between clips. A film then prepares the next clip while one runs.
    """

    name: str
    title: str
    plan: Callable[[Job[Any]], Plan]
    capabilities: Callable[[Any, Host], Capabilities]
    query: Callable[[VideoRequest, Any], HostQuery] = lambda _request, _settings: HostQuery()
    generative: bool = True
    requires_gpu: bool = True
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
        """The limits of one clip under these settings."""
        return self.clip_of(settings.for_generator(self.name)) if self.clip_of else self.clip


def _entry_points() -> dict[str, dict[str, EntryPoint]]:
    """Per name, the entry points by their values: one, unless two packages claim the name."""
    found: dict[str, dict[str, EntryPoint]] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        found.setdefault(point.name, {})[point.value] = point
    return found


def names() -> tuple[str, ...]:
    """The names of all backends, Reelwright's own first; this imports no backend."""
    return (*_MODULES, *(name for name in _entry_points() if name not in _MODULES))


def load_backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        ConfigurationError: The name is unknown, two packages claim it, the package cannot be imported, or it provides
            no valid `Backend`.
    """
    if name in _MODULES:
        backend: Backend = importlib.import_module(_MODULES[name]).BACKEND
        return backend
    claims = _entry_points().get(name, {})
    if not claims:
        advice = guess(name, names(), "Known generators")
        raise ConfigurationError(f"there is no generator named {name!r}", advice=advice)
    point, *others = claims.values()
    if others:
        text = f"several packages provide a generator named {name!r}: {', '.join(sorted(claims))}"
        raise ConfigurationError(text, advice="Remove all of these packages but one.")
    try:
        loaded = point.load()
    except Exception as error:  # another author's package may raise anything; it must not break the others
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
    """The reason why a class cannot be a backend's settings; empty if it can."""
    if not isinstance(model, type) or not issubclass(model, Settings):
        return "are not a subclass of reelwright.Settings"
    without = [key for key, field in model.model_fields.items() if field.is_required()]
    return f"have no default for {', '.join(without)}" if without else ""


def _loadable() -> Iterator[Backend]:
    """All backends except those of broken packages, which `reel doctor` reports."""
    for name in names():
        with contextlib.suppress(ConfigurationError):
            yield load_backend(name)


def refused_settings(settings: Settings) -> dict[str, VideoGenerationError]:
    """For each backend whose values are each valid but exclude each other, the reason."""
    refused: dict[str, VideoGenerationError] = {}
    for backend in _loadable():
        try:
            settings.for_generator(backend.name)
        except VideoGenerationError as error:
            refused[backend.name] = error
    return refused


def candidates(generator: str, settings: Settings) -> tuple[Backend, ...]:
    """The backends to consider for ``generator``, best first; never empty.

    ``auto`` gives the configured backends, in the order of the configuration, without those of `refused_settings`. It
    gives the draft only if nothing is configured: the draft never silently replaces a configured GPU generator.

    Raises:
        ConfigurationError: No backend has that name, or the settings of every configured one exclude each other.
    """
    if generator != "auto":
        return (load_backend(generator),)
    refused = refused_settings(settings)
    usable = [backend for backend in _loadable() if backend.name not in refused]
    configured = [backend for backend in usable if backend.configured(settings.for_generator(backend.name))]
    if not configured and refused:
        raise all_of(list(refused.values()))
    if not configured:
        return (load_backend("draft"),)
    order = {name: place for place, name in enumerate(settings.configured_order)}
    return tuple(sorted(configured, key=lambda backend: order.get(backend.name, len(order))))
