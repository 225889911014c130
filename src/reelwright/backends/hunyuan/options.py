"""The checks of the documented ``config_file``, a YAML of flags without dashes, before a flag reaches a script.

``infer_steps``, ``infer-steps`` and ``--infer-steps`` mean the same. Settings and requests outrank the file's steps,
frames, size, guidance and shift; its other options become flags. `sites.local.probes.host` reads the file
(`core.host.OptionsFile`); this module opens no file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.errors import guess
from ...core.host import OptionsFile
from ...core.plan import Finding
from ...core.request import Size
from .members import DECIDED
from .record import Member

_LONGEST = 20_000  # characters; one word of a command line holds 131,071 bytes


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
        parameter = member.parameters.get(name)
        if parameter:
            parameters[parameter] = str(Size(value[1], value[0])) if parameter == "size" else value
        else:
            flags[name] = value
    return FileOptions(parameters, flags, tuple(findings))


def _problems(member: Member, name: str, value: Any) -> Iterator[tuple[str, str]]:
    if name in DECIDED:
        yield f"{name} is not chosen in config_file", DECIDED[name]
    elif name not in member.parameters and name not in member.options:
        known = (*member.options, *member.parameters)
        text = f"{member.title} has no option named {name!r} that can be set"
        yield text, guess(name, known) or f"Known: {', '.join(known)}."
    else:
        option = member.options.get(name)
        choices = option.choices if option else ()
        wanted, fits = _KINDS[option.kind if option else member.parameters[name]]
        if choices:
            wanted, fits = f"one of {', '.join(choices)}", choices.__contains__
        if not fits(value):
            yield f"{name} must be {wanted}, not {value!r}", "Correct it, or leave it out."


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value and len(value) <= _LONGEST


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value > 0


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))


#: What the value of an option of a kind, or of an effective parameter, must be, and the check.
_KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("flag", "switch", "super_resolution"), ("true or false", _is_bool)),
    "int": ("a whole number", _is_whole),
    "float": ("a number", _is_number),
    "text": ("text", _is_text),
    "size": ("height and width, such as [720, 1280]", _is_size),
    **dict.fromkeys(("steps", "num_frames"), ("a whole number above 0", _is_count)),
    **dict.fromkeys(
        ("guidance_scale", "flow_shift"), ("a number from 0", lambda value: _is_number(value) and value >= 0)
    ),
}


def _wrong(message: str, fix: str) -> Finding:
    return Finding("config_file", "error", message, fix)
