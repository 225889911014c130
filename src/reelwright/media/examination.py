"""Looking at a film as plain facts, in this process or in a child of its own.

A film that a stranger's program wrote (or a user hands in) is decoded in a child: a decoder that crashes, hangs or
swells cannot take the runner with it, and the runner stays small because it never imports the decoder.

    >>> examine(Path("clip.mp4"), apart=True)["frames"]
    81
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..plan import ExpectedVideo

TIMEOUT_S = 900.0
_CHILD = "from reelwright.media.examination import main; main()"


def examine(path: Path, expected: ExpectedVideo | None = None, *, apart: bool) -> dict[str, Any]:
    """`video.VideoFacts` of a file as a mapping; a bad file is no error, its ``problems`` say what is wrong.

    With ``expected``, ``differences`` lists what differs from that promise.
    """
    promise = [expected.width, expected.height, expected.num_frames, expected.fps] if expected else None
    if not apart:
        return _examine_here(path, promise)
    argv = [sys.executable, "-P", "-c", _CHILD, str(path), json.dumps(promise)]
    try:
        child = subprocess.run(argv, capture_output=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return _unreadable(f"decoding took longer than {TIMEOUT_S:.0f} s")
    if child.returncode != 0:
        last = child.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return _unreadable(f"the decoder ended with status {child.returncode}: {' '.join(last)[:300]}")
    facts: dict[str, Any] = json.loads(child.stdout)
    return facts


def _examine_here(path: Path, promise: list[Any] | None) -> dict[str, Any]:
    from . import video  # the decoder is large: imported only where it decodes

    facts = video.examine(path)
    differences = facts.differences(ExpectedVideo(*promise)) if promise else ()
    return {**facts.to_json(), "differences": list(differences)}


def _unreadable(problem: str) -> dict[str, Any]:
    return {"problems": [problem], "warnings": [], "differences": [], "metadata": {}}


def verify(path: Path, expected: ExpectedVideo, *, apart: bool) -> dict[str, Any]:
    """The facts of a film that keeps its promise.

    Raises:
        OutputError: it is missing, damaged, or not the promised one; the evidence lists every difference.
    """
    facts = examine(path, expected, apart=apart)
    problems = [*facts["problems"], *facts.pop("differences")]
    if problems:
        raise OutputError(
            f"the film is not the promised one: {problems[0]}",
            evidence=problems,
            advice="Nothing was published. The log of the attempt tells what the generator did.",
        )
    return facts


def main() -> None:
    """The child: facts of the file named by the first argument, against the promise in the second, as JSON."""
    json.dump(_examine_here(Path(sys.argv[1]), json.loads(sys.argv[2])), sys.stdout)
