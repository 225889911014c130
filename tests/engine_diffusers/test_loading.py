"""A folder of weights is loaded completely and safely, or refused with the name of the fault."""

from __future__ import annotations

import gc
import json
import os
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.errors import Cancelled, ConfigurationError, ModelNotFoundError, StateError
from reelwright.core.events import Event, Phase
from tests.engine_diffusers import tiny
from tests.engine_diffusers.clips import Engine, asked

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

NAME = "wan2.1-t2v"
_SAFE = {
    "text_encoder": ("model.safetensors", "pytorch_model.bin"),
    "transformer": ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
    "vae": ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
}


class Bomb:
    """A pickle that does something when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.mark),))


@pytest.fixture
def folder(tmp_path: Path, folder_of: Callable[[str], Path]) -> Path:
    """A model that the test may damage."""
    return Path(shutil.copytree(folder_of(NAME), tmp_path / "model"))


def _refused(folder: Path, kind: type[Exception] = ModelNotFoundError, **changes: Any) -> Any:
    engine = Engine.__new__(Engine)
    with pytest.raises(kind) as caught:
        engine.__init__(tiny.model(NAME, folder, **changes))  # type: ignore[misc]
    with pytest.raises(StateError):
        engine.clip(asked("t2v"), folder / "clip")
    return caught.value


def _index(folder: Path, **components: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **components}))


@pytest.mark.parametrize("part", _SAFE)
def test_a_part_that_exists_only_as_a_pickle_is_refused_and_never_opened(
    folder: Path, tmp_path: Path, part: str
) -> None:
    safe, pickled = _SAFE[part]
    (folder / part / safe).unlink()
    torch.save({"weight": Bomb(tmp_path / "exploded")}, folder / part / pickled)
    error = _refused(folder)
    assert str(folder / part) in error.message
    assert "safetensors" in error.advice
    assert not (tmp_path / "exploded").exists()


def test_a_pickle_beside_safetensors_is_not_touched(folder: Path, tmp_path: Path) -> None:
    for part, (_, pickled) in _SAFE.items():
        torch.save({"weight": Bomb(tmp_path / "exploded")}, folder / part / pickled)
    Engine(tiny.model(NAME, folder))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "kind",
    [
        ["custom", "Transformer"],
        ["transformers", "AutoModel"],
        ["diffusers", "AutoModel"],
        ["diffusers", "DiffusionPipeline"],
        ["transformers", "pipeline"],
        ["diffusers", "torch"],
        ["os", "system"],
        ["diffusers", 7],
        [["diffusers"], "WanTransformer3DModel"],
    ],
    ids=str,
)
def test_no_code_from_the_folder_and_nothing_but_a_components_class_is_used(
    folder: Path, tmp_path: Path, kind: Any
) -> None:
    marker = f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\nclass Transformer: pass\n"
    for place in (folder, folder / "transformer"):
        for name in ("custom.py", "Transformer.py", "modeling.py", "pipeline.py"):
            (place / name).write_text(marker)
    config = folder / "transformer" / "config.json"
    known = json.loads(config.read_text())
    config.write_text(json.dumps({**known, "auto_map": {"AutoModel": "modeling.Transformer"}, "model_type": "custom"}))
    _index(folder, transformer=kind)
    error = _refused(folder)
    assert "transformer" in error.message
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_that_brings_its_own_code_is_refused(folder: Path, tmp_path: Path) -> None:
    source = f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\nclass Words: pass\n"
    (folder / "tokenizer" / "words.py").write_text(source)
    for path in (folder / "tokenizer").glob("tokenizer*"):
        path.unlink()
    config = {"tokenizer_class": "Words", "auto_map": {"AutoTokenizer": ["words.Words", "words.Words"]}}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "tokenizer" / "config.json").write_text(json.dumps({"model_type": "custom", **config}))
    _index(folder, tokenizer=["transformers", "AutoTokenizer"])
    assert "tokenizer" in _refused(folder).message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer", "transformer", "vae", "scheduler"])
def test_a_missing_part_is_named(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)
    assert part in _refused(folder).message


def test_weights_that_lack_a_layer_are_refused_and_not_made_up(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "transformer" / _SAFE["transformer"][0]
    weights = load_file(path)
    weights.pop("blocks.1.ffn.net.2.weight")
    save_file(weights, path, metadata={"format": "pt"})
    error = _refused(folder)
    assert "transformer" in error.message
    assert "blocks.1.ffn.net.2.weight" in error.message


def test_an_encoder_that_lacks_a_layer_is_refused_and_not_made_up(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "text_encoder" / _SAFE["text_encoder"][0]
    weights = load_file(path)
    lost = next(name for name in weights if "SelfAttention.q" in name)
    weights.pop(lost)
    save_file(weights, path, metadata={"format": "pt"})
    error = _refused(folder)
    assert "text_encoder" in error.message
    assert lost in error.message


def test_shards_are_read_and_a_lost_one_is_named(folder: Path) -> None:
    from diffusers import WanTransformer3DModel

    part = folder / "transformer"
    model = WanTransformer3DModel.from_pretrained(part)
    shutil.rmtree(part)
    model.save_pretrained(part, max_shard_size="30KB")
    shards = sorted(part.glob("*-of-*.safetensors"))
    assert len(shards) > 2
    held = Engine(tiny.model(NAME, folder)).engine._loaded
    assert held is not None
    read = held.pipelines["t2v"].transformer.state_dict()
    assert all(torch.equal(read[name], weight) for name, weight in model.state_dict().items())
    shards[1].unlink()
    assert str(part) in _refused(folder).message


@pytest.mark.parametrize(("placements", "words"), [(["cellar"], "names cellar"), ([], "is empty")])
def test_placements_that_cannot_be_used_are_refused_with_the_allowed_ones(
    folder: Path, placements: list[str], words: str
) -> None:
    engine = Engine(tiny.model(NAME, folder))
    with pytest.raises(ConfigurationError) as later:  # for the model that is already loaded
        engine.engine.load(tiny.model(NAME, folder, placements=placements), engine.said.append, lambda: None)
    for error in (_refused(folder, ConfigurationError, placements=placements), later.value):
        assert f"`placements` {words}" in error.message
        assert "resident, encoders_off" in error.advice


def test_phases_are_reported_before_they_begin_and_the_same_model_again_is_ready_at_once(folder: Path) -> None:
    engine = Engine(tiny.model(NAME, folder))
    assert engine.phases() == ["loading text encoder", "loading VAE", "loading transformer"]
    engine.said.clear()
    again = engine.engine.load(tiny.model(NAME, folder), engine.said.append, lambda: None)
    assert again == engine.facts
    assert not engine.said


@pytest.mark.parametrize("before", [None, Phase("loading text encoder"), Phase("loading VAE")])
def test_stopped_while_loading_it_holds_nothing_and_can_load_again(
    folder: Path, tmp_path: Path, before: Phase | None
) -> None:
    engine, model = Engine(tiny.model(NAME, folder)), tiny.model(NAME, folder, attention="_native_math")
    heard: list[Event] = []

    def check() -> None:
        if before is None or before in heard:
            raise Cancelled(signal_number=2)

    with pytest.raises(Cancelled):
        engine.engine.load(model, heard.append, check)
    with pytest.raises(StateError):
        engine.clip(asked("t2v"), tmp_path / "clip")
    engine.engine.load(model, heard.append, lambda: None)
    assert engine.film(asked("t2v"), tmp_path / "clip")


# ------------------------------------------------------------------------------------------------------ memory


def _watched(engine: Engine) -> list[weakref.ref[Any]]:
    held = engine.engine._loaded
    assert held is not None
    (pipeline,) = held.pipelines.values()
    parts = (pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.transformer.blocks[0])
    return [weakref.ref(part) for part in parts]


def _dead(references: list[weakref.ref[Any]]) -> bool:
    gc.collect()
    return all(reference() is None for reference in references)


def test_memory_is_returned_before_another_model_is_loaded(folder: Path, tmp_path: Path) -> None:
    engine = Engine(tiny.model(NAME, folder))
    references = _watched(engine)
    engine.film(asked("t2v"), tmp_path / "clip")
    dead: list[bool] = []

    def emit(event: Event) -> None:
        if event == Phase("loading text encoder"):
            dead.append(_dead(references))

    engine.engine.load(tiny.model(NAME, folder, attention="_native_math"), emit, lambda: None)
    assert dead == [True]


def test_memory_is_returned_after_a_stopped_clip_too(folder: Path, tmp_path: Path) -> None:
    engine = Engine(tiny.model(NAME, folder))
    references = _watched(engine)

    def check() -> None:
        if engine.steps():
            raise Cancelled(signal_number=2)

    with pytest.raises(Cancelled):
        engine.clip(asked("t2v"), tmp_path / "clip", check)
    engine.engine.unload()
    assert _dead(references)
