"""The folders of the family's weights: what is missing and where it comes from, and text encoders that must be made."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from reelwright.core.errors import Failure
from reelwright.core.plan import Finding
from reelwright.runs.order import Order
from reelwright.runs.prepare import Preparer
from reelwright.runs.workspace import plan_folder
from tests.hunyuan.conftest import HunyuanMachine
from tests.stand_ins.checkpoints import make_hunyuan_checkpoint


def a_plan(hunyuan: HunyuanMachine, **settings: Any) -> list[Finding]:
    """What stands in the way of a run, said before it."""
    order = Order(hunyuan.request(), hunyuan.settings(**settings), hunyuan.output)
    return list(Preparer(hunyuan.site).prepare(order, plan_folder(hunyuan.output, "PLAN")).plan.errors)


@pytest.fixture
def own_weights(hunyuan: HunyuanMachine, member: str, tmp_path: Path) -> Path:
    """Weights that a test may change."""
    return make_hunyuan_checkpoint(tmp_path / "ckpts", member)


def make_llava(folder: Path) -> Path:
    (folder / "config.json").write_text('{"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]}')
    return folder


@pytest.mark.parametrize("member", ["t2v"])
def test_a_text_encoder_that_must_be_made_is_said_with_the_command_that_makes_it(
    hunyuan: HunyuanMachine, own_weights: Path
) -> None:
    encoder = own_weights / "text_encoder"
    llava = make_llava(encoder.rename(own_weights / "llava-llama-3-8b-v1_1-transformers"))
    (finding,) = a_plan(hunyuan, ckpt_path=str(own_weights))
    assert f"{encoder} is missing; it is made from LLaVA" in finding.message
    script = "hyvideo/utils/preprocess_text_encoder_tokenizer_utils.py"
    assert finding.fix == (
        f"cd {hunyuan.checkout} && {hunyuan.values['python']} {script} --input_dir {llava} --output_dir {encoder}"
    )
    subprocess.run(["rm", "-r", str(llava)], check=True)
    (finding,) = a_plan(hunyuan, ckpt_path=str(own_weights))
    assert finding.fix.startswith(f"Download xtuner/llava-llama-3-8b-v1_1-transformers to {llava}, then run: cd ")


@pytest.mark.parametrize("member", ["t2v"])
@pytest.mark.parametrize(("other", "title"), [("i2v", "HunyuanVideo-I2V"), ("1.5", "HunyuanVideo-1.5")])
def test_weights_of_another_member_are_named_in_one_line(
    hunyuan: HunyuanMachine, tmp_path: Path, other: str, title: str
) -> None:
    (finding,) = a_plan(hunyuan, ckpt_path=str(make_hunyuan_checkpoint(tmp_path / "ckpts", other)))
    assert f"holds the weights of {title}, and hunyuan_dir is HunyuanVideo" in finding.message
    assert f"a checkout of {title} (github.com/" in finding.fix


@pytest.mark.parametrize("member", ["t2v"])
def test_a_complete_llava_as_text_encoder_is_named(hunyuan: HunyuanMachine, own_weights: Path) -> None:
    make_llava(own_weights / "text_encoder")
    (finding,) = a_plan(hunyuan, ckpt_path=str(own_weights))
    assert (finding.code, finding.failure) == ("model.encoder", Failure.MODEL)
    assert "holds all of LLaVA" in finding.message
    assert "preprocess_text_encoder_tokenizer_utils.py" in finding.fix


@pytest.mark.parametrize("member", ["i2v"])
def test_the_language_model_alone_is_too_little_for_image_to_video(hunyuan: HunyuanMachine, own_weights: Path) -> None:
    make_llava(own_weights / "text_encoder_i2v")
    assert a_plan(hunyuan, ckpt_path=str(own_weights)) == []
    (own_weights / "text_encoder_i2v" / "config.json").write_text('{"model_type": "llama"}')
    (finding,) = a_plan(hunyuan, ckpt_path=str(own_weights))
    assert "needs all of LLaVA" in finding.message


@pytest.mark.parametrize(
    ("member", "lost", "words", "fix"),
    [
        ("t2v", ("text_encoder_2",), "text_encoder_2 is missing", "openai/clip-vit-large-patch14"),
        ("1.5", ("text_encoder/llm",), "text_encoder/llm is missing", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("1.5", ("vision_encoder",), "2 folders are missing: vision_encoder/siglip, vision_encoder/siglip/image_encoder", "FLUX.1-Redux"),
        ("1.5", ("vae", "scheduler"), "2 folders are missing: vae, scheduler", "HunyuanVideo-1.5"),
    ],
    indirect=["member"],
)  # fmt: skip
def test_missing_folders_of_one_download_are_one_line_with_its_origin(
    hunyuan: HunyuanMachine, own_weights: Path, lost: tuple[str, ...], words: str, fix: str
) -> None:
    for name in lost:
        subprocess.run(["rm", "-r", str(own_weights / name)], check=True)
    (finding,) = a_plan(hunyuan, ckpt_path=str(own_weights))
    assert words in finding.message
    assert fix in finding.fix


@pytest.mark.parametrize("member", ["t2v", "i2v"])
def test_a_checkout_without_its_package_is_incomplete(hunyuan: HunyuanMachine) -> None:
    subprocess.run(["rm", "-r", str(hunyuan.checkout / "hyvideo")], check=True)
    (finding,) = a_plan(hunyuan)
    assert "is incomplete: it has sample_" in finding.message
    assert "and no hyvideo/config.py" in finding.message
