"""Implements ``reel help [COMMAND]``: prints the same text as ``reel COMMAND --help``."""

from __future__ import annotations

import argparse

from .output import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("topic", nargs="*", metavar="COMMAND", help="such as: generate, or storyboard check")


def run(arguments: argparse.Namespace) -> int:
    """Print the help of the program or of one command."""
    from . import build_parser
    from .parser import no_such, subcommands

    parser: argparse.ArgumentParser = build_parser()
    for word in arguments.topic:
        below = subcommands(parser)
        if word not in below:
            raise no_such(word, list(below))
        parser = below[word]
    if arguments.json:
        print_json({"command": parser.prog, "help": parser.format_help()})
    else:
        parser.print_help()
    return 0
