"""Asking a framework's own Python what it can import: once per change of that Python, not once per run.

Importing torch takes ten seconds, so the answer is kept and trusted while the interpreter, its folders of
packages and the modules' files keep their size and time. A module that kills the interpreter while being
imported (wheels for another CPU do) is named and left out of a second round. Nothing is judged here: an old
torch is a fact.

    >>> ask_interpreter(InterpreterQuery(Path("/opt/nowhere/python")), environ={}, cache_dir=None).problem
    '/opt/nowhere/python does not exist'
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ....core.files import read_json
from ....core.host import Interpreter, InterpreterQuery, passed_through

TIMEOUT_S = 120.0
_MAX_KEPT_BYTES = 16 * 1024 * 1024
_KEPT = ("python_version", "modules", "broken", "cuda_version", "cuda_devices", "cuda_archs", "packages")
_SCHEMA = 2
_MAX_ANSWER_BYTES = 1 << 20
_MAX_NOISE_BYTES = 64 << 20
_KEPT_OUTPUT_BYTES = 4096
# What the run chooses itself, later, among those that the caller may use.
_SEEN = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
_CUDA = "torch.cuda"


@dataclass
class _Round:
    """What one start of the interpreter told."""

    python: str | None = None
    modules: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    cuda: str | None = None
    devices: int | None = None
    archs: tuple[str, ...] = ()
    packages: dict[str, str] = field(default_factory=dict)
    begun: str | None = None
    done: bool = False
    ended: str = ""
    printed: str = ""


def ask_interpreter(
    query: InterpreterQuery,
    *,
    environ: Mapping[str, str],
    cache_dir: Path | None,
    timeout_s: float = TIMEOUT_S,
) -> Interpreter:
    """What the interpreter says, remembered in ``cache_dir`` (``None`` = always ask).

    Only a complete answer is remembered. Takes at most ``timeout_s`` and leaves no process behind.
    """
    problem = _file_problem(query.path)
    if problem:
        return Interpreter(query.path, problem=problem)
    scrubbed = {**passed_through(environ, (*query.env_names, *_SEEN)), **query.env}
    memory = _Memory(query, scrubbed, cache_dir)
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
    """The answer, and the files it depends on if it may be remembered."""
    crashed: dict[str, str] = {}
    while True:
        names = [name for name in query.modules if name not in crashed]
        told = _ask(query, names, environ, deadline)
        if told.python is None:
            return Interpreter(query.path, problem=_silence(told)), None
        if not told.done and told.begun in names and time.monotonic() < deadline:
            crashed[str(told.begun)] = f"importing it ended the interpreter ({told.ended}) {told.printed}".strip()
            continue
        late = [name for name in names if name not in told.modules and name not in told.broken]
        unasked = dict.fromkeys(late, f"{told.ended} while importing {told.begun}")
        answer = Interpreter(
            query.path,
            python_version=told.python,
            modules=told.modules,
            broken={**told.broken, **crashed, **unasked},
            cuda_version=told.cuda,
            cuda_devices=told.devices,
            cuda_archs=told.archs,
            packages=told.packages,
        )
        return answer, told.files if told.done and not crashed else None


def _silence(told: _Round) -> str:
    said = f": {told.printed}" if told.printed else ""
    return f"does not answer like a Python interpreter ({told.ended}){said}"


def _ask(query: InterpreterQuery, names: list[str], environ: Mapping[str, str], deadline: float) -> _Round:
    told = _Round()
    folder = query.folder if query.folder is not None and query.folder.is_dir() else None
    left_s = max(1, int(deadline - time.monotonic()) + 5)
    program = Path(__file__).with_name("interview.py").read_text(encoding="utf-8")
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        process = subprocess.Popen(
            # -c and not the path: the folder of a script comes first on sys.path, and there lie our modules.
            [str(query.path), "-c", program, str(write), str(left_s), str(folder or ""), *names],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder or "/",
            env=dict(environ),
            pass_fds=(write,),
            start_new_session=True,
        )
    except OSError as error:
        os.close(read)
        told.ended = "wrong architecture or no program" if error.errno == 8 else f"cannot be started: {error.strerror}"
        return told
    finally:
        os.close(write)
    given_up = "interrupted"
    try:
        answers, printed, given_up = _listen(process, read, deadline)
    finally:
        _end(process, grace_s=0.0 if given_up else 1.0)
        os.close(read)
    told.ended = given_up or _ending(process.returncode)
    told.printed = " / ".join(printed.decode("utf-8", "replace").strip().splitlines()[-2:])[:400]
    for line in answers.splitlines():
        _take(told, line)
    return told


def _listen(process: subprocess.Popen[bytes], read: int, deadline: float) -> tuple[bytes, bytes, str]:
    """(answers, end of what was printed, why it was given up if it was); bounded, whatever is written."""
    assert process.stdout is not None
    answers, printed, noise = b"", b"", 0
    os.set_blocking(process.stdout.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(read, selectors.EVENT_READ)
        selector.register(process.stdout, selectors.EVENT_READ)
        ended = False
        while not ended:
            ready = {key.fd for key, _ in selector.select(max(0.0, deadline - time.monotonic()))}
            if not ready:
                return answers, printed, "no answer in time"
            if noise > _MAX_NOISE_BYTES or len(answers) > _MAX_ANSWER_BYTES:
                return answers, printed, "endless output"
            if process.stdout.fileno() in ready:
                chunk = os.read(process.stdout.fileno(), 65536)
                printed, noise = (printed + chunk)[-_KEPT_OUTPUT_BYTES:], noise + len(chunk)
                if not chunk:
                    selector.unregister(process.stdout)
            if read in ready:
                chunk = os.read(read, 65536)
                answers += chunk
                # Closed by the end of the program alone: it hands this descriptor to nobody.
                ended = not chunk or answers.endswith(b'{"done": true}\n')
    with contextlib.suppress(BlockingIOError):
        printed += os.read(process.stdout.fileno(), 65536)
    return answers, printed[-_KEPT_OUTPUT_BYTES:], ""


def _end(process: subprocess.Popen[bytes], *, grace_s: float) -> None:
    """Give it a moment to end by itself, then kill all of its session."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=grace_s)
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=2)
    if process.stdout is not None:
        process.stdout.close()


def _ending(status: int | None) -> str:
    if status is not None and status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


def _take(told: _Round, line: bytes) -> None:
    try:
        item: dict[str, Any] = json.loads(line)
    except ValueError:  # a line cut by a crash
        return
    told.python = item.get("python", told.python)
    told.begun = item.get("begin", told.begun)
    told.done = item.get("done", told.done)
    told.cuda, told.devices = item.get("cuda", told.cuda), item.get("devices", told.devices)
    told.archs, told.packages = tuple(item.get("archs", told.archs)), item.get("packages", told.packages)
    told.files += [*item.get("paths", []), *filter(None, [item.get("file")])]
    if "module" in item:
        told.modules[item["module"]] = item["version"]
    if "broken" in item and item["broken"] != _CUDA:
        told.broken[item["broken"]] = item["error"]


class _Memory:
    """One remembered answer: a JSON file named by the question, valid while its files are unchanged."""

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
        """The answer, if there is one and nothing has changed since."""
        if self._path is None:
            return None
        try:
            kept = read_json(self._path, _MAX_KEPT_BYTES)
            if kept["files"] != _stamps(list(kept["files"])):
                return None
            if set(kept["answer"]) != set(_KEPT):
                return None
            found = {**kept["answer"], "path": self._query.path}
            answer: Interpreter = TypeAdapter(Interpreter).validate_python(found)  # ValidationError is a ValueError
            return answer
        except (
            OSError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
        ):  # absent, damaged, or of another version: ask again
            return None

    def keep(self, answer: Interpreter, files: list[str]) -> None:
        """Remember; not being able to is no error."""
        if self._path is None:
            return
        path = self._query.path
        own = [str(path), str(path.resolve()), str(path.parent.parent / "pyvenv.cfg")]
        kept = {
            "answer": {name: getattr(answer, name) for name in _KEPT},
            "files": _stamps([*own, *files]),
        }
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(kept), encoding="utf-8")
            temporary.replace(self._path)


def _stamps(paths: list[str]) -> dict[str, list[int] | None]:
    """Size, time and inode of each, ``None`` where there is nothing."""
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
