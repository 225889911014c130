"""Implements ``reel setup``: fetches a framework, its interpreter and its weights, resumably.

It is the only command that downloads.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import Cancelled, Failure
from ..core.files import expanded, home
from .output import cell, console, note, print_json, table

if TYPE_CHECKING:
    from ..installer import Installation, SetupOrder, SetupOutcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("framework", metavar="FRAMEWORK", help="wan2.1")
    parser.add_argument("--models", metavar="LIST", help="weights to fetch, such as i2v-720p,flf2v (default i2v-720p)")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="folder for everything")
    parser.add_argument("--dry-run", action="store_true", help="show what exists, what is missing and its size")
    parser.add_argument("--verify", action="store_true", help="also check the hashes of weights that exist")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file to write, unless it exists")
    what = parser.add_argument_group("the framework's environment")
    what.add_argument("--python", type=Path, metavar="EXE", help="Python to make it with")
    what.add_argument("--flash-attn", action="store_true", help="install flash-attn, else PyTorch's attention is used")
    what.add_argument("--multi-gpu", action="store_true", help="install what several GPUs need (xfuser)")
    what.add_argument("--pip-option", action="append", default=[], metavar="OPT", help="option for pip (repeatable)")
    where = parser.add_argument_group("where things come from")
    where.add_argument("--git-source", metavar="URL|PATH", help="the framework's repository")
    where.add_argument("--commit", metavar="COMMIT", help="its commit, or latest (default: the tested one)")
    where.add_argument("--weights-source", metavar="URL|PATH", help="a hub, or a folder that holds the models' folders")


def run(arguments: argparse.Namespace) -> int:
    """Plan the installation and print the plan; carry it out unless it is a dry run."""
    from ..installer.planning import look
    from ..installer.steps import carry_out
    from ..installer.weight_sources import weights_source
    from .progress import setup_listener

    order = order_from(arguments)
    source = weights_source(order.sources.weights, order.recipe.unwanted)
    installation = look(order, source, os.environ)
    if arguments.dry_run:
        print_json(installation.to_json()) if arguments.json else _show(installation)
        return next((space.obstacle.exit_status for space in installation.spaces if space.obstacle), 0)
    if not arguments.json:
        _show(installation)
    try:
        with setup_listener() as listen:
            outcome = carry_out(installation, source, os.environ, listen)
    except KeyboardInterrupt:
        raise Cancelled("Stopped; the fetched files are kept. Run the same command again to continue.") from None
    if arguments.json:
        print_json(outcome.to_json())
    else:
        _close(outcome)
    return 0


def order_from(arguments: argparse.Namespace) -> SetupOrder:
    """The order that the arguments describe.

    Raises:
        ConfigurationError: a framework or model is unknown.
    """
    from ..installer import SetupOrder, Sources
    from ..installer.recipes import find_models, find_recipe

    recipe = find_recipe(arguments.framework)
    directory = arguments.dir or default_directory() / recipe.name
    return SetupOrder(
        recipe=recipe,
        models=find_models(recipe, arguments.models),
        directory=expanded(directory).absolute(),
        sources=Sources(arguments.git_source, arguments.weights_source, tuple(arguments.pip_option)),
        commit=arguments.commit,
        python=arguments.python,
        flash_attention=arguments.flash_attn,
        multi_gpu=arguments.multi_gpu,
        verify=arguments.verify,
        config=arguments.config,
    )


def default_directory() -> Path:
    """The default folder: ``$XDG_DATA_HOME/reelwright``, else ``~/.local/share/reelwright``."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else home() / ".local" / "share") / "reelwright"


def _show(installation: Installation) -> None:
    from ..installer.planning import gigabytes

    parts = table("part", "to fetch", "there", "from")
    for column in parts.columns[:3]:
        column.no_wrap = True
    known = {"table": " (known size)", "estimate": " (about)"}
    for part in installation.parts:
        size = "-" if part.done else gigabytes(part.todo_bytes) + known.get(part.origin, "")
        size = "to write" if not part.done and not part.todo_bytes else size
        there = gigabytes(part.there_bytes) if part.there_bytes else ("yes" if part.done else "-")
        parts.add_row(part.name, size, there, cell("; ".join(filter(None, (part.source, part.note)))))
    out = console()
    out.print(parts)
    out.print(cell(f"everything goes into {installation.order.directory}"))
    for space in installation.spaces:
        free = "unknown" if space.free_bytes is None else gigabytes(space.free_bytes)
        verdict = {None: "enough", Failure.DISK: "NOT ENOUGH", Failure.PERM: "NOT WRITABLE"}[space.obstacle]
        out.print(cell(f"{space.folder}: {gigabytes(space.need_bytes)} to come, {free} free: {verdict}"))


def _close(outcome: SetupOutcome) -> None:
    """Print the changes, and the next command."""
    for warning in outcome.warnings:
        note(f"warning: {warning}")
    if outcome.config_lines:
        note(f"{outcome.config} exists and was not changed; add these lines to it:")
        for line in outcome.config_lines:
            note(f"  {line}")
    if outcome.changed:
        note(f"done: {', '.join(outcome.changed)}")
    else:
        note("nothing was missing; nothing was changed")
    note("next: reel doctor")
