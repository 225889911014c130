"""Implements ``reel film``: makes a film from a storyboard; ``status`` and ``gc`` manage its stored clips."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import InvalidInputError, VideoGenerationError, all_of
from .arguments import (
    add_config_arguments,
    add_setting_options,
    read_settings_from,
    settings_from,
)
from .output import note, print_error, print_json, print_lines

if TYPE_CHECKING:
    from ..films.assembly import FilmResult
    from ..films.render import FilmOrder

_WHICH = ("output", "draft", "only", "start", "config", "assignments", "json")
_HOW = ("parallel", "keep_going", "overwrite", "gpus", "simulate_gpus", "simulate_memory")
_LOWER = ("strict_quality", "allow_degrade")
#: The options that each form of ``reel film`` uses; it refuses all others.
USED: Mapping[str, tuple[str, ...]] = {
    "reel film": (*_WHICH, *_HOW, *_LOWER),
    "reel film --draft": (*_WHICH, *_HOW),
    "reel film --dry-run": (*_WHICH, *_HOW, *_LOWER, "dry_run"),
    "reel film --watch": (*_WHICH, *_HOW, "watch"),
    "reel film status": ("target", *_WHICH),
    "reel film gc": ("target", "yes", "grace", "dry_run", "config", "assignments", "json"),
}
#: Settings for single clips, and the storyboard's key with the same meaning for a film.
_IN_THE_STORYBOARD = {
    "size": "size",
    "fps": "fps",
    "frame_num": "frames (of a shot, or in defaults)",
    "base_seed": "seed",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("storyboard", metavar="STORYBOARD", help="storyboard (YAML); or: status, gc")
    parser.add_argument("target", nargs="?", type=Path, metavar="FILE", help="for status: STORYBOARD; for gc: folder")
    parser.add_argument("-o", "--output", type=Path, metavar="FILM.mp4", help="the video file to write")
    parser.add_argument("--dry-run", action="store_true", help="show the plan and run nothing; with gc: only list")
    parser.add_argument("--draft", action="store_true", help="an animatic on the CPU: same clips, lengths and joints")
    parser.add_argument("--only", nargs="+", metavar="SHOT", help="only these shots")
    parser.add_argument("--from", dest="start", metavar="SHOT", help="only this shot and those after it")
    parser.add_argument("--watch", action="store_true", help="make the draft again after every save of the storyboard")
    how = parser.add_argument_group("the run")
    add_setting_options(how, "parallel")
    how.add_argument("--keep-going", action="store_true", help="join the clips that exist although a shot failed")
    add_setting_options(how, "overwrite", "gpus", "simulate_gpus", "simulate_memory", *_LOWER)
    garbage = parser.add_argument_group("reel film gc")
    garbage.add_argument("--yes", action="store_true", help="remove what is listed")
    garbage.add_argument("--grace", type=float, metavar="DAYS", help="keep what was used in the last DAYS (default 14)")
    add_config_arguments(parser)
    parser.set_defaults(options=_options_of(parser))


def run(arguments: argparse.Namespace) -> int:
    """Make the film, show its plan, or manage its clips."""
    way = _way(arguments)
    if way == "reel film gc":
        from .film_gc import collect

        return collect(arguments, _unused(arguments, way))
    if way == "reel film status":
        from .film_plan import show_status

        if arguments.target is None:
            raise InvalidInputError("`reel film status` needs a storyboard", advice="reel film status FILM.yaml")
        return show_status(order_from(arguments, arguments.target), as_json=arguments.json)
    if way == "reel film --watch":
        if unused := [*_unused(arguments, way), *_settings_of_a_clip(arguments)]:
            raise all_of(unused)  # saving the storyboard cannot fix them
        return _watch(arguments)
    order = order_from(arguments, Path(arguments.storyboard))
    if way == "reel film --dry-run":
        from .film_plan import show_plan

        return show_plan(order, as_json=arguments.json)
    print_film_result(make_film(order, as_json=arguments.json), as_json=arguments.json)
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Find all mistakes of a film from a command line with some unknown words.

    Raises:
        VideoGenerationError: as `order_from`, or an error of the film's plan.
    """
    source = arguments.target if arguments.storyboard == "status" else arguments.storyboard
    if source is None or arguments.storyboard == "gc":
        settings_from(arguments)
    elif found := _errors_of_the_plan(order_from(arguments, Path(source))):
        raise all_of(found)


# ---------------------------------------------------------------------------------------------------------- arguments


def _options_of(parser: argparse.ArgumentParser) -> dict[str, tuple[str, Any]]:
    """The word of each option and its default value, by its name in a namespace."""
    actions = (action for action in parser._actions if action.dest not in ("help", "storyboard"))
    return {action.dest: ((action.option_strings or ["FILE"])[-1], action.default) for action in actions}


def _way(arguments: argparse.Namespace) -> str:
    if arguments.storyboard in ("gc", "status"):
        return f"reel film {arguments.storyboard}"
    given = next((name for name in ("watch", "dry_run", "draft") if getattr(arguments, name)), "")
    return f"reel film --{given.replace('_', '-')}" if given else "reel film"


def _unused(arguments: argparse.Namespace, way: str) -> Iterator[VideoGenerationError]:
    """An error for every given option that has no effect in this form of the command: none is silently ignored."""
    for name, (text, default) in arguments.options.items():
        if getattr(arguments, name) == default or name in USED[way]:
            continue
        ways = [f"`{other}`" for other, names in USED.items() if name in names and other != "reel film --dry-run"]
        message, advice = f"{text} has no effect with `{way}`", f"Leave {text} out; it is for {', '.join(ways)}."
        if name == "target":
            given = f"{arguments.storyboard} {arguments.target}"
            message = f"`reel film` makes one storyboard into a film, and two files are named: {given}"
            advice = "Write one storyboard, or `reel film status FILM.yaml` or `reel film gc FOLDER`."
        yield InvalidInputError(message, advice=advice)


def _settings_of_a_clip(arguments: argparse.Namespace) -> Iterator[VideoGenerationError]:
    """An error for every ``--set`` of a value that the storyboard sets for a film."""
    for text in arguments.assignments:
        key = text.partition("=")[0].strip()
        if key in _IN_THE_STORYBOARD:
            message = f"--set {text} has no effect on a film: its storyboard sets that"
            yield InvalidInputError(message, advice=f"Write it into the storyboard, as {_IN_THE_STORYBOARD[key]}.")


def order_from(arguments: argparse.Namespace, source: Path) -> FilmOrder:
    """The order for a film; without ``-o`` the film is named after the storyboard, with ``.draft.mp4`` for a draft.

    Raises:
        VideoGenerationError: an option has no effect, or a setting or the storyboard cannot be used; ``also`` holds
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
    draft = arguments.draft or arguments.watch
    order = FilmOrder(
        board=board,
        settings=settings,
        output=arguments.output or (settings.output_dir or source.parent) / f"{source.stem}{'.draft' * draft}.mp4",
        source=source.absolute(),
        draft=draft,
        only=tuple(arguments.only or ()),
        start=arguments.start,
        keep_going=arguments.keep_going,
    )
    if found:
        raise all_of([*found, *([] if misread else _errors_of_the_plan(order))])
    return order


def _errors_of_the_plan(order: FilmOrder) -> list[VideoGenerationError]:
    from ..films.preview import preview
    from ..sites.local.site import LocalSite

    try:
        return [item.as_error() for item in preview(order, LocalSite()).errors]
    except VideoGenerationError as error:
        return [error]


# -------------------------------------------------------------------------------------------------------- making


def make_film(order: FilmOrder, *, as_json: bool) -> FilmResult:
    """Make a film with progress; also used by ``reel replay``."""
    from ..films.assembly import film
    from .generate import interruptible
    from .progress import film_listener

    with interruptible(film_listener(as_json=as_json)) as (listen, cancellation):
        return film(order, listen, cancellation)


def print_film_result(result: FilmResult, *, as_json: bool, more: Mapping[str, Any] | None = None) -> None:
    """Print the result: as the last line of JSON, with ``more`` in the object, or as text with the film's path last."""
    from ..core.plan import counted

    if as_json:
        print_json({**result.to_json(), **(more or {})})
        return
    for warning in result.warnings:
        note(f"warning: {warning}")
    if not result.generative:
        note("note: this is a draft, an animatic made by moving still pictures; no model has generated anything")
    made, stored = len(result.rendered), len(result.stored)
    note(f"{counted(made, 'clip')} made, {stored} from the store; {result.how}")
    for line in result.estimate:
        note(line)
    length = f"{result.seconds:.2f} s, {result.num_frames} frames at {result.fps:g} fps"
    note(f"{'unchanged' if result.unchanged else 'done'}: {result.width}x{result.height}, {length}")
    print_lines(str(result.output))


def _watch(arguments: argparse.Namespace) -> int:
    """Make the draft after every save until Ctrl-C. It prints a mistake and waits for the next save."""
    from ..core.errors import Cancelled

    source = Path(arguments.storyboard)
    seen: object = object()  # no stamp equals it, so the first look makes the film or reports a missing file
    with contextlib.suppress(KeyboardInterrupt):  # during a film, Ctrl-C raises Cancelled instead
        while True:
            stamp = _stamp(source)
            if stamp == seen:
                time.sleep(0.2)  # one file does not justify a library that watches files
                continue
            seen = stamp
            try:
                result = make_film(order_from(arguments, source), as_json=arguments.json)
                print_film_result(result, as_json=arguments.json)
            except Cancelled:
                raise
            except VideoGenerationError as error:
                print_json(error.to_json()) if arguments.json else print_error(error)
            note(f"watching {source}; Ctrl-C ends it")
    return 0


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
