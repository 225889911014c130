"""What dead runs left, and what a stranger can leave that looks like it: rows D08 and following."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.errors import Cancelled
from reelwright.core.files import open_regular
from reelwright.core.manifest import Manifest, manifest_path
from reelwright.media.verification import examine
from reelwright.runs import recovery, workspace
from reelwright.runs.recovery import recover
from reelwright.runs.workspace import FileSystem, RunFolder, identity, open_folder, plan_folder, publish
from tests import warm
from tests.conftest import opened_below
from tests.media.clips import a_clip


@functools.cache
def film_bytes(frames: int = 3) -> bytes:
    """A small film that can be decoded; another number of frames is another film."""
    with tempfile.TemporaryDirectory() as folder:
        return a_clip(Path(folder) / "film.mp4", frames).read_bytes()


@functools.cache
def facts_of(film: bytes) -> dict[str, Any]:
    """What its manifest says of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        path.write_bytes(film)
        facts = examine(path, apart=False)
    return {name: facts[name] for name in ("sha256", "bytes", "width", "height", "frames", "fps")}


def a_manifest(name: str, film: bytes, run_id: str = "r1", **changes: Any) -> Manifest:
    return Manifest(
        run_id=run_id,
        reelwright="0",
        generator="draft",
        task="i2v",
        generative=False,
        state="completed",
        created_at="2026-01-01T00:00:00+00:00",
        requested={"prompt": "x"},
        output={"path": name, **facts_of(film)},
    ).evolve(**changes)


def a_dead_run(
    output: Path, film: bytes | None = None, *, run_id: str = "r1", lock: object = None, manifest: str | None = None
) -> RunFolder:
    """A run that was killed when its film had no name yet; ``lock`` and ``manifest`` replace what it wrote."""
    folder, film = plan_folder(output, run_id), film_bytes() if film is None else film
    folder.path.mkdir(mode=0o700)
    note = {"run": run_id, "output": output.name} if lock is None else lock
    folder.lock.write_text(json.dumps(note))
    folder.attempt(1).mkdir()
    folder.video(1).write_bytes(film)
    folder.manifest.write_text(a_manifest(output.name, film, run_id).to_text() if manifest is None else manifest)
    return folder


def actions(folder: Path) -> list[str]:
    return [item.action for item in recover(folder)]


def everything(folder: Path) -> dict[str, bytes | None]:
    """Every path below, with the bytes of files; links are not followed."""
    paths = sorted(folder.rglob("*"))
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in paths
    }


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(workspace.PREFIX)]


@pytest.mark.parametrize("name", ["film.mp4", "tagged.mp4"])
def test_d08_the_verified_film_of_a_dead_run_gets_its_name(tmp_path: Path, name: str) -> None:
    folder = a_dead_run(tmp_path / "clip.mp4")
    folder.video(1).rename(folder.attempt(1) / name)
    assert actions(tmp_path) == ["adopted"]
    assert opened_below(tmp_path) == []
    assert (tmp_path / "clip.mp4").read_bytes() == film_bytes()
    assert json.loads(manifest_path(tmp_path / "clip.mp4").read_text())["run_id"] == "r1"
    assert not leftovers(tmp_path)


def test_d08_the_film_of_the_manifest_is_adopted_and_no_other_attempts(tmp_path: Path) -> None:
    folder = a_dead_run(tmp_path / "clip.mp4")
    folder.attempt(1).rename(folder.attempt(3))
    for number in (1, 2):
        folder.attempt(number).mkdir()
        folder.video(number).write_bytes(film_bytes(5))
    assert actions(tmp_path) == ["adopted"]
    assert (tmp_path / "clip.mp4").read_bytes() == film_bytes()


def test_d08_another_film_of_the_same_size_is_not_adopted(tmp_path: Path) -> None:
    film = film_bytes()
    changed = film.replace(b"Lavc", b"Lavd") if b"Lavc" in film else film[:-1] + bytes([film[-1] ^ 1])
    folder = a_dead_run(tmp_path / "clip.mp4")
    folder.video(1).write_bytes(changed)
    assert actions(tmp_path) == ["removed"]
    assert not (tmp_path / "clip.mp4").exists()


def test_d08_a_film_without_its_manifest_gets_it(tmp_path: Path) -> None:
    folder = a_dead_run(tmp_path / "clip.mp4")
    folder.video(1).rename(tmp_path / "clip.mp4")
    assert actions(tmp_path) == ["finished"]
    assert json.loads(manifest_path(tmp_path / "clip.mp4").read_text())["run_id"] == "r1"
    assert not leftovers(tmp_path)


def test_d08_a_run_without_a_verified_film_is_removed(tmp_path: Path) -> None:
    folder = a_dead_run(tmp_path / "clip.mp4")
    folder.manifest.unlink()
    assert actions(tmp_path) == ["removed"]
    assert everything(tmp_path) == {}


def test_d08_recovery_leaves_a_living_run_alone(tmp_path: Path) -> None:
    with open_folder(plan_folder(tmp_path / "clip.mp4", "alive")) as folder:
        assert recover(tmp_path) == ()
        assert folder.path.exists()


def test_d08_recovery_never_replaces_a_film_that_came_later_and_loses_none(tmp_path: Path) -> None:
    a_dead_run(tmp_path / "clip.mp4")
    (tmp_path / "clip.mp4").write_bytes(b"later")
    assert [item.output for item in recover(tmp_path)] == [tmp_path / "clip-2.mp4"]
    assert (tmp_path / "clip.mp4").read_bytes() == b"later"
    assert (tmp_path / "clip-2.mp4").read_bytes() == film_bytes()
    assert json.loads((tmp_path / "clip-2.reel.json").read_text())["output"]["path"] == "clip-2.mp4"
    assert not leftovers(tmp_path)


def test_a_run_that_was_told_to_replace_a_film_replaces_that_one(tmp_path: Path) -> None:
    output = tmp_path / "clip.mp4"
    output.write_bytes(b"old")
    a_dead_run(output).may_replace.write_text(workspace.replaceable(output))
    assert actions(tmp_path) == ["adopted"]
    assert output.read_bytes() == film_bytes()


@pytest.mark.parametrize("marker", ["", "{}", '{"film": null, "manifest": null}', '{"film": [1, 2, 3]}', "[]"])
def test_a_marker_to_overwrite_that_names_another_file_replaces_nothing(tmp_path: Path, marker: str) -> None:
    folder = a_dead_run(tmp_path / "clip.mp4")
    folder.may_replace.write_text(marker)
    (tmp_path / "clip.mp4").write_bytes(b"mine")
    recover(tmp_path)
    assert (tmp_path / "clip.mp4").read_bytes() == b"mine"


def test_a_marker_to_overwrite_that_is_a_link_replaces_nothing(tmp_path: Path) -> None:
    output = tmp_path / "clip.mp4"
    output.write_bytes(b"mine")
    (tmp_path / "elsewhere").write_text(workspace.replaceable(output))
    a_dead_run(output).may_replace.symlink_to(tmp_path / "elsewhere")
    assert actions(tmp_path) == []
    assert output.read_bytes() == b"mine"


def test_a_manifest_that_came_later_is_not_replaced_when_a_run_is_finished(tmp_path: Path) -> None:
    folder = a_dead_run(tmp_path / "clip.mp4")
    folder.video(1).rename(tmp_path / "clip.mp4")
    manifest_path(tmp_path / "clip.mp4").write_text("mine")
    assert actions(tmp_path) == []
    assert manifest_path(tmp_path / "clip.mp4").read_text() == "mine"


@pytest.mark.parametrize("left", [[], ["lock.new"]], ids=str)
def test_d08_what_a_run_killed_in_its_first_moment_leaves_is_removed(tmp_path: Path, left: list[str]) -> None:
    folder = plan_folder(tmp_path / "clip.mp4", "r1")
    folder.path.mkdir(mode=0o700)
    for name in left:
        (folder.path / name).touch()
    recover(tmp_path)
    assert everything(tmp_path) == {}


def test_d08_runs_that_begin_while_others_look_for_dead_ones_are_not_disturbed(tmp_path: Path) -> None:
    stop = threading.Event()

    def looks() -> None:
        while not stop.is_set():
            recover(tmp_path)

    looking = threading.Thread(target=looks)
    looking.start()
    try:
        for number in range(100):
            with open_folder(plan_folder(tmp_path / "clip.mp4", f"r{number}")) as folder:
                assert folder.lock.exists()
    finally:
        stop.set()
        looking.join()
    assert everything(tmp_path) == {}


def test_d08_a_removal_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    folder = a_dead_run(tmp_path / "clip.mp4")
    folder.manifest.unlink()
    folder.video(1).unlink()
    folder.attempt(1).rmdir()
    assert actions(tmp_path) == ["removed"]
    assert everything(tmp_path) == {}


# --------------------------------------------------------------------------------------- what a stranger can leave


def _pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _linked(path: Path) -> None:
    real = path.rename(path.parent.parent / f"real-{path.name}")
    path.symlink_to(real)


def _hostile_manifest(folder: RunFolder, **output: Any) -> None:
    data = json.loads(folder.manifest.read_text())
    data["output"].update(output)
    folder.manifest.write_text(json.dumps(data))


def _changed_manifest(folder: RunFolder, **values: Any) -> None:
    folder.manifest.write_text(json.dumps({**json.loads(folder.manifest.read_text()), **values}))


def _renamed(folder: RunFolder, run_id: str) -> None:
    folder.lock.write_text(json.dumps({"run": run_id, "output": folder.output.name}))
    _changed_manifest(folder, run_id=run_id)
    folder.path.rename(folder.path.with_name(f"{workspace.PREFIX}{run_id}"))


def _names_a_file_in_a_folder(run: RunFolder) -> None:
    (run.path.parent / "sub").mkdir()
    run.lock.write_text('{"run": "r1", "output": "sub/clip.mp4"}')


def _names_no_film(run: RunFolder) -> None:
    run.lock.write_text('{"run": "r1", "output": "Makefile"}')
    _hostile_manifest(run, path="Makefile")


def _holds_a_thesis(run: RunFolder) -> None:
    run.manifest.unlink()
    (run.path / "thesis.tex").write_text("x")


def _has_the_marker_of_another_user(run: RunFolder) -> None:
    run.may_replace.write_text(workspace.replaceable(run.output))
    os.chown(run.may_replace, 65534, 65534)


HOSTILE: dict[str, Callable[[RunFolder], object]] = {
    "the manifest is a pipe": lambda run: _pipe(run.manifest),
    "the lock is a pipe": lambda run: _pipe(run.lock),
    "the marker is a pipe": lambda run: _pipe(run.may_replace),
    "the manifest is a link": lambda run: _linked(run.manifest),
    "the lock is a link": lambda run: _linked(run.lock),
    "the attempt is a link": lambda run: _linked(run.attempt(1)),
    "the folder is open to others": lambda run: run.path.chmod(0o755),
    "the folder may be read by the group": lambda run: run.path.chmod(0o740),
    "there is no lock": lambda run: run.lock.unlink(),
    "the lock says nothing": lambda run: run.lock.write_text(""),
    "the lock names another run": lambda run: run.lock.write_text('{"run": "r2", "output": "clip.mp4"}'),
    "the lock names no film": lambda run: run.lock.write_text('{"run": "r1", "output": "Makefile"}'),
    "the lock names a path": lambda run: run.lock.write_text('{"run": "r1", "output": "../clip.mp4"}'),
    "the lock names a file in a folder": _names_a_file_in_a_folder,
    "lock and manifest name no film": _names_no_film,
    "the lock has not its name yet": lambda run: run.lock.rename(run.path / workspace.UNNAMED_LOCK),
    "the manifest is of another run": lambda run: _changed_manifest(run, run_id="r2"),
    "the manifest is of a run that failed": lambda run: _changed_manifest(run, state="failed"),
    "the manifest names another file": lambda run: _hostile_manifest(run, path="Makefile"),
    "the manifest names a path": lambda run: _hostile_manifest(run, path="/tmp/clip.mp4"),
    "the manifest promises more frames": lambda run: _hostile_manifest(run, frames=4),
    "the manifest promises another size": lambda run: _hostile_manifest(run, width=98),
    "the manifest has no size": lambda run: _hostile_manifest(run, bytes="many"),
    "the manifest has no hash": lambda run: _hostile_manifest(run, sha256=None),
    "the manifest has no rate": lambda run: _hostile_manifest(run, fps=0),
    "the manifest is nested": lambda run: run.manifest.write_text('{"schema": 1, "attempts": [3], "output": [[]]}'),
    "the run has a name that none of ours has": lambda run: _renamed(run, "a b"),
    "a file of somebody is inside": _holds_a_thesis,
}


if os.geteuid() == 0:  # only root can give a file away
    HOSTILE |= {
        "the lock is another user's": lambda run: os.chown(run.lock, 65534, 65534),
        "the manifest is another user's": lambda run: os.chown(run.manifest, 65534, 65534),
        "the marker is another user's": _has_the_marker_of_another_user,
    }


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_folder_that_no_run_of_ours_left_is_not_touched(
    tmp_path: Path, change: Callable[[RunFolder], object]
) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"mine")
    change(a_dead_run(tmp_path / "clip.mp4"))
    if change is HOSTILE["the marker is a pipe"]:
        (tmp_path / "clip.mp4").write_bytes(film_bytes())
    before = everything(tmp_path)
    assert recover(tmp_path) == ()
    assert everything(tmp_path) == before


def test_a_file_that_is_no_film_gets_no_name_whatever_the_manifest_says(tmp_path: Path) -> None:
    payload = b"all:\n\trm -rf $(HOME)\n"
    facts = {**facts_of(film_bytes()), "sha256": hashlib.sha256(payload).hexdigest(), "bytes": len(payload)}
    text = a_manifest("clip.mp4", film_bytes(), output={"path": "clip.mp4", **facts}).to_text()
    a_dead_run(tmp_path / "clip.mp4", payload, manifest=text)
    assert recover(tmp_path) == ()
    assert not (tmp_path / "clip.mp4").exists()


@pytest.mark.parametrize("whole", [True, False])
def test_a_run_folder_that_is_a_link_is_not_followed(tmp_path: Path, whole: bool) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = a_dead_run(elsewhere / "clip.mp4")
    if not whole:
        folder.manifest.unlink()
    (tmp_path / folder.path.name).symlink_to(folder.path)
    before = everything(tmp_path)
    assert recover(tmp_path) == ()
    assert everything(tmp_path) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_run_folder_is_not_touched_in_a_shared_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    folder = a_dead_run(tmp_path / "clip.mp4")
    for path in (folder.path, *folder.path.rglob("*")):
        os.chown(path, 65534, 65534)
    before = everything(tmp_path)
    assert recover(tmp_path) == ()
    assert everything(tmp_path) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_other_users_folders_do_not_hide_a_run_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_MAX_FOLDERS", 1)
    for number in range(30):
        (tmp_path / f"{workspace.PREFIX}{number}").mkdir()
        os.chown(tmp_path / f"{workspace.PREFIX}{number}", 65534, 65534)
    a_dead_run(tmp_path / "clip.mp4")
    assert actions(tmp_path) == ["adopted"]


def test_where_no_folder_is_there_is_nothing_to_recover(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert recover(tmp_path / "file") == recover(tmp_path / "nothing") == ()


def test_a_request_to_stop_ends_the_work_on_a_dead_run(tmp_path: Path) -> None:
    a_dead_run(tmp_path / "clip.mp4")

    def stop() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        recover(tmp_path, check=stop)
    assert leftovers(tmp_path)


def test_the_work_is_bounded_and_what_is_left_over_waits(tmp_path: Path) -> None:
    a_dead_run(tmp_path / "clip.mp4")
    assert recover(tmp_path, limit_s=0) == ()
    assert actions(tmp_path) == ["adopted"]


def test_a_locked_file_stays_locked_for_those_who_look(tmp_path: Path) -> None:
    with open_folder(plan_folder(tmp_path / "clip.mp4", "alive")) as folder, open_regular(folder.lock) as lock:
        assert json.loads(lock.read()) == {"run": "alive", "output": "clip.mp4"}
    assert identity(tmp_path / "nothing") is None


def test_a_planted_pipe_does_not_stop_reel_generate(
    tmp_path: Path, photo: Path, reel: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    planted = plan_folder(tmp_path / "clip.mp4", "x")
    planted.path.mkdir(mode=0o700)
    planted.lock.write_text('{"run": "x", "output": "clip.mp4"}')
    os.mkfifo(planted.manifest)
    done = reel(
        "generate", photo, "push in", "-o", "clip.mp4", "--frames", 3, "--size", "64x64", "--generator", "draft"
    )
    assert done.returncode == 0, done.stderr
    assert planted.manifest.is_fifo()


# ------------------------------------------------------------------------------------------------- killed anywhere


_KILLED = """
import os, sys, signal
from pathlib import Path
from reelwright.core.manifest import Manifest
from reelwright.runs.workspace import FileSystem, open_folder, plan_folder, publish
import json

class DiesAfter(FileSystem):
    left = int(sys.argv[2])
    def _step(self, name, *args, **kwargs):
        if DiesAfter.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        DiesAfter.left -= 1
        getattr(super(), name)(*args, **kwargs)
    def fsync(self, *a, **k): self._step("fsync", *a, **k)
    def write(self, *a, **k): self._step("write", *a, **k)
    def move(self, *a, **k): self._step("move", *a, **k)
    def remove(self, *a, **k): self._step("remove", *a, **k)

output, source = Path(sys.argv[1]), Path(sys.argv[3])
with open_folder(plan_folder(output, "r1")) as folder:
    folder.attempt(1).mkdir()
    folder.video(1).write_bytes(source.with_suffix(".mp4").read_bytes())
    manifest = Manifest.from_json(json.loads(source.read_text()))
    publish(folder, folder.video(1), manifest, replace=len(sys.argv) > 4, files=DiesAfter())
"""


@pytest.mark.parametrize("replace", [False, True])
def test_d08_kill_minus_9_at_every_point_ends_with_one_whole_film_or_none(tmp_path: Path, replace: bool) -> None:
    source = tmp_path / "source.json"
    source.write_text(a_manifest("clip.mp4", film_bytes()).to_text())
    source.with_suffix(".mp4").write_bytes(film_bytes())
    for steps in itertools.count():
        folder = tmp_path / f"{steps}"
        folder.mkdir()
        output = folder / "clip.mp4"
        if replace:
            output.write_bytes(b"old")
        argv = [sys.executable, "-c", _KILLED, str(output), str(steps), str(source)]
        child = warm.run([*argv, *(["replace"] if replace else [])], timeout=100, cwd=folder)
        found = actions(folder)
        assert not leftovers(folder), (steps, found)
        whole = output.exists() and output.read_bytes() == film_bytes()
        if whole:
            assert json.loads(manifest_path(output).read_text())["state"] == "completed", (steps, found)
        else:
            assert (output.read_bytes() == b"old") if replace else not output.exists(), (steps, found)
        if steps >= (4 if replace else 3):
            assert whole, f"the intent was on disk after {steps} steps: {found}"
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL


def test_what_publishing_writes_can_be_recovered(tmp_path: Path) -> None:
    class Stops(FileSystem):
        def move(self, source: Path, target: Path, *, replace: bool) -> None:
            raise OSError(5, "the disk is gone")

    output = tmp_path / "clip.mp4"
    with contextlib.suppress(Exception), open_folder(plan_folder(output, "r1"), keep=lambda: True) as folder:
        folder.attempt(1).mkdir()
        folder.video(1).write_bytes(film_bytes())
        publish(folder, folder.video(1), a_manifest("clip.mp4", film_bytes()), replace=False, files=Stops())
    assert actions(tmp_path) == ["adopted"]
