"""``reel film``: a storyboard becomes a film; ``reel film status`` and ``reel film gc`` look after its clips."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import VideoGenerationError, all_of
from .arguments import (
    add_config_arguments,
    add_json_argument,
    add_simulation_arguments,
    note,
    printable,
    read_settings_from,
    settings_from,
)

if TYPE_CHECKING:
    from ..films.assembly import FilmResult
    from ..films.render import FilmOrder

_WHICH = ("output", "draft", "only", "start", "config", "assignments", "json")
_HOW = ("parallel", "keep_going", "overwrite", "gpus", "simulate_gpus", "simulate_memory")
_LOWER = ("strict_quality", "allow_degrade")
#: The options that each way of calling ``reel film`` uses; it refuses all others.
USED: Mapping[str, tuple[str, ...]] = {
    "reel film": (*_WHICH, *_HOW, *_LOWER),
    "reel film --draft": (*_WHICH, *_HOW),
    "reel film --dry-run": (*_WHICH, *_HOW, *_LOWER, "dry_run"),
    "reel film --watch": (*_WHICH, *_HOW, "watch"),
    "reel film status": ("target", *_WHICH),
    "reel film gc": ("target", "yes", "grace", "dry_run", "config", "assignments", "json"),
}
#: Settings for single clips, and the key of a storyboard that says the same of a film.
_OF_THE_STORYBOARD = {
    "size": "size",
    "fps": "fps",
    "frame_num": "frames (of a shot, or in defaults)",
    "base_seed": "seed",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser("film", help="make a film from a storyboard; goes on where it stopped")
    parser.add_argument("storyboard", metavar="STORYBOARD", help="storyboard (YAML); or: status, gc")
    parser.add_argument("target", nargs="?", type=Path, metavar="FILE", help="with status: STORYBOARD; with gc: folder")
    parser.add_argument("-o", "--output", type=Path, metavar="FILM.mp4", help="where the film goes")
    parser.add_argument(
        "--dry-run", action="store_true", help="show the film's plan and run nothing; with gc: only list"
    )
    parser.add_argument("--draft", action="store_true", help="on the CPU, with the same clips, lengths and joints")
    parser.add_argument("--only", nargs="+", metavar="SHOT", help="only these shots")
    parser.add_argument("--from", dest="start", metavar="SHOT", help="only this shot and those after it")
    parser.add_argument("--watch", action="store_true", help="make the draft again whenever the storyboard is saved")
    how = parser.add_argument_group("how it is made")
    how.add_argument("--parallel", type=int, metavar="N", help="clips at the same time (parallel_segments)")
    how.add_argument("--keep-going", action="store_true", help="join what there is although a shot failed")
    how.add_argument("--overwrite", action="store_true", help="replace files that are not this film's own")
    how.add_argument("--gpus", metavar="N|LIST", help="how many GPUs, or which (0,1)")
    add_simulation_arguments(how)
    how.add_argument("--strict-quality", action="store_true", help="never lower quality to succeed")
    how.add_argument("--allow-degrade", metavar="frames,size", help="what a retry may lower")
    garbage = parser.add_argument_group("reel film gc")
    garbage.add_argument("--yes", action="store_true", help="remove what is listed")
    garbage.add_argument("--grace", type=float, metavar="DAYS", help="keep what was used in the last DAYS (default 14)")
    add_config_arguments(parser)
    add_json_argument(parser)
    parser.set_defaults(run=run, check=check, options=_options_of(parser))


def run(arguments: argparse.Namespace) -> int:
    """Make the film, show its plan, or look after its clips."""
    way = _way(arguments)
    if way == "reel film gc":
        from .film_gc import collect

        return collect(arguments, _unused(arguments, way))
    if way == "reel film status":
        return _status(arguments)
    if way == "reel film --watch":
        if unused := [*_unused(arguments, way), *_settings_of_a_clip(arguments)]:
            raise all_of(unused)  # no save of the storyboard mends them
        return _watch(arguments)
    order = order_from(arguments, Path(arguments.storyboard))
    if way == "reel film --dry-run":
        from .film_plan import show_plan

        return show_plan(order, as_json=arguments.json)
    make_film(order, as_json=arguments.json)
    return 0


def _options_of(parser: argparse.ArgumentParser) -> dict[str, tuple[str, Any]]:
    """By its name in a namespace: what a person writes for an option, and its value where it is not given."""
    actions = (action for action in parser._actions if action.dest not in ("help", "storyboard"))
    return {action.dest: ((action.option_strings or ["FILE"])[-1], action.default) for action in actions}


def _way(arguments: argparse.Namespace) -> str:
    if arguments.storyboard in ("gc", "status"):
        return f"reel film {arguments.storyboard}"
    if arguments.watch:
        return "reel film --watch"
    if arguments.dry_run:
        return "reel film --dry-run"
    return "reel film --draft" if arguments.draft else "reel film"


def _unused(arguments: argparse.Namespace, way: str) -> list[VideoGenerationError]:
    """Every option that was given and has no effect here: none is accepted and then not used."""
    from ..core.errors import InvalidInputError

    found: list[VideoGenerationError] = []
    for name, (text, default) in arguments.options.items():
        if getattr(arguments, name) == default or name in USED[way]:
            continue
        ways = [f"`{other}`" for other, names in USED.items() if name in names and other != "reel film --dry-run"]
        message, fix = f"{text} has no effect with `{way}`", f"Leave {text} out; it is for {', '.join(ways)}."
        if name == "target":
            given = f"{arguments.storyboard} {arguments.target}"
            message = f"`reel film` makes one storyboard into a film, and two files are named: {given}"
            fix = "Write one storyboard, or `reel film status FILM.yaml` or `reel film gc FOLDER`."
        found.append(InvalidInputError(message, advice=fix))
    return found


def order_from(arguments: argparse.Namespace, source: Path) -> FilmOrder:
    """The whole order; without ``-o`` the film is named after the storyboard (and ``.draft.mp4`` for a draft).

    Raises:
        VideoGenerationError: an option without effect, a setting or a storyboard that cannot be used; ``also`` holds
            every other mistake.
    """
    from ..films.render import FilmOrder
    from ..films.storyboard import load_storyboard

    settings, misread = read_settings_from(arguments)
    found = [*_unused(arguments, _way(arguments)), *_settings_of_a_clip(arguments), *misread]
    try:
        board = load_storyboard(source)
    except VideoGenerationError as error:
        raise all_of([*found, error]) from None
    name = f"{source.stem}.draft.mp4" if arguments.draft or arguments.watch else f"{source.stem}.mp4"
    order = FilmOrder(
        board=board,
        settings=settings,
        output=arguments.output or (settings.output_dir or source.parent) / name,
        source=source.absolute(),
        draft=arguments.draft or arguments.watch,
        only=tuple(arguments.only or ()),
        start=arguments.start,
        keep_going=arguments.keep_going,
    )
    if found:
        raise all_of([*found, *([] if misread else _of_the_plan(order))])
    return order


def _of_the_plan(order: FilmOrder) -> list[VideoGenerationError]:
    from ..films.preview import preview
    from ..sites.local.site import LocalSite

    try:
        return [item.as_error() for item in preview(order, LocalSite()).errors]
    except VideoGenerationError as error:
        return [error]


def check(arguments: argparse.Namespace) -> None:
    """Say everything that is wrong with a film of which some words were not understood.

    Raises:
        VideoGenerationError: as `order_from`, or what stands in the way of the film.
    """
    source = arguments.target if arguments.storyboard == "status" else arguments.storyboard
    if source is None or arguments.storyboard == "gc":
        settings_from(arguments)
    elif found := _of_the_plan(order_from(arguments, Path(source))):
        raise all_of(found)


def _settings_of_a_clip(arguments: argparse.Namespace) -> list[VideoGenerationError]:
    """Every ``--set`` of something that the storyboard says for a film."""
    from ..core.errors import InvalidInputError

    found: list[VideoGenerationError] = []
    for text in arguments.assignments:
        key = text.partition("=")[0].strip()
        if key in _OF_THE_STORYBOARD:
            fix = f"Write it into the storyboard, as {_OF_THE_STORYBOARD[key]}."
            found.append(
                InvalidInputError(f"--set {text} has no effect on a film: its storyboard says that", advice=fix)
            )
    return found


def make_film(order: FilmOrder, *, as_json: bool, tell: bool = True) -> FilmResult:
    """Make a film with progress; also used by ``reel replay``, which tells the result itself (see `tell_film`)."""
    from ..films.assembly import film
    from ..sites.cancellation import Cancellation
    from .film_progress import film_listener
    from .generate import signals
    from .streams import watched

    cancellation = Cancellation()
    with signals(cancellation), film_listener(as_json=as_json) as listen:
        result = film(order, watched(listen), cancellation)
    if tell:
        tell_film(result, as_json=as_json)
    return result


def tell_film(result: FilmResult, *, as_json: bool, more: Mapping[str, Any] | None = None) -> None:
    """The last words: the result object (with ``more`` in it) as the last line of JSON, or the film's path."""
    from ..core.plan import counted

    if as_json:
        print(json.dumps({**result.to_json(), **(more or {})}), flush=True)
        return
    for warning in result.warnings:
        note(f"warning: {warning}")
    if not result.generative:
        note("note: this is a draft, an animatic made by moving still pictures; no model has generated anything")
    made, stored = len(result.rendered), len(result.stored)
    note(f"{counted(made, 'clip')} made, {stored} from the store; {result.how}")
    for line in result.estimate:
        note(line)
    seconds = f"{result.seconds:.2f} s, {result.num_frames} frames at {result.fps:g} fps"
    note(f"{'unchanged' if result.unchanged else 'done'}: {result.width}x{result.height}, {seconds}")
    print(printable(str(result.output)), flush=True)


def _watch(arguments: argparse.Namespace) -> int:
    """Make the draft at every save; mistakes are told and waited out. Ends with Ctrl-C."""
    from ..core.errors import Cancelled

    source, seen = Path(arguments.storyboard), None
    with contextlib.suppress(KeyboardInterrupt):  # while something is made, Ctrl-C is a cancellation and not this
        while True:
            stamp = _stamp(source)
            if stamp == seen:
                time.sleep(0.2)  # no library is worth being told of one file
                continue
            seen = stamp
            try:
                make_film(order_from(arguments, source), as_json=arguments.json)
            except Cancelled:
                raise
            except VideoGenerationError as error:
                note(f"{error.code}: {error.message}")
                for line in error.evidence:
                    note(f"  | {line}")
            note(f"watching {source}; Ctrl-C ends it")
    return 0


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _status(arguments: argparse.Namespace) -> int:
    from ..core.errors import InvalidInputError
    from .film_plan import show_status

    if arguments.target is None:
        raise InvalidInputError("`reel film status` needs a storyboard", advice="reel film status FILM.yaml")
    return show_status(order_from(arguments, arguments.target), as_json=arguments.json)
