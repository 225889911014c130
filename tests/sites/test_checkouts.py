from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from reelwright.core.host import Checkout, CheckoutQuery
from reelwright.sites.local.probes.checkouts import look_at_checkout

PATTERNS = {
    "sizes": ("wan/configs.py", r"'(\d+\*\d+)'"),
    "fixed": ("wan/flf2v.py", r"torch\.ones\(1, 81"),
    "no": ("x", "y"),
}


def git(folder: Path, *words: str) -> None:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": "/nowhere",
        "GIT_COMMITTER_DATE": "2026-03-05T12:00:00+00:00",
    }
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "-C", folder, *identity, *words], env=environ, check=True, capture_output=True)


def a_checkout(folder: Path) -> Path:
    (folder / "wan").mkdir(parents=True)
    (folder / "generate.py").write_text("import wan\n")
    (folder / "wan/configs.py").write_bytes(b"SIZES = ('720*1280', '480*832')  # \xff\n")
    (folder / "wan/flf2v.py").write_text("msk = torch.ones(1, 81, h, w)\n")
    return folder


def look(folder: Path, **query: Any) -> Checkout:
    return look_at_checkout(CheckoutQuery(folder, **query), environ=os.environ)


def test_files_and_patterns_in_the_source_are_found(tmp_path: Path) -> None:
    found = look(a_checkout(tmp_path / "Wan2.1"), files=("generate.py", "wan", "setup.py"), patterns=PATTERNS)
    assert found.problem is None
    assert found.files == {"generate.py", "wan"}
    assert found.matches == {"sizes": ("720*1280", "480*832"), "fixed": ("torch.ones(1, 81",), "no": ()}
    assert (found.commit, found.committed_at) == (None, None)


def test_the_commit_and_its_date_are_reported(tmp_path: Path) -> None:
    folder = a_checkout(tmp_path / "Wan2.1")
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "x")
    found = look(folder)
    assert len(found.commit or "") == 40
    assert found.committed_at == "2026-03-05T12:00:00+00:00"


def test_the_commit_of_a_repository_around_it_is_not_taken_for_its_own(tmp_path: Path) -> None:
    folder = a_checkout(tmp_path / "mine/Wan2.1")
    git(tmp_path / "mine", "init")
    git(tmp_path / "mine", "commit", "--allow-empty", "-m", "x")
    assert look(folder).commit is None


def test_a_repository_cannot_make_reelwright_start_its_programs(tmp_path: Path) -> None:
    folder = a_checkout(tmp_path / "Wan2.1")
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho '[GNUPG:] SIG_CREATED ' >&2; echo sig; touch {tmp_path}/started\n")
    program.chmod(0o755)
    git(folder, "init")
    for name in ("core.fsmonitor", "gpg.program", "core.pager", "core.sshCommand"):
        git(folder, "config", name, str(program))
    git(folder, "config", "log.showSignature", "true")
    git(folder, "commit", "--allow-empty", "-S", "-m", "x")
    (tmp_path / "started").unlink()
    assert look(folder).commit is not None
    assert not (tmp_path / "started").exists()


def test_without_git_the_commit_is_unknown(tmp_path: Path) -> None:
    folder = a_checkout(tmp_path / "Wan2.1")
    git(folder, "init")
    git(folder, "commit", "--allow-empty", "-m", "x")
    found = look_at_checkout(CheckoutQuery(folder), environ={"PATH": str(tmp_path)})
    assert (found.problem, found.commit) == (None, None)


def test_a_missing_folder_and_a_file_are_problems(tmp_path: Path) -> None:
    assert look(tmp_path / "no").problem == f"{tmp_path / 'no'} does not exist"
    (tmp_path / "file").touch()
    assert look(tmp_path / "file").problem == f"{tmp_path / 'file'} is not a folder"
