"""Implements ``reel contact-sheet``: writes one PNG with evenly spaced frames of a video."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..core.errors import InvalidInputError, OutputError, all_of
from .arguments import existing
from .output import print_json, print_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("video", type=Path, metavar="VIDEO", help="any video")
    parser.add_argument("-o", "--output", type=Path, metavar="SHEET.png", help="default: beside the video")
    parser.add_argument("--count", type=int, default=9, metavar="N", help="number of frames (default 9)")
    parser.add_argument("--columns", type=int, default=3, metavar="N", help="frames per row (default 3)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing picture")


def run(arguments: argparse.Namespace) -> int:
    """Write the sheet and print its path."""
    from ..media.sheet import contact_sheet
    from ..runs.output_paths import check_picture, refuse_inputs
    from .probe import looks_like

    video = existing(arguments.video)
    target = arguments.output or video.with_name(video.stem + ".sheet.png")
    numbers = {"--count": arguments.count, "--columns": arguments.columns}
    wrong = [
        InvalidInputError(f"{name} must be at least 1, not {value}") for name, value in numbers.items() if value < 1
    ]
    if wrong:
        raise all_of(wrong)
    refuse_inputs({"the sheet": target}, {"its own video": video})
    check_picture(target, (".png",), overwrite=arguments.overwrite)
    try:
        contact_sheet(video, target, columns=arguments.columns, count=arguments.count)
    except OutputError as error:
        raise InvalidInputError(f"{video} is not a video: {looks_like(video, error.evidence)}") from None
    if arguments.json:
        print_json({"output": str(target), "video": str(video)})
    else:
        print_lines(str(target))
    return 0
