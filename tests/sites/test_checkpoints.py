from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import pytest

from reelwright.core.host import CheckpointQuery
from reelwright.sites.local.probes.checkpoints import look_at_checkpoint
from reelwright.sites.local.probes.folders import Files
from reelwright.sites.local.probes.tensor_file import weights_problem
from tests.conftest import patiently
from tests.sites.conftest import MakeCheckpoint

SHARD = "diffusion_pytorch_model-00002-of-00003.safetensors"
INDEX = "diffusion_pytorch_model.safetensors.index.json"
RECORDS = ".cache/huggingface/download"


def problem(query: CheckpointQuery, **options: Any) -> str:
    """The only problem of a checkpoint."""
    (found,) = look_at_checkpoint(query, **options).problems
    return found


def test_a_complete_checkpoint_has_no_problem(a_checkpoint: MakeCheckpoint) -> None:
    found = look_at_checkpoint(a_checkpoint())
    assert found.problems == ()
    assert found.config == {"model_type": "i2v", "num_heads": 40}
    assert len(found.files) == 3 + 1 + 2 + 1 + 1
    assert found.files["Wan2.1_VAE.pth"] == 5000
    assert found.foreign == frozenset()


def test_a_foreign_layout_is_seen(a_checkpoint: MakeCheckpoint) -> None:
    query = a_checkpoint()
    (query.directory / "model_index.json").write_text("{}")
    assert look_at_checkpoint(query).foreign == {"model_index.json"}


class CountingFiles(Files):
    """Counts the bytes that a look reads."""

    def __init__(self) -> None:
        self.bytes_read = 0

    def open(self, path: Path) -> BinaryIO:
        return cast(BinaryIO, CountingFile(super().open(path), self))


class CountingFile:
    def __init__(self, file: BinaryIO, files: CountingFiles) -> None:
        self.file, self.files = file, files

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.files.bytes_read += len(data)
        return data


def test_a_checkpoint_of_true_size_is_read_in_small_part(a_checkpoint: MakeCheckpoint) -> None:
    query = a_checkpoint(shards=7, shard_bytes=9 << 30, other_bytes=11 << 30)
    files = CountingFiles()
    found = look_at_checkpoint(query, files=files)
    assert files.bytes_read < 100_000_000
    assert found.problems == ()
    assert found.total_bytes > 80e9


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Overwrite some bytes; the file's size and time stay."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("name", "offset", "size"),
    [
        (SHARD, 3 << 30, 1 << 29),
        (SHARD, -10, 10),
        ("Wan2.1_VAE.pth", 80 << 10, 1 << 20),
        ("config.json", 20, 1),
    ],
)
def test_other_weights_of_the_same_size_have_another_fingerprint(
    a_checkpoint: MakeCheckpoint, name: str, offset: int, size: int
) -> None:
    query = a_checkpoint(shard_bytes=9 << 30, other_bytes=4 << 20)
    before = look_at_checkpoint(query).fingerprint
    overwrite(query.directory / name, offset, b"x" * size)
    after = look_at_checkpoint(query).fingerprint
    assert len(before) == len(after) == 64
    assert after != before


def test_the_same_weights_in_another_place_have_the_same_fingerprint(
    a_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    query = a_checkpoint()
    before = look_at_checkpoint(query)
    query.directory.rename(tmp_path / "moved")
    for path in (tmp_path / "moved").rglob("*"):
        os.utime(path, (1, 1))
    after = look_at_checkpoint(replace(query, directory=tmp_path / "moved"))
    assert after.fingerprint == before.fingerprint


# M01: missing files, partial files, and files that are no weights


def test_m01_a_missing_folder(tmp_path: Path) -> None:
    assert problem(CheckpointQuery(tmp_path / "no")) == f"{tmp_path / 'no'} is missing"


def test_m01_an_empty_folder(tmp_path: Path) -> None:
    assert problem(CheckpointQuery(tmp_path, required=("a",))) == f"{tmp_path} is empty"


def test_m01_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(b"PK")
    assert problem(CheckpointQuery(tmp_path / "model.zip")) == f"{tmp_path / 'model.zip'} is not a folder"


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def into_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to("../../blobs/gone")


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "is missing"),
    "zero bytes": (lambda path: path.write_bytes(b""), "is empty"),
    "pointer": (
        lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"),
        "Git LFS pointer",
    ),
    "html": (lambda path: path.write_bytes(b"<!DOCTYPE html><html>Sign in" + b" " * 500), "is a web page: log in"),
    "cut": (cut, "is cut off"),
    "folder": (into_a_folder, "is not a file"),
    "dangling": (dangle, "dangling link"),
}


@pytest.mark.parametrize("name", [SHARD, "Wan2.1_VAE.pth"])
@pytest.mark.parametrize("fault", BREAKS)
def test_m01_a_broken_weights_file_is_named_with_its_fault(a_checkpoint: MakeCheckpoint, name: str, fault: str) -> None:
    query = a_checkpoint()
    breaking, words = BREAKS[fault]
    breaking(query.directory / name)
    found = problem(query)
    assert name in found
    assert words in found


def test_m01_a_safetensors_file_longer_than_its_header_says(a_checkpoint: MakeCheckpoint) -> None:
    query = a_checkpoint()
    lengthen(query.directory / SHARD)
    assert "longer than its header says" in problem(query)


def test_m01_a_safetensors_file_cut_inside_its_header(a_checkpoint: MakeCheckpoint) -> None:
    query = a_checkpoint()
    os.truncate(query.directory / SHARD, 100)
    assert "is cut off: its header alone needs" in problem(query)


def test_m01_a_shard_of_another_download(a_checkpoint: MakeCheckpoint) -> None:
    query = a_checkpoint()
    (query.directory / SHARD).write_bytes((query.directory / SHARD.replace("00002-", "00001-")).read_bytes())
    assert "lacks 100 tensors" in problem(query)
    assert SHARD in problem(query)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is not valid JSON"),
        ('{"weight_map": {}}', "lists no shards"),
        ("", "is empty"),
    ],
)
def test_m01_a_damaged_index(a_checkpoint: MakeCheckpoint, text: str, words: str) -> None:
    query = a_checkpoint()
    (query.directory / INDEX).write_text(text)
    assert any(words in item and INDEX in item for item in look_at_checkpoint(query).problems)


def test_m01_a_missing_index_and_shard_are_named_after_the_others(a_checkpoint: MakeCheckpoint) -> None:
    query = a_checkpoint()
    (query.directory / INDEX).unlink()
    (query.directory / SHARD).unlink()
    assert problem(query) == f"{query.directory}: 2 files are missing: {SHARD}, {INDEX}"


def test_m01_no_weights_at_all(a_checkpoint: MakeCheckpoint) -> None:
    query = a_checkpoint()
    for path in query.directory.glob("diffusion*"):
        path.unlink()
    assert "diffusion_pytorch_model*.safetensors matches no file" in problem(query)


def test_m01_weights_in_a_missing_subfolder(a_checkpoint: MakeCheckpoint) -> None:
    query = replace(a_checkpoint(), weights=("low_noise_model/*.safetensors",))
    assert problem(query).endswith("low_noise_model is missing")


@pytest.mark.parametrize("name", ["x.safetensors.incomplete", "y.lock", "z.aria2", "google/umt5-xxl/t.json.part"])
def test_m01_the_mark_of_an_unfinished_download(a_checkpoint: MakeCheckpoint, name: str) -> None:
    query = a_checkpoint()
    (query.directory / name).write_bytes(b"1")
    found = problem(query)
    assert name in found
    assert "unfinished download" in found


def test_m01_a_download_that_huggingface_hub_did_not_finish(a_checkpoint: MakeCheckpoint) -> None:
    query = a_checkpoint()
    (query.directory / RECORDS).mkdir(parents=True)
    (query.directory / RECORDS / "abc.def.incomplete").write_bytes(b"1")
    assert "unfinished download: run the download again" in problem(query)


def test_m01_a_lock_that_huggingface_hub_left_behind_is_no_problem_but_a_held_one_is(
    a_checkpoint: MakeCheckpoint,
) -> None:
    query = a_checkpoint()
    lock = query.directory / RECORDS / "config.json.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert look_at_checkpoint(query).problems == ()
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "a download into this folder is running" in problem(query)


def test_m01_a_tokenizer_folder_that_is_missing_or_empty_or_holds_a_pointer(a_checkpoint: MakeCheckpoint) -> None:
    query = a_checkpoint()
    tokenizer = query.directory / "google/umt5-xxl/tokenizer.json"
    tokenizer.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "google/umt5-xxl/tokenizer.json is a Git LFS pointer" in problem(query)
    tokenizer.unlink()
    assert "google/umt5-xxl is empty" in problem(query)
    tokenizer.parent.rmdir()
    assert "google/umt5-xxl is missing" in problem(query)


def test_m01_a_config_that_is_no_json(a_checkpoint: MakeCheckpoint) -> None:
    query = a_checkpoint()
    (query.directory / "config.json").write_text("[[")
    assert "config.json is not valid JSON" in problem(query)


def test_links_into_the_hub_cache_are_fine(a_checkpoint: MakeCheckpoint) -> None:
    query = a_checkpoint()
    blobs = query.directory.parent / "blobs"
    blobs.mkdir()
    for path in [*query.directory.glob("*.pth"), *query.directory.glob("*.safetensors")]:
        path.rename(blobs / path.name)
        path.symlink_to(f"../blobs/{path.name}")
    assert look_at_checkpoint(query).problems == ()


def test_m01_files_that_this_user_may_not_read(a_checkpoint: MakeCheckpoint, python_environ: dict[str, str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    query = a_checkpoint()
    for folder in [query.directory, *query.directory.parents[:-1]]:
        folder.chmod(folder.stat().st_mode | 0o055)
    (query.directory / "Wan2.1_VAE.pth").chmod(0o600)
    script = (
        "import sys, os; from pathlib import Path\n"
        "from reelwright.sites.local.probes.checkpoints import look_at_checkpoint as look, CheckpointQuery as Query\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(look(Query(Path(sys.argv[1]), required=('Wan2.1_VAE.pth',))).problems[0])"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, query.directory],
        env=python_environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == f"{query.directory}/Wan2.1_VAE.pth cannot be read: Permission denied\n"


# The formats themselves


def torch_file(**options: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"x" * 3000)
        archive.comment = options.pop("comment", b"")
    return buffer.getvalue()


def test_a_complete_archive_is_accepted_and_every_cut_is_found() -> None:
    whole = torch_file()
    assert weights_problem(io.BytesIO(whole), len(whole), "a.pth") is None
    for size in range(1, len(whole), 97):
        assert weights_problem(io.BytesIO(whole[:size]), size, "a.pth") is not None


def test_an_archive_whose_beginning_was_never_downloaded_is_no_archive() -> None:
    holed = bytes(100) + torch_file()[100:]
    assert "is not a PyTorch file" in (weights_problem(io.BytesIO(holed), len(holed), "a.pth") or "")


def test_an_archive_whose_directory_is_overwritten_is_damaged() -> None:
    whole = torch_file().replace(b"PK\x01\x02", b"\0\0\0\0")
    assert weights_problem(io.BytesIO(whole), len(whole), "a.pth") == "has a damaged zip directory"


def test_the_old_format_of_torch_is_accepted() -> None:
    old = bytes.fromhex("80028a0a6cfc9c46f9206aa85019") + b"." + bytes(100)
    assert weights_problem(io.BytesIO(old), len(old), "a.pt") is None


@pytest.mark.parametrize(
    "head", [b"\xff" * 8, b"\0" * 8, (10**7).to_bytes(8, "little"), (2).to_bytes(8, "little") + b"[]", b"12"]
)
def test_m01_an_impossible_safetensors_header_is_reported_without_reading_on(head: bytes) -> None:
    raw = head + b"{}" * 20 if len(head) == 8 else head
    assert weights_problem(io.BytesIO(raw), len(raw), "a.safetensors") is not None


# M02: checksums


def sums(query: CheckpointQuery) -> None:
    """Record the checksums of all files of a checkpoint as `sha256sum` does."""
    found = [path for path in query.directory.rglob("*") if path.is_file()]
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(query.directory)}\n" for path in found
    ]
    (query.directory / "SHA256SUMS").write_text("".join(lines))


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-60 if path.suffix == ".safetensors" else 2000] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize("name", [SHARD, "models_t5.pth"])
def test_m02_a_flipped_byte_is_found_by_verifying_only(a_checkpoint: MakeCheckpoint, name: str) -> None:
    query = a_checkpoint(verify=True)
    sums(query)
    assert look_at_checkpoint(query).problems == ()
    flip(query.directory / name)
    assert look_at_checkpoint(replace(query, verify=False)).problems == ()
    assert f"{name} is damaged" in problem(query)


def test_m02_the_records_of_huggingface_hub_are_used(a_checkpoint: MakeCheckpoint) -> None:
    query = a_checkpoint(verify=True)
    sums(query)
    lines = (query.directory / "SHA256SUMS").read_text().splitlines()
    (query.directory / "SHA256SUMS").unlink()
    for digest, name in (line.split("  ") for line in lines):
        etag = digest
        if name.endswith(".json"):  # small files are recorded with Git's checksum
            raw = (query.directory / name).read_bytes()
            etag = hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest()
        record = query.directory / RECORDS / f"{name}.metadata"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(f"{'0' * 40}\n{etag}\n1700000000.0\n")
    assert look_at_checkpoint(query).problems == ()
    (query.directory / "config.json").write_text('{"model_type": "i2v", "num_heads": 41}')
    assert "config.json is damaged" in problem(query)


def test_m02_the_names_in_the_hub_cache_are_checksums(a_checkpoint: MakeCheckpoint) -> None:
    query = a_checkpoint(verify=True)
    sums(query)
    path = query.directory / "models_t5.pth"
    blobs = query.directory.parent / "blobs"
    blobs.mkdir()
    (query.directory / "SHA256SUMS").write_text(
        "".join(line for line in (query.directory / "SHA256SUMS").read_text().splitlines(True) if "t5" not in line)
    )
    blob = path.rename(blobs / hashlib.sha256(path.read_bytes()).hexdigest())
    path.symlink_to(f"../blobs/{blob.name}")
    assert look_at_checkpoint(query).problems == ()
    flip(blob)
    assert "models_t5.pth is damaged" in problem(query)


def test_m02_weights_without_a_recorded_checksum_are_not_called_verified(a_checkpoint: MakeCheckpoint) -> None:
    query = a_checkpoint(verify=True)
    found = problem(query)
    assert "5 files have no recorded checksum" in found
    assert all(name in found for name in (SHARD, "Wan2.1_VAE.pth", "models_t5.pth"))


def test_m02_verifying_reports_its_progress(a_checkpoint: MakeCheckpoint) -> None:
    query = a_checkpoint(verify=True)
    sums(query)
    reports: list[tuple[int, int]] = []
    found = look_at_checkpoint(query, on_progress=lambda done, total: reports.append((done, total)))
    assert reports[-1] == (found.total_bytes, found.total_bytes)


# M03: a dying disk


class FailingFiles(Files):
    """The n-th call to the disk fails with EIO: any of stat, listing, opening and reading."""

    def __init__(self, failing: int) -> None:
        self.left = failing
        self.lock = threading.Lock()

    def call(self, path: Path) -> None:
        with self.lock:
            self.left -= 1
        if self.left == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    def stat(self, path: Path) -> os.stat_result:
        self.call(path)
        return super().stat(path)

    def names(self, folder: Path) -> list[str]:
        self.call(folder)
        return super().names(folder)

    def open(self, path: Path) -> BinaryIO:
        self.call(path)
        return cast(BinaryIO, FailingFile(super().open(path), path, self))


class FailingFile:
    def __init__(self, file: BinaryIO, path: Path, files: FailingFiles) -> None:
        self.file, self.path, self.files = file, path, files

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("read"):
            self.files.call(self.path)
        return getattr(self.file, name)


@pytest.mark.parametrize("verify", [False, True])
def test_m03_any_failed_read_becomes_a_problem_and_never_a_pass(a_checkpoint: MakeCheckpoint, verify: bool) -> None:
    query = a_checkpoint(verify=verify)
    sums(query)
    number, unharmed = 0, False
    while not unharmed:
        number += 1
        files = FailingFiles(number)
        found = look_at_checkpoint(query, files=files)
        unharmed = files.left > 0
        assert unharmed == (found.problems == ()), (number, found.problems)
        assert unharmed or any("Input/output error" in item for item in found.problems)
    assert number > 40


#: Time limits after which a disk counts as hung; the first is too short for a healthy disk on a busy machine.
STALLS_S = (0.2, 2.0, 20.0)


class StallingFiles(Files):
    """Opening one name blocks until the test sets ``go_on``."""

    def __init__(self, name: str) -> None:
        self.name, self.go_on = name, threading.Event()

    def open(self, path: Path) -> BinaryIO:
        if path.name == self.name:
            self.go_on.wait(100)
        return super().open(path)


def test_m03_a_mount_that_no_longer_answers_costs_the_time_limit_only(a_checkpoint: MakeCheckpoint) -> None:
    files, query = StallingFiles(SHARD), a_checkpoint()
    started = time.monotonic()
    found = patiently(
        lambda stall_s: problem(query, files=files, stall_s=stall_s), lambda said: SHARD in said, STALLS_S
    )
    files.go_on.set()
    assert time.monotonic() - started < 90
    assert SHARD in found
    assert any(f"did not answer for {stall_s:g} s" in found for stall_s in STALLS_S)


def test_a_bug_in_the_look_is_raised_and_not_taken_for_a_complete_checkpoint(a_checkpoint: MakeCheckpoint) -> None:
    class Buggy(Files):
        def open(self, path: Path) -> BinaryIO:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        look_at_checkpoint(a_checkpoint(), files=Buggy())


# One line for each cause


@pytest.mark.parametrize(
    ("shards", "breaking", "words"),
    [
        (range(1, 8), Path.unlink, "7 of 7 shards are missing: "),
        ((2, 5), Path.unlink, "2 of 7 shards are missing: "),
        ((2, 5), cut, "2 of 7 shards are cut off: "),
        ((1, 2, 3), lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
         "3 of 7 shards are Git LFS pointers: "),
        ((1, 2), lambda path: path.write_bytes(b""), "2 of 7 shards are empty: "),
    ],
)  # fmt: skip
def test_m01_shards_with_the_same_fault_are_one_line(
    a_checkpoint: MakeCheckpoint, shards: Iterable[int], breaking: Callable[[Path], object], words: str
) -> None:
    query = a_checkpoint(shards=7)
    names = [f"diffusion_pytorch_model-{number:05}-of-00007.safetensors" for number in shards]
    for name in names:
        breaking(query.directory / name)
    found = problem(query)
    assert words in found
    assert names[0] in found


def test_m01_everything_missing_is_one_line(a_checkpoint: MakeCheckpoint) -> None:
    query = a_checkpoint()
    for path in [path for path in query.directory.rglob("*") if path.is_file()]:
        path.unlink()
    (query.directory / "README.md").touch()
    found = look_at_checkpoint(query).problems
    assert [item for item in found if "are missing" in item] == [
        f"{query.directory}: 3 files are missing: Wan2.1_VAE.pth, models_t5.pth, config.json"
    ]


def test_m01_several_parts_of_unfinished_downloads_are_one_line(a_checkpoint: MakeCheckpoint) -> None:
    query = a_checkpoint()
    (query.directory / RECORDS).mkdir(parents=True)
    for name in ("a.incomplete", "b.incomplete", "c.incomplete"):
        (query.directory / RECORDS / name).write_bytes(b"1")
    assert "3 files are unfinished downloads: " in problem(query)
    assert "(run the download again" in problem(query)
