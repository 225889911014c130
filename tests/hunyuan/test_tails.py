"""What the real scripts say when they refuse something, and its class; and logs as the stand-ins cannot make them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reelwright.backends.hunyuan import facts
from reelwright.core.errors import Failure
from reelwright.core.events import Output, Phase, Progress
from reelwright.core.plan import Command, Dialect, Mitigation, Plan
from reelwright.policy import Diagnosis, Evidence, Next, Stop
from reelwright.policy.diagnosis import diagnose
from reelwright.policy.progress import LogReader
from reelwright.policy.retry import Past, RetryRules, decide
from tests.conftest import REPOSITORY

NEWER, OLDER = facts.newer_dialect(50, 6), facts.older_dialect(50)
REAL = {
    "frames": (OLDER, Failure.CONFIG),
    "weight": (OLDER, Failure.MODEL),
    "base": (OLDER, Failure.MODEL),
    "latent": (OLDER, Failure.CONFIG),
    "fp8": (OLDER, Failure.MODEL),
    "offload": (OLDER, Failure.CONFIG),
    "split": (OLDER, Failure.CONFIG),
    "degrees": (OLDER, Failure.CONFIG),
    "version": (NEWER, Failure.MODEL),
    "sparse": (NEWER, Failure.CONFIG),
    "llm": (NEWER, Failure.MODEL),
    "glyph": (NEWER, Failure.MODEL),
    "flag": (NEWER, Failure.CONFIG),
    "bool": (NEWER, Failure.CONFIG),
}


def diagnosis_of(text: str, dialect: Dialect, status: int = 1) -> Diagnosis:
    reader = LogReader(dialect)
    reader.feed(text.encode())
    reader.close()
    evidence = Evidence(
        exit_status=status, phase=reader.phase, tail=tuple(reader.tail), exceptions=tuple(reader.exceptions)
    )
    return diagnose(evidence, Plan("hunyuan", "t2v", True, Command(("python",), Path("/"), dialect=dialect), None))


@pytest.mark.parametrize("name", REAL)
def test_what_the_real_scripts_refuse_has_the_right_class(name: str) -> None:
    dialect, failure = REAL[name]
    text = (REPOSITORY / "tests" / "logs" / f"hunyuan_real_{name}.txt").read_text("utf-8")
    status = int(re.search(r"exit status: (\d+)", text)[1])  # type: ignore[index]
    found = diagnosis_of(text.partition("---- stdout ----\n")[2], dialect, status)
    assert found.failure is failure, found
    assert found.evidence
    assert found.advice


TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in main\n'


@pytest.mark.parametrize(
    ("words", "failure"),
    [
        ("TypeError: 'NoneType' object is not callable", Failure.ENV),
        ("AssertionError: Ulysses Attention and Ring Attention requires xfuser package.", Failure.ENV),
        ("AssertionError: VAE checkpoint not found: ckpts/x/pytorch_model.pt", Failure.MODEL),
        ("AssertionError: Invalid Head size: 16, which should be divisible by spsize 3", Failure.CONFIG),
        ("OSError: [Errno 36] File name too long: '/out/2025_x.mp4'", Failure.INPUT),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.31 GiB.", Failure.OOM_GPU),
        ("ValueError: flex-block-attn is not available for your GPU or flex-block-attn is not properly installed.", Failure.ENV),
        ("OSError: We couldn't connect to 'https://huggingface.co' to load the files", Failure.MODEL),
    ],
)  # fmt: skip
def test_words_of_issue_threads_have_the_right_class(words: str, failure: Failure) -> None:
    for dialect in (OLDER, NEWER):
        assert diagnosis_of(f"{TRACEBACK}{words}\n", dialect).failure is failure


def test_the_prompt_in_every_place_where_the_scripts_repeat_it_is_never_read() -> None:
    lines = (
        "Namespace(model='x', prompt='CUDA out of memory')",
        "                        prompt: ['CUDA out of memory']",
        "                    neg_prompt: ['CUDA out of memory']",
    )
    reader = LogReader(OLDER)
    reader.feed("\n".join((*lines, "")).encode())
    assert not reader.tail
    reader = LogReader(NEWER)
    reader.feed(b"User Prompt:               CUDA out of memory\nPrompt:                    CUDA out of memory\n")
    assert not reader.tail


def test_a_rank_that_is_still_at_its_first_bar_does_not_lead_back_from_super_resolution() -> None:
    reader = LogReader(NEWER)

    def feed(text: str) -> list[object]:
        return list(reader.feed(text.encode()))

    feed("\r 98%|#########8| 49/50 [01:00<00:01,  1.2s/it]\r100%|##########| 50/50 [01:01<00:00,  1.2s/it]\n")
    assert (reader.phase, reader.step) == ("denoising", 50)
    assert feed("🎬  HunyuanVideo SR Generation Task\n") == [Phase("super resolution")]
    feed("\r 98%|#########8| 49/50 [01:02<00:01,  1.2s/it]\n")
    assert (reader.phase, reader.step) == ("super resolution", 0)
    events = feed("\r 17%|#7        | 1/6 [00:09<00:45,  9.0s/it]\n")
    assert events == [Progress("super resolution", 1, 6)]
    assert feed("\r100%|##########| 6/6 [00:54<00:00,  9.0s/it]\n")[-1] == Phase("decoding")


def test_the_phases_the_steps_and_the_clip_are_read_in_the_log_of_a_real_run() -> None:
    text = (REPOSITORY / "tests" / "logs" / "hunyuan_real_single.txt").read_bytes().partition(b"---- stdout ----\n")[2]
    reader = LogReader(facts.older_dialect(3))
    events = [*reader.feed(text), *reader.close()]
    loading = ["loading transformer", "loading VAE", "loading text encoder", "loading CLIP"]
    phases = [event.name for event in events if isinstance(event, Phase)]
    assert phases == [*loading, "encoding", "denoising", "decoding", "saving"]
    assert [event.step for event in events if isinstance(event, Progress)] == [1, 2, 3]
    assert events[-1] == Output("/out/2026-11-23-12:12:05_seed7_a cat walks.mp4")
    assert [line for line in reader.tail if "a cat walks" in line and "Sample save to" not in line] == []


# --------------------------------------------------------------------------------------------- mitigations of the picture

FREE = Mitigation("offload", {"use_cpu_offload": True}, "time", "offload")
PICTURE = Mitigation("cfg_scale", {"cfg_scale": 1.0}, "guidance", "one pass")
FRAMES = Mitigation("frames_81", {"num_frames": 81}, "frames", "shorter")
MEMORY = Diagnosis(Failure.OOM_GPU, "no memory", cause="dit", phase="denoising")


def decisions(**rules: object) -> list[Next | Stop]:
    """What is decided while every attempt ends without memory."""
    parameters = {"use_cpu_offload": False, "cfg_scale": 2.0, "num_frames": 129}
    plan = Plan("hunyuan", "t2v", True, None, None, parameters=parameters, mitigations=(FREE, PICTURE, FRAMES))
    past: list[Past] = [Past(MEMORY)]
    found: list[Next | Stop] = []
    while not found or isinstance(found[-1], Next):
        found.append(decide(RetryRules(**rules), plan, past))  # type: ignore[arg-type]
        past.append(Past(MEMORY, step=found[-1] if isinstance(found[-1], Next) else None))
    return found


def test_documented_lowers_guidance_for_memory_after_what_costs_nothing() -> None:
    first, second, stop = decisions(policy="documented")
    assert isinstance(first, Next)
    assert isinstance(second, Next)
    assert isinstance(stop, Stop)
    assert (first.overrides["use_cpu_offload"], "cfg_scale" in first.overrides, first.degrades) == (True, False, False)
    assert (second.overrides["cfg_scale"], "num_frames" in second.overrides, second.degrades) == (1.0, False, True)


@pytest.mark.parametrize("policy", ["ladder", "classified"])
def test_no_other_policy_lowers_guidance_for_memory(policy: str) -> None:
    first, stop = decisions(policy=policy)
    assert isinstance(first, Next)
    assert (dict(first.overrides), isinstance(stop, Stop)) == ({"use_cpu_offload": True}, True)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("documented", {"cfg_scale": 1.0, "num_frames": 81}), ("classified", {"num_frames": 81})],
)
def test_frames_are_lowered_where_the_user_allows_it(policy: str, expected: dict[str, object]) -> None:
    _, second, _ = decisions(policy=policy, allow_degrade=frozenset({"frames"}))
    assert isinstance(second, Next)
    assert dict(second.overrides) == {"use_cpu_offload": True, **expected}


def test_strict_quality_never_touches_the_picture() -> None:
    first, stop = decisions(policy="classified", strict_quality=True)
    assert isinstance(first, Next)
    assert isinstance(stop, Stop)
