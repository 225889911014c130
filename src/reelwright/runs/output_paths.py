"""Refuses outputs that would overwrite an input: it compares paths by inode.

Comparing names is not enough: a link, another spelling on a file system that ignores case, or a second mount can lead
to the same file. A file that does not exist yet cannot be an input.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..core.errors import Failure, InvalidInputError
from ..core.files import expanded, path_error, shown
from ..core.manifest import manifest_path
from ..core.request import VideoRequest
from .workspace import check_writable


def refuse_inputs(outputs: Mapping[str, Path], inputs: Mapping[str, Path | None], *, advice: str = "") -> None:
    """Refuse a run that would overwrite one of its inputs, even with ``overwrite``.

    Args:
        outputs: Paths by their role: ``the clip``, ``the manifest``.
        inputs: Paths by their role: ``the first picture``; ``None`` for a missing one.
        advice: The fix, if the general one does not fit.

    Raises:
        InvalidInputError: INPUT, an output is an input.
    """
    known = {found: what for what, path in inputs.items() if path is not None and (found := _inode(path))}
    for what, path in outputs.items():
        found = _inode(path)
        if found in known:
            raise InvalidInputError(
                f"{what} would overwrite {known[found]}: {shown(path)}", advice=advice or "Give another -o."
            )


def check_picture(target: Path, suffixes: tuple[str, ...], *, overwrite: bool) -> None:
    """Refuse a picture that could not be written, before any work is done.

    Raises:
        InvalidInputError: the name has another format's suffix or is a folder, or the folder is missing; EXISTS, the
            file exists already.
        BackendUnavailableError: PERM, its folder is not writable.
    """
    if target.suffix.lower() not in suffixes:
        raise InvalidInputError(
            f"{shown(target)} does not end in {' or '.join(suffixes)}",
            advice=f"Give a name such as sheet{suffixes[0]}.",
        )
    try:
        there = target.lstat()
    except FileNotFoundError:
        there = None
    except (OSError, ValueError) as error:
        raise path_error(error, target, "be written") from None
    if there and target.is_dir():
        raise InvalidInputError(f"{shown(target)} is a folder", advice="Give the name of a picture.")
    if there and not overwrite:
        raise InvalidInputError(
            f"{shown(target)} exists already", failure=Failure.EXISTS, advice="Give another name, or --overwrite."
        )
    check_writable(target.absolute().parent)


def refuse_inputs_of(request: VideoRequest, output: Path) -> None:
    """Refuse a clip that would overwrite one of its own pictures.

    Raises:
        InvalidInputError: INPUT, the clip or its manifest is one of the pictures.
    """
    pictures = {
        "the first picture": request.image,
        "the last picture": request.last_image,
        "the depth picture": request.depth_image,
    }
    known = {what: expanded(path) if path else None for what, path in pictures.items()}
    refuse_inputs({"the clip": output, "its manifest": manifest_path(output)}, known)


def _inode(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file at a path; ``None`` if no file exists."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
