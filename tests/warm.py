"""A Python process that is forked from one which has imported Reelwright: imports are most of a short run.

`start` and `run` take what `subprocess.Popen` and `subprocess.run` take. A command that is not ``python -m MODULE`` or
``python -c TEXT``, or whose environment changes how Python or its libraries start, is started as usual.

The server is this file run as a program. It answers each request with a waiter, which forks the process, sends its
number and, at its end, its status.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import io
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

_PROGRAMS = ([sys.executable, "-m"], [sys.executable, "-c"])
#: Variables that Python and its libraries read while they start, or while they are imported.
_READ_EARLY = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC", "GLIBC", "OPENBLAS", "OMP", "OPENCV", "COV", "TZ")
#: Signals whose being ignored a new process inherits, as `nohup` uses it.
_INHERITED = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT)
_OPTIONS = {"stdin", "stdout", "stderr", "text", "cwd", "env", "start_new_session", "encoding", "errors"}


class WarmProcess(subprocess.Popen[str]):
    """A process that the server forks."""

    def _execute_child(self, args: Sequence[str], *options: Any) -> None:
        cwd, env, pipes, new_session = options[4], options[5], options[9:15], options[20]
        ignored = [number for number in _INHERITED if signal.getsignal(number) is signal.SIG_IGN]
        request = {"argv": args[1:], "cwd": os.fspath(cwd or Path.cwd()), "env": dict(env), "session": new_session}
        request["ignored"] = ignored
        theirs = [pipes[0] if pipes[0] >= 0 else 0, *(p if p >= 0 else n for n, p in enumerate(pipes[3::2], 1))]
        self._messages = _request(json.dumps(request).encode(), theirs)
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]
        self._child_created = True
        self.pid = _number(os.read(self._messages, 8))

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if wait_flags & os.WNOHANG and not select.select([self._messages], [], [], 0)[0]:
            return 0, 0
        status = os.read(self._messages, 8)
        os.close(self._messages)
        return self.pid, _number(status) if status else signal.SIGKILL

    def _internal_poll(self, _deadstate: int | None = None) -> int | None:
        with self._waitpid_lock:  # type: ignore[attr-defined]
            if self.returncode is None and (status := self._try_wait(os.WNOHANG))[0]:
                self._handle_exitstatus(status[1])  # type: ignore[attr-defined]
        return self.returncode


def start(argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """``subprocess.Popen``, forked where that makes no difference."""
    argv = list(map(str, argv))
    env = dict(os.environ if options.get("env") is None else options["env"])
    if argv[:2] not in _PROGRAMS or not options.keys() <= _OPTIONS or _early(env) != _early(os.environ):
        return subprocess.Popen(argv, **options)
    return WarmProcess(argv, **{**options, "env": env})


def run(argv: Sequence[str], *, timeout: float, **options: Any) -> subprocess.CompletedProcess[str]:
    """Both streams as text and the status, as of ``subprocess.run``; forked where that makes no difference."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    given = options.pop("input", None)
    streams |= {"stdin": subprocess.PIPE} if given is not None else {}
    with start(argv, **{**streams, **options}) as process:
        try:
            out, err = process.communicate(given, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(list(argv), process.returncode, out, err)


def _early(environ: dict[str, str] | os._Environ[str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(_READ_EARLY)}


@functools.cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # a process with threads cannot be forked safely
    argv = [sys.executable, __file__, str(theirs.fileno())]
    null = subprocess.DEVNULL
    process = subprocess.Popen(
        argv, pass_fds=[theirs.fileno()], env=environ, start_new_session=True, stdin=null, stdout=null
    )
    theirs.close()

    @atexit.register
    def stop() -> None:
        ours.close()
        process.wait()

    return ours


def _request(text: bytes, streams: list[int]) -> int:
    """Send a request with its three streams; its messages come from the returned pipe: a number, then a status."""
    reading, writing = os.pipe()
    data = os.memfd_create("request")
    os.write(data, text)
    socket.send_fds(_server(), [b"1"], [data, writing, *streams])
    os.close(writing)
    os.close(data)
    return reading


def _number(message: bytes) -> int:
    return int.from_bytes(message, "big")


# --- the server


def _import_everything() -> None:
    import reelwright

    for module in pkgutil.walk_packages(reelwright.__path__, "reelwright."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # torch, and what needs it
                importlib.import_module(module.name)


def _serve(requests: socket.socket) -> list[str]:
    """Fork for every request; returns, in the process that was asked for, the words of its command line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # waiters end on their own
    while True:
        _, files, _, _ = socket.recv_fds(requests, 1, 5)
        if not files:
            os._exit(0)  # the tests are over
        if os.fork() == 0:
            requests.close()
            return _wait_for_child(files)
        for file in files:
            os.close(file)


def _wait_for_child(files: list[int]) -> list[str]:
    data, messages, *streams = files
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(messages)
        request = json.loads(os.pread(data, os.fstat(data).st_size, 0))
        os.close(data)
        return _become(request, streams)
    for file in (data, *streams, 0, 1, 2):
        os.close(file)
    os.write(messages, pid.to_bytes(8, "big"))
    status = os.waitpid(pid, 0)[1]
    with contextlib.suppress(BrokenPipeError):
        os.write(messages, status.to_bytes(8, "big"))
    os._exit(0)


def _become(request: dict[str, Any], streams: list[int]) -> list[str]:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in streams:
        os.close(stream)
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[0] = str(Path.cwd())
    _open_streams()
    for number in _INHERITED:
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else usual)
    return cast(list[str], request["argv"])


def _open_streams() -> None:
    """Streams as Python opens them, with the encoding that this environment gives."""
    for name, mode in (("stdin", "rb"), ("stdout", "wb"), ("stderr", "wb")):
        old = getattr(sys, name)
        file = open(old.fileno(), mode, closefd=False)  # noqa: SIM115, open to the end of the process
        line_buffering = name == "stderr" or (name == "stdout" and file.isatty())
        new = io.TextIOWrapper(file, old.encoding, old.errors, line_buffering=line_buffering)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import_everything()
    kind, program, *words = _serve(socket.socket(fileno=int(sys.argv[1])))
    sys.argv = [kind, *words]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(program, "<string>", "exec"), vars(sys.modules["__main__"]))
