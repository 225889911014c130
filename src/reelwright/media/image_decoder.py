"""Starts the picture decoder's child process, passes its descriptors, and explains how it ended.

Anything that a picture does to the child (a crash in a parser, an endless loop, a bomb) becomes an `InvalidInputError`.
If something outside ended the child, the picture is not at fault and the child is started once more. The child gets the
read-only copy of the picture and anonymous files for its report, its PNG and its errors. It gets no other descriptor,
and never opens the picture's path. This module handles no formats and no pixels.

    >>> with decode(held, {"format": "PNG", **limits}, write=True) as (report, png_fd):
    ...     report["width"]
    1280
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core.errors import BackendUnavailableError, InvalidInputError
from ..core.files import shown
from .child_starts import starting
from .decoder_exits import Ending, run_again, signal_name
from .picture_file import Held

TIMEOUT_S = 120.0
_NO_DECODER = 3
_MAX_REPORT_BYTES = 1 << 20
# -S: no .pth files and no user site, which cost 10 to 50 ms. The folders of the packages are appended instead, behind
# the standard library, so that they cannot replace a part of it. Imports are never lazy (Python 3.15), because the
# child cannot import anything after `confine`.
_BOOT = f"""\
import json, sys
job = json.loads(sys.argv[1])
sys.path += job["path"]
getattr(sys, "set_lazy_imports", str)("none")
try:
    from reelwright.media.image_child import main
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit({_NO_DECODER})
main(job)
"""
# Variables that the dynamic loader may need; no other variable (tokens, proxies) reaches the decoder.
_ENVIRON = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
_FEW_ARENAS = {"MALLOC_ARENA_MAX": "2"}  # one per thread would take 64 MB each of the limited address space
# Formats that another package reads: the module to import, and the package to install.
_PACKAGES = {"HEIF": ("pillow_heif", "pillow-heif"), "JXL": ("pillow_jxl", "'reelwright[jxl]'")}
_CONVERT = {"HEIF": "heif-convert a.heic a.png", "JXL": "djxl a.jxl a.png"}


def command() -> tuple[str, ...]:
    """The child's command line; the job is added as its last argument."""
    return (sys.executable, "-I", "-S", "-c", _BOOT)


@contextmanager
def decode(
    held: Held,
    job: Mapping[str, Any],
    *,
    write: bool,
    argv: Sequence[str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Iterator[tuple[dict[str, Any], int]]:
    """The child's report and, with ``write``, a descriptor of the PNG; both are valid inside the block.

    Raises:
        InvalidInputError: the picture was refused, or its decoding crashed, hung or outgrew its limits.
        BackendUnavailableError: the decoder itself cannot be started, or was ended from outside.
        OutOfMemoryError: the kernel ended it for lack of memory.
    """
    _check_package(held)
    report_fd, png_fd, error_fd = (os.memfd_create(f"reelwright-{name}") for name in ("report", "png", "errors"))
    try:
        full = {**job, "path": _import_folders(), "png_fd": png_fd if write else None}
        child = [*(argv or command()), json.dumps(full)]

        def run() -> Ending:
            os.lseek(held.fd, 0, os.SEEK_SET)  # the child shares this descriptor's offset
            for fd in (report_fd, error_fd, png_fd):
                os.ftruncate(fd, 0)
                os.lseek(fd, 0, os.SEEK_SET)
            status = _run(child, (held.fd, report_fd, error_fd), png_fd, timeout_s)
            return status, os.pread(report_fd, _MAX_REPORT_BYTES, 0), os.pread(error_fd, _MAX_REPORT_BYTES, 0)

        yield _report(held, run_again(f"{shown(held.source)} could not be decoded", run)), png_fd
    finally:
        for fd in (report_fd, png_fd, error_fd):
            os.close(fd)


def _check_package(held: Held) -> None:
    module, package = _PACKAGES.get(held.format, ("PIL", ""))
    if importlib.util.find_spec(module) is None:
        raise InvalidInputError(
            f"{shown(held.source)} is {held.called}, which this installation cannot read",
            advice=f"Install its reader (pip install {package}), or convert it: {_CONVERT[held.format]}",
        )


def _import_folders() -> list[str]:
    """The folders of reelwright, Pillow and its readers."""
    specs = [importlib.util.find_spec(name) for name in ("PIL", *(module for module, _ in _PACKAGES.values()))]
    others = dict.fromkeys(str(Path(spec.origin).parents[1]) for spec in specs if spec and spec.origin)
    return [str(Path(__file__).parents[2]), *others]


def _run(argv: Sequence[str], fds: tuple[int, int, int], passed: int, timeout_s: float) -> int | None:
    """The child's exit status; ``None`` if it was killed at the time limit."""
    environ = _FEW_ARENAS | {name: os.environ[name] for name in _ENVIRON if name in os.environ}
    try:
        with starting():
            child = subprocess.Popen(
                argv,
                stdin=fds[0],
                stdout=fds[1],
                stderr=fds[2],
                pass_fds=(passed,),
                env=environ,
                start_new_session=True,  # Ctrl-C in a terminal must reach only the runner: it is no crash of the decoder
            )
    except OSError as error:
        raise BackendUnavailableError(
            f"the picture decoder cannot be started: {error}", advice="Reinstall reelwright."
        ) from error
    try:
        return child.wait() if _ended(child.pid, timeout_s) else None
    finally:
        child.kill()
        child.wait()


def _ended(pid: int, timeout_s: float) -> bool:
    """Whether a child ended in time; ``Popen.wait`` with a limit would sleep for up to 50 ms too long."""
    watch = os.pidfd_open(pid)
    try:
        return bool(select.select([watch], [], [], timeout_s)[0])
    finally:
        os.close(watch)


def _report(held: Held, ending: Ending) -> dict[str, Any]:
    (status, answer, errors), name = ending, shown(held.source)
    if status is None:
        raise InvalidInputError(f"{name} cannot be decoded in reasonable time", advice="Export the picture again.")
    try:
        report: dict[str, Any] = {} if status else json.loads(answer)
    except ValueError:
        report = {}
    if not report:
        raise _crash(name, status, errors)
    if "refused" in report:
        raise InvalidInputError(
            f"{name}: {report['refused']}", evidence=tuple(report["evidence"]), advice=report["advice"]
        )
    return report


def _crash(name: str, status: int, errors: bytes) -> InvalidInputError | BackendUnavailableError:
    lines = errors.decode(errors="replace").strip().splitlines()[-1:]
    evidence = tuple(line[:300] for line in lines)
    if status == _NO_DECODER:
        return BackendUnavailableError(
            "the picture decoder cannot be loaded",
            evidence=evidence,
            advice="Reinstall reelwright and Pillow.",
        )
    how = f"status {status}" if status >= 0 else signal_name(-status)
    if status == -signal.SIGXCPU:
        how = "it used up its processor time"
    return InvalidInputError(
        f"{name} cannot be decoded: the decoder gave up ({how})",
        evidence=evidence,
        advice="The picture may be damaged or malicious. Export it again.",
    )
