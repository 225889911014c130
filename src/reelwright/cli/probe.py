"""``reel probe``: decode any video completely and say what is in it and what is wrong with it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .arguments import add_json_argument, existing, printable


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser("probe", help="verify any video and say what is in it")
    parser.add_argument("video", type=Path, metavar="VIDEO")
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the facts; exit status 25 (OUTPUT) if the video is not whole."""
    from ..errors import Failure
    from ..media.examination import examine

    facts = examine(existing(arguments.video), apart=True)
    if arguments.json:
        print(json.dumps(facts, ensure_ascii=False))
    else:
        for name, value in facts.items():
            if name not in ("problems", "warnings"):
                print(printable(f"{name}: {value}"))
        for kind in ("warnings", "problems"):
            for text in facts[kind]:
                print(printable(f"{kind.removesuffix('s')}: {text}"))
        print("not a whole video" if facts["problems"] else "ok: decoded completely")
    return Failure.OUTPUT.exit_status if facts["problems"] else 0
