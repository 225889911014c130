"""Looks at a framework's source checkout: its files, patterns in its source, its commit.

It reads text, and does not import or run any code of the checkout. If Git is installed, it runs `git log`, with a
deadline and without the repository settings that could start other programs. The backend interprets the findings.

    >>> look_at_checkout(CheckoutQuery(Path("/opt/nowhere")), environ={}).problem
    '/opt/nowhere does not exist'
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

from ....core.files import read_start
from ....core.host import Checkout, CheckoutQuery
from ..bounded_run import run_bounded

_GIT_TIMEOUT_S = 10.0
_MAX_SOURCE_BYTES = 4 << 20
_MANY = 64  # the most subfolders to look into
# A repository's own configuration may name programs to start; these options switch off the ones of `git log`.
_HARMLESS = ("-c", "core.fsmonitor=false", "-c", "log.showSignature=false", "-c", "core.hooksPath=/dev/null")


def look_at_checkout(query: CheckoutQuery, *, environ: Mapping[str, str]) -> Checkout:
    """Look at the folder; ``commit`` is ``None`` if Git does not know or trust the repository."""
    directory = query.directory
    problem = _folder_problem(directory)
    if problem:
        return Checkout(directory, problem)
    matches = {}
    for name, (file, pattern) in query.patterns.items():
        found = re.finditer(pattern, _source(directory / file), re.MULTILINE)
        matches[name] = tuple(match[1] if match.re.groups else match[0] for match in found)
    commit, committed_at = _commit(directory, environ)
    return Checkout(
        directory,
        files=frozenset(file for file in query.files if (directory / file).exists()),
        matches=matches,
        commit=commit,
        committed_at=committed_at,
        elsewhere=_elsewhere(directory, query.files),
    )


def _elsewhere(directory: Path, files: tuple[str, ...]) -> Path | None:
    """The folder that the user probably meant: one below for an unpacked zip, up to two above for a package inside."""
    if not files or (directory / files[0]).exists():
        return None
    try:
        below = sorted(path for path in directory.iterdir() if path.is_dir())[:_MANY]
        return next((path for path in (*below, *directory.parents[:2]) if (path / files[0]).exists()), None)
    except OSError:
        return None


def _folder_problem(directory: Path) -> str | None:
    try:
        if directory.is_dir():
            next(directory.iterdir(), None)
            return None
        return f"{directory} {'is not a folder' if directory.exists() else 'does not exist'}"
    except OSError as error:
        return f"{directory} cannot be read: {error.strerror}"


def _source(path: Path) -> str:
    try:
        return read_start(path, _MAX_SOURCE_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _commit(directory: Path, environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """(commit, ISO date). The ceiling keeps Git from answering for a repository in a folder above."""
    scrubbed = {name: environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in environ}
    scrubbed |= {
        "GIT_CEILING_DIRECTORIES": str(directory.resolve().parent),
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
    command = ["git", "--no-pager", *_HARMLESS, "-C", str(directory), "log", "-1", "--format=%H %cI"]
    with contextlib.suppress(OSError):
        answer = run_bounded(command, deadline_s=_GIT_TIMEOUT_S, env=scrubbed)
        words = answer.output.decode("ascii", "replace").split()
        if answer.status == 0 and len(words) == 2:
            return words[0], words[1]
    return None, None
