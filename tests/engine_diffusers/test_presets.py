"""The presets and the ranks in the engine as a plan asks for them, on tiny whole models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.errors import AttemptError
from reelwright.core.events import Log, Saved
from tests.conftest import REPOSITORY, a_photo
from tests.engine_diffusers import tiny

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]
torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from reelwright.engines.diffusers import parallel  # noqa: E402
from reelwright.engines.diffusers.engine import DiffusersEngine  # noqa: E402

CACHE = {"kind": "first_block", "threshold": 0.2}
BALANCED = {"preset": "balanced", "cache": CACHE, "fp8": True}
Clip = Callable[..., tuple[Saved, bytes]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save("wan2.1-i2v", tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    """Make a clip and return the answer and the frames."""
    picture = a_photo(tmp_path / "photo.png", (96, 64))

    def make(engine: DiffusersEngine, **changes: Any) -> tuple[Saved, bytes]:
        options: Mapping[str, Any] = {
            "task": "i2v", "prompt": "a cat", "negative_prompt": "dull", "image": str(picture), "last_image": None,
            "width": 96, "height": 64, "num_frames": 9, "fps": 16, "steps": 3, "guidance_scale": 5.0, "flow_shift": 3.0,
            "seed": 1, **changes,
        }  # fmt: skip
        saved = engine.generate(options, tmp_path, lambda _: None, lambda: None)
        return saved, Path(saved.path).read_bytes()

    return make


def loaded(folder: Path, **changes: Any) -> tuple[DiffusersEngine, Mapping[str, Any]]:
    engine = DiffusersEngine()
    return engine, engine.load(tiny.model("wan2.1-i2v", folder, **changes), lambda _: None, lambda: None)


@pytest.mark.parametrize(
    ("speed", "dtype"), [(BALANCED, "bfloat16"), ({"preset": "balanced", "cache": CACHE}, "float32")]
)
def test_a_preset_is_recorded_and_the_third_clip_has_the_bytes_of_the_first(
    folder: Path, clip: Clip, speed: dict[str, Any], dtype: str
) -> None:
    exact, _ = loaded(folder, dtype=dtype)
    engine, facts = loaded(folder, dtype=dtype, speed=speed)
    assert facts["preset"] == "balanced"
    assert facts["fp8"] is bool(speed.get("fp8"))
    saved, first = clip(engine)
    clip(engine, seed=2)
    assert clip(engine)[1] == first
    assert clip(exact)[1] != first
    assert saved.facts["cache"] == speed.get("cache")
    assert ("cache_hits" in saved.facts) is ("cache" in speed)


def test_another_preset_after_balanced_leaves_nothing_of_it(folder: Path, clip: Clip) -> None:
    fresh, _ = loaded(folder)
    engine, _ = loaded(folder, speed=BALANCED)
    clip(engine)
    engine.load(tiny.model("wan2.1-i2v", folder), lambda _: None, lambda: None)
    saved, frames = clip(engine)
    assert frames == clip(fresh)[1]
    assert saved.facts["preset"] == "exact"


def test_the_engine_takes_two_ranks_and_starts_them_again_when_one_was_lost(
    folder: Path, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    alone = clip(loaded(folder)[0])[1]
    engine, _ = loaded(folder)
    model = tiny.model("wan2.1-i2v", folder, ranks=2, parallel={"ulysses": 2, "ring": 1})
    logs: list[Any] = []
    engine.load(model, logs.append, lambda: None)
    try:
        assert engine._loaded is not None
        assert engine._loaded.ranks is not None
        frames = clip(engine)[1]
        different = sum(abs(a - b) > 1 for a, b in zip(frames, alone, strict=True))
        assert different == 0  # at most the last bit of a byte, by rounding
        lost = engine._loaded.ranks._processes[0]
        lost._process.kill()
        lost._process.wait()
        with pytest.raises(AttemptError, match="rank 1 was ended by SIGKILL"):
            clip(engine)
        engine.load(model, logs.append, lambda: None)
        assert clip(engine)[1] == frames
    finally:
        engine.unload()
    assert not [log for log in logs if isinstance(log, Log) and log.level == "error"]
    assert parallel.default_program()[1].endswith("launchers/resident.py")
