"""Implements ``reel storyboard``: writes an example, checks a storyboard, or prints the schema for editors."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import add_config_arguments, add_json_argument, settings_from
from .output import note, print_json, print_lines

if TYPE_CHECKING:
    from ..films.planning import Planned
    from ..films.storyboard import Storyboard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    init = actions.add_parser("init", help="write an example to start from")
    init.add_argument(
        "storyboard", type=Path, nargs="?", default=Path("film.yaml"), metavar="FILM.yaml", help="default: film.yaml"
    )
    add_json_argument(init)
    check = actions.add_parser("check", help="list mistakes, or the clips that the film needs")
    check.add_argument("storyboard", type=Path, metavar="FILM.yaml", help="storyboard (YAML)")
    check.add_argument("--draft", action="store_true", help="check it for a draft")
    add_config_arguments(check)
    add_json_argument(check)
    schema = actions.add_parser("schema", help="print the JSON Schema that editors use")
    schema.add_argument("--json", action="store_true", help="no change: the schema is JSON")


def run(arguments: argparse.Namespace) -> int:
    """Carry out the action."""
    if arguments.action == "init":
        return _init(arguments.storyboard, as_json=arguments.json)
    if arguments.action == "schema":
        from ..films.storyboard import json_schema

        print(json.dumps(json_schema(), indent=1))
        return 0
    return _check(arguments)


def _init(path: Path, *, as_json: bool) -> int:
    from ..core.errors import Failure, InvalidInputError
    from ..core.files import path_error, shown
    from ..films.storyboard import EXAMPLE

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(EXAMPLE)
    except FileExistsError:
        text = f"{shown(path)} exists already"
        raise InvalidInputError(text, failure=Failure.EXISTS, advice="Give another name.") from None
    except (OSError, ValueError) as error:
        raise path_error(error, path, "be written") from None
    print_json({"output": str(path)}) if as_json else print_lines(str(path))
    note(f"put your pictures beside it, then: reel film {shlex.quote(str(path))} --draft")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from ..films.joinable import join_findings
    from ..films.planning import raise_for
    from ..films.render import FilmOrder, plan_film
    from ..films.store import Store
    from ..films.storyboard import load_storyboard
    from ..sites.local.site import LocalSite

    board, settings = load_storyboard(arguments.storyboard), settings_from(arguments)
    folder = Path(arguments.storyboard).absolute().parent
    order = FilmOrder(board, settings, folder / "film.mp4", arguments.storyboard, draft=arguments.draft)
    planner, planned = plan_film(order, Store(folder), LocalSite())
    found = (*join_findings(order, planned), *planner.findings(planned))
    raise_for(found)
    rows = [_understood(item, order.board) for item in planned]
    if arguments.json:
        print_json(rows)
        return 0
    print_lines(*map(_line, rows))
    for item in found:
        if item.finding.severity == "warning":
            note(f"warning: {item.message}")
    print_lines("ok")
    note(f"next: reel film {shlex.quote(str(arguments.storyboard))}" + (" --draft" if arguments.draft else ""))
    return 0


def _understood(item: Planned, board: Storyboard) -> dict[str, Any]:
    """A clip as Reelwright understood it: the request, with the length and size that the generator makes."""
    segment, request, expected = item.segment, item.segment.request, item.plan.expected
    return {
        "segment": segment.id,
        "shot": segment.shot,
        "prompt": request.prompt,
        "generator": item.backend.name,
        "image": None if segment.upstream or request.image is None else str(request.image),
        "last_image": str(request.last_image) if request.last_image else None,
        "goes_on_from": segment.upstream,
        "frames": expected.num_frames if expected else request.num_frames,
        "seconds": round(expected.seconds, 3) if expected else None,
        "fps": expected.fps if expected else request.fps,
        "size": f"{expected.width}x{expected.height}" if expected else str(board.frame),
        "camera": request.camera,
        "seed": request.seed,
        "dissolve": segment.dissolve,
    }


def _line(row: Mapping[str, Any]) -> str:
    begin = f"continues {row['goes_on_from']}" if row["goes_on_from"] else "no picture"
    begin = f"from {Path(row['image']).name}" if row["image"] else begin
    end = f" to {Path(row['last_image']).name}" if row["last_image"] else ""
    more = [f"camera {row['camera']}"] if row["camera"] else []
    more += [f"dissolve of {row['dissolve']} frames"] if row["dissolve"] else []
    length = f"{row['frames']} frames" + (f" ({row['seconds']:g} s)" if row["seconds"] else "")
    return ", ".join(
        [f'{row["segment"]}: "{row["prompt"]}"', begin + end, length, row["size"], *more, row["generator"]]
    )
