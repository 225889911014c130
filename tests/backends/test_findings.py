"""Mistakes that each generator notices before it starts, one row each: its plan names the cause and the fix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reelwright.backends import load_backend
from reelwright.backends.diffusers.settings import Lora
from reelwright.backends.settings import load_settings
from reelwright.backends.shared.job import Job
from reelwright.core.host import Kind
from reelwright.core.plan import Plan
from reelwright.core.request import Size
from tests.backends import test_diffusers as engine
from tests.hunyuan.planning import CHECKOUT as HUNYUAN
from tests.hunyuan.planning import World as Hunyuan
from tests.wan21.planning import CHECKOUT as WAN
from tests.wan21.planning import World as Wan

WIDE = Size(4000, 100)
ALONE = "it is installed for this user only (pip --user, in /home/x), which a run does not see"


def wan(world: Wan, *, weights: Mapping[str, Any] | None = None, picture: Size | None = None, **ask: Any) -> Plan:
    job = world.job(**ask)
    found = {path: replace(item, **(weights or {})) for path, item in job.host.checkpoints.items()}
    first = replace(job.first, size=picture) if job.first and picture else job.first
    return load_backend("wan2.1").plan(job.evolve(host=replace(job.host, checkpoints=found), first=first))


def hunyuan(world: Hunyuan, checkout: Mapping[str, Any], **settings: Any) -> Plan:
    """The plan with another finding in the checkout, and other settings."""
    job: Job[Any] = world.job(Size(1280, 720))
    found = {HUNYUAN: replace(job.host.checkouts[HUNYUAN], **checkout)}
    host = replace(job.host, checkouts=found)
    return load_backend("hunyuan").plan(job.evolve(host=host, settings=job.settings.evolve(**settings)))


def without_ftfy() -> Wan:
    module = replace(Wan().interpreter, broken={"ftfy": f"ModuleNotFoundError: No module named 'ftfy'; {ALONE}"})
    return Wan(absent=("ftfy",), interpreter=module)


ROWS: tuple[tuple[Callable[[], Plan], str, str, str], ...] = (
    # Wan2.1
    (lambda: wan(Wan(matches={"tasks": ("i2v-A14B", "t2v-A14B")})), "wan2_dir.task", "error", "a checkout of Wan2.2"),
    (lambda: wan(Wan(matches={"tasks": ("t2v-14B",)})), "wan2_dir.task", "error", "a checkout without the task i2v-14B"),
    (lambda: wan(Wan(matches={"flags": ("--task", "--size")})), "wan2_dir.flags", "error", "--ckpt_dir"),
    (lambda: wan(Wan(), weights={"dtypes": frozenset({"BF16"})}), "model.dtype", "warning", "as BF16"),
    (lambda: wan(Wan(), picture=WIDE), "size.aspect", "warning", "was not trained for a clip of"),
    (lambda: wan(Wan(), negative_prompt="rain"), "ignored.negative_prompt", "warning", "no negative prompt option"),
    (lambda: wan(without_ftfy()), "module.ftfy", "error", "for this user only"),
    (lambda: wan(Wan(model="t2v-1.3B", interpreter=replace(Wan().interpreter, cuda_archs=("gfx90a",)))),
     "torch.arch", "error", "it is built for gfx90a"),
    # HunyuanVideo
    (lambda: hunyuan(Hunyuan("i2v"), {"files": frozenset(), "elsewhere": Path("/opt/h/HunyuanVideo")}),
     "hunyuan_dir.wrong", "error", "no script of the HunyuanVideo family"),
    (lambda: hunyuan(Hunyuan("i2v"), {"matches": {"older_flags": ("--model-base",)}}),
     "hunyuan_dir.flags", "error", "does not know --save-path"),
    (lambda: hunyuan(Hunyuan("documented"), {}, config_file=None), "config_file.unset", "error", "not set"),
    (lambda: Hunyuan("i2v", options={"model": "HYVideo-T/2-cfgdistill"}).plan(Size(1280, 720)),
     "model.net", "warning", "HYVideo-T/2-cfgdistill"),
    (lambda: Hunyuan("t2v", settings={"super_resolution": True}).plan(),
     "ignored.super_resolution", "warning", "no super resolution"),
    (lambda: Hunyuan("t2v").plan(size=Size(1270, 714)), "size.derived", "info", "multiples of 16"),
    (lambda: Hunyuan("documented", settings={"max_duration": 5}).plan(Size(1280, 720), seconds=9.0),
     "frames.too_long", "error", "max_duration is 5 s"),
    (lambda: Hunyuan("1.5").plan(guidance_scale=3.0), "ignored.guidance_scale", "warning", "follows from the weights"),
    (lambda: Hunyuan("documented").plan(Size(1280, 720), negative_prompt="rain"),
     "ignored.negative_prompt", "warning", "no option for a negative prompt"),
    (lambda: Hunyuan("t2v").plan(negative_prompt="rain"), "ignored.negative_prompt", "warning", "cfg_scale above 1"),
    # the resident engine
    (lambda: engine.planned(replace(engine.official("i2v"), kind=Kind("gguf", "holds GGUF files", "Get others."))),
     "model.gguf", "error", "holds GGUF files"),
    (lambda: engine.planned(model="t2v-14B"), "model.other", "error", "`model` says t2v-14B"),
    (lambda: engine.planned(engine.official("t2v"), first=None, ask={"size": Size(16, 16)}),
     "size.small", "error", "too small"),
    (lambda: engine.planned(speed="fast", lora=[Lora(Path("/l/x.safetensors"))], ask={"steps": 30}),
     "speed.fast", "warning", "30 steps"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("plan", "code", "severity", "words"), ROWS, ids=[f"{place}-{row[1]}" for place, row in enumerate(ROWS)]
)
def test_a_mistake_is_one_finding_with_its_cause(
    plan: Callable[[], Plan], code: str, severity: str, words: str
) -> None:
    (found,) = [finding for finding in plan().findings if finding.code == code]
    assert (found.severity, words in f"{found.message} {found.fix}") == (severity, True)


@pytest.mark.parametrize(("model", "frames"), [(None, 81), ("wan2.2-ti2v-5B", 121), ("no such model", 81)])
def test_a_film_cuts_its_clips_at_the_length_of_the_configured_model(model: str | None, frames: int) -> None:
    settings = load_settings(environ={}, arguments={"model": model} if model else {})
    assert load_backend("diffusers").clip_rules(settings).max_frames == frames


def test_a_checkout_that_a_probe_did_not_answer_for_is_refused() -> None:
    job = Wan().job()
    plan = load_backend("wan2.1").plan(job.evolve(host=replace(job.host, checkouts={})))
    assert ("wan2_dir.wrong", f"wan2_dir {WAN} was not checked") in [(f.code, f.message) for f in plan.findings]
