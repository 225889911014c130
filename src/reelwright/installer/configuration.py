"""Writes the settings of an installation into a configuration file; an existing file is never changed.

>>> text_of({"wan2_dir": "/opt/wan/Wan2.1"})
'wan2_dir: /opt/wan/Wan2.1\\n'
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from ..config.loading import default_config
from ..config.yamlfile import read_yaml
from ..core.files import expanded
from ..runs.workspace import FileSystem
from . import SetupOrder, SetupPart

NAME = "configuration"
_HEAD = "# Written by `reel setup {name}`. Every setting is shown by `reel config`.\n"


def target_of(order: SetupOrder, environ: Mapping[str, str]) -> Path:
    """The file of ``--config``, or the user's own configuration file."""
    return expanded(order.config or default_config(environ)).absolute()


def text_of(settings: Mapping[str, str]) -> str:
    """The settings as YAML."""
    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True, width=10_000)


def lacking(order: SetupOrder, environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that the file lacks, or holds with another value.

    Raises:
        ConfigurationError: the file exists and cannot be read.
    """
    target = target_of(order, environ)
    held = read_yaml(target).values if target.exists() else {}
    return {key: value for key, value in order.settings().items() if str(held.get(key)) != value}


def look_at(order: SetupOrder, environ: Mapping[str, str]) -> SetupPart:
    """The state of the configuration file."""
    target = target_of(order, environ)
    left = lacking(order, environ)
    note = "exists and will not be changed; the lines to add will be shown" if left and target.exists() else ""
    return SetupPart(NAME, target, "reel setup", not left, note=note)


def write(order: SetupOrder, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Write the file if it does not exist; otherwise return the lines that the user must add to it."""
    left, target = lacking(order, environ), target_of(order, environ)
    if not left:
        return ()
    if target.exists():
        return tuple(text_of(left).splitlines())
    target.parent.mkdir(parents=True, exist_ok=True)
    private = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        private.write_text(_HEAD.format(name=order.recipe.name) + text_of(order.settings()), "utf-8")
        FileSystem().move(private, target, replace=False)
    except FileExistsError:
        return tuple(text_of(left).splitlines())
    finally:
        with contextlib.suppress(OSError):
            private.unlink()
    return ()
