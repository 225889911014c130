"""Implements ``reel doctor``: checks the machine and the configuration for every generator, and prints fixes."""

from __future__ import annotations

import argparse
from typing import Any

from .arguments import add_config_arguments, add_setting_options, settings_from
from .output import cell, console, note, print_json, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_setting_options(parser, "simulate_gpus", "simulate_memory")
    add_config_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print every check; the exit status is that of the first error of a configured generator, else 0.

    It first ends processes that killed runs have left on the GPUs: otherwise they stay until the next run.
    """
    from ..doctor import check_all
    from ..sites.local.dead_runs import sweep_dead_runs
    from ..sites.local.site import LocalSite

    settings = settings_from(arguments)
    for run_id in sweep_dead_runs():
        note(f"ended the leftover processes of the killed run {run_id}")
    rows = check_all(settings, LocalSite())
    if arguments.json:
        print_json([row.to_json() for row in rows])
    else:
        _show(rows)
        for text in settings.notes:
            note(f"note: {text}")
    errors = [row.finding for row in rows if row.matters and row.finding.severity == "error"]
    return errors[0].failure.exit_status if errors else 0


def _show(rows: Any) -> None:
    checks = table("part", "", "what was found", "fix")
    signs = {"error": ("error", "red"), "warning": ("warning", "yellow"), "info": ("ok", "green")}
    for row in rows:
        finding = row.finding
        matters = row.matters or finding.severity == "info"
        sign = cell(*signs[finding.severity]) if matters else cell("off", "dim")
        fix = "" if finding.severity == "info" else finding.fix
        checks.add_row(cell(row.part), sign, cell(finding.message), cell(fix))
    console().print(checks)
