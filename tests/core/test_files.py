"""Files that another process may have left: nothing here waits, follows links or reads without a limit."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from reelwright.core.errors import Failure
from reelwright.core.files import UnsafeFileError, open_regular, path_error, read_bytes, read_json, system_error


def test_a_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnsafeFileError, match="named pipe"):
        read_bytes(tmp_path / "pipe", 10)


@pytest.mark.parametrize("owned", [False, True])
def test_what_is_no_regular_file_is_refused(tmp_path: Path, owned: bool) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    server.close()
    for path in (tmp_path, tmp_path / "socket", Path("/dev/zero")):
        with pytest.raises(UnsafeFileError):
            open_regular(path, owned=owned)


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 11)
    with pytest.raises(UnsafeFileError, match="larger"):
        read_bytes(tmp_path / "large", 10)
    assert read_bytes(tmp_path / "large", 11) == b"x" * 11


def test_a_file_that_does_not_tell_its_size_is_read_up_to_the_limit() -> None:
    with pytest.raises(UnsafeFileError, match="larger"):
        read_bytes(Path("/proc/self/status"), 10)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without a name")
def test_a_user_without_a_home_folder_is_told_what_to_set() -> None:
    program = (
        "import os; from reelwright.core.files import expanded, home\n"
        "os.environ.pop('HOME', None); os.setuid(54321)\n"
        "assert str(expanded('~/x')) == '~/x'\ntry: home()\nexcept Exception as error: print(error.code, error.advice)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "CONFIG Set HOME to a folder that you can write to.\n"


def test_an_own_file_is_no_link_and_writable_by_nobody_else(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("{}")
    file.chmod(0o644)
    (tmp_path / "link").symlink_to(file)
    assert read_json(file, 10, owned=True) == {}
    assert read_json(tmp_path / "link", 10) == {}
    with pytest.raises(UnsafeFileError, match="symbolic link"):
        read_json(tmp_path / "link", 10, owned=True)
    file.chmod(0o666)
    with pytest.raises(UnsafeFileError, match="other users"):
        read_json(file, 10, owned=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_file_is_not_an_own_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    os.chown(tmp_path / "file", 65534, 65534)
    with pytest.raises(UnsafeFileError, match="another user"):
        read_json(tmp_path / "file", 10, owned=True)


@pytest.mark.parametrize("text", ["[" * 100 + "]" * 100, "[" * 200_000, '{"a":' * 100_000], ids=["100", "open", "keys"])
def test_json_that_is_nested_too_deeply_is_a_value_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "deep.json").write_text(text)
    with pytest.raises(ValueError, match=r"nested|Expecting"):
        read_json(tmp_path / "deep.json", 1 << 20)


@pytest.mark.parametrize(
    ("number", "failure"),
    [
        (errno.EACCES, Failure.PERM),
        (errno.EROFS, Failure.PERM),
        (errno.ENOSPC, Failure.DISK),
        (errno.EDQUOT, Failure.DISK),
        (errno.EFBIG, Failure.DISK),
        (errno.ESTALE, Failure.DISK),
        (errno.EMFILE, Failure.ENV),
        (errno.ENAMETOOLONG, Failure.INPUT),
        (errno.ELOOP, Failure.INPUT),
        (errno.ENOENT, Failure.INPUT),
    ],
)
def test_the_systems_refusal_of_a_path_has_its_class(number: int, failure: Failure) -> None:
    error = path_error(OSError(number, os.strerror(number)), Path("x"))
    assert error.failure is failure
    assert error.message.startswith("x cannot be read: ")


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (OSError(errno.ENOSPC, "No space left"), Failure.DISK),
        (OSError(errno.EDQUOT, "Quota exceeded"), Failure.DISK),
        (OSError(errno.EMFILE, "Too many open files"), Failure.ENV),
        (PermissionError(errno.EACCES, "Permission denied", "x"), Failure.PERM),
        (OSError(errno.EXDEV, "Cross-device link", "x", None, "y"), Failure.INPUT),
        (RuntimeError("can't start new thread"), Failure.ENV),
        (MemoryError(), Failure.OOM_HOST),
        (ImportError("libx.so: failed to map segment from shared object"), Failure.OOM_HOST),
        (ValueError("embedded null byte"), Failure.INPUT),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), Failure.INPUT),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), None),
        (FileNotFoundError(errno.ENOENT, "No such file"), None),
        (RuntimeError("dictionary changed size"), None),
        (ImportError("no module named x"), None),
        (ValueError("not a number"), None),
    ],
    ids=repr,
)
def test_what_the_system_refuses_is_no_bug_of_ours_and_a_bug_is_none_of_the_systems(
    error: Exception, failure: Failure | None
) -> None:
    found = system_error(error)
    assert (found and found.failure) is failure
    assert found is None or found.advice
