"""Implements ``reel film gc``: lists the stored clips that no storyboard or film uses, and removes them on request."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InvalidInputError, VideoGenerationError, all_of
from .arguments import read_settings_from
from .output import note, print_json, print_lines

if TYPE_CHECKING:
    from ..films.garbage import Garbage, Lost


def collect(arguments: argparse.Namespace, wrong: Iterable[VideoGenerationError]) -> int:
    """List the clips to remove; remove them with ``--yes``, or if a person at a terminal agrees.

    Raises:
        VideoGenerationError: the first of the mistakes in ``wrong`` and of those found here; ``also`` holds the others.
    """
    from ..core.plan import counted
    from ..films.garbage import GRACE_DAYS, find_garbage, remove, store_of

    settings, misread = read_settings_from(arguments)
    grace = GRACE_DAYS if arguments.grace is None else arguments.grace
    if found := [*wrong, *misread, *_mistakes(arguments, grace)]:
        raise all_of(found)
    store = store_of(arguments.target or Path())
    if not store.root.is_dir():
        if arguments.json:
            empty = {"clips": [], "pieces": [], "files": [], "bytes": 0, "young": 0, "kept_because": [], "odd": []}
            print_json({**empty, "removed": False})
        else:
            print_lines(f"there is no store of clips: {store.root} does not exist")
        return 0
    with store.all_held():
        garbage = find_garbage(store, settings, grace)
        if not arguments.json:
            _list(garbage, grace)
        agreed = bool(garbage.files) and not arguments.dry_run and (arguments.yes or _agreed(as_json=arguments.json))
        size = sum(path.stat().st_size for path in garbage.files)
        if agreed:
            remove(garbage)
    if arguments.json:
        print_json(_as_json(garbage, size, removed=agreed))
    elif garbage.files:
        done = (
            "removed"
            if agreed
            else "would be removed; nothing was removed" + ("" if arguments.dry_run else " (give --yes)")
        )
        print_lines(f"{counted(len(garbage.files), 'file')} ({size / 1e6:.1f} MB) {done}")
    return 0


def _mistakes(arguments: argparse.Namespace, grace: float) -> Iterator[VideoGenerationError]:
    if not 0 <= grace < float("inf"):
        message = f"--grace {grace:g} is not a number of days"
        yield InvalidInputError(message, advice="Write 0 or more, such as --grace 30.")
    if arguments.yes and arguments.dry_run:
        yield InvalidInputError("--yes and --dry-run contradict each other", advice="Give one of them.")


def _as_json(found: Garbage, size: int, *, removed: bool) -> dict[str, object]:
    return {
        "clips": [clip.to_json() for clip in found.clips],
        "pieces": [str(path) for path in found.cached],
        "files": [str(path) for path in found.files],
        "bytes": size,
        "young": found.young,
        "kept_because": list(found.reasons_to_keep_all),
        "odd": [str(path) for path in found.odd],
        "removed": removed,
    }


def _list(found: Garbage, grace: float) -> None:
    from ..core.plan import counted, in_words

    for text in found.reasons_to_keep_all:
        note(text)
    print_lines(*map(_line, found.clips))
    if found.cached:
        print_lines(f"{counted(len(found.cached), 'file')} made to join films")
    if total := sum(clip.gpu_seconds for clip in found.clips):
        print_lines(f"these clips took {in_words(total)} of GPU time")
    if found.reasons_to_keep_all:
        print_lines("every clip is kept: a file that cannot be read may name any of them")
    elif not found.files:
        print_lines("there is nothing to remove")
    if found.young and not found.reasons_to_keep_all:
        more = counted(found.young, "more clip")
        print_lines(f"kept because they were used in the last {grace:g} days: {more} that nothing names")
    if found.odd:
        note(f"unknown, and kept: {counted(len(found.odd), 'file')} in the store, such as {found.odd[0]}")


def _line(clip: Lost) -> str:
    from ..core.plan import in_words

    size = f"{clip.size / 1e6:.1f} MB"
    if clip.manifest is None:
        return f"{clip.key}: remains of an unfinished clip, {size}"
    seconds = clip.gpu_seconds
    spent = f"{in_words(seconds)} of GPU time" if seconds else f"{in_words(clip.manifest.seconds)}, no GPU"
    prompt = str(clip.manifest.requested.get("prompt"))
    return f"{clip.key}: {spent}, {size}, by {clip.manifest.generator}: {prompt!r:.70}"


def _agreed(*, as_json: bool) -> bool:
    """Whether a person at a terminal agrees; in a pipe the answer is no."""
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    note("Remove them? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
