"""Loads settings from all sources: defaults < YAML file < ``REELWRIGHT_*`` environment < arguments.

The keys are flat. They are those of an existing text-to-video pipeline_config.yaml, so such a file works unchanged.
``generators: {NAME: {...}}`` overrides keys for one generator. The caller decides which keys exist: it gives
`SettingsLoader` the class of the flat keys.

    >>> settings = SettingsLoader(Settings).load(environ={}, arguments={"sample_steps": 30})
    >>> settings.sample_steps, settings.origin("sample_steps"), settings.origin("codec")
    (30, 'argument', 'default')
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..core.errors import ConfigurationError, VideoGenerationError, all_of
from ..core.files import expanded, home, refusals
from .layers import Layer, argument_layer, environment_layer, file_layer, mapping_layer, typed
from .pipeline_keys import ALIASES, NESTED
from .settings import Settings, Sources, default_state_dir, weaker_of_gpus

S = TypeVar("S", bound=Settings)


def find_config(environ: Mapping[str, str]) -> Path | None:
    """The settings file when none is given: ``$REELWRIGHT_CONFIG``, else config.yaml in the user's config folder."""
    found = default_config(environ)
    named = bool(environ.get("REELWRIGHT_CONFIG"))
    return found if named or found.is_symlink() or found.exists() else None  # a folder of that name is not overlooked


def default_config(environ: Mapping[str, str]) -> Path:
    """The path where `find_config` looks for the user's settings file, whether or not the file exists."""
    if environ.get("REELWRIGHT_CONFIG"):
        return expanded(environ["REELWRIGHT_CONFIG"])
    base = environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else home() / ".config") / "reelwright" / "config.yaml"


@dataclass(frozen=True)
class SettingsLoader(Generic[S]):
    """Reads settings into one class, which has every flat key and knows the classes of the generators."""

    flat: type[S]

    @refusals()
    def load(
        self, file: Path | None = None, *, environ: Mapping[str, str], arguments: Mapping[str, Any] | None = None
    ) -> S:
        """Settings from all sources.

        Raises:
            VideoGenerationError: INPUT or PERM, the file cannot be read.
            ConfigurationError: unknown keys (with the nearest known one), wrong types or values in any source;
                ``also`` holds every further mistake, each with its origin and its advice.
        """
        settings, mistakes = self.read(file, environ=environ, arguments=arguments)
        if mistakes:
            raise all_of(mistakes)
        return settings

    def read(
        self,
        file: Path | None = None,
        *,
        environ: Mapping[str, str],
        arguments: Mapping[str, Any] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> tuple[S, tuple[VideoGenerationError, ...]]:
        """The settings without the wrong values, and every mistake.

        Args:
            file: The settings file; otherwise `find_config` looks for one.
            environ: Environment variables.
            arguments: Values that are stronger than all others.
            options: The command line's name of each argument, by key, for messages.
        """
        path = file or find_config(environ)
        layers = [] if path is None else [file_layer(path, self.flat)]
        layers += [environment_layer(environ, self.flat), argument_layer(arguments or {}, self.flat, options)]
        return self._merged(layers, default_state_dir(environ))

    @refusals()
    def from_mapping(self, config: Mapping[str, Any], *, generator: str | None) -> S:
        """Settings from the flat mapping of the documented interface, over the environment and the defaults.

        Raises:
            ConfigurationError: as `load`.
        """
        values = {str(key): value for key, value in config.items()}
        nested = {name: values.pop(name) for name in list(values) if NESTED.get(name, name) == generator}
        for section in nested.values():
            if isinstance(section, Mapping):
                values.update(section)
        layers = [environment_layer(os.environ, self.flat), mapping_layer(values, self.flat)]
        settings, mistakes = self._merged(layers, default_state_dir(os.environ))
        if mistakes:
            raise all_of(mistakes)
        return settings

    def assignment(self, text: str) -> tuple[str, Any]:
        """The key and value of ``--set KEY=VALUE``; ``null`` means the default.

        The value is read like YAML unless the key holds text. A key of a generator's section is written
        ``generators.NAME.KEY``.

        Raises:
            ConfigurationError: the text has no key or no ``=``, or the value is not valid YAML.
        """
        key, sign, value = text.partition("=")
        if not sign or not key.strip():
            start = re.match(r"[\w.]{0,40}", text)
            shown = f"{start[0]}..." if start and start[0] != text else text  # the rest may be a value, and a secret
            advice = "Write for example --set sample_steps=30."
            raise ConfigurationError(f"--set {shown!r} is not KEY=VALUE", advice=advice)
        key = ALIASES.get(key.strip(), key.strip())
        return key, typed(key, value, f"--set {key}", self.flat)

    def _merged(self, layers: Sequence[Layer], state_dir: Path) -> tuple[S, tuple[VideoGenerationError, ...]]:
        """Merge the layers, of which the last is the strongest; return the settings and all mistakes."""
        values: dict[str, Any] = {"state_dir": state_dir}
        sections: dict[str, dict[str, Any]] = {}
        origins: dict[str, str] = {}
        ranks: dict[str, int] = {}
        for layer in layers:
            values |= layer.values
            places = [f"generators.{name}.{key}" for name, section in layer.sections.items() for key in section]
            for name, section in layer.sections.items():
                sections.setdefault(name, {}).update(section)
            if layer.sections:
                origins["generators"] = layer.origin("generators")
            for key in (*layer.values, *places):
                origins[key], ranks[key] = layer.origin(key), layer.rank
        lost = weaker_of_gpus(values, ranks)
        values = {key: value for key, value in values.items() if key not in lost and value is not None}
        settings = self.flat.model_validate({**values, "generators": sections})
        notes = tuple(note for layer in layers for note in layer.notes)
        origins = {key: where for key, where in origins.items() if key not in lost}
        settings._sources = Sources(origins, ranks, self._order(layers), notes)
        return settings, tuple(error for layer in layers for error in sorted(layer.mistakes, key=_line))

    def _order(self, layers: Sequence[Layer]) -> tuple[str, ...]:
        found = [
            name
            for layer in layers
            for name in (*(self.flat.configures.get(key) for key in layer.values), *layer.sections)
        ]
        return tuple(dict.fromkeys(name for name in found if name))


def _line(error: VideoGenerationError) -> int:
    found = re.match(r".*?:(\d+): ", error.message)
    return int(found[1]) if found else 0
