"""Runs git, pip and Python for a setup: logs their output, reports some lines, and explains failures.

The programs inherit the lock of the setup, so a second setup notices them after the first was killed. They do not get
the hub's token. `sites.local.process` runs the frameworks' scripts.

    >>> Programs({"PATH": "/usr/bin", "HF_TOKEN": "x"}, None, print).environ
    {'PATH': '/usr/bin'}
"""

from __future__ import annotations

import collections
import contextlib
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..core.errors import BackendUnavailableError, Failure

#: The hub's token, and variables that change an interpreter or point git to another repository.
_NOT_PASSED = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PYTHONPATH", "PYTHONHOME", "GIT_DIR", "GIT_WORK_TREE")
_KEPT_LINES = 20
_GRACE_S, _KILL_WAIT_S = 10.0, 1.0  # git and pip remove unfinished files in this time


class Programs:
    """Runs programs without the hub's token; ``lock`` is a descriptor that they inherit."""

    def __init__(self, environ: Mapping[str, str], lock: int | None, on_line: Callable[[str], None]) -> None:
        self.environ = {name: value for name, value in environ.items() if name not in _NOT_PASSED}
        self._descriptors = () if lock is None else (lock,)
        self._on_line = on_line

    def run(self, argv: Sequence[str], *, title: str, log: Path, show: Sequence[str] = ()) -> list[str]:
        """Run a program, log its output, report lines that begin with one of ``show``, and return the last lines.

        Raises:
            BackendUnavailableError: the program is missing or fails; its last lines are the evidence.
        """
        last: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        env = {**self.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}
        try:
            process = subprocess.Popen(
                argv,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=self._descriptors,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise BackendUnavailableError(
                f"{title}: {argv[0]} cannot be started: {error.strerror}",
                failure=Failure.ENV,
                advice=f"Install {Path(argv[0]).name}, or check its path.",
            ) from None
        assert process.stdout is not None
        try:
            with log.open("a", encoding="utf-8") as file, process.stdout:
                for line in process.stdout:
                    file.write(line)
                    last.append(line.rstrip())
                    if line.startswith(tuple(show)):
                        self._on_line(line.rstrip())
            status = process.wait()
        except BaseException:
            _end(process)
            raise
        if status != 0:
            raise BackendUnavailableError(
                f"{title} failed with status {status}",
                failure=Failure.ENV,
                evidence=tuple(last),
                advice=f"Its whole output is in {log}; solve the problem, then run the same command again.",
            )
        return list(last)


def _end(process: subprocess.Popen[str]) -> None:
    """End a program, by force if it does not end in time or the user interrupts again."""
    process.terminate()
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE_S)
    finally:
        process.kill()  # nothing happens to a program that has ended
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_KILL_WAIT_S)
