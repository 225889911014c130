"""Folders of weights that are missing, partial, of another model or on a dying disk, in whole runs: rows M01 to M03."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from reelwright import load_settings
from reelwright.backends import load_backend
from reelwright.backends.shared.job import Job
from reelwright.core.host import Checkpoint, Host, simulated_gpus
from reelwright.core.request import Picture, Size, VideoRequest
from reelwright.sites.local.probes import checkpoints
from reelwright.sites.local.probes.folders import Files
from tests.stand_ins.checkout import launches
from tests.stand_ins.checkpoints import BREAKAGES, break_checkpoint, make_wan_checkpoint, shards_of
from tests.wan21.conftest import Outcome, WanMachine


@pytest.fixture
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole folder for image-to-video that a test may break."""
    return make_wan_checkpoint(tmp_path_factory.mktemp("weights") / "i2v", "i2v-14B")


def a_setting(key: str, folder: Path) -> dict[str, Any]:
    return {key: str(folder)}


def refused(wan: WanMachine, weights: Path, **settings: Any) -> Outcome:
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
    "folder is a file": "is a file, and a model is a folder",
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
def test_m01_broken_weights_are_reported_by_name_before_the_gpu_is_touched(
    wan: WanMachine, weights: Path, way: str
) -> None:
    break_checkpoint(weights, way)
    error = refused(wan, weights).error
    assert error is not None
    assert NAMED[way] in " ".join((error.message, *error.evidence))
    wan.check()


def test_m01_weights_of_480p_for_a_720p_clip_get_a_warning(wan: WanMachine, weights: Path) -> None:
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
    outcome = wan.run({}, ask=asked, **a_setting(key, folder))
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
    assert again.code == "ok"  # the same size: only the hash differs
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


def small_weights_finding(folder: Path, size: str, code: str = "model.resolution", **more: int) -> list[str]:
    """What a plan says about the resolution (or something else) of weights in that folder."""
    values = {"i2v_model_dir": str(folder), "wan2_dir": "/opt/Wan2.1", "size": size}
    settings = load_settings(environ={}, arguments=values)
    config = {"model_type": "i2v", "num_heads": 40, **more}
    host = Host(checkpoints={folder: Checkpoint(folder, config=config)}, gpus=simulated_gpus("1x80GiB"))
    picture = Picture(Path("/p.png"), Path("p.png"), Size(1280, 720), Size(1280, 720), "0" * 64)
    job = Job(VideoRequest(prompt="x", image=Path("p.png")), settings, host, Path("/film.mp4"), picture)
    return [item.message for item in load_backend("wan2.1").plan(job).findings if item.code == code]


@pytest.mark.parametrize(("channels", "findings"), [(36, 0), (52, 1)])
def test_weights_of_a_model_that_was_derived_from_wan_are_known_by_their_channels(channels: int, findings: int) -> None:
    found = small_weights_finding(Path("/models/Wan2.1-Fun-Control"), "1280x720", "model.derived", in_dim=channels)
    assert ["takes 52 channels; i2v-14B has 36" in text for text in found] == [True] * findings


@pytest.mark.parametrize(
    ("folder", "size", "trained"),
    [
        ("/models/Wan2.1-I2V-14B-480P", "1280x720", "480P"),
        ("/models/Wan2.1-I2V-14B-720P", "832x480", "720P"),
        ("/models/wan-i2v-480p", "1280x720", "480P"),
        ("/cache/models--Wan-AI--Wan2.1-I2V-14B-480P/snapshots/" + "0f" * 20, "1280x720", "480P"),
        ("/videos 480P/Wan2.1-I2V-14B-720P", "1280x720", None),
        ("/models/720p/Wan2.1-I2V-14B-480P", "832x480", None),
        ("/models/480P/weights", "1280x720", None),
        ("/models/480P-and-720P", "1280x720", None),
        ("/models/wan-1480p", "1280x720", None),
    ],
)
def test_the_resolution_is_read_from_the_name_of_the_models_own_folder(
    folder: str, size: str, trained: str | None
) -> None:
    found = small_weights_finding(Path(folder), size)
    assert [f"{trained} weights" in text for text in found] == ([True] if trained else [])


@pytest.mark.parametrize(
    ("key", "task", "ask", "words", "fix"),
    [
        ("i2v_model_dir", "t2v-14B", {}, "holds t2v weights; i2v-14B needs i2v", "Set t2v_model_dir to this folder"),
        ("flf2v_model_dir", "i2v-14B", {"last_image": ..., "num_frames": 81}, "holds i2v weights", "Set i2v_model_dir"),
        ("i2v_model_dir", "flf2v-14B", {}, "holds flf2v weights", "Set flf2v_model_dir to this folder"),
        ("t2v_model_dir", "t2v-1.3B", {"image": None}, "has 12 attention heads", "t2v_1_3b_model_dir"),
    ],
)
def test_m01_weights_of_another_task_are_one_line_and_no_list_of_missing_files(
    wan: WanMachine,
    tmp_path_factory: pytest.TempPathFactory,
    key: str,
    task: str,
    ask: dict[str, object],
    words: str,
    fix: str,
) -> None:
    folder = make_wan_checkpoint(tmp_path_factory.mktemp("weights") / "other", task)
    asked = {name: wan.photo if value is ... else value for name, value in ask.items()}
    error = wan.run({}, ask=asked, **a_setting(key, folder)).error
    assert error is not None
    assert (error.code, error.evidence) == ("MODEL", ())
    assert words in error.message
    assert fix in error.advice


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (("wan/configs",), "is incomplete: it has no wan/configs"),
        (("wan/modules",), "is incomplete: it has no wan/modules"),
        (("wan/modules", "wan/configs", "wan/utils"), "it has no wan/configs, wan/modules, wan/utils"),
        (("wan",), "is incomplete: it has no wan"),
        (("generate.py",), "has no generate.py"),
    ],
)
def test_a_checkout_that_was_cut_short_is_said_to_be_incomplete(
    wan: WanMachine, lost: tuple[str, ...], words: str
) -> None:
    for name in lost:
        path = wan.checkout / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    error = wan.run({}).error
    assert error is not None
    assert (error.code, error.evidence) == ("ENV", ())
    assert words in error.message
    assert error.advice


@pytest.mark.parametrize("inner", ["wan", "wan/modules"])
def test_a_folder_in_a_checkout_or_above_it_is_answered_with_the_checkout(wan: WanMachine, inner: str) -> None:
    for directory in (wan.checkout / inner, wan.checkout.parent):
        error = wan.run({}, wan2_dir=str(directory), if_exists="overwrite").error
        assert error is not None
        assert (error.code, error.advice) == ("ENV", f"Set it to {wan.checkout}.")
