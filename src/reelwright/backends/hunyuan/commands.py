"""The command of each member: one ``--option=value`` word per flag, nothing left to a default that surprises.

Three folders hold the weights of the older members: MODEL_BASE (environment: VAE and text encoders), ``--model-base``
(only looked at) and ``--dit-weight``. They are always set to the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...core.plan import Command, Dialect
from ..shared.launch import EXPANDABLE_SEGMENTS, Program, command, option
from . import facts
from .choice import Choice, fps_of, root_of, transformer_file
from .members import DOCUMENTED, HV, HV15, HVI

LAUNCHER = Path(__file__).parents[2] / "launchers" / "hunyuan.py"
_NAME_MAX = 255  # bytes of a file's name on Linux
_TAKEN_FROM_PROMPT = 100  # characters


def command_of(choice: Choice) -> Command:
    """How the member's script is started."""
    job, member = choice.job, choice.member
    assert job.settings.hunyuan_dir is not None
    words = tuple(_OPTIONS[member.title](choice))
    launcher = (str(LAUNCHER),) if needs_short_name(choice) else ()
    program = Program(
        python=choice.interpreter.path,
        script=(*launcher, member.script, *words),
        cwd=job.settings.hunyuan_dir,
        gpus=choice.gpus.gpus,
        ranks=choice.ranks,
        dialect=_dialect(choice),
        quiet_limits_s=facts.QUIET_LIMITS_S,
        env=_env(choice),
        collects=job.output.parent if member.names_film else None,
    )
    return command(job, program)


def needs_short_name(choice: Choice) -> bool:
    """Whether the name that the script makes of time, seed and prompt is longer than a name may be (HunyuanVideo#37)."""
    if not choice.member.names_film:
        return False
    prompt = choice.job.request.prompt.strip()[:_TAKEN_FROM_PROMPT].replace("/", "")
    name = f"2025-01-01-00:00:00_seed{choice.parameters['seed']}_{prompt}.mp4"
    return len(name.encode()) > _NAME_MAX


def _env(choice: Choice) -> dict[str, str]:
    env = {"MODEL_BASE": str(root_of(choice.job.settings))} if choice.member.names_film else {}
    return {**env, **EXPANDABLE_SEGMENTS} if choice.parameters.get("expandable_segments") else env


def _dialect(choice: Choice) -> Dialect:
    if choice.member is HV15:
        return facts.newer_dialect(choice.steps, choice.super_steps)
    return facts.documented_dialect(choice.steps) if choice.member is DOCUMENTED else facts.older_dialect(choice.steps)


# --------------------------------------------------------------------------------------------------------- options


def _older(choice: Choice) -> Iterator[str]:
    """What sample_video.py and sample_image2video.py have in common."""
    parameters = choice.parameters
    yield option("model-base", root_of(choice.job.settings))
    yield option("save-path", choice.job.output.parent)
    yield option("video-length", choice.frames)
    yield option("infer-steps", choice.steps)
    yield option("embedded-cfg-scale", parameters["guidance_scale"])
    yield option("flow-shift", parameters["flow_shift"])
    yield "--flow-reverse"  # without it: noise, and exit status 0
    yield option("seed", parameters["seed"])
    if choice.ranks > 1:
        yield option("ulysses-degree", parameters["ulysses_degree"])
        yield option("ring-degree", parameters["ring_degree"])
    negative = choice.job.request.negative_prompt or parameters.get("neg_prompt")
    yield from _chosen(choice, {**parameters, "neg_prompt": negative}, dashes=True)
    yield option("prompt", choice.job.request.prompt)


def _hv(choice: Choice) -> Iterator[str]:
    yield option("dit-weight", transformer_file(choice))
    yield from ("--video-size", str(choice.size.height), str(choice.size.width))
    yield from _older(choice)


def _hvi(choice: Choice) -> Iterator[str]:
    assert choice.job.first is not None
    yield "--i2v-mode"
    yield option("i2v-dit-weight", transformer_file(choice))
    yield option("i2v-image-path", choice.job.first.path)
    yield option("i2v-resolution", choice.form.resolution)
    yield from _older(choice)


def _hv15(choice: Choice) -> Iterator[str]:
    job, parameters = choice.job, choice.parameters
    yield option("model_path", root_of(job.settings))
    yield option("resolution", choice.form.resolution)
    yield option("sr", _word(parameters["super_resolution"]))
    yield option("video_length", choice.frames)
    yield option("num_inference_steps", choice.steps)
    yield option("seed", parameters["seed"])
    if job.first:
        yield option("image_path", job.first.path)
    else:
        yield option("aspect_ratio", f"{choice.size.width}:{choice.size.height}")
    yield option("rewrite", "false")  # it would send the prompt to a server
    yield option("save_generation_config", "false")
    yield option("output_path", job.output)
    negative = job.request.negative_prompt or parameters.get("negative_prompt")
    yield from _chosen(choice, {**parameters, "negative_prompt": negative}, dashes=False)
    yield option("prompt", job.request.prompt)


def _documented(choice: Choice) -> Iterator[str]:
    job = choice.job
    assert job.first is not None
    yield option("cfg-path", job.settings.config_file)
    yield option("ckpt-path", job.settings.ckpt_path)
    yield option("source-image", job.first.path)
    yield option("save-path", job.output)
    yield option("steps", choice.steps)
    fps = fps_of(choice.member, job)
    yield option("fps", int(fps) if fps.is_integer() else fps)
    yield option("seed", choice.parameters["seed"])
    yield option("prompt", job.request.prompt)


_OPTIONS: Mapping[str, Callable[[Choice], Iterator[str]]] = {
    HV.title: _hv,
    HVI.title: _hvi,
    HV15.title: _hv15,
    DOCUMENTED.title: _documented,
}


def _chosen(choice: Choice, parameters: Mapping[str, Any], *, dashes: bool) -> Iterator[str]:
    """The flags that ``config_file``, a mitigation or a default of ours set."""
    for name, known in choice.member.options.items():
        value = parameters.get(name)
        flag = name.replace("_", "-") if dashes else name
        if known.kind == "flag":
            if value:
                yield f"--{flag}"
        elif value is not None:
            yield option(flag, _word(value) if known.kind == "switch" else value)


def _word(value: bool) -> str:
    return "true" if value else "false"
