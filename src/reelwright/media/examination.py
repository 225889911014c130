"""Looking at a film as plain facts, in this process or in a child of its own.

A film that a stranger's program wrote (or a user hands in) is decoded in a child: a decoder that crashes, hangs or
swells cannot take the runner with it, and the runner stays small because it never imports the decoder.

    >>> examine(Path("clip.mp4"), apart=True)["frames"]
    81
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OutputError, VideoGenerationError
from ..plan import ExpectedVideo

TIMEOUT_S = 900.0
_CHILD = "from reelwright.media.examination import main; main()"
_LAST_FRAME_CHILD = (
    "import sys; from pathlib import Path; from PIL import Image; from reelwright.media.video import last_frame; "
    "Image.fromarray(last_frame(Path(sys.argv[1]))).save(sys.argv[2], compress_level=1)"
)


@dataclass(frozen=True)
class Tagging:
    """A copy to make with these tags (and our seal); it is the copy that is then examined."""

    target: Path
    metadata: Mapping[str, str]


def examine(
    path: Path, expected: ExpectedVideo | None = None, *, apart: bool, tagging: Tagging | None = None
) -> dict[str, Any]:
    """`video.VideoFacts` of a file as a mapping; a bad file is no error, its ``problems`` say what is wrong.

    With ``expected``, ``differences`` lists what differs from that promise. With ``tagging``, the facts are those of
    the copy; if there can be no good copy, they are those of the file itself and the copy does not exist.
    """
    promise = [expected.width, expected.height, expected.num_frames, expected.fps] if expected else None
    if not apart:
        return _examine_here(path, promise, tagging)
    copy = [str(tagging.target), dict(tagging.metadata)] if tagging else None
    argv = [sys.executable, "-P", "-c", _CHILD, str(path), json.dumps([promise, copy])]
    try:
        child = subprocess.run(argv, capture_output=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return _unreadable(f"decoding took longer than {TIMEOUT_S:.0f} s")
    if child.returncode != 0:
        last = child.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return _unreadable(f"the decoder ended with status {child.returncode}: {' '.join(last)[:300]}")
    facts: dict[str, Any] = json.loads(child.stdout)
    return facts


def _examine_here(path: Path, promise: list[Any] | None, tagging: Tagging | None) -> dict[str, Any]:
    from . import video  # the decoder is large: imported only where it decodes

    if tagging is not None:
        with contextlib.suppress(VideoGenerationError):  # what is wrong with the film is told below
            video.write_metadata(path, tagging.target, tagging.metadata)
            facts = _facts(tagging.target, promise)
            if not facts["problems"] and not facts["differences"]:
                return facts
        tagging.target.unlink(missing_ok=True)
    return _facts(path, promise)


def _facts(path: Path, promise: list[Any] | None) -> dict[str, Any]:
    from . import video

    facts = video.examine(path)
    differences = facts.differences(ExpectedVideo(*promise)) if promise else ()
    return {**facts.to_json(), "differences": list(differences)}


def _unreadable(problem: str) -> dict[str, Any]:
    return {"problems": [problem], "warnings": [], "differences": [], "metadata": {}}


def verify(
    path: Path, expected: ExpectedVideo | None, *, apart: bool, tagging: Tagging | None = None
) -> dict[str, Any]:
    """The facts of a film that keeps its promise; one that promised nothing is decoded completely all the same.

    Raises:
        OutputError: it is missing, damaged, or not the promised one; the evidence lists every difference.
    """
    facts = examine(path, expected, apart=apart, tagging=tagging)
    problems = [*facts["problems"], *facts.pop("differences")]
    if problems:
        raise OutputError(
            f"the film is not the promised one: {problems[0]}",
            evidence=problems,
            advice="Nothing was published. The log of the attempt tells what the generator did.",
        )
    return facts


def save_last_frame(path: Path, target: Path) -> None:
    """Write the frame shown last as a PNG; decoded apart.

    Raises:
        OutputError: the film has no last frame that can be trusted.
    """
    argv = [sys.executable, "-P", "-c", _LAST_FRAME_CHILD, str(path), str(target)]
    child = subprocess.run(argv, capture_output=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
    if child.returncode != 0:
        last = child.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise OutputError(f"{path} has no last frame to go on from", evidence=last)


def main() -> None:
    """The child: facts of the file named by the first argument, as JSON; the second holds promise and tagging."""
    promise, copy = json.loads(sys.argv[2])
    tagging = Tagging(Path(copy[0]), copy[1]) if copy else None
    json.dump(_examine_here(Path(sys.argv[1]), promise, tagging), sys.stdout)
