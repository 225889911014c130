"""Implements ``reel config``: prints every effective setting, its source and its meaning."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from .arguments import add_config_arguments, settings_from
from .output import cell, console, note, print_json, table

if TYPE_CHECKING:
    from ..config.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_config_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the settings; of ``env`` only the names are printed, because its values may be secrets."""
    settings = settings_from(arguments)
    rows = [_row(settings, key) for key in type(settings).model_fields]
    rows += _rows_of_packages(settings)
    if arguments.json:
        print_json(rows)
        return 0
    lines = table("setting", "value", "from", "meaning")
    lines.columns[0].no_wrap = True
    for row in rows:
        shown = "-" if row["value"] is None else str(row["value"])
        style = "" if row["origin"] == "default" else "bold"
        lines.add_row(cell(row["key"], style), cell(shown, style), cell(row["origin"]), cell(row["description"]))
    console().print(lines)
    for text in settings.notes:
        note(f"note: {text}")
    return 0


def _rows_of_packages(settings: Settings) -> list[dict[str, Any]]:
    """A row for each key of generators from other packages, as ``generators.NAME.KEY``."""
    from ..backends import GENERATORS, names
    from ..config.settings import Settings as Shared

    rows = []
    for name in names():
        model = None if name in GENERATORS else settings.model_of(name)
        if model is not None:
            own = settings.for_generator(name)
            keys = [key for key in model.model_fields if key not in Shared.model_fields]
            rows += [{**_row(own, key), "key": f"generators.{name}.{key}"} for key in keys]
    return rows


def _row(settings: Settings, key: str) -> dict[str, Any]:
    description = type(settings).model_fields[key].description or ""
    return {"key": key, "value": settings.shown(key), "origin": settings.origin(key), "description": description}
