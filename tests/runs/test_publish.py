"""Publishing: rows D03 to D10 of the fault matrix, as far as they concern names and files."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from reelwright import load_settings
from reelwright.core.errors import BackendUnavailableError, Cancelled, Failure, InvalidInputError, VideoGenerationError
from reelwright.core.events import Event, Phase
from reelwright.core.manifest import Manifest, manifest_path
from reelwright.core.request import Size, VideoRequest
from reelwright.runs import workspace
from reelwright.runs.order import Order
from reelwright.runs.runner import generate
from reelwright.runs.workspace import FileSystem, RunFolder, open_folder, place, plan_folder, publish, settle_output
from reelwright.sites.cancellation import Cancellation

FILM = b"not decoded here: publishing is about bytes" * 100


def a_manifest(output: Path, state: str = "completed") -> Manifest:
    return Manifest(
        run_id="r",
        reelwright="0",
        generator="draft",
        task="i2v",
        generative=False,
        state=state,
        created_at="2026-01-01T00:00:00+00:00",
        requested={"prompt": "x"},
        output={"path": output.name, "sha256": hashlib.sha256(FILM).hexdigest()},
    )


def a_film(folder: RunFolder) -> Path:
    folder.attempt(1).mkdir()
    folder.video(1).write_bytes(FILM)
    return folder.video(1)


def publish_once(output: Path, *, replace: bool = False, files: object = None, run_id: str = "r1") -> None:
    with open_folder(plan_folder(output, run_id)) as folder:
        publish(folder, a_film(folder), a_manifest(output), replace=replace, files=files)  # type: ignore[arg-type]


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(workspace.PREFIX)]


def test_a_published_film_has_its_bytes_and_its_manifest_and_nothing_else(tmp_path: Path) -> None:
    publish_once(tmp_path / "clip.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "clip.reel.json"]
    assert (tmp_path / "clip.mp4").read_bytes() == FILM


class FailsAt(FileSystem):
    """The n-th call fails with an error number."""

    def __init__(self, number: int, error: int) -> None:
        self.left, self.error = number, error

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(self.error, os.strerror(self.error))

    def fsync(self, path: Path) -> None:
        self._count()
        super().fsync(path)

    def write(self, path: Path, text: str) -> None:
        self._count()
        super().write(path, text)

    def move(self, source: Path, target: Path, *, replace: bool) -> None:
        self._count()
        super().move(source, target, replace=replace)

    def remove(self, folder: Path) -> None:
        self._count()
        super().remove(folder)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EXDEV, errno.EROFS])
def test_d04_the_nth_failing_call_leaves_all_or_nothing(tmp_path: Path, error: int) -> None:
    for number in itertools.count(1):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        output, files = folder / "clip.mp4", FailsAt(number, error)
        try:
            publish_once(output, files=files)
        except BackendUnavailableError as caught:
            assert caught.failure in (Failure.DISK, Failure.PERM)  # noqa: PT017 -- the call may also succeed
            assert not output.exists(), number
        else:
            assert output.read_bytes() == FILM
        assert not leftovers(folder)
        if files.left > 0:
            break
    assert number > 6


def test_d04_a_failed_overwrite_leaves_the_old_film(tmp_path: Path) -> None:
    output = tmp_path / "clip.mp4"
    output.write_bytes(b"old")
    with pytest.raises(BackendUnavailableError):
        publish_once(output, replace=True, files=FailsAt(5, errno.EIO))
    assert output.read_bytes() == b"old"


def test_d05_a_missing_folder_is_named_with_its_fix(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does not exist") as caught:
        workspace.check_folder(tmp_path / "no" / "clip.mp4")
    assert "mkdir" in caught.value.advice


def test_d05_an_output_that_is_a_folder_is_perm(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").mkdir()
    with pytest.raises(BackendUnavailableError) as caught:
        workspace.check_folder(tmp_path / "clip.mp4")
    assert caught.value.failure is Failure.PERM


def test_d05_a_parent_that_is_a_file_is_perm(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BackendUnavailableError) as caught:
        workspace.check_folder(tmp_path / "file" / "clip.mp4")
    assert caught.value.failure is Failure.PERM


_AS_NOBODY = """
import os, sys
from pathlib import Path
from reelwright.runs import workspace
from reelwright.core.errors import VideoGenerationError
os.setgroups([]) if os.getuid() == 0 else None
os.setgid(65534) if os.getuid() == 0 else None
os.setuid(65534) if os.getuid() == 0 else None
try:
    workspace.check_folder(Path(sys.argv[1]))
except VideoGenerationError as error:
    print(error.code)
"""


def test_d05_a_folder_of_somebody_else_is_perm(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    child = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, str(closed / "clip.mp4")], capture_output=True, text=True, check=False
    )
    assert child.stdout.strip() == "PERM", child.stderr


def test_d06_an_existing_film_is_an_error_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"old")
    with pytest.raises(InvalidInputError) as caught:
        settle_output(tmp_path / "clip.mp4", "error")
    assert caught.value.failure is Failure.EXISTS


def test_d06_a_foreign_manifest_is_not_overwritten_either(tmp_path: Path) -> None:
    manifest_path(tmp_path / "clip.mp4").write_text("mine")
    with pytest.raises(InvalidInputError):
        settle_output(tmp_path / "clip.mp4", "error")


def test_d06_rename_takes_the_next_free_number(tmp_path: Path) -> None:
    for name in ("clip.mp4", "clip-2.mp4"):
        (tmp_path / name).touch()
    assert settle_output(tmp_path / "clip.mp4", "rename") == tmp_path / "clip-3.mp4"


def test_d06_skip_means_no_work(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    assert settle_output(tmp_path / "clip.mp4", "skip") is None


def test_d06_skip_takes_another_name_where_only_somebodys_manifest_is(tmp_path: Path) -> None:
    manifest_path(tmp_path / "clip.mp4").write_text("mine")
    assert settle_output(tmp_path / "clip.mp4", "skip") == tmp_path / "clip-2.mp4"


def test_d06_a_dangling_symlink_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError):
        settle_output(tmp_path / "clip.mp4", "error")


def test_d06_a_film_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    output = tmp_path / "clip.mp4"
    with open_folder(plan_folder(output, "r")) as folder:
        film = a_film(folder)
        output.write_bytes(b"somebody else's")
        with pytest.raises(InvalidInputError) as caught:
            publish(folder, film, a_manifest(output), replace=False)
    assert caught.value.failure is Failure.EXISTS
    assert output.read_bytes() == b"somebody else's"


def test_d06_a_manifest_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    output = tmp_path / "clip.mp4"
    with open_folder(plan_folder(output, "r")) as folder:
        film = a_film(folder)
        manifest_path(output).write_text("somebody else's")
        with pytest.raises(InvalidInputError) as caught:
            publish(folder, film, a_manifest(output), replace=False)
    assert caught.value.failure is Failure.EXISTS
    assert manifest_path(output).read_text() == "somebody else's"
    assert not output.exists()


def test_d07_of_two_runs_with_one_output_exactly_one_wins(tmp_path: Path) -> None:
    for round_number in range(50):
        output = tmp_path / f"clip{round_number}.mp4"
        barrier, outcomes = threading.Barrier(2), []

        def contend(name: str, output: Path = output, barrier: threading.Barrier = barrier) -> None:
            with open_folder(plan_folder(output, name)) as folder:
                film = a_film(folder)
                barrier.wait()
                try:
                    publish(folder, film, a_manifest(output), replace=False)
                except InvalidInputError as error:
                    outcomes.append(error.exit_status)  # noqa: B023
                else:
                    outcomes.append(0)  # noqa: B023

        threads = [threading.Thread(target=contend, args=(f"{round_number}-{n}",)) for n in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == [0, 32]
        assert output.read_bytes() == FILM


def test_d09_a_relative_output_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert workspace.absolute_output(Path("clip.mp4")) == tmp_path / "clip.mp4"


def test_d09_a_deleted_current_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(InvalidInputError, match="no longer exists"):
        workspace.absolute_output(Path("clip.mp4"))


@pytest.mark.parametrize("name", ["-x.mp4", "a b.mp4", "new\nline.mp4", "🎬.mp4", "dots...mp4", "'\".mp4"])
def test_d10_odd_names_are_published_as_they_are(hostile_path: Path, name: str) -> None:
    publish_once(hostile_path / name)
    assert (hostile_path / name).read_bytes() == FILM


@pytest.mark.parametrize("name", ["x" * 251 + ".mp4", "x" * 300 + ".mp4", "clip.avi", "clip", "clip.mp4."])
def test_d10_names_that_cannot_work_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInputError):
        workspace.absolute_output(tmp_path / name)


def test_d10_the_longest_name_that_leaves_room_for_the_manifest_works(tmp_path: Path) -> None:
    output = workspace.absolute_output(tmp_path / ("x" * 245 + ".mp4"))
    publish_once(output)
    assert output.exists()
    assert manifest_path(output).exists()


class Noted(FileSystem):
    """Every call, in its order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def fsync(self, path: Path) -> None:
        self.calls.append(("fsync", path.name))
        super().fsync(path)

    def move(self, source: Path, target: Path, *, replace: bool) -> None:
        self.calls.append(("move", target.name))
        super().move(source, target, replace=replace)


def test_d04_a_placed_file_is_on_the_disk_before_and_its_name_after_the_move(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "frame.png").write_bytes(b"picture")
    files = Noted()
    place(private / "frame.png", tmp_path / "last.png", files)
    assert files.calls == [("fsync", "frame.png"), ("move", "last.png"), ("fsync", tmp_path.name)]
    assert (tmp_path / "last.png").read_bytes() == b"picture"


def test_d04_a_film_is_on_the_disk_before_it_has_its_name(tmp_path: Path) -> None:
    files = Noted()
    publish_once(tmp_path / "clip.mp4", files=files)
    moved = files.calls.index(("move", "clip.mp4"))
    assert {("fsync", "film.mp4"), ("fsync", ".reelwright-r1")} <= set(files.calls[:moved])
    assert ("fsync", tmp_path.name) in files.calls[moved:]


@pytest.mark.parametrize("phase", ["verifying", "publishing"])
def test_a_request_to_stop_while_a_film_is_verified_publishes_nothing(tmp_path: Path, photo: Path, phase: str) -> None:
    cancellation = Cancellation()

    def listen(event: Event) -> None:
        if event == Phase(phase):
            cancellation.request()

    request = VideoRequest(prompt="push in", image=photo, size=Size(64, 64), num_frames=2, generator="draft")
    order = Order(request, load_settings(environ={}), tmp_path / "clip.mp4")
    if phase == "publishing":  # too late: what is being published stays
        assert generate(order, listen, cancellation).output.exists()
        return
    with pytest.raises(Cancelled):
        generate(order, listen, cancellation)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_a_folder_that_cannot_be_made_is_a_disk_or_perm_error(tmp_path: Path) -> None:
    (tmp_path / ".reelwright-taken").write_text("")
    with pytest.raises(VideoGenerationError), open_folder(plan_folder(tmp_path / "clip.mp4", "taken")):
        pass
