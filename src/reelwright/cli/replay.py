"""Implements ``reel replay``: makes a clip or a film again from its manifest, and says whether both are equal."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import InvalidInputError
from .arguments import add_config_arguments, add_setting_options, existing, settings_from
from .output import note

if TYPE_CHECKING:
    from ..core.manifest import Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="manifest, or the video beside it")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.mp4", help="default: NAME.replay.mp4")
    add_setting_options(parser, "overwrite", "gpus", "simulate_gpus", "simulate_memory")
    add_config_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the video again; the exit status is 0 for different videos too, because the comparison is the answer.

    With ``--json`` the result object has ``replay``: ``same_bytes`` and ``same_frames``.
    """
    from ..core.manifest import manifest_of
    from ..runs.history import load_manifest

    path = existing(arguments.manifest)
    path = existing(manifest_of(path)) if path.suffix.lower() == ".mp4" else path
    before = load_manifest(path)
    if before.task != "film" and before.output is None:
        raise InvalidInputError(f"{path} records a run without a video", advice="Run `reel generate` instead.")
    verdict = (_replay_film if before.task == "film" else _replay_clip)(arguments, before, path)
    note(compare(same_bytes=verdict["same_bytes"], same_frames=verdict["same_frames"]))
    if stored := verdict.get("stored"):
        from ..core.plan import counted

        note(f"from the store: {counted(len(stored), 'clip')}; with -o in another folder all clips are made again")
    return 0


def _replay_clip(arguments: argparse.Namespace, before: Manifest, path: Path) -> Mapping[str, Any]:
    from ..runs.history import load_manifest
    from ..runs.runner import replay_order
    from .generate import make_clip, print_result

    old = before.output or {}
    original = path.parent / str(old["path"])
    output = arguments.output or original.with_name(original.stem + ".replay.mp4")
    order = replay_order(before, settings_from(arguments), output, beside=path.absolute().parent)
    result = make_clip(order, as_json=arguments.json)
    new = load_manifest(result.manifest).output or {}
    verdict = {f"same_{what}": old[key] == new[key] for what, key in (("bytes", "sha256"), ("frames", "frames_sha256"))}
    print_result(result, as_json=arguments.json, more={"replay": verdict})
    return verdict


def _replay_film(arguments: argparse.Namespace, before: Manifest, path: Path) -> Mapping[str, Any]:
    """Make a film again. Stored clips are used again; with ``-o`` in another folder every clip is made anew."""
    from ..films.replaying import replay_film_order
    from ..runs.history import load_manifest
    from .film import make_film, print_film_result

    order = replay_film_order(before, path, settings_from(arguments), arguments.output)
    result = make_film(order, as_json=arguments.json)
    old, new = before.output or {}, load_manifest(result.manifest).output or {}
    same_bytes = bool(old.get("sha256")) and old.get("sha256") == new.get("sha256")
    same_frames = same_bytes or _same_frames(path.parent / str(old.get("path")), result.output)
    verdict = {"same_bytes": same_bytes, "same_frames": same_frames, "stored": list(result.stored)}
    print_film_result(result, as_json=arguments.json, more={"replay": verdict})
    return verdict


def _same_frames(before: Path, after: Path) -> bool:
    """Whether two videos decode to the same frames; false if the first does not exist."""
    from ..media.verification import examine

    if not before.is_file():
        return False
    digests = [examine(video, apart=True).get("frames_sha256") for video in (before, after)]
    return bool(digests[0]) and digests[0] == digests[1]


def compare(*, same_bytes: bool, same_frames: bool) -> str:
    """The verdict in words."""
    if same_bytes:
        return "replay: the files are equal, byte for byte"
    if same_frames:
        return "replay: every decoded frame is equal; only the container's bytes differ"
    return "replay: the decoded frames differ"
