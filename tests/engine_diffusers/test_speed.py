"""Speed presets on a tiny random transformer: what changes pictures is recorded, and no clip depends on the one before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reelwright.core.errors import ConfigurationError, ModelNotFoundError
from tests.engine_diffusers.denoiser import MODEL, a_lora, a_pipeline, latents, psnr

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(400)]
torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from diffusers.models import attention_dispatch  # noqa: E402

from reelwright.engines.diffusers import attention, blocks, speed  # noqa: E402

CACHE = {"kind": "first_block", "threshold": 0.2}
BALANCED = {"preset": "balanced", "cache": CACHE, "fp8": True}


def applied(choice: dict[str, Any], **model: Any) -> tuple[Any, dict[str, Any]]:
    """A pipeline with a preset, and the facts."""
    pipeline = a_pipeline(dtype=model.get("dtype", "float32"))
    return pipeline, speed.apply(pipeline, {**MODEL, **model, "speed": choice})


def clip(pipeline: Any, **options: Any) -> Any:
    speed.reset(pipeline)
    return latents(pipeline, **options)


@pytest.fixture(scope="module")
def exact() -> Any:
    return latents(a_pipeline())


def test_exact_gives_the_bits_of_plain_diffusers(exact: Any) -> None:
    pipeline, facts = applied({"preset": "exact"})
    assert torch.equal(clip(pipeline), exact)
    assert facts == {
        "preset": "exact", "attention": "native", "attention_difference": 0.0, "compile": False, "cache": None,
        "fp8": False, "lora": [],
    }  # fmt: skip
    assert speed.observed(pipeline) == {}


def test_a_cache_changes_the_result_and_says_how_often(exact: Any) -> None:
    pipeline, facts = applied({"preset": "balanced", "cache": CACHE})
    found = clip(pipeline)
    assert facts["cache"] == CACHE
    observed = speed.observed(pipeline)
    assert observed["passes"] == 8  # four steps, with and without the prompt
    assert 0 < observed["cache_hits"] < 8
    assert not torch.equal(found, exact)
    assert psnr(found, exact) > 15


def test_the_fourth_clip_with_a_cache_has_the_bytes_of_the_first() -> None:
    pipeline, _ = applied(BALANCED)
    first, other = clip(pipeline), clip(pipeline, seed=2)
    clip(pipeline, steps=3)
    assert torch.equal(clip(pipeline), first)
    assert torch.equal(clip(pipeline, seed=2), other)
    fresh, _ = applied(BALANCED)
    assert torch.equal(clip(fresh), first)


class Stopped(Exception):
    pass


def stop(step: int) -> None:
    """After the second of four steps."""
    if step == 1:
        raise Stopped


def test_a_clip_that_was_stopped_leaves_nothing_in_the_cache() -> None:
    pipeline, _ = applied({"preset": "balanced", "cache": CACHE})
    first = clip(pipeline)
    with pytest.raises(Stopped):
        clip(pipeline, seed=2, after=stop)
    assert torch.equal(clip(pipeline), first)


def test_without_reset_a_stopped_clip_would_be_remembered() -> None:
    """diffusers forgets at the end of a whole clip only; were this no longer so, the test above would prove nothing."""
    pipeline, _ = applied({"preset": "balanced", "cache": {"kind": "first_block", "threshold": 5.0}})
    first = clip(pipeline)
    with pytest.raises(Stopped):
        clip(pipeline, seed=2, after=stop)
    assert not torch.equal(latents(pipeline), first)


def test_eight_bit_weights_take_half_the_memory_and_are_cast_back_for_each_block(exact: Any) -> None:
    pipeline, facts = applied({"preset": "balanced", "fp8": True})
    found = clip(pipeline)
    assert facts["fp8"] is True
    assert not torch.equal(found, exact)
    assert psnr(found, exact) > 25
    stored = {name for name, value in pipeline.transformer.named_parameters() if value.dtype == torch.float8_e4m3fn}
    assert "blocks.0.attn1.to_q.weight" in stored  # also after a clip
    assert not [name for name in stored if "bias" in name or "norm" in name or "blocks" not in name]
    assert pipeline.transformer.dtype == torch.float32  # what pipelines cast embeddings to


def test_eight_bit_weights_keep_small_values_because_each_row_has_a_scale() -> None:
    layer = torch.nn.Linear(64, 8)
    layer.weight.data = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)) * 0.002
    before = layer.weight.data.clone()
    blocks._reduce(layer, "cpu")
    after = layer.weight.data.float() * layer.reelwright_fp8_scale
    plain = before.to(torch.float8_e4m3fn).float()
    assert (after - before).norm() < 0.04 * before.norm()
    assert (plain - before).norm() > 0.2 * before.norm()  # what a cast alone would leave


def test_an_error_inside_a_block_loses_no_eight_bit_weight() -> None:
    pipeline, _ = applied({"preset": "balanced", "fp8": True})
    first = clip(pipeline)

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    hook = pipeline.transformer.blocks[2].ffn.register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        clip(pipeline)
    hook.remove()
    assert torch.equal(clip(pipeline), first)


def test_a_lora_is_added_to_the_weights_and_recorded_with_hash_and_scale(tmp_path: Path) -> None:
    by_hand = a_pipeline()
    tensors = a_lora(tmp_path / "distilled.safetensors", by_hand)
    for key in {name.rpartition(".lora_")[0] for name in tensors}:
        weight = by_hand.transformer.get_submodule(key.removeprefix("transformer.")).weight
        weight.data += 0.5 * tensors[f"{key}.lora_B.weight"] @ tensors[f"{key}.lora_A.weight"]
    entry = {"path": str(tmp_path / "distilled.safetensors"), "scale": 0.5}
    pipeline, facts = applied({"preset": "fast", "lora": [entry]})
    (recorded,) = facts["lora"]
    assert (recorded["name"], recorded["scale"], len(recorded["sha256"])) == ("distilled.safetensors", 0.5, 64)
    assert psnr(clip(pipeline, guidance=1.0), latents(by_hand, guidance=1.0)) > 90
    assert type(pipeline.transformer.blocks[0].attn1.to_q) is torch.nn.Linear


def test_guidance_of_one_needs_one_pass_for_each_step(tmp_path: Path) -> None:
    a_lora(tmp_path / "distilled.safetensors", a_pipeline())
    entry = {"path": str(tmp_path / "distilled.safetensors")}
    pipeline, _ = applied({"preset": "fast", "lora": [entry], "cache": {"kind": "first_block", "threshold": 0.0}})
    clip(pipeline, guidance=1.0)
    assert speed.observed(pipeline) == {"passes": 4, "cache_hits": 0}


@pytest.mark.parametrize("layers", [6])
def test_a_lora_for_a_larger_model_is_refused_by_name(tmp_path: Path, layers: int) -> None:
    """diffusers itself warns and goes on with the layers that fit."""
    a_lora(tmp_path / "large.safetensors", a_pipeline(), layers=layers)
    with pytest.raises(ConfigurationError, match=r"large\.safetensors does not fit.*blocks\.4\.attn1\.to_q"):
        applied({"preset": "fast", "lora": [{"path": str(tmp_path / "large.safetensors")}]})


def test_a_lora_of_other_widths_is_refused_by_name(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = a_lora(tmp_path / "a.safetensors", a_pipeline())
    save_file(
        {key: value[:5] if "lora_B" in key else value for key, value in tensors.items()}, tmp_path / "b.safetensors"
    )
    with pytest.raises(ConfigurationError, match="size mismatch"):
        applied({"preset": "fast", "lora": [{"path": str(tmp_path / "b.safetensors")}]})


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("pickle.safetensors", b"\x80\x04garbage" * 9, "cannot be read"),
        ("lora.pt", b"", "not named .safetensors"),
        ("missing.safetensors", None, "is not a file"),
    ],
)
def test_only_safetensors_are_read(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelNotFoundError, match=says):
        applied({"preset": "fast", "lora": [{"path": str(tmp_path / name)}]})


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"preset": "quick"}, "no speed preset 'quick'"),
        ({"preset": "exact", "cache": CACHE}, "exact allows no step cache"),
        ({"preset": "exact", "fp8": True}, "exact allows no fp8"),
        ({"preset": "fast"}, "fast needs step-distilled weights"),
        ({"preset": "balanced", "cache": {"kind": "magic"}}, "no step cache named 'magic'"),
    ],
)
def test_a_choice_that_contradicts_its_name_is_refused(choice: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        speed.speed_choice({**MODEL, "speed": choice})


def test_exact_refuses_attention_in_eight_bits() -> None:
    with pytest.raises(ConfigurationError, match="sage rounds to eight bits"):
        speed.speed_choice({**MODEL, "attention": "sage"})


@pytest.mark.parametrize("name", ["flash_hub", "sage_hub", "_flash_3_hub"])
def test_a_kernel_that_would_be_downloaded_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="downloads its kernel"):
        applied({"preset": "balanced"}, attention=name)


@pytest.mark.parametrize("name", ["_native_cudnn", "no_such_kernel"])
def test_attention_that_this_device_has_not_is_refused_when_loading(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} cannot be used here"):
        applied({"preset": "exact"}, attention=name)


def test_the_kernel_that_native_takes_gives_the_same_bits(exact: Any) -> None:
    pipeline, facts = applied({"preset": "exact"}, attention="_native_flash")
    assert facts["attention_difference"] == 0.0
    assert torch.equal(clip(pipeline), exact)


def test_another_order_of_the_same_sums_is_measured_and_recorded(exact: Any) -> None:
    registry = attention_dispatch._AttentionBackendRegistry
    before = registry.get_active_backend()
    pipeline, facts = applied({"preset": "exact"}, attention="_native_math")
    assert registry.get_active_backend() == before  # which a module that chooses none takes, in the next model too
    assert 0 < facts["attention_difference"] < attention.rounding("float32")
    found = clip(pipeline)
    assert not torch.equal(found, exact)
    assert psnr(found, exact) > 90


@pytest.mark.parametrize(
    ("name", "capability", "expected"),
    [
        ("auto", None, ("native",)),
        ("auto", (8, 9), ("native",)),
        ("auto", (9, 0), ("_flash_3", "_native_cudnn", "native")),
        ("auto", (12, 0), ("_native_cudnn", "native")),
        ("flash", (8, 0), ("flash",)),
        ("flash", (9, 0), ("_flash_3", "flash")),
        ("_native_math", (9, 0), ("_native_math",)),
    ],
)
def test_the_best_kernel_goes_by_the_card(
    name: str, capability: tuple[int, int] | None, expected: tuple[str, ...]
) -> None:
    assert attention.candidates(name, capability) == expected


def test_the_best_kernel_that_can_be_used_here_is_taken(exact: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("_flash_3", "_native_cudnn", "_native_math", "native")  # the first two are not for this device
    monkeypatch.setattr(attention, "candidates", lambda *_: names)
    pipeline, facts = applied({"preset": "exact"}, attention="auto")
    assert facts["attention"] == "_native_math"
    assert facts["attention_difference"] > 0
    assert not torch.equal(clip(pipeline), exact)
    monkeypatch.setattr(attention, "rounding", lambda _dtype: 1e-12)  # now it computes something else
    pipeline, facts = applied({"preset": "exact"}, attention="auto")
    assert (facts["attention"], facts["attention_difference"]) == ("native", 0.0)
    assert torch.equal(clip(pipeline), exact)


def test_requested_flash_attention_that_is_missing_is_refused_when_loading() -> None:
    with pytest.raises(ConfigurationError, match="flash cannot be used here"):
        applied({"preset": "exact"}, attention="flash")


def test_a_dense_kernel_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "rounding", lambda _dtype: 1e-12)
    with pytest.raises(ConfigurationError, match="_native_math differs by"):
        applied({"preset": "exact"}, attention="_native_math")


def test_a_pipeline_that_announces_no_passes_gets_no_cache() -> None:
    from diffusers import HunyuanVideoImageToVideoPipeline

    pipeline = a_pipeline()
    pipeline.__class__ = type("Announcing", (type(pipeline),), {"__call__": HunyuanVideoImageToVideoPipeline.__call__})
    with pytest.raises(ConfigurationError, match="does not announce its passes"):
        speed.apply(pipeline, {**MODEL, "speed": {"preset": "balanced", "cache": CACHE}})


def test_compiled_blocks_keep_the_picture_but_not_the_bits() -> None:
    pipeline = a_pipeline(layers=1)
    eager = latents(pipeline)
    facts = speed.apply(pipeline, {**MODEL, "speed": {"preset": "exact", "compile": True}})
    first = clip(pipeline)
    assert facts["compile"] is True
    assert psnr(first, eager) > 90
    assert not torch.equal(first, eager)
    blocks.use_compiled(pipeline.transformer, compiled=False)
    assert torch.equal(clip(pipeline), eager)
    blocks.use_compiled(pipeline.transformer, compiled=True)
    assert torch.equal(clip(pipeline), first)


def test_compiled_blocks_under_a_cache_and_in_eight_bits_still_decide_and_still_give_the_same_bits_twice() -> None:
    pipeline, facts = applied({**BALANCED, "compile": True})
    assert facts["compile"] is True
    first = clip(pipeline)
    assert 0 < speed.observed(pipeline)["cache_hits"] < 8
    clip(pipeline, seed=2)
    assert torch.equal(clip(pipeline), first)


def test_where_nothing_can_be_compiled_the_blocks_compute_as_they_are_written(
    exact: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", _no_compiler)
    pipeline, facts = applied({"preset": "exact", "compile": True})
    assert (facts["compile"], facts["compile_problem"]) == (False, "InvalidCxxCompiler: No working C++ compiler found")
    assert torch.equal(clip(pipeline), exact)


def _no_compiler(*_arguments: Any, **_options: Any) -> Any:
    raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\n in any of g++")


def test_what_was_compiled_for_another_size_before_changes_no_bit() -> None:
    compiled = {**MODEL, "speed": {"preset": "exact", "compile": True}}
    torch.compiler.reset()
    warm = a_pipeline(layers=1)
    speed.apply(warm, compiled)
    clip(warm, frames=5)
    found = clip(warm)
    torch.compiler.reset()
    fresh = a_pipeline(layers=1)
    speed.apply(fresh, compiled)
    assert torch.equal(clip(fresh), found)
