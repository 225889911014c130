"""Verifies a video in this process or in a child process; the result is plain JSON values.

A child decodes the videos of frameworks and users: a decoder that crashes, hangs or takes all memory cannot stop the
runner, and the runner stays small because it never imports the decoder. Before the child reads the video, it gives up
every other file, the network and new processes (`confinement`).

    >>> examine(Path("clip.mp4"), apart=True)["frames"]
    81
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import BackendUnavailableError, OutputError, VideoGenerationError
from ..core.files import path_errors, replacing
from ..core.plan import ExpectedVideo
from .child_starts import starting
from .decoder_exits import Ending, run_again, signal_name

TIMEOUT_S = 900.0
_LOOK_S = 0.2
_CHILD = "from reelwright.media.verification import main; main()"
_LAST_FRAME_CHILD = "from reelwright.media.verification import write_last_frame; write_last_frame()"
# Variables that the interpreter and its loader need; only they and PYTHON* reach the child (no tokens, no proxies).
_ENVIRON = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "HOME", "VIRTUAL_ENV")
_FEW_THREADS = {"MALLOC_ARENA_MAX": "4", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
# Address space; the largest video that is decoded takes 2 GB.
_MAX_BYTES = 8 << 30
_CPU_S = 4 * int(TIMEOUT_S)  # four threads decode


@dataclass(frozen=True)
class Tagging:
    """The path and tags of a copy with a checksum; the copy is verified instead of the original."""

    target: Path
    metadata: Mapping[str, str]


class VerificationProcess:
    """A child process that verifies one video. Start it early: its imports take longer than a short video.

    A child without an order ends with `close`, or with the runner, because its input is a pipe.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the child, once."""
        if self._child is None:
            self._child = _started(_CHILD, stdin=subprocess.PIPE)

    def facts(self, order: list[Any], check: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """The facts that the child finds; if the video crashes the child, that is a problem of the video.

        ``check`` is called while the child works; if it raises, the child ends. If something outside ended the child,
        it is started once more.

        Raises:
            BackendUnavailableError, OutOfMemoryError: something outside ended it each time; the video may be valid.
        """

        def run() -> Ending:
            self.start()
            child, self._child = self._child, None
            assert child is not None
            try:
                out, errors = _answer(child, json.dumps(order).encode(), check)
            except subprocess.TimeoutExpired:
                return None, b"", b""
            finally:
                _end(child)
            return child.returncode, out, errors

        return _facts_from(run_again(f"{order[0]} could not be verified", run))

    def close(self) -> None:
        """End a child that has no order."""
        child, self._child = self._child, None
        if child is not None:
            _end(child)


def _started(program: str, *arguments: str, stdin: int, stdout: Any = subprocess.PIPE) -> subprocess.Popen[bytes]:
    environ = {name: value for name, value in os.environ.items() if name in _ENVIRON or name.startswith("PYTHON")}
    try:
        with starting():
            return subprocess.Popen(
                [sys.executable, "-P", "-c", program, *arguments],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                env=environ | _FEW_THREADS,
            )
    except OSError as error:
        raise BackendUnavailableError(
            f"the video decoder cannot be started: {error.strerror}", advice="Free memory or processes, and try again."
        ) from error


def _facts_from(ending: Ending) -> dict[str, Any]:
    status, out, errors = ending
    if status is None:
        return _unreadable(f"decoding took longer than {TIMEOUT_S:.0f} s")
    if status != 0:
        last = " ".join(errors.decode(errors="replace").strip().splitlines()[-1:])[:300]
        how = f"with status {status}" if status > 0 else f"by {signal_name(-status)}"
        return _unreadable(f"the decoder ended {how}: {last}")
    facts: dict[str, Any] = json.loads(out)
    return facts


def _answer(child: subprocess.Popen[bytes], order: bytes, check: Callable[[], None]) -> tuple[bytes, bytes]:
    deadline = time.monotonic() + TIMEOUT_S
    more: bytes | None = order
    while True:
        try:
            return child.communicate(more, _LOOK_S)
        except subprocess.TimeoutExpired:
            more = None  # the first call keeps the part that is not sent yet
            check()
            if time.monotonic() > deadline:
                raise


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    with child:  # closes its pipes and waits for it
        pass


def examine(
    path: Path,
    expected: ExpectedVideo | None = None,
    *,
    apart: bool | VerificationProcess,
    tagging: Tagging | None = None,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """The `video.VideoFacts` of a file as a mapping; a damaged file is not an error, but has ``problems``.

    With ``expected``, ``differences`` lists the differences from it. With ``tagging``, a child makes a copy and the facts are
    those of the copy; if no valid copy can be made, they are those of the file itself and the copy does not exist. ``apart`` may be a
    child that is already started; ``check`` is called while a child works, and may raise to end it.
    """
    promise = [expected.width, expected.height, expected.num_frames, expected.fps] if expected else None
    if apart is False:
        return _facts(path, promise)
    copy = [str(tagging.target), dict(tagging.metadata)] if tagging else None
    process = apart if isinstance(apart, VerificationProcess) else VerificationProcess()
    order = [str(path), promise, copy]
    if tagging is None:
        return process.facts(order, check)
    _make(tagging.target)
    tagged = False
    try:
        facts = process.facts(order, check)
        tagged = facts.pop("tagged", False)
    finally:
        if not tagged:
            tagging.target.unlink(missing_ok=True)
    return facts


def _make(target: Path) -> None:
    """Create the empty file that a confined child fills; the child cannot create one."""
    with path_errors(target, "be written"):
        target.unlink(missing_ok=True)
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))


def _tagged(path: Path, promise: list[Any] | None, tagging: Tagging) -> dict[str, Any] | None:
    """The facts of a copy with tags; ``None`` if no valid copy can be made."""
    from .writer import write_metadata  # the decoder is large: only a process that decodes imports it

    with contextlib.suppress(VideoGenerationError):  # the facts of the video itself list its problems
        write_metadata(path, tagging.target, tagging.metadata)
        facts = _facts(tagging.target, promise)
        if not facts["problems"] and not facts["differences"]:
            return facts
    return None


def _facts(path: Path, promise: list[Any] | None) -> dict[str, Any]:
    from . import video

    facts = video.examine(path)
    differences = facts.differences(ExpectedVideo(*promise)) if promise else ()
    return {**facts.to_json(), "differences": list(differences)}


def _unreadable(problem: str) -> dict[str, Any]:
    return {"problems": [problem], "warnings": [], "differences": [], "metadata": {}}


def verify(
    path: Path, expected: ExpectedVideo | None, *, apart: bool | VerificationProcess, tagging: Tagging | None = None
) -> dict[str, Any]:
    """The facts of a video that matches ``expected``; without an expectation it is still decoded completely.

    Raises:
        OutputError: the video is missing, damaged or different from ``expected``; the evidence lists every difference.
    """
    facts = examine(path, expected, apart=apart, tagging=tagging)
    problems = [*facts["problems"], *facts.pop("differences")]
    if problems:
        raise OutputError(
            f"the clip does not match its plan: {problems[0]}",
            evidence=problems,
            advice="Nothing was published. The log of the attempt shows what the generator did.",
        )
    return facts


def save_last_frame(path: Path, target: Path) -> None:
    """Write the frame shown last as a PNG; a child decodes it and writes to an inherited descriptor.

    Raises:
        OutputError: the video has no undamaged last frame.
        BackendUnavailableError, OutOfMemoryError: something outside Reelwright ended the decoder; the video may be valid.
    """

    def run() -> Ending:
        with unfinished.open("wb") as file:
            child = _started(_LAST_FRAME_CHILD, str(path), stdin=subprocess.DEVNULL, stdout=file)
            try:
                _, errors = child.communicate(timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired:
                return None, b"", f"it takes longer than {TIMEOUT_S:.0f} s".encode()
            finally:
                _end(child)
        return child.returncode, b"", errors

    with replacing(target) as unfinished:
        status, _, errors = run_again(f"{path} could not be read", run)
        if status != 0:
            last = errors.decode(errors="replace").strip().splitlines()[-1:]
            raise OutputError(f"{path} has no last frame to continue from", evidence=last)


def write_last_frame() -> None:
    """Write the last frame as a PNG to standard output, as the child of `save_last_frame`."""
    from PIL import Image

    from .video import last_frame

    path = Path(sys.argv[1])
    _confine(path, None)
    Image.fromarray(last_frame(path)).save(sys.stdout.buffer, "PNG", compress_level=1)


def main() -> None:
    """Read a video's name, promise and tagging as JSON, and write its facts as JSON, as the child."""
    from . import video  # noqa: F401 -- imported before the order arrives

    order = sys.stdin.read()
    if not order:  # the runner has ended or needs nothing
        return
    name, promise, copy = json.loads(order)
    path, tagging = Path(name), Tagging(Path(copy[0]), copy[1]) if copy else None
    _confine(path, tagging.target if tagging else None)
    facts = _tagged(path, promise, tagging) if tagging else None
    json.dump({**facts, "tagged": True} if facts else _facts(path, promise), sys.stdout)


def _confine(path: Path, target: Path | None) -> None:
    """Give up everything but this video and its copy, and limit memory and time to more than any video needs."""
    import resource

    from .confinement import confine, limit

    limit({resource.RLIMIT_AS: _MAX_BYTES, resource.RLIMIT_NOFILE: 64}, _CPU_S)
    confine([path, *_code_folders()], [target] if target else [], opens=True)


def _code_folders() -> list[Path]:
    """The folders of Python and the decoder's packages; some modules are imported only when a video needs them."""
    import av
    import numpy as np
    import PIL

    return [Path(module.__file__ or "").parent for module in (os, av, np, PIL)] + [Path(__file__).parents[1]]
