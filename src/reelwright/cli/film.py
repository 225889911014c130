"""``reel film``: a storyboard becomes a film; ``reel film status`` and ``reel film gc`` look after its clips."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import add_config_arguments, add_json_argument, note, printable, settings_from

if TYPE_CHECKING:
    from ..films.assembly import FilmResult
    from ..films.render import FilmOrder


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser("film", help="make a film from a storyboard; goes on where it stopped")
    parser.add_argument("storyboard", metavar="STORYBOARD", help="storyboard (YAML); or: status, gc")
    parser.add_argument("target", nargs="?", type=Path, metavar="FILE", help="with status: STORYBOARD; with gc: folder")
    parser.add_argument("-o", "--output", type=Path, metavar="FILM.mp4", help="where the film goes")
    parser.add_argument("--draft", action="store_true", help="on the CPU, with the same clips, lengths and joints")
    parser.add_argument("--only", nargs="+", default=(), metavar="SHOT", help="only these shots")
    parser.add_argument("--from", dest="start", metavar="SHOT", help="only this shot and those after it")
    parser.add_argument("--parallel", type=int, metavar="N", help="clips at the same time (parallel_segments)")
    parser.add_argument("--keep-going", action="store_true", help="join what there is although a shot failed")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is no film of ours")
    parser.add_argument("--watch", action="store_true", help="make the draft again whenever the storyboard is saved")
    parser.add_argument("--gpus", metavar="N|LIST", help="which GPUs")
    parser.add_argument("--simulate-gpus", metavar="8x80GiB", help="pretend that these GPUs are there")
    parser.add_argument("--strict-quality", action="store_true", help="never lower quality to succeed")
    parser.add_argument("--allow-degrade", metavar="frames,size", help="what a retry may lower")
    parser.add_argument("--dry-run", action="store_true", help="with gc: only say what would go")
    add_config_arguments(parser)
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the film, or look after its clips."""
    if arguments.storyboard == "gc":
        return _gc(arguments)
    if arguments.storyboard == "status":
        return _status(arguments)
    if arguments.watch:
        return _watch(arguments)
    _make(order_from(arguments, Path(arguments.storyboard)), as_json=arguments.json)
    return 0


def order_from(arguments: argparse.Namespace, source: Path) -> FilmOrder:
    """The whole order; without ``-o`` the film is named after the storyboard (and ``.draft.mp4`` for a draft)."""
    from ..films.render import FilmOrder
    from ..films.storyboard import load_storyboard

    settings = settings_from(arguments)
    if arguments.parallel:
        settings = settings.evolve(parallel_segments=arguments.parallel)
    name = f"{source.stem}.draft.mp4" if arguments.draft or arguments.watch else f"{source.stem}.mp4"
    return FilmOrder(
        board=load_storyboard(source),
        settings=settings,
        output=arguments.output or source.with_name(name),
        source=source.absolute(),
        draft=arguments.draft or arguments.watch,
        only=tuple(arguments.only),
        start=arguments.start,
        keep_going=arguments.keep_going,
    )


def _make(order: FilmOrder, *, as_json: bool) -> FilmResult:
    from ..executors import Cancellation
    from ..films.assembly import film
    from .film_progress import film_listener
    from .generate import signals

    cancellation = Cancellation()
    with signals(cancellation), film_listener(as_json=as_json) as listen:
        result = film(order, listen, cancellation)
    if as_json:
        print(json.dumps(result.to_json(), ensure_ascii=False), flush=True)
    else:
        _tell(result)
    return result


def _tell(result: FilmResult) -> None:
    for warning in result.warnings:
        note(f"warning: {warning}")
    if not result.generative:
        note("note: this is a draft, an animatic made by moving still pictures; no model has generated anything")
    made, stored = len(result.rendered), len(result.stored)
    note(f"{made} clips made, {stored} from the store; {result.how}")
    for line in result.estimate:
        note(line)
    seconds = f"{result.seconds:.2f} s, {result.num_frames} frames at {result.fps:g} fps"
    note(f"{'unchanged' if result.unchanged else 'done'}: {result.width}x{result.height}, {seconds}")
    print(printable(str(result.output)), flush=True)


def _watch(arguments: argparse.Namespace) -> int:
    """Make the draft at every save; mistakes are told and waited out. Ends with Ctrl-C."""
    from ..errors import Cancelled, VideoGenerationError

    source, seen = Path(arguments.storyboard), None
    with contextlib.suppress(KeyboardInterrupt):  # while something is made, Ctrl-C is a cancellation and not this
        while True:
            stamp = _stamp(source)
            if stamp == seen:
                time.sleep(0.2)  # no library is worth being told of one file
                continue
            seen = stamp
            try:
                _make(order_from(arguments, source), as_json=arguments.json)
            except Cancelled:
                raise
            except VideoGenerationError as error:
                note(f"{error.code}: {error.message}")
                for line in error.evidence:
                    note(f"  | {line}")
            note(f"watching {source}; Ctrl-C ends it")
    return 0


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino


def _status(arguments: argparse.Namespace) -> int:
    from ..errors import InvalidInputError
    from ..films.render import plan_film
    from ..films.store import Store

    if arguments.target is None:
        raise InvalidInputError("`reel film status` needs a storyboard", advice="reel film status FILM.yaml")
    order = order_from(arguments, arguments.target)
    store = Store(order.output.absolute().parent)
    _, planned = plan_film(order, store)
    rows = [_row(item, store.find(item.key)) for item in planned]
    if arguments.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        state = "there" if row["stored"] else "to be made"
        print(printable(f"{row['segment']}: {row['frames']} frames by {row['generator']}: {state}"))
    print(f"{sum(row['stored'] for row in rows)} of {len(rows)} clips are there")
    return 0


def _row(item: Any, clip: Any) -> dict[str, Any]:
    return {
        "segment": item.segment.id,
        "shot": item.segment.shot,
        "generator": item.backend.name,
        "frames": item.segment.request.num_frames,
        "key": item.key,
        "stored": clip is not None,
        "degraded": bool(clip and clip.manifest.degraded),
    }


def _gc(arguments: argparse.Namespace) -> int:
    from ..films.store import Store

    folder = arguments.target or Path()
    found = Store(folder).garbage()
    size = sum(path.stat().st_size for path in found)
    for path in found:
        if not arguments.dry_run:
            path.unlink(missing_ok=True)
    if arguments.json:
        print(json.dumps({"files": [str(path) for path in found], "bytes": size, "removed": not arguments.dry_run}))
    else:
        verb = "would be removed" if arguments.dry_run else "removed"
        print(f"{len(found)} files of clips that no film uses ({size / 1e6:.1f} MB) {verb}")
    return 0
