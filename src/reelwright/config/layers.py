"""Where settings come from: a file, the environment, arguments. Each becomes a layer with the origin of every key.

A layer holds flat keys and the sections of single generators. Aliases are resolved, the surrounding pipeline's keys
are left out with a note, and a relative path becomes absolute: beside the file that names it, else in the current
folder. What is wrong does not end the reading: every mistake is kept, so that all can be said at once. What the
values mean is in `config.settings`.

    >>> known = Known(frozenset({"sample_steps"}), frozenset(), frozenset())
    >>> layer = environment_layer({"REELWRIGHT_SAMPLE_STEPS": "30"}, known)
    >>> layer.values, layer.origin("sample_steps")
    ({'sample_steps': 30}, 'environment REELWRIGHT_SAMPLE_STEPS')
"""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from ..core.errors import ConfigurationError, VideoGenerationError
from .pipeline_keys import ALIASES, GENERATORS, NESTED, PIPELINE_KEYS, REMOTE_BACKENDS, SPELLINGS
from .yamlfile import Document, read_yaml_text, read_yaml_with_mistakes

PREFIX = "REELWRIGHT_"
#: Variables with our prefix that are no settings.
_OTHER_VARIABLES = {"REELWRIGHT_CONFIG", "REELWRIGHT_TRACEBACK", "REELWRIGHT_RUN"}
#: Entry points of other packages' generators; `backends` imports them.
ENTRY_POINT_GROUP = "reelwright.backends"
#: From the weakest to the strongest; what `Settings.evolve` changes is stronger than all.
FILE, ENVIRONMENT, ARGUMENT, EVOLVED = 1, 2, 3, 4
_SECRET = re.compile(r"token|key|secret|passw|credential|auth", re.IGNORECASE)


@dataclass(frozen=True)
class OwnSetting:
    """A key that another package's generator reads from its section ``generators: {NAME: ...}``.

    Attributes:
        kind: What it takes; a ``path`` is made absolute like every path of ours.
        description: For ``reel config`` and people.
        secret: Its value is never shown. Keys that look like it (token, api_key, ...) are hidden anyway.
    """

    kind: Literal["text", "path", "int", "float", "flag"] = "text"
    description: str = ""
    secret: bool = False

    def problem(self, value: object) -> str | None:
        """What it takes, if ``value`` is something else."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        right, words = {
            "text": (isinstance(value, str), "text"),
            "path": (isinstance(value, (str, Path)) and bool(value), "a path"),
            "int": (number and isinstance(value, int), "a whole number"),
            "float": (number, "a number"),
            "flag": (isinstance(value, bool), "true or false"),
        }[self.kind]
        return None if right else words


@dataclass(frozen=True)
class Known:
    """What the keys of the table are: their names, and those that hold text or paths."""

    names: frozenset[str]
    text: frozenset[str]
    paths: frozenset[str]


@dataclass(frozen=True)
class Layer:
    """The values of one source. ``None`` takes back what a weaker layer says.

    Attributes:
        name: For messages, where a key has no origin of its own.
        rank: How strong it is.
        values: The flat keys.
        sections: Keys for one generator only, by its name.
        own: The same for keys that only another package's generator has.
        origins: Where each key was found.
        notes: What was read and not used, for people.
        mistakes: What is wrong.
    """

    name: str
    rank: int
    values: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    own: dict[str, dict[str, Any]] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    mistakes: tuple[VideoGenerationError, ...] = ()

    def origin(self, key: str) -> str:
        """Where a key was found."""
        return self.origins.get(key, self.name)


def outdone(values: Mapping[str, Any], ranks: Mapping[str, int]) -> tuple[str, ...]:
    """Of a list and a number of GPUs from two sources the weaker, where both cannot be had: a number takes of the list."""
    listed, count = values.get("gpus"), values.get("gpu_count")
    if not listed or not isinstance(count, int) or ranks.get("gpus") == ranks.get("gpu_count"):
        return ()
    if ranks.get("gpus", 0) > ranks.get("gpu_count", 0):
        return ("gpu_count",)
    return ("gpus",) if count > len(listed) else ()


# ------------------------------------------------------------------------------------------------------- sources


def file_layer(path: Path, known: Known) -> Layer:
    """A settings file; one that cannot be read at all is a layer without values and with that mistake."""
    try:
        document = read_yaml_with_mistakes(path)
    except VideoGenerationError as error:
        return Layer(str(path), FILE, mistakes=(error,))
    layer = flat_layer(Layer(str(path), FILE, dict(document.values), origins=_lines(document)), known)
    layer = replace(layer, mistakes=(*layer.mistakes, *_misread(document)))
    return anchored(layer, path.absolute().parent, known)


def _misread(document: Document) -> Iterator[ConfigurationError]:
    """What YAML reads otherwise than it is written. Values are not repeated: they may be secrets."""
    for line, text in document.mistakes:
        yield ConfigurationError(f"{document.path}:{line}: {text}", advice="Correct the line.")
    for place in document.swallowed:
        text = "what follows # on this line is a comment in YAML and would be lost"
        yield _at(document, place, text, "Put quotes around the value, or a space after #.")
    for place, _ in document.misread_numbers():
        text = "YAML reads this number otherwise than it is written (octal, base 60, or with underscores)"
        yield _at(document, place, text, "Write a plain decimal number, or put quotes around a text.")


def _at(document: Document, place: tuple[str | int, ...], text: str, fix: str) -> ConfigurationError:
    name = ".".join(map(str, place))
    return ConfigurationError(f"{document.path}:{document.line_of(*place)}: {name}: {text}", advice=fix)


def _lines(document: Document) -> dict[str, str]:
    places = {
        f"generators.{SPELLINGS.get(str(at[1]).lower(), at[1])}.{at[2]}": at
        for at in document.places
        if len(at) == 3 and at[0] == "generators"
    }
    nested = {f"{at[0]}.{at[1]}": at for at in document.places if len(at) == 2}
    lines = {key: f"{document.path}:{line}" for key, line in document.lines.items()}
    return {**{name: f"{document.path}:{document.places[at]}" for name, at in {**nested, **places}.items()}, **lines}


def environment_layer(environ: Mapping[str, str], known: Known) -> Layer:
    """``REELWRIGHT_KEY=value``; values are read like YAML unless the key holds text."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    mistakes: list[ConfigurationError] = []
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in _OTHER_VARIABLES:
            continue
        key = name.removeprefix(PREFIX).lower()
        key = ALIASES.get(key, key)
        origins[key] = f"environment {name}"
        try:
            values[key] = typed(key, environ[name], origins[key], known)
        except ConfigurationError as error:
            error.advice = error.advice or f"Correct {name}: its value is read like YAML."
            mistakes.append(error)
    layer = Layer("environment", ENVIRONMENT, values, origins=origins, mistakes=tuple(mistakes))
    return anchored(_checked(layer, known), here(), known)


def argument_layer(values: Mapping[str, Any], known: Known, name: str = "argument") -> Layer:
    """What a caller or a command line says."""
    return anchored(_checked(Layer(name, ARGUMENT, dict(values)), known), here(), known)


def mapping_layer(values: dict[str, Any], known: Known) -> Layer:
    """The flat mapping of the documented interface: like the file, and as strong as arguments."""
    return anchored(flat_layer(Layer("config", ARGUMENT, values), known), here(), known)


def typed(key: str, text: str, origin: str, known: Known) -> Any:
    """The value that a text stands for, read like YAML unless the key holds text.

    Raises:
        ConfigurationError: it is no YAML.
    """
    return text if key in known.text and text != "null" else read_yaml_text(text, origin)


# ------------------------------------------------------------------------------------------------ keys and sections


def flat_layer(layer: Layer, known: Known) -> Layer:
    """The documented form of a file: aliases resolved, the pipeline's own keys left out with a note."""
    notes: list[str] = []
    kept: dict[str, Any] = {}
    mistakes: list[ConfigurationError] = []
    for key, value in layer.values.items():
        name, where = ALIASES.get(key, key), layer.origin(key)
        if key in NESTED and isinstance(value, Mapping):
            kept["generators"] = {**_mapping(kept.get("generators")), NESTED[key]: dict(value)}
        elif key in PIPELINE_KEYS:
            notes.append(f"{where}: {key} belongs to the surrounding pipeline and is not used")
        elif name == "generator" and value in REMOTE_BACKENDS:
            notes.append(f"{where}: {key} names a remote service; a local generator is chosen")
        elif name in kept and name != "generators" and value is not None and value != kept[name]:
            text = f"{where}: {key} and another key mean the same ({name}) and say different things"
            mistakes.append(ConfigurationError(text, advice="Keep one of the two."))
        elif name == "generators" and isinstance(value, Mapping):
            kept[name] = {**_mapping(kept.get(name)), **value}
        elif value is not None:
            kept[name] = value
    origins = {ALIASES.get(key, key): origin for key, origin in layer.origins.items()}
    origins |= {
        f"generators.{NESTED[nested]}.{inner}": origin
        for nested, inner, origin in ((*key.partition(".")[::2], text) for key, text in layer.origins.items())
        if nested in NESTED
    }
    layer = replace(layer, values=kept, origins=origins, notes=tuple(notes), mistakes=(*layer.mistakes, *mistakes))
    return _checked(layer, known)


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _checked(layer: Layer, known: Known) -> Layer:
    """Every unknown key becomes a mistake; ``api`` becomes sections."""
    mistakes = [_unknown(key, layer.origin(key), known.names) for key in layer.values if key not in known.names]
    values = {key: value for key, value in layer.values.items() if key in known.names}
    layer = replace(layer, values=values, mistakes=(*layer.mistakes, *mistakes))
    return _with_sections(layer, known)


def _unknown(key: object, where: str, names: Iterable[str], what: str = "setting") -> ConfigurationError:
    near = difflib.get_close_matches(str(key), sorted(names), n=1)
    hint = f"Did you mean {near[0]}?" if near else "`reel config` lists every key."
    return ConfigurationError(f"{where}: there is no {what} named {key!r}", advice=hint)


def _with_sections(layer: Layer, known: Known) -> Layer:
    """``api`` taken apart: sections of our keys, a plugin's own keys, and what is wrong with them."""
    given = layer.values.pop("generators", None)
    where = f"{layer.origin('generators')}: generators"
    if given is not None and not isinstance(given, Mapping):
        return _mistaken(layer, f"{where}: must be sections of keys and values (NAME: {{key: value}})")
    for spelled, section in (given or {}).items():
        lower = str(spelled).lower()
        name = SPELLINGS.get(lower, lower if lower in GENERATORS else str(spelled))
        keys, note = own_settings(name)
        near = difflib.get_close_matches(name, GENERATORS, n=1) if keys is None else ()
        if section is not None and not isinstance(section, Mapping):
            layer = _mistaken(layer, f"{where}.{name}: must be keys and values")
        elif near:
            layer = replace(layer, mistakes=(*layer.mistakes, _unknown(name, where, near, "generator")))
        elif keys is None:
            layer = replace(layer, notes=(*layer.notes, f"{where}.{name}: {note}; the section is not used"))
        else:
            layer = _with_section(
                layer, known, name, {ALIASES.get(str(k), str(k)): v for k, v in (section or {}).items()}
            )
    return layer


def _with_section(layer: Layer, known: Known, name: str, section: Mapping[str, Any]) -> Layer:
    keys = own_settings(name)[0] or {}
    ours = {key: value for key, value in section.items() if key in known.names - {"generators", "generator"}}
    own = {key: value for key, value in section.items() if key in keys}
    mistakes = list(layer.mistakes)
    for key, value in section.items():
        title = f"{layer.origins.get(f'generators.{name}.{key}', layer.origin('generators'))}: generators.{name}"
        problem = keys[key].problem(value) if key in keys and value is not None else None
        if key not in ours and key not in own:
            mistakes.append(_unknown(key, title, (*known.names, *keys)))
        elif problem:
            mistakes.append(ConfigurationError(f"{title}: {key}: must be {problem}", advice=_LISTED))
    return replace(
        layer,
        sections={**layer.sections, name: ours},
        own={**layer.own, name: {key: value for key, value in own.items() if key not in ours}},
        mistakes=tuple(mistakes),
    )


def _mistaken(layer: Layer, text: str) -> Layer:
    return replace(layer, mistakes=(*layer.mistakes, ConfigurationError(text, advice=_LISTED)))


_LISTED = "`reel config` lists every key and its meaning."


def own_settings(name: str) -> tuple[Mapping[str, OwnSetting] | None, str]:
    """The keys that a generator has beside ours; ``None`` and the reason where they cannot be known."""
    if name in GENERATORS:
        return {}, ""
    point = next((point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name == name), None)
    if point is None:
        return None, "no generator of that name is installed"
    try:
        found: Mapping[str, OwnSetting] = getattr(point.load(), "own_settings", {})
    except Exception as error:  # noqa: BLE001 -- a stranger's package may raise anything; the others must go on working
        return None, f"the package that provides it cannot be loaded ({type(error).__name__})"
    return found, ""


def is_secret(name: str, key: str) -> bool:
    """Whether the value of a key in a generator's section is shown to nobody."""
    declared = (own_settings(name)[0] or {}).get(key)
    return key == "env" or bool(declared and declared.secret) or bool(_SECRET.search(key))


# --------------------------------------------------------------------------------------------------------- paths


def anchored(layer: Layer, folder: Path, known: Known) -> Layer:
    """The layer with absolute paths: relative ones are relative to ``folder``."""
    values = {key: _anchored(key, value, folder, known) for key, value in layer.values.items()}
    sections = {
        name: {key: _anchored(key, value, folder, known) for key, value in section.items()}
        for name, section in layer.sections.items()
    }
    own = {name: _own_anchored(name, section, folder) for name, section in layer.own.items()}
    return replace(layer, values=values, sections=sections, own=own)


def _own_anchored(name: str, section: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    keys = own_settings(name)[0] or {}
    return {
        key: at(folder, value) if keys[key].kind == "path" and keys[key].problem(value) is None else value
        for key, value in section.items()
    }


def _anchored(key: str, value: Any, folder: Path, known: Known) -> Any:
    if key == "lora" and isinstance(value, (list, tuple)):
        return [_anchored(key, item, folder, known) for item in value]
    if key == "lora" and isinstance(value, Mapping):
        return {**value, "path": _anchored(key, value.get("path"), folder, known)}
    if key not in known.paths or not isinstance(value, (str, Path)) or not str(value):
        return value
    if key == "python" and len(Path(value).parts) == 1 and not str(value).startswith("~"):
        beside = folder / value
        found = None if beside.exists() else shutil.which(str(value))  # "python3.11": a command, not a file here
        return beside if found is None else Path(found)
    return at(folder, value)


def here() -> Path:
    """The current folder; where it no longer exists, a path that leads nowhere but is no error by itself."""
    try:
        return Path.cwd()
    except OSError:
        return Path()


def at(folder: Path, value: str | Path) -> Path | str:
    """The path, absolute; one that cannot be expanded (``~nobody``) is left for the check of its key."""
    try:
        return folder / Path(value).expanduser()
    except RuntimeError:
        return value


_PLAIN_WORDS = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "text",
    "a valid tuple": "a list, such as [0, 1]",
    "a valid dictionary": "keys and values (key: value)",
    "a valid mapping": "keys and values (key: value)",
    "an instance of Path": "a path",
}


def plainly(message: str) -> str:
    """What pydantic says, without its names of types."""
    message = message.removeprefix("Value error, ").replace("Input should be", "must be")
    for name, words in _PLAIN_WORDS.items():
        message = message.replace(name, words)
    return message
