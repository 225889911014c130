"""What lies beside a stored clip is verified: damaged or exchanged it is made again, and the film is the same."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reelwright.core.errors import VideoGenerationError
from reelwright.core.manifest import manifest_path
from reelwright.films import FilmEvent, SegmentState
from reelwright.films.assembly import film
from reelwright.films.last_frames import is_whole
from reelwright.films.preview import preview
from reelwright.films.render import FilmOrder
from reelwright.films.store import Store
from reelwright.films.storyboard import load_storyboard
from reelwright.sites.local.site import LocalSite
from tests.films.small import BOARD, digest, draft_settings, make
from tests.stand_ins.checkout import launches
from tests.wan21.conftest import WanMachine


def key_of(folder: Path, name: str) -> str:
    """The key of a clip of the film that lies there."""
    shots = json.loads((folder / "film.reel.json").read_text())["facts"]["shots"]
    return next(str(shot["key"]) for shot in shots if shot["segment"] == name)


def one_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def another_picture(path: Path) -> None:
    Image.new("RGB", (160, 96), "red").save(path)


def a_picture_of_another_size(path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(path)


def gone(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link(path: Path) -> None:
    another_picture(path.with_name("other.png"))
    path.unlink()
    path.symlink_to(path.with_name("other.png"))


@pytest.mark.parametrize("harm", [one_byte, another_picture, gone, a_link])
def test_a_damaged_last_frame_of_a_draft_is_made_again_with_its_clip(
    made: Path, harm: Callable[[Path], None], undisturbed: str
) -> None:
    frame = Store(made).last_frame(key_of(made, "one"))
    whole = frame.read_bytes()
    harm(frame)
    (made / "film.mp4").unlink()
    result, _ = make(made)
    assert result.rendered == ("one",)
    assert "the last frame of one was damaged" in result.warnings[0]
    assert frame.read_bytes() == whole
    assert not list(frame.parent.glob(".*"))
    assert digest(made) == undisturbed


@pytest.mark.parametrize("harm", [one_byte, a_folder])
def test_a_last_frame_that_no_clip_continues_is_not_needed(made: Path, harm: Callable[[Path], None]) -> None:
    harm(Store(made).last_frame(key_of(made, "five")))
    assert make(made)[0].unchanged


def test_the_plan_of_a_film_reports_a_damaged_last_frame_and_mends_nothing(made: Path) -> None:
    frame = Store(made).last_frame(key_of(made, "one"))
    one_byte(frame)
    damaged = frame.read_bytes()
    plan = preview(FilmOrder(load_storyboard(made / "film.yaml"), draft_settings(), made / "film.mp4"), LocalSite())
    assert [item.whom for item in plan.findings if item.finding.code == "store.frame"] == ["clip one"]
    assert frame.read_bytes() == damaged


def written_otherwise(path: Path) -> None:
    """As if an older version of the PNG writer had written the frame: the same content in other bytes."""
    manifest = next(path.parent.glob(f"{path.name.partition('.')[0]}*.reel.json"))
    data = json.loads(manifest.read_text())
    data["output"]["last_frame"]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(data))


def without_digests(manifest: Path) -> None:
    """As an older version wrote it."""
    data = json.loads(manifest.read_text())
    for name in ("key", "last_frame"):
        del data["output"][name]
    manifest.write_text(json.dumps(data))


def test_clips_of_an_older_version_are_used_and_their_frames_are_checked(made: Path) -> None:
    store = Store(made)
    for path in store.clips.glob("*.reel.json"):
        without_digests(path)
    assert make(made)[0].unchanged
    frame = store.last_frame(key_of(made, "one"))
    for harm in (another_picture, a_picture_of_another_size, one_byte, gone):
        harm(frame)
        harmed = frame.read_bytes() if frame.exists() else b""
        assert not make(made)[0].rendered
        assert frame.read_bytes() != harmed
        clip = store.find(key_of(made, "one"))
        assert clip is not None
        assert is_whole(clip)


def exchanged(folder: Path, one: str, other: str) -> None:
    """Every file of one clip is one of another clip, which is whole."""
    store = Store(folder)
    for path in (store.video, store.last_frame, lambda key: manifest_path(store.video(key))):
        shutil.copy(path(other), path(one))


def without_a_size(folder: Path, one: str, other: str) -> None:
    path = manifest_path(Store(folder).video(one))
    data = json.loads(path.read_text())
    data["output"]["width"] = "wide"
    path.write_text(json.dumps(data))


def no_manifest(folder: Path, one: str, other: str) -> None:
    manifest_path(Store(folder).video(one)).write_bytes(b"\0" * 100)
    (folder / "film.reel.json").unlink()  # it repeats the clip's


@pytest.mark.parametrize("harm", [exchanged, without_a_size, no_manifest])
def test_a_clip_whose_files_are_not_its_own_is_made_again(
    made: Path, harm: Callable[[Path, str, str], None], undisturbed: str
) -> None:
    harm(made, key_of(made, "five"), key_of(made, "one"))
    (made / "film.mp4").unlink()
    result, _ = make(made)
    assert result.rendered == ("five",)
    assert digest(made) == undisturbed


@pytest.mark.parametrize("suffix", [".npz", ".json", ".mp4"])
def test_what_was_kept_of_one_clip_is_not_taken_for_another(made: Path, suffix: str) -> None:
    text = BOARD.replace("frames: 9, transition", "frames: 9, transition").replace(
        "prompt: hold, frames", "prompt: hold, transition: dissolve 3, frames"
    )
    make(made, text)
    before = digest(made)
    kept = sorted((made / ".reel" / "pieces").glob(f"*{suffix}"))
    contents = [path.read_bytes() for path in kept]
    assert len(kept) > 1
    for path, content in zip(kept, [*contents[1:], contents[0]], strict=True):
        path.write_bytes(content)
    (made / "film.mp4").unlink()
    assert not make(made, text)[0].rendered
    assert digest(made) == before


# --------------------------------------------------------------------------------------------------- the frameworks

WAN_BOARD = """\
size: 832x480
defaults: {frames: 5, steps: 3}
shots:
  - {id: one, prompt: a cat, image: photo.png}
  - {id: two, prompt: it runs}
  - {id: three, prompt: it sleeps}
"""


def wan_film(wan: WanMachine, **values: Any) -> FilmOrder:
    (wan.folder / "film.yaml").write_text(WAN_BOARD)
    board = load_storyboard(wan.folder / "film.yaml")
    return FilmOrder(board, wan.settings(**values), wan.output)


@pytest.mark.parametrize(
    ("name", "harm"), [("one", another_picture), ("two", another_picture), ("two", written_otherwise)]
)
def test_a_damaged_last_frame_of_a_framework_is_taken_from_its_clip_again(
    wan: WanMachine, name: str, harm: Callable[[Path], None]
) -> None:
    wan.script({})
    film(wan_film(wan), site=wan.site)
    shots = json.loads((wan.output.parent / "clip.reel.json").read_text())["facts"]["shots"]
    key = next(shot["key"] for shot in shots if shot["segment"] == name)
    frame, before = Store(wan.output.parent).last_frame(key), len(launches(wan.checkout))
    whole = frame.read_bytes()
    harm(frame)
    result = film(wan_film(wan), site=wan.site)
    assert (result.rendered, len(launches(wan.checkout))) == ((), before)
    assert frame.read_bytes() == whole


FULL_DISK = (
    "Traceback (most recent call last):\n"
    '  File "generate.py", line 1, in <module>\n'
    "OSError: [Errno 28] No space left on device"
)


def test_a_failure_of_the_machine_ends_a_film_at_once_and_what_runs_beside_it_is_finished_and_kept(
    wan: WanMachine,
) -> None:
    (wan.folder / "film.yaml").write_text(
        "size: 832x480\ndefaults: {frames: 5, steps: 3}\nshots:\n"
        + "".join(f"- {{id: {name}, prompt: a cat, image: photo.png}}\n" for name in ("one", "two", "three", "four"))
    )
    board = load_storyboard(wan.folder / "film.yaml")
    both = {"gpu_count": 1, "parallel_segments": 2}
    gate = wan.checkout / "fake_state" / "at-vae"  # the clip that is made waits here until the other one has failed
    gate.parent.mkdir()
    os.mkfifo(gate)

    def listen(event: FilmEvent) -> None:
        if isinstance(event, SegmentState) and event.state == "failed" and gate.exists():
            gate.read_bytes()
            gate.unlink()

    for attempts, keep_going, settings in (
        ([{"traceback": FULL_DISK}, {}], False, both),  # side by side: one of them fails, the other is made
        ([{"traceback": FULL_DISK}], True, {}),
    ):
        wan.script(*attempts)
        order = FilmOrder(board, wan.settings(**settings), wan.output, keep_going=keep_going)
        with pytest.raises(VideoGenerationError, match=r"shot (one|two): ") as caught:
            film(order, listen, site=wan.site)
        assert caught.value.code == "DISK"
        assert caught.value.evidence[-1] == "not started: three, four"
        assert "to continue" in caught.value.advice
        assert not wan.output.exists()
    assert len(launches(wan.checkout)) == 3
    assert len(list((wan.output.parent / ".reel" / "clips").glob("*.mp4"))) == 1
