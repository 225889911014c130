"""What a clip of the resident engine survives, and that it is the same clip afterwards.

Faults are struck from outside: a method of the model, or of the scheduler that the pipeline is given, that raises what
CUDA raises. Product code knows nothing of them.
"""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.errors import Cancelled, OutOfMemoryError, StateError
from reelwright.core.events import LatentsSaved
from reelwright.engines.diffusers.weight_placement import Placement
from tests.engine_diffusers import tiny
from tests.engine_diffusers.clips import STEPS, Engine, asked

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(400)]
torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

MODEL = "wan2.1-i2v"
FULL = "CUDA out of memory. Tried to allocate 9.00 GiB\nof which little is free"
Folders = Callable[[str], Path]


class Stop:
    """A check that says stop when it is asked for the ``at``-th time, and counts how often it was asked."""

    def __init__(self, at: int) -> None:
        self.at, self.asked = at, 0

    def __call__(self) -> None:
        self.asked += 1
        if self.asked == self.at:
            raise Cancelled(signal_number=2)


def failing(original: Any, errors: list[Exception | None]) -> Any:
    """Calls raise these errors one after another; ``None`` and whatever comes after them: as before."""
    left = list(errors)

    def call(*given: Any, **more: Any) -> Any:
        error = left.pop(0) if left else None
        if error is not None:
            raise error
        return original(*given, **more)

    return call


def no_memory(times: int, after: int = 0) -> list[Exception | None]:
    return [*[None] * after, *(torch.OutOfMemoryError(FULL) for _ in range(times))]


def part(engine: Engine, name: str) -> Any:
    """A component of the loaded model."""
    assert engine.engine._loaded is not None
    return getattr(next(iter(engine.engine._loaded.pipelines.values())), name)


@pytest.fixture
def start(folder_of: Folders) -> Iterator[Callable[..., Engine]]:
    """A loaded engine."""
    started: list[Engine] = []

    def load(**changes: Any) -> Engine:
        started.append(Engine(tiny.model(MODEL, folder_of(MODEL), **changes)))
        return started[-1]

    yield load
    for engine in started:
        engine.engine.unload()


@pytest.fixture(scope="module")
def undisturbed(folder_of: Folders, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], bytes]:
    """The bytes of the usual clip, made once by an engine of its own."""
    made: dict[bytes, bytes] = {}

    def film(photo: Path) -> bytes:
        key = photo.read_bytes()
        if key not in made:
            engine = Engine(tiny.model(MODEL, folder_of(MODEL)))
            made[key] = engine.film(asked("i2v", photo), tmp_path_factory.mktemp("undisturbed"))
            engine.engine.unload()
        return made[key]

    return film


Start = Callable[..., Engine]
Undisturbed = Callable[[Path], bytes]

# ----------------------------------------------------------------------------------------------------------- same bits


def test_the_first_the_third_and_a_clip_of_known_encodings_are_the_same_bytes(
    start: Start, undisturbed: Undisturbed, photo: Path, tmp_path: Path
) -> None:
    engine, expected = start(), undisturbed(photo)
    torch.manual_seed(99)  # nobody may draw from here
    before = torch.random.get_rng_state()
    first = engine.clip(asked("i2v", photo), tmp_path / "1")
    assert Path(first.path).read_bytes() == expected
    assert first.facts["encoded"] > 0
    assert first.facts["encodings_reused"] == 0
    other = asked("i2v", photo, seed=5, width=96, num_frames=9, steps=3)
    known = engine.clip(other, tmp_path / "2")
    assert known.facts["encoded"] == 0
    again = engine.clip(asked("i2v", photo), tmp_path / "3")
    assert Path(again.path).read_bytes() == expected
    assert again.facts["encoded"] == 0
    assert again.facts["encodings_reused"] == first.facts["encoded"]
    assert torch.equal(torch.random.get_rng_state(), before)
    fresh = start()
    assert fresh.film(other, tmp_path / "4") == Path(known.path).read_bytes()


def test_another_placement_keeps_the_weights_and_the_bytes(
    start: Start, undisturbed: Undisturbed, folder_of: Folders, photo: Path, tmp_path: Path
) -> None:
    engine = start()
    transformer = part(engine, "transformer")
    low = tiny.model(MODEL, folder_of(MODEL), placements=["group_offload_low"])
    engine.engine.load(low, engine.said.append, lambda: None)
    assert part(engine, "transformer") is transformer
    saved = engine.clip(asked("i2v", photo), tmp_path)
    assert saved.facts["placement"] == "group_offload_low"
    assert Path(saved.path).read_bytes() == undisturbed(photo)


# -------------------------------------------------------------------------------------------------------------- cancel


@pytest.mark.parametrize("at", range(1, 7))
def test_a_clip_stops_at_the_next_check_and_leaves_no_trace(
    start: Start, undisturbed: Undisturbed, photo: Path, tmp_path: Path, at: int
) -> None:
    engine, stop = start(), Stop(at)
    options = asked("i2v", photo, latents=str(tmp_path / "l.safetensors"), latents_key="k")
    with pytest.raises(Cancelled):
        engine.clip(options, tmp_path / "stopped", stop)
    assert stop.asked == at  # nothing went on after it
    assert not (tmp_path / "stopped" / "frames.rgb").exists()
    # Latents are there only if all steps were done.
    assert (tmp_path / "l.safetensors").exists() <= (engine.steps()[-1:] == [(STEPS, STEPS)])
    assert engine.film(asked("i2v", photo), tmp_path / "next") == undisturbed(photo)


def test_no_step_is_computed_after_a_stop(start: Start, photo: Path, tmp_path: Path) -> None:
    engine = start()
    transformer, passes = part(engine, "transformer"), []
    transformer.register_forward_hook(lambda *_: passes.append(1))

    def stop() -> None:
        if engine.steps():
            raise Cancelled(signal_number=2)

    with pytest.raises(Cancelled):
        engine.clip(asked("i2v", photo, steps=6), tmp_path, stop)
    assert engine.steps() == [(1, 6)]
    assert len(passes) == 2  # with the prompt and without it


# ----------------------------------------------------------------------------------------------------- memory: denoising


def test_denoising_without_memory_uses_the_next_placement_and_gives_the_same_bytes(
    start: Start, undisturbed: Undisturbed, photo: Path, tmp_path: Path
) -> None:
    engine = start()
    transformer = part(engine, "transformer")
    transformer.forward = failing(transformer.forward, no_memory(1, after=3))  # in the middle of the second step
    saved = engine.clip(asked("i2v", photo), tmp_path / "1")
    assert Path(saved.path).read_bytes() == undisturbed(photo)
    assert saved.facts["placement"] == "encoders_off"
    assert engine.steps() == [(1, STEPS), (1, STEPS), (2, STEPS)]
    (said,) = [line for line in engine.logs() if "starting the clip again with encoders_off" in line]
    assert "Tried to allocate 9.00 GiB" in said
    assert engine.clip(asked("i2v", photo), tmp_path / "2").facts["placement"] == "encoders_off"


def test_the_last_placement_without_memory_is_an_error_and_the_engine_goes_on(
    start: Start, photo: Path, tmp_path: Path
) -> None:
    engine = start()
    transformer = part(engine, "transformer")
    transformer.forward = failing(transformer.forward, no_memory(3))
    with pytest.raises(OutOfMemoryError, match="the last placement") as caught:
        engine.clip(asked("i2v", photo), tmp_path / "1")
    assert "Tried to allocate 9.00 GiB" in caught.value.evidence[0]
    assert len([line for line in engine.logs() if "starting the clip again" in line]) == 2
    assert engine.clip(asked("i2v", photo), tmp_path / "2").facts["placement"] == "group_offload"


def test_encoding_without_memory_uses_the_next_placement_too(
    start: Start, undisturbed: Undisturbed, photo: Path, tmp_path: Path
) -> None:
    engine = start()
    encoder = part(engine, "text_encoder")
    encoder.forward = failing(encoder.forward, no_memory(1))
    saved = engine.clip(asked("i2v", photo), tmp_path)
    assert saved.facts["placement"] == "encoders_off"
    assert Path(saved.path).read_bytes() == undisturbed(photo)


def test_another_error_of_the_model_is_not_taken_for_memory(start: Start, photo: Path, tmp_path: Path) -> None:
    engine = start()
    transformer = part(engine, "transformer")
    transformer.forward = failing(transformer.forward, [RuntimeError("mat1 and mat2 shapes cannot be multiplied")])
    with pytest.raises(RuntimeError, match="mat1"):
        engine.clip(asked("i2v", photo), tmp_path)
    assert engine.logs() == []


# ------------------------------------------------------------------------------------------------------ memory: decoding


@pytest.mark.parametrize(("times", "way"), [(1, "full"), (2, "tiled"), (3, "cpu")])
def test_a_decode_without_memory_is_tried_again_alone(
    start: Start, undisturbed: Undisturbed, photo: Path, tmp_path: Path, times: int, way: str
) -> None:
    engine = start()
    vae, transformer, passes = part(engine, "vae"), part(engine, "transformer"), []
    transformer.register_forward_hook(lambda *_: passes.append(1))
    vae.decode = failing(vae.decode, no_memory(times))
    saved = engine.clip(asked("i2v", photo), tmp_path)
    assert saved.facts["decoded"] == way
    assert len(engine.logs()) == times
    assert all("Tried to allocate" in line for line in engine.logs())
    assert len(passes) == 2 * STEPS  # nothing was denoised again
    if way != "tiled":  # blended at the seams
        assert Path(saved.path).read_bytes() == undisturbed(photo)
    assert not vae.use_tiling  # the next clip is decoded as a whole again


def test_a_decode_that_fits_nowhere_keeps_the_latents(
    start: Start, undisturbed: Undisturbed, photo: Path, tmp_path: Path
) -> None:
    engine, latents = start(), tmp_path / "latents" / "k.safetensors"
    options = asked("i2v", photo, latents=str(latents), latents_key="k")
    vae = part(engine, "vae")
    vae.decode = failing(vae.decode, no_memory(4))
    with pytest.raises(OutOfMemoryError, match=r"decoding \(cpu\) ran out of memory"):
        engine.clip(options, tmp_path / "1")
    assert LatentsSaved(str(latents)) in engine.said
    saved = engine.clip(options, tmp_path / "2")
    assert saved.facts["resumed"] is True
    assert engine.steps() == []
    assert Path(saved.path).read_bytes() == undisturbed(photo)


def test_a_stop_between_two_ways_of_decoding_is_noticed(start: Start, photo: Path, tmp_path: Path) -> None:
    engine = start()
    vae = part(engine, "vae")
    vae.decode = failing(vae.decode, no_memory(1))

    def stop() -> None:
        if engine.logs():
            raise Cancelled(signal_number=2)

    with pytest.raises(Cancelled):
        engine.clip(asked("i2v", photo), tmp_path, stop)
    assert not (tmp_path / "frames.rgb").exists()


@pytest.mark.parametrize("times", [1, 4])
def test_the_transformer_is_back_before_the_next_clip_however_decoding_ended(
    start: Start, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    moves: list[str] = []
    monkeypatch.setattr(Placement, "move_denoiser_away", lambda _: moves.append("away"))
    monkeypatch.setattr(Placement, "move_denoiser_back", lambda _: moves.append("back"))
    engine = start()
    vae, transformer = part(engine, "vae"), part(engine, "transformer")
    transformer.register_forward_hook(lambda *_: moves.append("pass"))
    vae.decode = failing(vae.decode, no_memory(times))
    with contextlib.suppress(OutOfMemoryError):
        engine.clip(asked("i2v", photo), tmp_path / "1")
    engine.clip(asked("i2v", photo), tmp_path / "2")
    last = len(moves) - 1 - moves[::-1].index("away")
    assert moves[last + 1 :] == ["back", *["pass"] * 2 * STEPS]


def test_only_the_allowed_ways_of_decoding_are_tried(start: Start, photo: Path, tmp_path: Path) -> None:
    engine = start()
    vae = part(engine, "vae")
    vae.decode = failing(vae.decode, no_memory(2))
    with pytest.raises(OutOfMemoryError, match=r"decoding \(full\)"):
        engine.clip(asked("i2v", photo, decode=["full"]), tmp_path)


# ------------------------------------------------------------------------------------------------------------- latents


def test_a_new_process_continues_the_latents_of_a_dead_one(
    start: Start, undisturbed: Undisturbed, photo: Path, tmp_path: Path
) -> None:
    latents = tmp_path / "k.safetensors"
    options = asked("i2v", photo, latents=str(latents), latents_key="k")
    dying = start()
    vae = part(dying, "vae")
    vae.decode = failing(vae.decode, [KeyboardInterrupt()])  # type: ignore[list-item]
    with pytest.raises(KeyboardInterrupt):
        dying.clip(options, tmp_path / "dead")
    assert sorted(path.name for path in tmp_path.glob("*.safetensors*")) == ["k.safetensors"]  # no partial file
    fresh = start()
    saved = fresh.clip(options, tmp_path / "next")
    assert saved.facts["resumed"] is True
    assert "continuing with the latents" in fresh.logs()[0]
    assert Path(saved.path).read_bytes() == undisturbed(photo)


def test_latents_that_are_not_used_are_reported(start: Start, photo: Path, tmp_path: Path) -> None:
    engine, latents = start(), tmp_path / "k.safetensors"
    latents.write_bytes(b"no latents")
    saved = engine.clip(asked("i2v", photo, latents=str(latents), latents_key="k"), tmp_path / "clip")
    assert saved.facts["resumed"] is False
    assert f"{latents} are not used" in engine.logs()[0]


# -------------------------------------------------------------------------------------------------------------- memory


def test_unloading_gives_the_weights_back(folder_of: Folders, photo: Path, tmp_path: Path) -> None:
    engine = Engine(tiny.model(MODEL, folder_of(MODEL)))
    engine.clip(asked("i2v", photo), tmp_path)
    held = [weakref.ref(part(engine, name)) for name in ("transformer", "vae", "text_encoder", "image_encoder")]
    engine.engine.unload()
    gc.collect()
    assert [reference() for reference in held] == [None] * 4
    engine.engine.unload()  # twice is once
    with pytest.raises(StateError, match="no model"):
        engine.clip(asked("i2v", photo), tmp_path)
