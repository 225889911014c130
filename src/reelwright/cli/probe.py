"""Implements ``reel probe``: decodes any video completely and prints its facts and its faults."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .arguments import existing
from .output import print_json, print_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("video", type=Path, metavar="VIDEO", help="any video")


def run(arguments: argparse.Namespace) -> int:
    """Print the facts; the exit status is 25 (OUTPUT) if the video is not complete."""
    from ..core.errors import Failure
    from ..media.verification import examine

    path = existing(arguments.video)
    facts = examine(path, apart=True)
    looks = looks_like(path, facts["problems"])
    is_still = looks.endswith(" picture") and not looks.endswith("GIF picture")
    if arguments.json:
        print_json(facts)
    elif is_still or not (facts.get("codec") or facts.get("container")):
        print_lines(f"{path} is not a video: {looks}")
    else:
        verdict = "not a complete video" if facts["problems"] else "ok: decoded completely"
        print_lines(*_lines(facts), verdict)
    return Failure.OUTPUT.exit_status if facts["problems"] else 0


def looks_like(path: Path, problems: Sequence[str]) -> str:
    """A short description of a file that no video reader opens."""
    from ..core.files import read_start
    from ..media.picture_file import recognised

    try:
        start = read_start(path, 4096)
    except OSError:
        return problems[0]
    return recognised(path, start) if start else problems[0]


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    from ..media.video_facts import CODECS, VideoFacts

    known = VideoFacts.from_json(facts)
    names = {**facts, "codec": CODECS.get(known.codec, known.codec)}
    names["colour"] = ", ".join(f"{name} {value}" for name, value in known.colour.items() if value)
    if known.shown[0] == known.width:
        del names["pixel_aspect"]  # square pixels, the usual case
    else:
        names["pixel_aspect"] = f"{known.pixel_aspect} (SAR): players show {known.shown[0]}x{known.shown[1]}"
    if known.trimmed:
        names["trimmed"] = f"an edit list hides {known.trimmed} more stored frames"
    for name, value in names.items():
        if name not in ("problems", "warnings", "differences") and value not in ("", None, {}, 0):
            yield f"{name}: {value}"
    for kind in ("warnings", "problems"):
        yield from (f"{kind.removesuffix('s')}: {text}" for text in facts[kind])
