"""``reel film gc``: list the clips that nothing in a folder names any more, and remove them when that is asked."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import note, printable, settings_from

if TYPE_CHECKING:
    from ..films.garbage import Garbage, Lost


def collect(arguments: argparse.Namespace) -> int:
    """List what would go; remove it with ``--yes``, or when a person at a terminal says so."""
    from ..errors import InvalidInputError
    from ..films.garbage import GRACE_DAYS, find_garbage, remove, store_of

    grace = GRACE_DAYS if arguments.grace is None else arguments.grace
    if not 0 <= grace < float("inf"):
        raise InvalidInputError(
            f"--grace {grace:g} is no number of days", advice="Write 0 or more, such as --grace 30."
        )
    if arguments.yes and arguments.dry_run:
        raise InvalidInputError("--yes and --dry-run contradict each other", advice="Give one of them.")
    store = store_of(arguments.target or Path())
    if not store.root.is_dir():
        return _say_nothing_there(store.root, as_json=arguments.json)
    settings = settings_from(arguments)
    with store.all_held():
        found = find_garbage(store, settings, grace)
        if not arguments.json:
            _list(found, grace)
        agreed = bool(found.files) and not arguments.dry_run and (arguments.yes or _asked(as_json=arguments.json))
        size = sum(path.stat().st_size for path in found.files)
        if agreed:
            remove(found)
    if arguments.json:
        print(json.dumps(_as_json(found, size, removed=agreed)))
    elif found.files:
        done = "removed" if agreed else "would be removed; nothing was" + ("" if arguments.dry_run else " (give --yes)")
        print(f"{len(found.files)} files ({size / 1e6:.1f} MB) {done}")
    return 0


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
    from ..plan import in_words

    for text in found.reasons_to_keep_all:
        note(text)
    for clip in found.clips:
        print(printable(_line(clip)))
    total = sum(clip.gpu_seconds for clip in found.clips)
    said = {
        f"{len(found.pieces)} files that were made to join films": bool(found.pieces),
        f"these clips took {in_words(total)} of GPU time": total > 0,
        "nothing goes: what cannot be understood may name any clip": bool(found.reasons_to_keep_all),
        "nothing is to be removed": not found.files and not found.reasons_to_keep_all,
        f"{found.young} more clips that nothing names were used in the last {grace:g} days and stay": found.young > 0
        and not found.reasons_to_keep_all,
    }
    for text, holds in said.items():
        if holds:
            print(text)
    if found.odd:
        note(f"{len(found.odd)} files in the store are not understood and stay, such as {found.odd[0]}")


def _line(clip: Lost) -> str:
    from ..plan import in_words

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
