"""Folders of weights that are missing, partial, of another model or on a dying disk, in whole runs: rows M01 to M03."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from reelwright.machine import checkpoints
from reelwright.machine.folders import Files
from tests.stand_ins.checkout import launches
from tests.stand_ins.checkpoints import BREAKAGES, break_checkpoint, make_wan_checkpoint, shards_of
from tests.wan.conftest import Outcome, WanMachine


@pytest.fixture
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole folder for image-to-video that a test may break."""
    return make_wan_checkpoint(tmp_path_factory.mktemp("weights") / "i2v", "i2v-14B")


def refused(wan: WanMachine, weights: Path, **settings: object) -> Outcome:
    """A run with these weights, which must end as MODEL before the framework is started."""
    outcome = wan.run({}, i2v_model_dir=str(weights), **settings)
    assert outcome.code == "MODEL", outcome.error
    assert outcome.error is not None
    assert outcome.error.exit_status == 12
    assert outcome.error.advice
    assert (outcome.manifest.attempts, launches(wan.checkout)) == ((), [])
    return outcome


#: Of every way to break a folder, what the message must name.
NAMED = {
    "folder missing": "is missing",
    "folder empty": "is empty",
    "folder is a file": "not a folder",
    "shard truncated": "00003-of-00007",
    "shard is an LFS pointer": "git lfs pull",
    "shard empty": "00003-of-00007",
    "shard missing": "00003-of-00007",
    "shard header bigger than file": "00003-of-00007",
    "shard header impossible": "00003-of-00007",
    "download incomplete": "incomplete",
    "download locked": "lock",
    "text encoder truncated": "models_t5",
    "text encoder is an LFS pointer": "models_t5",
    "text encoder empty": "models_t5",
    "text encoder missing": "models_t5",
    "VAE missing": "Wan2.1_VAE.pth",
    "tokenizer missing": "google/umt5-xxl",
    "config missing": "config.json",
    "index damaged": "index.json",
    "model for another task": "t2v weights; i2v-14B needs i2v",
    "diffusers layout": "-Diffusers",
}


@pytest.mark.parametrize("way", BREAKAGES)
def test_m01_broken_weights_are_told_by_name_before_the_gpu_is_touched(
    wan: WanMachine, weights: Path, way: str
) -> None:
    break_checkpoint(weights, way)
    error = refused(wan, weights).error
    assert error is not None
    assert NAMED[way] in " ".join((error.message, *error.evidence))
    wan.check()


def test_m01_weights_of_480p_asked_for_720p_are_warned_about(wan: WanMachine, weights: Path) -> None:
    named = weights.rename(weights.with_name("Wan2.1-I2V-14B-480P"))
    outcome = wan.run({}, i2v_model_dir=str(named), size="1280x720")
    assert outcome.code == "ok"
    assert any("480P weights and the size is 1280x720" in warning for warning in outcome.manifest.warnings)
    wan.check()


@pytest.mark.parametrize(
    ("key", "task", "ask"),
    [("t2v_model_dir", "t2v-1.3B", {"image": None}), ("flf2v_model_dir", "i2v-14B", {"num_frames": 81})],
)
def test_m01_weights_of_another_task_under_a_key_are_refused(
    wan: WanMachine, tmp_path_factory: pytest.TempPathFactory, key: str, task: str, ask: dict[str, object]
) -> None:
    folder = make_wan_checkpoint(tmp_path_factory.mktemp("weights") / "other", task)
    asked = {**ask, "last_image": wan.photo} if key == "flf2v_model_dir" else ask
    outcome = wan.run({}, ask=asked, **{key: str(folder)})
    assert (outcome.code, launches(wan.checkout)) == ("MODEL", [])
    wan.check()


def test_m01_a_missing_key_is_a_matter_of_the_configuration(wan: WanMachine) -> None:
    outcome = wan.run({}, i2v_model_dir=None)
    assert (outcome.code, launches(wan.checkout)) == ("CONFIG", [])
    assert outcome.error is not None
    assert "i2v_model_dir is not set" in outcome.error.message
    wan.check()


def test_m02_a_flipped_byte_is_found_when_hashes_are_to_be_verified(wan: WanMachine, weights: Path) -> None:
    shard = shards_of(weights)[2]
    sums = {
        str(path.relative_to(weights)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in weights.rglob("*")
        if path.is_file()
    }
    (weights / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    whole = wan.run({}, i2v_model_dir=str(weights))
    assert whole.code == "ok"
    flipped = bytearray(shard.read_bytes())
    flipped[-1] ^= 1
    shard.write_bytes(flipped)
    again = wan.run({}, i2v_model_dir=str(weights), if_exists="overwrite")
    assert again.code == "ok"  # the same size: only the hash can tell
    shutil.rmtree(wan.checkout / "fake_state")
    (wan.checkout / "fake_record.jsonl").unlink()
    error = refused(wan, weights, verify_model=True, if_exists="rename").error
    assert error is not None
    assert shard.name in error.message
    wan.check()


class Dying(Files):
    """A disk whose reads fail from the n-th on."""

    def __init__(self, number: int) -> None:
        self.left = number

    def open(self, path: Path) -> BinaryIO:
        self.left -= 1
        if self.left <= 0:
            raise OSError(5, "Input/output error")
        return super().open(path)


@pytest.mark.parametrize("number", [1, 2, 5, 9])
def test_m03_a_disk_that_dies_under_the_weights_is_a_model_error(
    wan: WanMachine, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(checkpoints, "Files", lambda: Dying(number))
    error = refused(wan, Path(wan.values["i2v_model_dir"])).error
    assert error is not None
    assert "Input/output error" in " ".join((error.message, *error.evidence))
    wan.check()


class Stalled(Files):
    """A mount whose server has gone: the call never comes back."""

    def __init__(self, wait: Callable[[], object]) -> None:
        self._wait = wait

    def open(self, path: Path) -> BinaryIO:
        self._wait()
        return super().open(path)


def test_m03_a_mount_that_no_longer_answers_costs_its_time_limit_only(
    wan: WanMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    back = threading.Event()
    monkeypatch.setattr(checkpoints, "Files", lambda: Stalled(back.wait))
    assert checkpoints.look_at_checkpoint.__kwdefaults__
    monkeypatch.setitem(checkpoints.look_at_checkpoint.__kwdefaults__, "stall_s", 0.3)
    error = refused(wan, Path(wan.values["i2v_model_dir"])).error
    back.set()
    assert error is not None
    assert "has not answered" in error.message or "answer" in error.message
    wan.check()
