"""``reel film gc``: list the clips that nothing in a folder names any more, and remove them when that is asked."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import VideoGenerationError, all_of
from .arguments import note, printable, read_settings_from

if TYPE_CHECKING:
    from ..films.garbage import Garbage, Lost


def collect(arguments: argparse.Namespace, wrong: Sequence[VideoGenerationError]) -> int:
    """List what would go; remove it with ``--yes``, or when a person at a terminal says so.

    Raises:
        VideoGenerationError: what is ``wrong`` with the arguments already, or here; ``also`` holds the others.
    """
    from ..core.plan import counted
    from ..films.garbage import GRACE_DAYS, find_garbage, remove, store_of

    settings, misread = read_settings_from(arguments)
    grace = GRACE_DAYS if arguments.grace is None else arguments.grace
    if found := [*wrong, *misread, *_mistakes(arguments, grace)]:
        raise all_of(found)
    store = store_of(arguments.target or Path())
    if not store.root.is_dir():
        return _say_nothing_there(store.root, as_json=arguments.json)
    with store.all_held():
        garbage = find_garbage(store, settings, grace)
        if not arguments.json:
            _list(garbage, grace)
        agreed = bool(garbage.files) and not arguments.dry_run and (arguments.yes or _asked(as_json=arguments.json))
        size = sum(path.stat().st_size for path in garbage.files)
        if agreed:
            remove(garbage)
    if arguments.json:
        print(json.dumps(_as_json(garbage, size, removed=agreed)))
    elif garbage.files:
        done = "removed" if agreed else "would be removed; nothing was" + ("" if arguments.dry_run else " (give --yes)")
        print(f"{counted(len(garbage.files), 'file')} ({size / 1e6:.1f} MB) {done}")
    return 0


def _mistakes(arguments: argparse.Namespace, grace: float) -> Iterator[VideoGenerationError]:
    from ..core.errors import InvalidInputError

    if not 0 <= grace < float("inf"):
        text = f"--grace {grace:g} is no number of days"
        yield InvalidInputError(text, advice="Write 0 or more, such as --grace 30.")
    if arguments.yes and arguments.dry_run:
        yield InvalidInputError("--yes and --dry-run contradict each other", advice="Give one of them.")


def _say_nothing_there(root: Path, *, as_json: bool) -> int:
    if as_json:
        empty = {"clips": [], "pieces": [], "files": [], "bytes": 0, "young": 0, "kept_because": [], "odd": []}
        print(json.dumps({**empty, "removed": False}))
    else:
        print(printable(f"there is no store of clips: {root} does not exist"))
    return 0


def _as_json(found: Garbage, size: int, *, removed: bool) -> dict[str, object]:
    return {
        "clips": [clip.to_json() for clip in found.clips],
        "pieces": [str(path) for path in found.pieces],
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
    for clip in found.clips:
        print(printable(_line(clip)))
    total = sum(clip.gpu_seconds for clip in found.clips)
    said = {
        f"{counted(len(found.pieces), 'file')} made to join films": bool(found.pieces),
        f"these clips took {in_words(total)} of GPU time": total > 0,
        "nothing goes: what cannot be understood may name any clip": bool(found.reasons_to_keep_all),
        "nothing is to be removed": not found.files and not found.reasons_to_keep_all,
        f"kept, since used in the last {grace:g} days: {counted(found.young, 'more clip')} that nothing names": found.young
        > 0
        and not found.reasons_to_keep_all,
    }
    for text, holds in said.items():
        if holds:
            print(text)
    if found.odd:
        note(f"not understood, and kept: {counted(len(found.odd), 'file')} in the store, such as {found.odd[0]}")


def _line(clip: Lost) -> str:
    from ..core.plan import in_words

    if clip.manifest is None:
        return f"{clip.key}: remains of a clip that was not finished, {clip.size / 1e6:.1f} MB"
    spent = (
        f"{in_words(clip.gpu_seconds)} of GPU time"
        if clip.gpu_seconds
        else f"{in_words(clip.manifest.seconds)}, no GPU"
    )
    prompt = str(clip.manifest.requested.get("prompt"))
    return f"{clip.key}: {spent}, {clip.size / 1e6:.1f} MB, by {clip.manifest.generator}: {prompt!r:.70}"


def _asked(*, as_json: bool) -> bool:
    """Whether a person at a terminal wants it done; nobody is asked in a pipe."""
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    note("Remove them? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
