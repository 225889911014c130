"""Calling it from Python: errors that say what to do, Ctrl-C, asyncio, options with a typo, pictures that are no paths."""

from __future__ import annotations

import asyncio
import inspect
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import reelwright
from reelwright.api import effective_settings
from reelwright.backends import load_backend
from reelwright.config.settings import Settings as SharedSettings
from reelwright.core.errors import Failure, InvalidInputError, OutOfMemoryError
from reelwright.core.events import Event, Phase, Progress

DRAFT: Any = {"generator": "draft", "seconds": 1, "size": (320, 180)}


def test_an_exception_prints_its_evidence_its_fix_and_its_log() -> None:
    error = OutOfMemoryError("it ran out", failure=Failure.OOM_GPU, evidence="CUDA out of memory", advice="Use less.")
    error.log = "/state/attempt-1.log"
    assert str(error).splitlines() == [
        "it ran out",
        "  | CUDA out of memory",
        "  fix: Use less.",
        "  log: /state/attempt-1.log",
    ]


@pytest.mark.parametrize(("word", "near"), [("sedd", "seed"), ("last_imag", "last_image"), ("zzz", "Known options")])
def test_an_option_with_a_typo_is_our_error_with_what_was_meant(photo: Path, word: str, near: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        reelwright.generate("x", photo, photo.with_suffix(".mp4"), **dict[str, Any]({word: 1}))
    assert word in caught.value.message
    assert near in caught.value.advice


def test_a_documented_option_with_a_typo_is_our_error_too(photo: Path) -> None:
    generator = reelwright.create_video_generator("draft")
    with pytest.raises(reelwright.ConfigurationError) as caught:
        generator.generate_video("x", str(photo), str(photo.with_suffix(".mp4")), sample_step=4)
    assert "sample_steps" in caught.value.advice


PUBLIC: dict[str, Callable[[], object]] = {
    "generate": lambda: reelwright.generate("x", "photo.png"),
    "generate, with settings": lambda: reelwright.generate("x", "photo.png", settings={"wan2_dir": "Wan2.1"}),
    "agenerate": lambda: asyncio.run(reelwright.agenerate("x", "photo.png")),
    "film": lambda: reelwright.film("film.yaml"),
    "afilm": lambda: asyncio.run(reelwright.afilm("film.yaml")),
    "load_settings": lambda: reelwright.load_settings(Path("x.yaml"), environ={}),
    "load_storyboard": lambda: reelwright.load_storyboard(Path("film.yaml")),
    "create_video_generator": lambda: reelwright.create_video_generator("wan2.1", {"wan2_dir": "Wan2.1"}),
    "generate_video": lambda: reelwright.create_video_generator("draft").generate_video("x", "photo.png", "x.mp4"),
}


@pytest.mark.parametrize("call", PUBLIC.values(), ids=PUBLIC)
def test_every_call_from_a_folder_that_was_removed_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(reelwright.VideoGenerationError) as caught:
        call()
    assert caught.value.code in ("INPUT", "CONFIG")


@pytest.mark.parametrize("settings", ["config.yaml", Path("config.yaml"), 7, ["draft"]], ids=repr)
def test_settings_of_a_wrong_type_are_our_error_with_the_way_to_give_them(photo: Path, settings: Any) -> None:
    with pytest.raises(reelwright.ConfigurationError) as caught:
        reelwright.generate("x", photo, photo.with_suffix(".mp4"), settings=settings)
    assert "load_settings" in caught.value.advice


@pytest.mark.parametrize("name", ["wan2.1", "hunyuan", "diffusers", "draft"])
def test_the_settings_that_all_generators_share_serve_each_of_them(name: str, tmp_path: Path) -> None:
    shared = SharedSettings(sample_steps=7, state_dir=tmp_path)
    settings = effective_settings(shared).for_generator(name)
    assert (type(settings), settings.sample_steps) == (load_backend(name).settings, 7)
    assert settings.state_dir == tmp_path


@pytest.mark.parametrize("board", [7, None, {"shots": []}, b"film.yaml"], ids=repr)
def test_a_storyboard_of_a_wrong_type_is_our_error(board: Any) -> None:
    with pytest.raises(InvalidInputError, match="must be the path of a file or a Storyboard"):
        reelwright.film(board)


@pytest.mark.parametrize("name", ["image", "last_image", "depth_image"])
def test_a_picture_in_memory_is_refused_with_the_way_to_give_it(photo: Path, name: str) -> None:
    values: dict[str, Any] = {"image": photo, name: Image.new("RGB", (64, 64))}
    with pytest.raises(InvalidInputError) as caught:
        reelwright.generate("x", values.pop("image"), photo.with_suffix(".mp4"), **values, **DRAFT)
    assert "PIL.Image.Image" in caught.value.message
    assert "save" in caught.value.advice.lower()


def test_agenerate_gives_the_result_and_its_events_in_the_loops_thread(photo: Path) -> None:
    threads: set[threading.Thread] = set()

    def listen(_event: Event) -> None:
        threads.add(threading.current_thread())

    async def main() -> reelwright.Result:
        return await reelwright.agenerate("push in", photo, photo.with_suffix(".mp4"), on_progress=listen, **DRAFT)

    result = asyncio.run(main())
    assert result.output.exists()
    assert threads == {threading.main_thread()}


def test_agenerate_raises_what_generate_raises(photo: Path) -> None:
    with pytest.raises(InvalidInputError, match="is empty"):
        asyncio.run(reelwright.agenerate("", photo, photo.with_suffix(".mp4")))


def test_a_cancelled_task_stops_its_run_and_leaves_nothing(photo: Path) -> None:
    output = photo.with_suffix(".mp4")
    seen: list[Event] = []

    async def main() -> None:
        started = asyncio.Event()

        def listen(event: Event) -> None:
            seen.append(event)
            if isinstance(event, Progress):
                started.set()

        making = reelwright.agenerate("push in", photo, output, on_progress=listen, generator="draft", seconds=60)
        task = asyncio.create_task(making)
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("reelwright")]

    asyncio.run(main())
    assert [path.name for path in output.parent.iterdir() if path != photo] == []
    assert Phase("publishing") not in seen


BOARD = "size: 320x180\ndefaults: {seconds: 60}\nshots:\n- {image: %s, prompt: push in}\n"


@pytest.mark.parametrize("call", ["generate('push in', {photo!r}, 'a.mp4', generator='draft', seconds=60{listen})",
                                  "film('board.yaml', 'a.mp4', draft=True{listen})"])  # fmt: skip
def test_ctrl_c_in_a_program_is_a_keyboard_interrupt_that_except_exception_lets_through(
    photo: Path, tmp_path: Path, call: str
) -> None:
    (tmp_path / "board.yaml").write_text(BOARD % photo)
    name = "on_progress" if call.startswith("generate") else "on_event"
    call = call.format(photo=str(photo), listen=f", {name}=listen")
    program = (
        "import os, signal, threading, reelwright\n"
        "strokes = [signal.SIGINT]  # one alone: a second one would stop it at once\n"
        "def listen(event):\n"
        "    event = getattr(event, 'event', event)\n"
        "    if type(event).__name__ == 'Progress' and strokes: os.kill(os.getpid(), strokes.pop())\n"
        f"try:\n    reelwright.{call}\nexcept Exception as error:\n    print('swallowed', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode in (1, -signal.SIGINT)  # Python knows the signal of its own class only
    assert done.stderr.splitlines()[-1].startswith(("KeyboardInterrupt", "reelwright.core.errors.Interrupted"))
    assert "swallowed" not in done.stdout
    assert not (tmp_path / "a.mp4").exists()
    assert not list(tmp_path.glob(".reelwright-*"))


@pytest.mark.parametrize(("blocking", "waiting"), [("generate", "agenerate"), ("film", "afilm")])
def test_a_call_for_asyncio_has_the_signature_of_the_blocking_one(blocking: str, waiting: str) -> None:
    assert inspect.signature(getattr(reelwright, waiting)) == inspect.signature(getattr(reelwright, blocking))
