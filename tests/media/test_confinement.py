"""The process that decodes a file of unknown origin: what it cannot do, and what ends it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.errors import BackendUnavailableError, InvalidInputError, VideoGenerationError
from reelwright.media import confinement, image_decoder
from reelwright.media.decoder_exits import from_outside, killed
from reelwright.media.image import describe_picture
from reelwright.media.image_decoder import decode
from reelwright.media.picture_file import hold
from tests.media import pictures
from tests.media.pictures import four_corners

# Each prints "denied" if the kernel refuses, and else what it could do.
ATTEMPTS = {
    "a socket": "import socket; socket.socket()",
    "a socket of this machine": "import socket; socket.socket(socket.AF_UNIX)",
    "a pair of sockets": "import socket; socket.socketpair()",
    "a new process": "os.fork()",
    "a process by posix_spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "another program": "os.execv('/bin/true', ['true'])",
    "a signal to its parent": "os.kill(os.getppid(), 0)",
    "another file": "open('/etc/hostname')",
    "a folder": "os.listdir('/')",
    "a new file": "open('new', 'w')",
    "a file's removal": "os.unlink('mine')",
    "a file's new name": "os.rename('mine', 'other')",
    "a file's mode": "os.chmod('mine', 0)",
    "a file's time": "os.utime('mine')",
    "a new folder": "os.mkdir('folder')",
    "a link": "os.symlink('mine', 'link')",
    "a mount": "libc.mount(b'none', b'/mnt', b'tmpfs', 0, None) and fail()",
    "another name space": "libc.unshare(0x10000000) and fail()",
    "a look into another process": "libc.ptrace(16, os.getppid(), 0, 0) and fail()",
    "the limits of another process": "import resource; resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)",
    "the priority of another process": "os.setpriority(os.PRIO_PROCESS, os.getppid(), 5)",
    "the processors of another process": "os.sched_setaffinity(os.getppid(), {0})",
    "memory that outlives it": "libc.shmget(0, 4096, 0o1600) == -1 and fail()",
    "a queue that outlives it": "libc.msgget(0, 0o1600) == -1 and fail()",
    "io_uring": "libc.syscall(425, 8, b'x' * 120) == -1 and fail()",
}
_PROGRAM = """
import ctypes, os, sys
import resource, socket, threading
from reelwright.media.confinement import confine
libc = ctypes.CDLL(None, use_errno=True)
def fail(): raise OSError(ctypes.get_errno(), "refused")
confine(**{arguments})
try:
    {attempt}
except OSError as error:
    print("denied" if error.errno in (1, 13) else error)
else:
    print("done")
"""


def _confined(folder: Path, attempt: str, arguments: str = "{}") -> str:
    (folder / "mine").touch()
    program = _PROGRAM.replace("{arguments}", arguments).replace("{attempt}", attempt)
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() or done.stderr


@pytest.mark.parametrize("what", ATTEMPTS)
def test_a_confined_process_gets_nothing_new(tmp_path: Path, what: str) -> None:
    assert _confined(tmp_path, ATTEMPTS[what]) == "denied"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_a_confined_process_keeps_threads_memory_and_its_descriptors(tmp_path: Path) -> None:
    attempt = "t = threading.Thread(target=bytearray, args=(1 << 24,)); t.start(); t.join(); os.write(1, b'')"
    assert _confined(tmp_path, attempt) == "done"


@pytest.mark.parametrize(
    ("attempt", "outcome"),
    [
        ("open('seen').read()", "done"),
        ("open('seen', 'a')", "denied"),
        ("open('made', 'r+').write('x')", "done"),
        ("open('made', 'w').write('x')", "done"),
        ("open('mine')", "denied"),
        ("open('/proc/self/environ')", "denied"),
        ("open('new', 'w')", "denied"),
        ("os.unlink('made')", "denied"),
    ],
)
def test_only_the_named_files_can_be_opened(tmp_path: Path, attempt: str, outcome: str) -> None:
    for name in ("seen", "made"):
        (tmp_path / name).touch()
    arguments = "{'readable': ['seen', 'missing'], 'writable': ['made'], 'opens': True}"
    assert _confined(tmp_path, attempt, arguments) == outcome


def test_this_kernel_has_every_means() -> None:
    argv = [sys.executable, "-c", "from reelwright.media.confinement import confine; print(confine())"]
    had = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "seccomp" in had
    assert "landlock" in had


def test_a_kernel_or_processor_without_them_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        """A C library whose kernel knows no_new_privs alone."""

        def prctl(self, *_: Any) -> int:
            return 0

        def syscall(self, *_: Any) -> int:
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Old())
    assert confinement.confine(["x"]) == ("no_new_privs",)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("", "", "", "", "riscv64")))
    assert confinement.confine() == ("no_new_privs",)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_jump_of_the_filter_stays_inside_it(machine: str) -> None:
    for opens in (False, True):
        program = confinement._program(machine, opens=opens)
        assert len(program) < 4096
        for place, step in enumerate(program):
            code, then, otherwise = int.from_bytes(step[:2], "little"), step[2], step[3]
            if code & 7 == 5:
                assert place + 1 + max(then, otherwise) < len(program)
        assert program[-1][0] & 7 == 6


# ------------------------------------------------------------------------------- the decoders' own processes


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return pictures.save_in(tmp_path, four_corners())


_JOB = {"max_pixels": 1 << 20, "frame_pixels": 0, "num_bytes": 1000}


def _decode(path: Path, program: str) -> Any:
    """The result for a picture whose decoder does this instead."""
    boot = f"import json, os, signal, sys; job = json.loads(sys.argv[1]); sys.path += job['path']\n{program}"
    with (
        hold(path, 1 << 20) as held,
        decode(held, {**_JOB, "format": "PNG"}, write=False, argv=(sys.executable, "-I", "-S", "-c", boot)) as (
            report,
            _,
        ),
    ):
        return report


@pytest.mark.parametrize("attempt", ["import socket; socket.socket()", "open('/etc/hostname')", "os.fork()"])
def test_the_picture_decoder_itself_is_confined(picture: Path, attempt: str) -> None:
    program = (
        "import socket\nfrom reelwright.media import image_child\n"
        f"def work(job):\n    try:\n        {attempt}\n    except OSError as error:\n        return {{'told': error.errno}}\n"
        "image_child._work = work\nimage_child.main(job)"
    )
    assert _decode(picture, program)["told"] in (1, 13, 24)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_decoder_that_something_outside_ended_is_not_the_pictures_fault(picture: Path, sent: signal.Signals) -> None:
    with pytest.raises(VideoGenerationError) as caught:
        _decode(
            picture, f"signal.signal({int(sent)}, 0) if {int(sent)} != 9 else None; os.kill(os.getpid(), {int(sent)})"
        )
    assert caught.value.code in ("ENV", "OOM_HOST")
    assert sent.name in caught.value.evidence[0]
    assert "The file may be intact" in caught.value.advice


def test_a_decoder_that_was_ended_once_is_started_again(picture: Path, tmp_path: Path) -> None:
    mark = tmp_path / "once"
    program = (
        f"if not os.path.exists({str(mark)!r}):\n"
        f"    open({str(mark)!r}, 'w').close(); os.write(1, b'half a report'); os.read(0, 9); os.kill(os.getpid(), 9)\n"
        "from reelwright.media.image_child import main\n"
        "main({**job, 'min_side': 1, 'max_aspect': None, 'frame': None, 'fit': 'cover', "
        "'anchor': [0, 0]})"
    )
    assert _decode(picture, program)["width"] == 120


_SPIN = (
    "import resource\nfrom reelwright.media import image_child\nimage_child._limit(job, 1000)\n"
    "soft, hard = resource.getrlimit(resource.RLIMIT_CPU)\nassert soft < hard\n"
    "resource.setrlimit(resource.RLIMIT_CPU, (1, hard + 1 - soft))\nwhile True: pass"
)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("os.abort()", "SIGABRT"),
        (
            _SPIN,
            "it used up its processor time",
        ),
    ],
)
def test_a_crash_and_a_limit_of_its_own_are_the_pictures_fault(picture: Path, program: str, words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _decode(picture, program)
    assert words in caught.value.message


def test_the_validator_says_that_a_picture_could_not_be_checked(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_decoder, "command", lambda: (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    answer = describe_picture(picture)
    assert not answer["valid"]
    assert "could not be decoded" in answer["errors"][0]


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (0, None),
        (1, None),
        (None, None),
        (-11, None),
        (-6, None),
        (-24, None),
        (-9, "SIGKILL"),
        (-15, "SIGTERM"),
        (-40, "signal 40"),
    ],
)
def test_which_ends_come_from_outside(status: int | None, name: str | None) -> None:
    assert from_outside(status) == name


def test_the_kernels_own_kill_for_memory_is_named() -> None:
    error = killed("a.png could not be decoded", "SIGKILL", for_memory=True)
    assert (error.code, "lack of memory" in error.message) == ("OOM_HOST", True)
    assert isinstance(killed("x", "SIGTERM", for_memory=False), BackendUnavailableError)
