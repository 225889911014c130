"""A named pipe, a link or nonsense where a file of ours is expected: everything that reads says so at once."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reelwright import load_settings
from reelwright.backends.shared.launch import WRITER_CHECK
from reelwright.core.errors import BackendUnavailableError, ConfigurationError, VideoGenerationError
from reelwright.core.host import CheckoutQuery, CheckpointQuery, Host, InterpreterQuery
from reelwright.core.manifest import Manifest
from reelwright.core.plan import Command
from reelwright.core.request import VideoRequest
from reelwright.films.editing.artifact_cache import ArtifactCache
from reelwright.films.editing.clip_analysis import _loaded
from reelwright.films.editing.sound import check_sound
from reelwright.films.garbage import find_garbage
from reelwright.films.records import Record, Use
from reelwright.films.store import Store
from reelwright.films.storyboard import load_storyboard
from reelwright.installer.transfer import is_there, record_path
from reelwright.installer.weight_sources import RemoteFile
from reelwright.media.verification import examine
from reelwright.runs import history
from reelwright.runs.order import Order
from reelwright.runs.runner import generate, replay_order
from reelwright.runs.workspace import file_digest
from reelwright.sites.local.leases import Leases
from reelwright.sites.local.probes.checkouts import look_at_checkout
from reelwright.sites.local.probes.checkpoints import look_at_checkpoint
from reelwright.sites.local.probes.interpreters import ask_interpreter
from reelwright.sites.local.process import writer_problem


def tried(call: Callable[[], object]) -> object:
    """What a call returns, or the error of ours that it raises; anything else fails the test."""
    try:
        return call()
    except VideoGenerationError as error:
        return error


def is_error(answer: object) -> bool:
    return isinstance(answer, VideoGenerationError)


#: For each reader: the file's name, the call, and what an answer has to be.
READERS: dict[str, tuple[str, Callable[[Path], object], Callable[[Any], bool]]] = {
    "manifest": ("clip.reel.json", history.load_manifest, is_error),
    "settings": ("config.yaml", lambda path: load_settings(path, environ={}), is_error),
    "storyboard": ("film.yaml", load_storyboard, is_error),
    "learned": ("learned.json", lambda path: history.load_entries(path.parent), lambda found: found == {}),
    "film": ("clip.mp4", lambda path: examine(path, apart=False)["problems"], bool),
    "digest": ("clip.mp4", file_digest, lambda digest: digest is None or len(digest) == 64),
    "sound": ("music.mp3", check_sound, is_error),
    "store": ("clips/k.reel.json", lambda path: Store(path.parents[2]).find("k"), lambda clip: clip is None),
    "record": (
        "films/f.json",
        lambda path: find_garbage(Store(path.parents[2]), load_settings(environ={})).reasons_to_keep_all,
        bool,
    ),
    "kept measurement": (
        "m.json",
        lambda path: ArtifactCache(path.parent).value("m.json", lambda: {"made": 1}),
        lambda value: value == {"made": 1} or is_error(value),
    ),
    "kept picture": ("glance.npz", _loaded, lambda kept: kept is None),
    "checkout": (
        "generate.py",
        lambda path: look_at_checkout(CheckoutQuery(path.parent, (), {"x": ("generate.py", "x")}), environ={}),
        lambda checkout: checkout.matches == {"x": ()},
    ),
}


@pytest.mark.parametrize(("name", "read", "expected"), READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize("kind", ["pipe", "folder", "nested", "bytes", "link to a pipe", "link to itself"])
def test_whatever_lies_where_a_file_is_read_the_answer_comes_at_once(
    tmp_path: Path, name: str, read: Callable[[Path], object], expected: Callable[[Any], bool], kind: str
) -> None:
    path = tmp_path / ".reel" / name
    path.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "nested":
        path.write_text("[" * 100_000)
    elif kind == "bytes":
        path.write_bytes(b"\0\xff" * 500)
    elif kind == "link to a pipe":
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    else:
        path.symlink_to(path)
    assert expected(tried(lambda: read(path)))


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_a_films_lock_that_is_no_file_of_ours_is_refused_and_what_it_leads_to_stays(tmp_path: Path, kind: str) -> None:
    (tmp_path / "precious").write_text("mine")
    store = Store(tmp_path)
    store.prepare()
    lock = store.films / "film.lock"
    os.mkfifo(lock) if kind == "pipe" else lock.symlink_to(tmp_path / "precious")
    with pytest.raises(VideoGenerationError, match=r"film\.lock"), store.held("film"):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_films_record_is_not_written_through_what_lies_in_its_way(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    store = Store(tmp_path)
    store.prepare()
    (store.films / "film.new").symlink_to(tmp_path / "precious")
    store.note("film", Record("film.mp4", {"film.yaml": Use(("k",))}))
    assert (tmp_path / "precious").read_text() == "mine"
    assert store.record("film").keys == {"k"}


def test_pipes_in_the_state_folder_break_no_run(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "learned.json")
    os.mkfifo(tmp_path / "learned.lock")
    plan = SimpleNamespace(generator="draft", task="i2v", gpus=(), parameters={}, mitigations=())
    diagnosis = SimpleNamespace(failure=SimpleNamespace(name="DISK"), cause="", message="")
    history.remember_failure(tmp_path, plan, Host(), diagnosis)  # type: ignore[arg-type]
    assert history.load_entries(tmp_path) == {}


NONSENSE: list[Any] = [3, "text", None, True, [1], {"a": {}}, -1.5]


@pytest.mark.parametrize("value", NONSENSE, ids=str)
@pytest.mark.parametrize("name", ["rung", "seconds", "denoising_seconds", "steps", "peaks", "placement", "failures"])
def test_nonsense_in_what_was_learned_breaks_no_plan(tmp_path: Path, name: str, value: Any) -> None:
    mitigation = SimpleNamespace(name="text", costs="nothing", overrides={})
    parameters = {"placement": "resident", "steps": 4}
    plan: Any = SimpleNamespace(generator="g", task="i2v", gpus=(), parameters=parameters, mitigations=(mitigation,))
    key = history.key_of(plan, Host(), parameters)
    entry = {"seconds": 2.0, "denoising_seconds": 1.0, "steps": 2, name: value}
    (tmp_path / "learned.json").write_text(json.dumps({"schema": history.SCHEMA, "entries": {key: entry}}))
    assert "placement" not in history.Learned(tmp_path).starting_overrides(plan, Host())
    history.Learned(tmp_path).predicted_seconds(plan, Host())
    history.Learned(tmp_path).measured_peaks(plan, Host())
    history.Learned(tmp_path).suspect_gpus()
    diagnosis: Any = SimpleNamespace(failure=SimpleNamespace(name="a"), cause="", message="")
    history.remember_failure(tmp_path, plan, Host(), diagnosis)


def test_a_kept_picture_that_would_swell_is_made_again(tmp_path: Path) -> None:
    part = io.BytesIO()
    np.save(part, np.zeros(1000, np.float64))
    with zipfile.ZipFile(tmp_path / "glance.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("facts", "differences", "first", "last", "tiles"):
            archive.writestr(f"{name}.npy", part.getvalue())
    assert _loaded(tmp_path / "glance.npz") is None


def test_pipes_and_odd_names_among_the_locks_of_gpus_stop_no_claim(tmp_path: Path) -> None:
    locks = tmp_path / "locks"
    locks.mkdir(mode=0o700)
    (locks / "ticket-first").touch()
    (locks / "GPU-2.gpu").write_text("[" * 60_000)
    leases = Leases(locks)
    with leases.claim(["GPU-1", "GPU-2"], wait_s=0.0, owner={"run": "r"}):
        assert set(leases.holders()) == {"GPU-1", "GPU-2"}
    os.mkfifo(locks / "GPU-3.gpu")
    with pytest.raises(BackendUnavailableError, match="named pipe"):
        leases.claim(["GPU-3"], wait_s=0.0, owner={"run": "r"})


def test_pipes_among_the_weights_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    os.mkfifo(tmp_path / "w.safetensors")
    found = look_at_checkpoint(CheckpointQuery(tmp_path, ("config.json", "w.safetensors")))
    assert all(any(name in problem for problem in found.problems) for name in ("config.json", "w.safetensors"))


def test_a_pipe_as_the_record_of_a_download_means_that_it_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"1")
    file = RemoteFile("w.bin", 1, None)
    record_path(tmp_path, file).parent.mkdir(parents=True)
    os.mkfifo(record_path(tmp_path, file))
    assert not is_there(tmp_path, file)


def test_nonsense_in_the_kept_answer_of_an_interpreter_is_asked_again(tmp_path: Path) -> None:

    query = InterpreterQuery(Path(sys.executable), ("json",))
    asked = ask_interpreter(query, environ=os.environ, cache_dir=tmp_path)
    (kept,) = tmp_path.glob("interpreter-*.json")
    data = json.loads(kept.read_text())
    answers: tuple[Any, ...] = ({"modules": 3}, {"modules": {"json": 3}}, [], {"cuda_devices": "many"})
    for answer in answers:
        kept.write_text(json.dumps({**data, "answer": answer}))
        assert ask_interpreter(query, environ=os.environ, cache_dir=tmp_path) == asked
    kept.unlink()
    os.mkfifo(kept)
    assert ask_interpreter(query, environ=os.environ, cache_dir=tmp_path) == asked


@pytest.mark.parametrize(
    "words",
    [("show", "PIPE.reel.json"), ("replay", "PIPE.reel.json"), ("show", "PIPE.mp4"), ("probe", "PIPE.mp4")],
    ids=" ".join,
)
def test_reel_refuses_a_pipe_at_once(
    tmp_path: Path, reel: Callable[..., subprocess.CompletedProcess[str]], words: tuple[str, ...]
) -> None:
    os.mkfifo(tmp_path / words[1])
    done = reel(*words)
    assert done.returncode not in (0, 70, 71)
    said = done.stdout + done.stderr
    assert "named pipe" in said or "not a regular file" in said


def test_a_hostile_manifest_chooses_no_interpreter_folder_environment_or_setting(
    tmp_path: Path, photo: Path, reel: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    made = reel("generate", photo, "push in", "-o", "clip.mp4", "--frames", 3, "--size", "64x64", "--seed", 1)
    assert made.returncode == 0, made.stderr
    program = tmp_path / "evil.py"
    program.write_text(f"#!{sys.executable}\nopen({str(tmp_path / 'ran')!r}, 'w')\n")
    program.chmod(0o755)
    path = tmp_path / "clip.reel.json"
    data = json.loads(path.read_text())
    wishes = {
        "python": str(program),
        "wan2_dir": str(tmp_path),
        "hunyuan_dir": str(tmp_path),
        "env": {"PYTHONSTARTUP": str(program), "LD_PRELOAD": str(program)},
        "state_dir": str(tmp_path / "elsewhere"),
        "if_exists": "overwrite",
        "generators": {"draft": {"python": str(program)}},
        "overrides": {"python": str(program)},
        "settings": {"python": str(program)},
    }
    data.update(wishes)
    data["requested"].update(wishes)
    data["effective"].update(wishes)
    data["plan"]["command"] = {"argv": [str(program)], "cwd": str(tmp_path), "env": {}, "env_names": []}
    path.write_text(json.dumps(data))
    again = reel("replay", path, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[-1])["replay"]["same_frames"] is True
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "elsewhere").exists()
    blocked = reel("replay", path)
    assert blocked.returncode == 32, "its if_exists is not ours"


def test_a_replay_takes_the_settings_of_the_caller_and_the_request_of_the_manifest(tmp_path: Path, photo: Path) -> None:
    requested = {"prompt": "push in", "image": str(photo), "size": "64x64", "num_frames": 3}
    data = {
        "schema": 1, "run_id": "r", "reelwright": "0", "generator": "draft", "task": "i2v", "generative": False,
        "state": "completed", "created_at": "now", "requested": {**requested, "python": "/evil"}, "seed": 3,
        "inputs": [{"role": "first", "path": str(photo), "sha256": file_digest(photo)}],
    }  # fmt: skip
    settings = load_settings(environ={})
    order = replay_order(Manifest.from_json(data), settings, tmp_path / "x.mp4")
    assert order.settings is settings
    assert order.request.evolve(generator="auto") == VideoRequest.from_json({**requested, "seed": 3})
    assert dict(order.overrides) == {}


@pytest.mark.parametrize(
    "inputs", [[{"role": "first"}], [{"role": "first", "path": "/nowhere.png", "sha256": None}], [{}]], ids=str
)
def test_a_replay_of_a_picture_that_is_not_known_is_refused(tmp_path: Path, inputs: list[dict[str, Any]]) -> None:
    data = {
        "schema": 1, "run_id": "r", "reelwright": "0", "generator": "draft", "task": "i2v", "generative": False,
        "state": "completed", "created_at": "now", "requested": {"prompt": "x"}, "inputs": inputs,
    }  # fmt: skip
    with pytest.raises(VideoGenerationError):
        replay_order(Manifest.from_json(data), load_settings(environ={}), tmp_path / "x.mp4")


@pytest.mark.parametrize(
    "change",
    [{"image": 7}, {"size": 7}, {"fit": "zoom"}, {"prompt": 3}, {"seed": "x"}, {"generator": ["a"]}, {"camera": {}}],
    ids=str,
)
def test_a_request_of_wrong_types_in_a_manifest_is_an_error_of_ours(change: dict[str, Any]) -> None:
    data = {
        "schema": 1, "run_id": "r", "reelwright": "0", "generator": "draft", "task": "i2v", "generative": False,
        "state": "completed", "created_at": "now", "requested": {"prompt": "x", **change},
    }  # fmt: skip
    with pytest.raises(VideoGenerationError):
        _ = Manifest.from_json(data).request


def test_a_film_whose_manifest_says_too_little_is_not_skipped_as_if_it_were_known(tmp_path: Path, photo: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"x")
    data = {
        "schema": 1, "run_id": "r", "reelwright": "0", "generator": "draft", "task": "i2v", "generative": False,
        "state": "completed", "created_at": "now", "requested": {}, "output": {"path": "clip.mp4"},
    }  # fmt: skip
    (tmp_path / "clip.reel.json").write_text(json.dumps(data))
    settings = load_settings(environ={}, arguments={"if_exists": "skip"})
    with pytest.raises(VideoGenerationError, match="lacks the clip's"):
        generate(Order(VideoRequest(prompt="x", image=photo), settings, tmp_path / "clip.mp4"))


@pytest.mark.parametrize("place", ["film", "defaults", "shot"])
@pytest.mark.parametrize(
    "key",
    ["python", "wan2_dir", "env", "state_dir", "weights", "lora", "output_dir", "if_exists", "generators", "gpus"],
)
def test_a_storyboard_cannot_choose_what_belongs_to_the_machine(tmp_path: Path, place: str, key: str) -> None:
    board: dict[str, Any] = {"defaults": {}, "shots": [{"id": "a", "prompt": "x", "image": "p.png"}]}
    {"film": board, "defaults": board["defaults"], "shot": board["shots"][0]}[place][key] = "/evil"
    (tmp_path / "film.yaml").write_text(json.dumps(board))
    with pytest.raises(ConfigurationError, match=key):
        load_storyboard(tmp_path / "film.yaml")


def test_nothing_in_the_current_folder_is_read_as_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("reelwright.yaml", "config.yaml", "reelwright/config.yaml", ".env", "pipeline_config.yaml", "reel.yaml")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("python: /evil\n" if name.endswith("yaml") else "REELWRIGHT_PYTHON=/evil\n")
    assert load_settings(environ=os.environ).python is None


def test_the_check_of_a_film_writer_imports_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("imageio_ffmpeg.py", "subprocess.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    command = Command((sys.executable,), tmp_path, writer_check=WRITER_CHECK)
    writer_problem(command, os.environ)
    assert not (tmp_path / "ran").exists()


def test_only_levers_that_cost_no_quality_are_pulled_because_they_helped_before(tmp_path: Path) -> None:
    mitigations = tuple(
        SimpleNamespace(name=costs, costs=costs, overrides={costs: True})
        for costs in ("nothing", "time", "frames", "size", "precision", "guidance")
    )
    plan: Any = SimpleNamespace(generator="g", task="i2v", gpus=(), parameters={}, mitigations=mitigations)
    entry = {"rung": [mitigation.name for mitigation in mitigations]}
    text = json.dumps({"schema": history.SCHEMA, "entries": {history.key_of(plan, Host(), {}): entry}})
    (tmp_path / "learned.json").write_text(text)
    assert history.Learned(tmp_path).starting_overrides(plan, Host()) == {"nothing": True, "time": True}
