"""Reads one source of settings into a layer: a file, the environment, options, or a mapping.

A layer holds checked values, with the origin of every key. Aliases are resolved, the keys of a surrounding pipeline
are left out with a note, and relative paths are made absolute. A mistake does not end the reading: a layer collects
all mistakes, so that a user sees them at once. `config.loading` merges layers.

    >>> layer = environment_layer({"REELWRIGHT_SAMPLE_STEPS": "30"}, Settings)
    >>> layer.values, layer.origin("sample_steps")
    ({'sample_steps': 30}, 'environment REELWRIGHT_SAMPLE_STEPS')
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..core.errors import ConfigurationError, VideoGenerationError, guess
from .fields import LISTED, here, is_text, mistakes_in
from .pipeline_keys import ALIASES, NESTED, SPELLINGS, understood
from .settings import ARGUMENT, ENVIRONMENT, FILE, Settings

if TYPE_CHECKING:
    from .yamlfile import Document

PREFIX = "REELWRIGHT_"
#: Variables with Reelwright's prefix that are not settings.
_OTHER_VARIABLES = {"REELWRIGHT_CONFIG", "REELWRIGHT_TRACEBACK", "REELWRIGHT_RUN"}
#: Keys that are not allowed in the section of a generator.
_OF_ALL = frozenset({"generator", "generators"})


@dataclass(frozen=True)
class Layer:
    """The values of one source. ``None`` removes the value of a weaker layer.

    Attributes:
        name: The source, for messages about a key without an origin.
        rank: How strong the source is.
        values: The flat keys.
        sections: Keys for one generator only, by its name.
        origins: Where each key was set; a key of a section is ``generators.NAME.KEY``.
        notes: Values that were read and are not used.
        mistakes: Every mistake in the source.
    """

    name: str
    rank: int
    values: Mapping[str, Any] = field(default_factory=dict)
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    mistakes: tuple[VideoGenerationError, ...] = ()

    def origin(self, key: str) -> str:
        """Where a key was set."""
        whole = "generators" if key.startswith("generators.") else key
        return self.origins.get(key, self.origins.get(whole, self.name))

    def with_mistakes(self, mistakes: Iterable[VideoGenerationError]) -> Layer:
        """The layer with more mistakes."""
        return replace(self, mistakes=(*self.mistakes, *mistakes))


# ------------------------------------------------------------------------------------------------------- sources


def file_layer(path: Path, flat: type[Settings]) -> Layer:
    """The layer of a settings file. If the file cannot be read, the layer has no values and that mistake."""
    from .yamlfile import read_yaml_with_mistakes  # a run without a settings file does not wait for PyYAML

    try:
        document = read_yaml_with_mistakes(path)
    except VideoGenerationError as error:
        return Layer(str(path), FILE, mistakes=(error,))
    layer = Layer(str(path), FILE, document.values, origins=_lines(document))
    layer = _checked(_without_pipeline_keys(layer), flat, path.absolute().parent)
    return layer.with_mistakes(_misread(document))


def _misread(document: Document) -> Iterator[ConfigurationError]:
    """Mistakes about values that YAML reads differently. The values are not repeated, because they may be secrets."""
    for line, text in document.mistakes:
        yield ConfigurationError(f"{document.path}:{line}: {text}", advice="Correct the line.")
    for place in document.swallowed:
        text = "what follows # on this line is a comment in YAML and would be lost"
        yield _error_at(document, place, text, "Put quotes around the value, or a space after #.")
    for place, _ in document.misread_numbers():
        text = "YAML reads this number differently from how it is written (octal, base 60, or with underscores)"
        yield _error_at(document, place, text, "Write a plain decimal number, or put quotes around a text.")


def _error_at(document: Document, place: tuple[str | int, ...], text: str, fix: str) -> ConfigurationError:
    name = ".".join(map(str, place))
    return ConfigurationError(f"{document.path}:{document.line_of(*place)}: {name}: {text}", advice=fix)


def _lines(document: Document) -> dict[str, str]:
    """``FILE:line`` of each key; those of sections as ``generators.NAME.KEY``."""
    found: dict[str, str] = {}
    for place, line in document.places.items():
        names = [str(part) for part in place]
        if len(names) == 2 and names[0] in NESTED:
            names = ["generators", NESTED[names[0]], names[1]]
        elif len(names) == 3 and names[0] == "generators":
            names[1] = SPELLINGS.get(names[1].lower(), names[1])
        if len(names) == 1 or (len(names) == 3 and names[0] == "generators"):
            names[-1] = ALIASES.get(names[-1], names[-1])
            found[".".join(names)] = f"{document.path}:{line}"
    return found


def environment_layer(environ: Mapping[str, str], flat: type[Settings]) -> Layer:
    """The layer of ``REELWRIGHT_KEY=value``, and of ``REELWRIGHT_GENERATORS__NAME__KEY=value`` for one generator.

    Values are read like YAML unless the key holds text. In NAME, ``_`` stands for every character that is not allowed
    in the name of a variable.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    mistakes: list[ConfigurationError] = []
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in _OTHER_VARIABLES:
            continue
        key = _key_of(name.removeprefix(PREFIX).lower(), flat)
        origins[key] = f"environment {name}"
        try:
            values[key] = typed(key, environ[name], origins[key], flat)
        except ConfigurationError as error:
            error.advice = error.advice or f"Correct {name}: its value is read as YAML."
            mistakes.append(error)
    layer = Layer("environment", ENVIRONMENT, values, origins=origins, mistakes=tuple(mistakes))
    return _checked(layer, flat, here())


def _key_of(variable: str, flat: type[Settings]) -> str:
    whole, *inner = variable.split("__")
    if whole != "generators" or len(inner) != 2:
        return ALIASES.get(variable, variable)
    spelled, key = inner
    names = {re.sub(r"[^a-z0-9]", "_", name.lower()): name for name in flat.generator_names()}
    return f"generators.{names.get(spelled, spelled)}.{key}"


def argument_layer(
    values: Mapping[str, Any], flat: type[Settings], origins: Mapping[str, str] | None = None, name: str = "argument"
) -> Layer:
    """The layer of a caller's arguments or of a command line; ``origins`` name the options."""
    return _checked(Layer(name, ARGUMENT, values, origins=origins or {}), flat, here())


def mapping_layer(values: Mapping[str, Any], flat: type[Settings]) -> Layer:
    """The layer of the documented interface's flat mapping: read like a file, and as strong as arguments."""
    return _checked(_without_pipeline_keys(Layer("config", ARGUMENT, values)), flat, here())


def typed(key: str, text: str, origin: str, flat: type[Settings]) -> Any:
    """The value of a text, read like YAML unless the key holds text.

    Raises:
        ConfigurationError: the text is not valid YAML.
    """
    from .yamlfile import read_yaml_text

    _, name, inner = _parts(key)
    model = (flat.model_of(_spelled(name, flat)) if name else None) or flat
    return text if is_text(model, inner) and text != "null" else read_yaml_text(text, origin)


def _parts(key: str) -> tuple[str, str, str]:
    """``generators.wan2.1.size`` is the key ``size`` of the section ``wan2.1``; any other key has no section."""
    section, _, inner = str(key).rpartition(".")
    if str(key).startswith("generators.") and section != "generators":
        return "generators", section.removeprefix("generators."), inner
    return "", "", key


def _canonical(key: str, flat: type[Settings]) -> str:
    """The key of a section with the generator's own name: ``generators.wan.size`` is ``generators.wan2.1.size``."""
    section, name, inner = _parts(key)
    return f"generators.{_spelled(name, flat)}.{ALIASES.get(inner, inner)}" if section else key


def _spelled(name: str, flat: type[Settings]) -> str:
    """A generator's own name for a spelling such as ``wan`` or ``Wan2.1``."""
    found = SPELLINGS.get(name.lower(), name)
    return found.lower() if flat.model_of(found) is None and flat.model_of(found.lower()) else found


# ------------------------------------------------------------------------------------------------ keys and values


def _without_pipeline_keys(layer: Layer) -> Layer:
    """Resolve aliases, and leave out a pipeline's own keys with a note."""
    values, notes, wrong = understood(layer.values, layer.origin)
    mistakes = [ConfigurationError(text, advice="Keep one of the two.") for text in wrong]
    return replace(layer, values=values, notes=tuple(notes)).with_mistakes(mistakes)


def _checked(layer: Layer, flat: type[Settings], folder: Path) -> Layer:
    """The layer with valid values and absolute paths; every other value becomes a mistake."""
    layer = replace(
        layer,
        values={_canonical(key, flat): value for key, value in layer.values.items()},
        origins={_canonical(key, flat): origin for key, origin in layer.origins.items()},
    )
    flat_values = {key: value for key, value in layer.values.items() if not _parts(key)[0] and key != "generators"}
    values, mistakes = _valid(flat_values, [flat], folder, layer, "")
    bare = replace(layer, values=values).with_mistakes(mistakes)
    return _with_sections(bare, _sections(layer), flat, folder)


def _sections(layer: Layer) -> Any:
    """``generators`` of a layer, together with its keys ``generators.NAME.KEY``."""
    given = layer.values.get("generators")
    single = [(name, inner, value) for key, value in layer.values.items()
              for section, name, inner in [_parts(key)] if section]  # fmt: skip
    sections = [given, *(given.values() if isinstance(given, Mapping) else ())]
    if not single or not all(isinstance(item, (Mapping, type(None))) for item in sections):
        return given
    merged = {str(name): dict(section or {}) for name, section in (given or {}).items()}
    for name, inner, value in single:
        merged.setdefault(name, {})[inner] = value
    return merged


def _with_sections(layer: Layer, given: Any, flat: type[Settings], folder: Path) -> Layer:
    where = f"{layer.origin('generators')}: generators"
    if given is not None and not isinstance(given, Mapping):
        text = f"{where}: must be sections of keys and values (NAME: {{key: value}})"
        return layer.with_mistakes([ConfigurationError(text, advice=LISTED)])
    for spelled, section in (given or {}).items():
        name = _spelled(str(spelled), flat)
        model = flat.model_of(name)
        if section is not None and not isinstance(section, Mapping):
            text = f"{where}.{name}: must be keys and values"
            layer = layer.with_mistakes([ConfigurationError(text, advice=LISTED)])
        elif model is None:
            layer = _with_unknown_section(layer, name, flat)
        else:
            keys = {ALIASES.get(str(key), str(key)): value for key, value in (section or {}).items()}
            models = [model, flat] if issubclass(flat, model) else [model]
            values, mistakes = _valid(keys, models, folder, layer, name)
            sections = {**layer.sections, name: {**layer.sections.get(name, {}), **values}}
            layer = replace(layer, sections=sections).with_mistakes(mistakes)
    return layer


def _with_unknown_section(layer: Layer, name: str, flat: type[Settings]) -> Layer:
    """Handle a section for an unknown generator: the name is misspelt, or its package is broken or not installed."""
    where, names = layer.origin("generators"), flat.generator_names()
    if name in names:
        why = "the package that provides it cannot be loaded (see `reel doctor`)"
    elif advice := guess(name, names):
        text = f"{where}: generators: there is no generator named {name!r}"
        return layer.with_mistakes([ConfigurationError(text, advice=advice)])
    else:
        why = "no generator of that name is installed"
    return replace(layer, notes=(*layer.notes, f"{where}: generators.{name}: {why}; the section is not used"))


def _valid(
    values: Mapping[str, Any], models: list[type[Settings]], folder: Path, layer: Layer, name: str
) -> tuple[dict[str, Any], list[ConfigurationError]]:
    """The valid values, converted by the first class of ``models`` that has the key, and the mistakes in the others."""
    prefix, section = (f"generators.{name}.", f": generators.{name}") if name else ("", "")
    names = {key for model in models for key in model.model_fields} - (_OF_ALL if name else {"generators"})
    where = {str(key): f"{layer.origin(f'{prefix}{key}')}{section}" for key in values}
    where[""] = f"{layer.origin('generators') if name else layer.name}{section}"
    mistakes = []
    for key in values:
        if key not in names:
            advice = guess(str(key), sorted(names)) or "`reel config` lists every key."
            text = f"{where[str(key)]}: there is no setting named {key!r}"
            mistakes.append(ConfigurationError(text, advice=advice))
    valid: dict[str, Any] = {}
    for model in models:
        own = {key: value for key, value in values.items() if key in model.model_fields and key in names}
        found, wrong = _validated(model, {key: value for key, value in own.items() if key not in valid}, folder, where)
        mistakes += wrong
        valid |= found
        names = names - own.keys()
    return {key: valid[key] for key in values if key in valid}, mistakes


def _validated(
    model: type[Settings], values: Mapping[str, Any], folder: Path, where: Mapping[str, str]
) -> tuple[dict[str, Any], list[ConfigurationError]]:
    given = {key: value for key, value in values.items() if value is not None}
    try:
        instance = model.model_validate(given, context={"folder": folder})
    except ValidationError as error:
        wrong = mistakes_in(error, model, where)
        mistakes = [item for found in wrong.values() for item in found]
        right = {key: value for key, value in values.items() if key not in wrong}
        if "" in wrong or len(right) == len(values):
            return {}, mistakes
        return _validated(model, right, folder, where)[0], mistakes
    return {key: getattr(instance, key) if key in given else None for key in values}, []
