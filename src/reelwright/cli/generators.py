"""Implements ``reel generators``: lists the generators, their capabilities, and why one is unavailable."""

from __future__ import annotations

import argparse
from typing import Any

from .arguments import add_config_arguments, settings_from
from .output import cell, console, print_json, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("generator", nargs="?", metavar="NAME", help="only this one, with its capabilities")
    add_config_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print one generator or all."""
    from .. import backends
    from ..core.errors import ConfigurationError

    settings = settings_from(arguments)
    names = (arguments.generator,) if arguments.generator else backends.names()
    entries = []
    for name in names:
        try:
            entries.append(_entry(name, settings))
        except ConfigurationError as error:
            if arguments.generator:
                raise
            entries.append({"name": name, "available": False, "reason": error.message, "capabilities": {}})
    if arguments.json:
        print_json(entries[0] if arguments.generator else entries)
    else:
        _show(entries, with_capabilities=bool(arguments.generator))
    return 0


def _entry(name: str, settings: Any) -> dict[str, Any]:
    from ..api import create_video_generator

    generator = create_video_generator(name, settings)
    reasons = generator.unavailable_because()
    return {
        "name": name,
        "title": generator.backend.title,
        "generative": generator.backend.generative,
        "available": not reasons,
        "reason": "; ".join(reasons),
        "capabilities": generator.get_capabilities(),
    }


def _show(entries: list[dict[str, Any]], *, with_capabilities: bool) -> None:
    out = console()
    rows = table("generator", "what it is", "here")
    for entry in entries:
        rows.add_row(
            cell(entry["name"]),
            cell(entry.get("title", "")),
            cell("available" if entry["available"] else f"no: {entry['reason']}"),
        )
    out.print(rows)
    if with_capabilities:
        for key, value in entries[0]["capabilities"].items():
            out.print(cell(f"{key}: {value}"))
