"""``reel storyboard``: write an example, check a storyboard, or print the schema for editors."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .arguments import add_config_arguments, add_json_argument, note, printable, settings_from


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser("storyboard", help="write, check or describe a storyboard")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    init = actions.add_parser("init", help="write an example to start from")
    init.add_argument("storyboard", type=Path, nargs="?", default=Path("film.yaml"), metavar="FILM.yaml")
    add_json_argument(init)
    check = actions.add_parser("check", help="say what is wrong, or which clips the film needs")
    check.add_argument("storyboard", type=Path, metavar="FILM.yaml")
    check.add_argument("--draft", action="store_true", help="as for a draft")
    add_config_arguments(check)
    add_json_argument(check)
    schema = actions.add_parser("schema", help="print the JSON Schema for editors")
    schema.add_argument("--json", action="store_true", help="the schema is JSON in any case")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do the action."""
    if arguments.action == "init":
        return _init(arguments.storyboard, as_json=arguments.json)
    if arguments.action == "schema":
        from ..films.storyboard import json_schema

        print(json.dumps(json_schema(), indent=1))
        return 0
    return _check(arguments)


def _init(path: Path, *, as_json: bool) -> int:
    from ..errors import Failure, InvalidInputError
    from ..files import path_error, shown
    from ..films.storyboard import EXAMPLE

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(EXAMPLE)
    except FileExistsError:
        text = f"{shown(path)} exists already"
        raise InvalidInputError(text, failure=Failure.EXISTS, advice="Give another name.") from None
    except (OSError, ValueError) as error:
        raise path_error(error, path, "be written") from None
    print(json.dumps({"output": str(path)}, ensure_ascii=False) if as_json else printable(str(path)))
    note("put your pictures beside it, then: reel film " + str(path) + " --draft")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from ..films.joinable import join_findings
    from ..films.planning import raise_for
    from ..films.render import FilmOrder, plan_film
    from ..films.store import Store
    from ..films.storyboard import load_storyboard

    board, settings = load_storyboard(arguments.storyboard), settings_from(arguments)
    folder = Path(arguments.storyboard).absolute().parent
    order = FilmOrder(board, settings, folder / "film.mp4", arguments.storyboard, draft=arguments.draft)
    planner, planned = plan_film(order, Store(folder))
    raise_for((*join_findings(order, planned), *planner.findings(planned)))
    rows = [
        {
            "segment": item.segment.id,
            "generator": item.backend.name,
            "frames": item.segment.request.num_frames,
            "goes_on_from": item.segment.upstream,
            "dissolve": item.segment.dissolve,
        }
        for item in planned
    ]
    if arguments.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        origin = f", goes on from {row['goes_on_from']}" if row["goes_on_from"] else ""
        print(printable(f"{row['segment']}: {row['frames']} frames by {row['generator']}{origin}"))
    print("ok")
    return 0
