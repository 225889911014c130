"""Asks a framework's own Python what it can import: once per change of that Python, not once per run.

Importing torch takes ten seconds, so the answer is remembered until the interpreter, its folders of packages or the
modules' files change their size or time. A module that kills the interpreter during its import (wheels for another
CPU do) is reported by name and left out of a second round. The answer is not judged here: an old torch is a fact.

    >>> ask_interpreter(InterpreterQuery(Path("/opt/nowhere/python")), environ={}, cache_dir=None).problem
    '/opt/nowhere/python does not exist'
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ....core.files import read_json, replacing
from ....core.host import Interpreter, InterpreterQuery, passed_through
from ..bounded_run import run_bounded

TIMEOUT_S = 120.0
_MAX_KEPT_BYTES = 16 * 1024 * 1024
_KEPT = ("python_version", "modules", "broken", "cuda_version", "cuda_devices", "cuda_archs", "packages")
_SCHEMA = 2
#: Variables that change the answer, and that a run sets later.
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
_CUDA = "torch.cuda"


@dataclass
class _Round:
    """The answers of one start of the interpreter; ``facts`` has the last value of every key."""

    facts: dict[str, Any] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    ended: str = ""
    printed: str = ""

    def take(self, item: dict[str, Any]) -> None:
        """Take one line of `interview`."""
        self.facts.update(item.items())
        self.files += [*item.get("paths", []), *filter(None, [item.get("file")])]
        if "module" in item:
            self.modules[item["module"]] = item["version"]
        if "broken" in item and item["broken"] != _CUDA:
            self.broken[item["broken"]] = item["error"]


def ask_interpreter(
    query: InterpreterQuery,
    *,
    environ: Mapping[str, str],
    cache_dir: Path | None,
    timeout_s: float = TIMEOUT_S,
) -> Interpreter:
    """The interpreter's answer, remembered in ``cache_dir`` (``None``: always ask).

    Only a complete answer is remembered. The call takes at most ``timeout_s`` and leaves no process behind.
    """
    problem = _file_problem(query.path)
    if problem:
        return Interpreter(query.path, problem=problem)
    scrubbed = {**passed_through(environ, (*query.env_names, *_VISIBLE)), **query.env}
    memory = _Remembered(query, scrubbed, cache_dir)
    known = memory.recall()
    if known is not None:
        return known
    answer, files = _interview(query, scrubbed, time.monotonic() + timeout_s)
    if files:
        memory.keep(answer, files)
    return answer


def _file_problem(path: Path) -> str | None:
    try:
        if path.is_dir():
            return f"{path} is a folder, not a Python interpreter"
        if not path.exists():
            return f"{path} {'is a dangling link' if path.is_symlink() else 'does not exist'}"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return None if os.access(path, os.X_OK) else f"{path} is not executable by this user"


def _interview(
    query: InterpreterQuery, environ: Mapping[str, str], deadline: float
) -> tuple[Interpreter, list[str] | None]:
    """The answer, and the files that it depends on; ``None`` for an answer that must not be remembered."""
    crashed: dict[str, str] = {}
    while True:
        names = [name for name in query.modules if name not in crashed]
        found = _ask(query, names, environ, deadline)
        facts, begun, done = found.facts, found.facts.get("begin"), found.facts.get("done")
        if facts.get("python") is None:
            said = f": {found.printed}" if found.printed else ""
            problem = f"does not answer like a Python interpreter ({found.ended}){said}"
            return Interpreter(query.path, problem=problem), None
        if not done and begun in names and time.monotonic() < deadline:
            crashed[str(begun)] = f"importing it ended the interpreter ({found.ended}) {found.printed}".strip()
            continue
        missing = [name for name in names if name not in found.modules and name not in found.broken]
        unasked = dict.fromkeys(missing, f"{found.ended} while importing {begun}")
        answer = Interpreter(
            query.path,
            python_version=facts["python"],
            modules=found.modules,
            broken={**found.broken, **crashed, **unasked},
            cuda_version=facts.get("cuda"),
            cuda_devices=facts.get("devices"),
            cuda_archs=tuple(facts.get("archs", ())),
            packages=facts.get("packages", {}),
        )
        return answer, found.files if done and not crashed else None


def _ask(query: InterpreterQuery, names: list[str], environ: Mapping[str, str], deadline: float) -> _Round:
    found = _Round()
    folder = query.folder if query.folder is not None and query.folder.is_dir() else None
    left_s = max(0.0, deadline - time.monotonic())
    program = Path(__file__).with_name("interview.py").read_text(encoding="utf-8")
    # -c instead of the path: a script's folder comes first on sys.path, and this folder holds Reelwright's modules.
    argv = [str(query.path), "-c", program, str(int(left_s) + 5), str(folder or ""), *names]
    try:
        done = run_bounded(argv, deadline_s=left_s, env=environ, cwd=folder or "/")
    except OSError as error:
        wrong = error.errno == errno.ENOEXEC
        found.ended = "wrong architecture, or not a program" if wrong else f"cannot be started: {error.strerror}"
        return found
    printed = [done.errors]
    for line in done.output.splitlines():
        try:
            found.take(json.loads(line))
        except (ValueError, TypeError, AttributeError):  # printed by something else, or cut by a crash
            printed.append(line[:400])
    lines = b"\n".join(printed).decode("utf-8", "replace").strip().splitlines()
    found.ended, found.printed = done.ending, " / ".join(lines[-2:])[:400]
    return found


class _Remembered:
    """One remembered answer: a JSON file named by the query, valid while the files that it lists are unchanged."""

    def __init__(self, query: InterpreterQuery, environ: Mapping[str, str], cache_dir: Path | None) -> None:
        self._query = query
        driver = [
            _version(Path("/proc/driver/nvidia/version")),
            *sorted(map(str, Path("/dev").glob("nvidia*"))),
        ]
        question = json.dumps(
            [_SCHEMA, str(query.path), str(query.folder), query.modules, sorted(environ.items()), driver]
        )
        name = hashlib.sha256(question.encode()).hexdigest()[:32]
        self._path = cache_dir / f"interpreter-{name}.json" if cache_dir else None

    def recall(self) -> Interpreter | None:
        """The remembered answer; ``None`` if none exists or a file has changed since."""
        if self._path is None:
            return None
        # Absent, damaged, or of another version: ask again. Pydantic's ValidationError is a ValueError.
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            kept = read_json(self._path, _MAX_KEPT_BYTES)
            if kept["files"] == _stamps(list(kept["files"])) and set(kept["answer"]) == set(_KEPT):
                found = {**kept["answer"], "path": self._query.path}
                answer: Interpreter = TypeAdapter(Interpreter).validate_python(found)
                return answer
        return None

    def keep(self, answer: Interpreter, files: list[str]) -> None:
        """Remember the answer; a folder that cannot be written is not an error."""
        if self._path is None:
            return
        path = self._query.path
        own = [str(path), str(path.resolve()), str(path.parent.parent / "pyvenv.cfg")]
        kept = {
            "answer": {name: getattr(answer, name) for name in _KEPT},
            "files": _stamps([*own, *files]),
        }
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as unfinished:
                unfinished.write_text(json.dumps(kept), encoding="utf-8")


def _stamps(paths: list[str]) -> dict[str, list[int] | None]:
    """Size, time and inode of each path; ``None`` for a missing one."""
    stamps: dict[str, list[int] | None] = {}
    for path in paths:
        try:
            found = os.stat(path)  # noqa: PTH116 - many plain names
            stamps[path] = [found.st_size, found.st_mtime_ns, found.st_ino]
        except OSError:
            stamps[path] = None
    return stamps


def _version(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
