"""``reel contact-sheet``: one PNG with evenly spaced frames of a video."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .arguments import add_json_argument, existing, printable


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser("contact-sheet", help="make one picture of evenly spaced frames")
    parser.add_argument("video", type=Path, metavar="VIDEO")
    parser.add_argument("-o", "--output", type=Path, metavar="SHEET.png", help="default: beside the video")
    parser.add_argument("--count", type=int, default=9, metavar="N", help="number of frames")
    parser.add_argument("--columns", type=int, default=3, metavar="N", help="frames per row")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing picture")
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the sheet and print its path."""
    from ..core.errors import InvalidInputError, OutputError, all_of
    from ..media.sheet import contact_sheet
    from ..runs.output_paths import check_picture, refuse_inputs
    from .probe import looks_like

    video = existing(arguments.video)
    target = arguments.output or video.with_name(video.stem + ".sheet.png")
    found = [
        InvalidInputError(f"{option} must be at least 1, not {number}")
        for option, number in (("--count", arguments.count), ("--columns", arguments.columns))
        if number < 1
    ]
    if found:
        raise all_of(found)
    refuse_inputs({"the sheet": target}, {"its own video": video})
    check_picture(target, (".png",), overwrite=arguments.overwrite)
    try:
        contact_sheet(video, target, columns=arguments.columns, count=arguments.count)
    except OutputError as error:
        raise InvalidInputError(f"{video} is not a video: {looks_like(video, error.evidence)}") from None
    if arguments.json:
        print(json.dumps({"output": str(target), "video": str(video)}))
    else:
        print(printable(str(target)))
    return 0
