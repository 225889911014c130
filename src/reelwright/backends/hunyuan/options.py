"""The checks of the documented ``config_file``, a YAML of flags without dashes, before a flag reaches a script.

``infer_steps``, ``infer-steps`` and ``--infer-steps`` mean the same. Settings and requests outrank the file's steps,
frames, size, guidance and shift; its other options become flags. `sites.local.probes.host` reads the file
(`core.host.OptionsFile`); this module opens no file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.errors import guess
from ...core.host import OptionsFile
from ...core.plan import Finding
from ...core.request import Size
from .members import DECIDED
from .record import Member, Option

_LONGEST = 20_000  # characters; one word of a command line holds 131,071 bytes
_WHOLE = ("steps", "num_frames")


@dataclass(frozen=True)
class FileOptions:
    """The effective parameters and further flags of a file, and findings about its mistakes."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def read_options(member: Member, path: Path | None, file: OptionsFile | None) -> FileOptions:
    """Read the file's options for a member; a wrong option becomes a finding and is left out."""
    if path is None or not member.options:
        return FileOptions()
    if file is None or file.problem:
        text = (file.problem if file else None) or f"{path} was not read"
        return FileOptions(findings=(_wrong(f"config_file: {text}", "Correct the file, or unset config_file."),))
    parameters: dict[str, Any] = {}
    flags: dict[str, Any] = {}
    findings: list[Finding] = []
    for key, value in file.values.items():
        name = key.removeprefix("--").replace("-", "_")
        place = f"{path}:{file.lines[key]}" if key in file.lines else str(path)
        problem = list(_problems(member, name, value))
        findings += [_wrong(f"{place}: {text}", fix) for text, fix in problem]
        if problem:
            continue
        if name in member.parameters:
            parameters[member.parameters[name]] = _parameter(member.parameters[name], value)
        else:
            flags[name] = value
    return FileOptions(parameters, flags, tuple(findings))


def _problems(member: Member, name: str, value: Any) -> Iterator[tuple[str, str]]:
    if name in DECIDED:
        yield f"{name} is not chosen in config_file", DECIDED[name]
    elif name in member.parameters:
        wanted = _wanted_parameter(member.parameters[name], value)
        if wanted:
            yield f"{name} must be {wanted}, not {value!r}", "Correct it, or leave it out."
    elif name not in member.options:
        known = (*member.options, *member.parameters)
        yield (
            f"{member.title} has no option named {name!r} that can be set",
            guess(name, known) or f"Known: {', '.join(known)}.",
        )
    else:
        wanted = _wanted(member.options[name], value)
        if wanted:
            yield f"{name} must be {wanted}, not {value!r}", "Correct it, or leave it out."


def _wanted(option: Option, value: Any) -> str | None:
    """The kind of value that an option takes; ``None`` if ``value`` is one."""
    if option.choices:
        return None if value in option.choices else f"one of {', '.join(option.choices)}"
    right = {
        "flag": isinstance(value, bool),
        "switch": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": _is_number(value),
        "text": isinstance(value, str) and "\0" not in value and len(value) <= _LONGEST,
    }[option.kind]
    words = {"flag": "true or false", "switch": "true or false", "int": "a whole number", "float": "a number"}
    return None if right else words.get(option.kind, "text")


def _wanted_parameter(parameter: str, value: Any) -> str | None:
    if parameter == "size":
        right = isinstance(value, list) and len(value) == 2 and all(_is_whole(item, 1) for item in value)
        return None if right else "height and width, such as [720, 1280]"
    if parameter == "super_resolution":
        return None if isinstance(value, bool) else "true or false"
    if parameter in _WHOLE:
        return None if _is_whole(value, 1) else "a whole number above 0"
    return None if _is_number(value) and value >= 0 else "a number from 0"


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _parameter(name: str, value: Any) -> Any:
    return str(Size(value[1], value[0])) if name == "size" else value


def _wrong(message: str, fix: str) -> Finding:
    return Finding("config_file", "error", message, fix)
