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
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OutputError, VideoGenerationError
from ..plan import ExpectedVideo

TIMEOUT_S = 900.0
_LOOK_S = 0.2
_CHILD = "from reelwright.media.examination import main; main()"
_LAST_FRAME_CHILD = (
    "import sys; from pathlib import Path; from PIL import Image; from reelwright.media.video import last_frame; "
    "Image.fromarray(last_frame(Path(sys.argv[1]))).save(sys.argv[2], compress_level=1)"
)


def _never() -> None:
    """The default check."""


@dataclass(frozen=True)
class Tagging:
    """A copy to make with these tags (and our seal); it is the copy that is then examined."""

    target: Path
    metadata: Mapping[str, str]


class Examiner:
    """A child that looks at one film. Started early, its imports cost nothing: they take longer than a short film.

    A child that is not asked ends with the `close` of its examiner, and with the runner: its input is a pipe.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the child, once."""
        if self._child is None:
            pipe = subprocess.PIPE
            self._child = subprocess.Popen([sys.executable, "-P", "-c", _CHILD], stdin=pipe, stdout=pipe, stderr=pipe)

    def facts(self, order: list[Any], check: Callable[[], None] = _never) -> dict[str, Any]:
        """What the child finds; whatever becomes of it is told as a problem of the film.

        ``check`` is called while it works; if it raises, the child ends.
        """
        self.start()
        child, self._child = self._child, None
        assert child is not None
        try:
            out, errors = _answer(child, json.dumps(order).encode(), check)
        except subprocess.TimeoutExpired:
            return _unreadable(f"decoding took longer than {TIMEOUT_S:.0f} s")
        finally:
            _end(child)
        if child.returncode != 0:
            last = errors.decode(errors="replace").strip().splitlines()[-1:]
            return _unreadable(f"the decoder ended with status {child.returncode}: {' '.join(last)[:300]}")
        facts: dict[str, Any] = json.loads(out)
        return facts

    def close(self) -> None:
        """End a child that was not asked."""
        child, self._child = self._child, None
        if child is not None:
            _end(child)


def _answer(child: subprocess.Popen[bytes], order: bytes, check: Callable[[], None]) -> tuple[bytes, bytes]:
    deadline = time.monotonic() + TIMEOUT_S
    more: bytes | None = order
    while True:
        try:
            return child.communicate(more, _LOOK_S)
        except subprocess.TimeoutExpired:
            more = None  # what was not sent yet is kept by the first call
            check()
            if time.monotonic() > deadline:
                raise


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    with child:  # its pipes are closed and it is waited for
        pass


def examine(
    path: Path,
    expected: ExpectedVideo | None = None,
    *,
    apart: bool | Examiner,
    tagging: Tagging | None = None,
    check: Callable[[], None] = _never,
) -> dict[str, Any]:
    """`video.VideoFacts` of a file as a mapping; a bad file is no error, its ``problems`` say what is wrong.

    With ``expected``, ``differences`` lists what differs from that promise. With ``tagging``, the facts are those of
    the copy; if there can be no good copy, they are those of the file itself and the copy does not exist. ``apart``
    may be a child that was started before; ``check`` is called while a child works, and may raise to end it.
    """
    promise = [expected.width, expected.height, expected.num_frames, expected.fps] if expected else None
    if apart is False:
        return _examine_here(path, promise, tagging)
    copy = [str(tagging.target), dict(tagging.metadata)] if tagging else None
    examiner = apart if isinstance(apart, Examiner) else Examiner()
    return examiner.facts([str(path), promise, copy], check)


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
    path: Path, expected: ExpectedVideo | None, *, apart: bool | Examiner, tagging: Tagging | None = None
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
    """The child: reads a film's name, promise and tagging as JSON, and writes its facts as JSON."""
    from . import video  # noqa: F401 -- while there is nothing to do yet

    asked = sys.stdin.read()
    if asked:  # else nobody wants to know any more
        path, promise, copy = json.loads(asked)
        tagging = Tagging(Path(copy[0]), copy[1]) if copy else None
        json.dump(_examine_here(Path(path), promise, tagging), sys.stdout)
