"""The stand-in weights are real containers, and broken ones fail with the words that the real framework had."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import pytest

from tests.stand_ins.checkpoints import (
    BREAKAGES,
    CLIP,
    INDEX,
    T5,
    VAE,
    break_checkpoint,
    make_wan_checkpoint,
    shards_of,
)
from tests.stand_ins_check.conftest import Bench

LOGS = Path(__file__).parents[1] / "logs"


def _header(path: Path) -> tuple[int, dict[str, object]]:
    """(bytes that the header promises in all, header)."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    ends = [item["data_offsets"][1] for name, item in header.items() if name != "__metadata__"]
    return 8 + length + max(ends), header


@pytest.mark.parametrize("true_size", [False, True])
@pytest.mark.parametrize(("task", "shards"), [("i2v-14B", 7), ("flf2v-14B", 7), ("t2v-14B", 6), ("t2v-1.3B", 1)])
def test_index_headers_and_sizes_agree(tmp_path: Path, task: str, shards: int, true_size: bool) -> None:
    folder = make_wan_checkpoint(tmp_path / "weights", task, true_size=true_size)
    found = {path.name: _header(path) for path in shards_of(folder)}
    assert len(found) == shards
    assert {name: promised for name, (promised, _) in found.items()} == {
        name: (folder / name).stat().st_size for name in found
    }
    if shards > 1:
        index = json.loads((folder / INDEX).read_text())["weight_map"]
        assert all(tensor in found[shard][1] for tensor, shard in index.items())


@pytest.mark.parametrize("true_size", [False, True])
def test_archives_open_at_any_size(tmp_path: Path, true_size: bool) -> None:
    folder = make_wan_checkpoint(tmp_path / "weights", "i2v-14B", true_size=true_size)
    for name in (T5, VAE, CLIP):
        with zipfile.ZipFile(folder / name) as archive:
            assert "archive/data.pkl" in archive.namelist()
            assert archive.start_dir == _directory_start(folder / name)


def _directory_start(path: Path) -> int:
    """What the archive itself says; zipfile would forgive a wrong number."""
    with path.open("rb") as data:
        size = data.seek(0, 2)
        data.seek(max(0, size - 400))
        tail = data.read()
    record = tail.find(b"PK\x06\x06")
    (start,) = struct.unpack_from("<Q", tail, record + 48) if record >= 0 else struct.unpack("<I", tail[-6:-2])
    return int(start)


def test_true_size_takes_no_room(tmp_path: Path) -> None:
    folder = make_wan_checkpoint(tmp_path / "weights", "i2v-14B", true_size=True)
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    assert sum(found.st_size for found in files) > 80_000_000_000
    assert sum(found.st_blocks * 512 for found in files) < 2_000_000


def test_every_breakage_changes_the_folder(tmp_path: Path) -> None:
    for number, way in enumerate(BREAKAGES):
        folder = make_wan_checkpoint(tmp_path / str(number), "i2v-14B")
        before = _listing(folder)
        break_checkpoint(folder, way)
        assert _listing(folder) != before, way


def _listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("way", "case"),
    [
        ("text encoder is an LFS pointer", "ckpt_t5_lfs"),
        ("text encoder truncated", "ckpt_t5_cut"),
        ("text encoder empty", "ckpt_t5_empty"),
        ("text encoder missing", "missing_t5"),
        ("tokenizer missing", "ckpt_no_tokenizer"),
        ("shard missing", "ckpt_shard_missing"),
        ("shard truncated", "ckpt_shard_cut"),
        ("shard empty", "ckpt_shard_empty"),
        ("shard is an LFS pointer", "ckpt_shard_lfs"),
        ("shard header impossible", "ckpt_header_too_large"),
        ("config missing", "ckpt_no_config"),
    ],
)
def test_m01_broken_weights_fail_with_the_words_of_the_real_run(bench: Bench, way: str, case: str) -> None:
    break_checkpoint(bench.weights, way)
    assert bench.run() == 1
    real = (LOGS / f"wan21_real_{case}.txt").read_bytes().decode("utf-8")
    where = "/models/" if case == "missing_t5" else "/models/i2v/"
    last = _last_error(bench.stderr).replace(f"{bench.weights}/", where).replace(str(bench.weights), "/models/i2v")
    assert last == _last_error(real)


def test_broken_shards_name_safetensors_too(bench: Bench) -> None:
    break_checkpoint(bench.weights, "shard truncated")
    assert bench.run() == 1
    words = "Error while deserializing header: incomplete metadata, file not fully covered"
    assert f"safetensors._safetensors_rust.SafetensorError: {words}" in bench.stderr
    assert words in (LOGS / "wan21_real_ckpt_shard_cut.txt").read_text("utf-8")


def test_weights_for_another_task_fail_at_the_first_step(bench: Bench) -> None:
    break_checkpoint(bench.weights, "model for another task")
    assert bench.run() == 1
    assert "to have 16 channels, but got 36 channels instead" in bench.stderr
    assert "| 0/3 [" in bench.stderr


def test_weights_for_two_pictures_fail_with_one_as_in_the_real_run(bench: Bench) -> None:
    weights = make_wan_checkpoint(bench.folder / "flf2v", "flf2v-14B")
    assert bench.run("--ckpt_dir", str(weights)) == 1
    assert _last_error(bench.stderr) == _last_error((LOGS / "wan21_real_ckpt_flf2v_for_i2v.txt").read_text("utf-8"))


def _last_error(log: str) -> str:
    """Everything after the last traceback's frames."""
    lines = log.rstrip("\n").splitlines()
    start = max(number for number, line in enumerate(lines) if line.startswith("  "))
    return "\n".join(lines[start + 1 :])
