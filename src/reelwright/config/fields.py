"""Defines the types for fields of settings, and says whether a field holds text, a path or a secret.

A path becomes absolute while it is validated: relative to ``context["folder"]`` (the folder of a settings file), or
else to the current folder. A backend's own settings use the same types.

    >>> import pydantic
    >>> pydantic.TypeAdapter(FilePath).validate_python("a.png", context={"folder": Path("/films")})
    PosixPath('/films/a.png')
"""

from __future__ import annotations

import re
import shutil
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo

from ..core.errors import ConfigurationError, VideoGenerationError, guess

LISTED = "`reel config` lists every key and its meaning."
_SECRET = re.compile(r"token|key|secret|passw|credential|auth", re.IGNORECASE)


def here() -> Path:
    """The current folder; if it no longer exists, a relative path, which `as_path` refuses."""
    try:
        return Path.cwd()
    except OSError:
        return Path()


def as_path(value: object, info: ValidationInfo) -> object:
    """The absolute path for a text or path; other values are returned unchanged."""
    if not isinstance(value, (str, Path)) or not str(value):
        return value
    if "\0" in str(value):
        raise ValueError("holds a NUL character: no path can")
    try:
        path = _folder(info) / Path(value).expanduser()
    except RuntimeError:
        raise ValueError("begins with the name of a user who does not exist here") from None
    if not path.is_absolute():
        raise ValueError("is relative to the current folder, which no longer exists")
    return path


def _folder(info: ValidationInfo) -> Path:
    return (info.context or {}).get("folder") or here()


def _as_program(value: object, info: ValidationInfo) -> object:
    """Like `as_path`, but a single word such as ``python3.11`` is a command if the folder has no file of that name."""
    if isinstance(value, (str, Path)) and len(Path(value).parts) == 1 and str(value)[0] not in "~\0":
        found = None if (_folder(info) / value).exists() else shutil.which(str(value))
        value = found or value
    return as_path(value, info)


def as_tuple(value: object) -> object:
    """A tuple instead of YAML's list."""
    return tuple(value) if isinstance(value, list) else value


def parsed(parse: Callable[[str], Any], value: str) -> Any:
    """Parse a text. An error becomes a `ValueError`, as pydantic expects; settings and storyboards add their advice."""
    try:
        return parse(value)
    except VideoGenerationError as error:
        raise ValueError(error.message) from error


def _auto_is_none(value: object) -> object:
    return None if value == "auto" else value


FilePath = Annotated[Path, BeforeValidator(as_path)]
ProgramPath = Annotated[Path, BeforeValidator(_as_program)]
#: Marks a type that also accepts the word ``auto``, which means no value.
AUTO = BeforeValidator(_auto_is_none)
LIST = BeforeValidator(as_tuple)
Positive = Annotated[int, Field(gt=0, lt=2**31)]
PositiveFloat = Annotated[float, Field(gt=0, lt=1e9)]
Seconds = Annotated[float, Field(ge=0, lt=1e9)]

# -------------------------------------------------------------------------------------------- questions about a field


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types in a union without ``None``, and without the validators around them."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for part in get_args(annotation) for member in _members(part))
    return () if annotation is type(None) else (annotation,)


def _types(model: type[BaseModel], key: str) -> tuple[Any, ...]:
    return _members(model.model_fields[key].annotation) if key in model.model_fields else ()


def is_text(model: type[BaseModel], key: str) -> bool:
    """Whether a key holds text. Text is kept as it is written: ``1280x720`` and ``0123`` are not numbers."""
    found = _types(model, key)
    return bool(found) and all(item in (str, Path, SecretStr) for item in found)


def is_path(model: type[BaseModel], key: str) -> bool:
    """Whether a key holds a path."""
    return Path in _types(model, key)


def is_secret(model: type[BaseModel], key: str) -> bool:
    """Whether the value of a key must stay hidden: a `SecretStr`, ``env``, or a key named like ``api_token``."""
    return key == "env" or SecretStr in _types(model, key) or bool(_SECRET.search(key))


def plain(value: Any) -> Any:
    """A setting's value in JSON types. Secrets are not hidden."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value if isinstance(value, (int, float, str, type(None))) else str(value)


# --------------------------------------------------------------------------------------------------- wrong values


def mistakes_in(error: ValidationError, model: type[BaseModel], where: Mapping[str, str]) -> dict[str, list[Any]]:
    """The `ConfigurationError` objects for the wrong values, by key. No message holds a value that may be a secret.

    Args:
        error: Raised by pydantic.
        model: The class whose validation failed.
        where: Where each key was set, for the message; ``""`` is for the model as a whole.
    """
    found: dict[str, dict[str, str]] = {}
    for item in error.errors(include_url=False, include_context=False):
        top = str(item["loc"][0]) if item["loc"] else ""
        key = ".".join(str(part) for part in item["loc"] if "[" not in str(part))
        value = f"{item['input']!r:.80}"
        hidden = not top or is_secret(model, top) or value in item["msg"]
        words = re.findall(r"'([^']+)'", item["msg"]) if item["type"] == "literal_error" else ()
        message = f"{where.get(top, where[''])}: {f'{key}: ' if key else ''}{_in_plain_words(item['msg'])}"
        advice = guess(str(item["input"]), words) or LISTED
        found.setdefault(top, {})[message if hidden else f"{message}, not {value}"] = advice
    return {top: [ConfigurationError(text, advice=fix) for text, fix in lines.items()] for top, lines in found.items()}


_PLAIN_WORDS = {
    "Value error, ": "",
    "Assertion failed, ": "",
    "Input should be": "must be",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "text",
    "a valid tuple": "a list, such as [0, 1]",
    "a valid dictionary": "keys and values (key: value)",
    "a valid mapping": "keys and values (key: value)",
    "an instance of Path": "a path",
}


def _in_plain_words(message: str) -> str:
    """Pydantic's message in plain words, without its type names."""
    for words, ours in _PLAIN_WORDS.items():
        message = message.replace(words, ours)
    return message
