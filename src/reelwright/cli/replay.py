"""``reel replay``: make a film again from its manifest and say whether it is the same."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import add_config_arguments, add_json_argument, add_simulation_arguments, existing, note, settings_from
from .film import tell_film

if TYPE_CHECKING:
    from ..core.manifest import Manifest


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser("replay", help="make a film again, with the same parameters and seed")
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="manifest, or the film beside it")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.mp4", help="default: NAME.replay.mp4")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing film")
    parser.add_argument("--gpus", metavar="N|LIST", help="how many GPUs, or which (0,1)")
    add_simulation_arguments(parser)
    add_config_arguments(parser)
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make it again; exit status 0 whether or not the films are equal, for the comparison is the answer.

    With ``--json`` the result object has ``replay``: ``same_bytes`` and ``same_frames``.
    """
    from ..core.errors import InvalidInputError
    from ..core.manifest import manifest_of
    from ..runs.history import load_manifest
    from ..runs.runner import replay_order
    from .generate import make, tell

    path = existing(arguments.manifest)
    path = existing(manifest_of(path)) if path.suffix.lower() == ".mp4" else path
    before = load_manifest(path)
    if before.task == "film":
        return _replay_film(arguments, before, path)
    if before.output is None:
        raise InvalidInputError(f"{path} records a run without a film", advice="Run `reel generate` instead.")
    original = path.parent / str(before.output["path"])
    output = arguments.output or original.with_name(original.stem + ".replay.mp4")
    order = replay_order(before, settings_from(arguments), output, beside=path.absolute().parent)
    result = make(order, as_json=arguments.json)
    after = load_manifest(result.manifest)
    assert after.output is not None
    same_bytes, same_frames = (before.output[key] == after.output[key] for key in ("sha256", "frames_sha256"))
    verdict = {"replay": {"same_bytes": same_bytes, "same_frames": same_frames}}
    tell(result, as_json=arguments.json, more=verdict)
    note(compare(same_bytes=same_bytes, same_frames=same_frames))
    return 0


def _replay_film(arguments: argparse.Namespace, before: Manifest, path: Path) -> int:
    """Make a whole film again. Stored clips are used again; with ``-o`` in another folder every clip is made anew."""
    from ..films.replaying import replay_film_order
    from ..runs.history import load_manifest
    from .film import make_film

    order = replay_film_order(before, path, settings_from(arguments), arguments.output)
    result = make_film(order, as_json=arguments.json, tell=False)
    after = load_manifest(result.manifest)
    old, new = before.output or {}, after.output or {}
    same_bytes = bool(old.get("sha256")) and old.get("sha256") == new.get("sha256")
    same_frames = same_bytes or _same_pictures(path.parent / str(old.get("path")), result.output)
    verdict = {"replay": {"same_bytes": same_bytes, "same_frames": same_frames, "stored": list(result.stored)}}
    tell_film(result, as_json=arguments.json, more=verdict)
    note(compare(same_bytes=same_bytes, same_frames=same_frames))
    if result.stored:
        from ..core.plan import counted

        note(
            f"from the store: {counted(len(result.stored), 'clip')}; with -o in another folder all clips are made again"
        )
    return 0


def _same_pictures(before: Path, after: Path) -> bool:
    """Whether two films decode to the same frames; false if the first is gone."""
    from ..media.verification import examine

    if not before.is_file():
        return False
    digests = [examine(film, apart=True).get("frames_sha256") for film in (before, after)]
    return bool(digests[0]) and digests[0] == digests[1]


def compare(*, same_bytes: bool, same_frames: bool) -> str:
    """The verdict in words."""
    if same_bytes:
        return "replay: the files are equal, byte for byte"
    if same_frames:
        return "replay: every decoded frame is equal; only the container's bytes differ"
    return "replay: the decoded frames differ"
