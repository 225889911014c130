"""The command of each member: the words of `Member.command` with their values, then options, then the prompt.

The command sets every option that could have a surprising default. Three values name the place of the older members'
weights: MODEL_BASE (environment: VAE and text encoders), ``--model-base`` (only checked) and ``--dit-weight``. All
three are always set to the same place.

    >>> filled("--size={width}x{height}", {"width": 16, "height": 9}), filled("--image={image}", {"image": None})
    ('--size=16x9', None)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...core.plan import Command
from ..shared.launch import option, script_command
from . import facts
from .decision import HunyuanDecision, root_of, transformer_file

LAUNCHER = Path(__file__).parents[2] / "launchers" / "hunyuan.py"
_NAME_MAX = 255  # bytes of a file's name on Linux
_TAKEN_FROM_PROMPT = 100  # characters


def command_of(decision: HunyuanDecision) -> Command:
    """The command that starts the member's script."""
    job, member = decision.job, decision.member
    assert job.settings.hunyuan_dir is not None
    launcher = (str(LAUNCHER),) if needs_short_name(decision) else ()
    return script_command(
        decision,
        (*launcher, member.script, *_words(decision)),
        job.settings.hunyuan_dir,
        member.dialect(decision.steps, decision.super_steps),
        facts.QUIET_LIMITS_S,
        env={"MODEL_BASE": str(root_of(job.settings))} if member.names_video else {},
        collects=job.output.parent if member.names_video else None,
    )


def needs_short_name(decision: HunyuanDecision) -> bool:
    """Whether the file name that the script builds from time, seed and prompt is too long (HunyuanVideo#37)."""
    if not decision.member.names_video:
        return False
    prompt = decision.job.request.prompt.strip()[:_TAKEN_FROM_PROMPT].replace("/", "")
    name = f"2025-01-01-00:00:00_seed{decision.parameters['seed']}_{prompt}.mp4"
    return len(name.encode()) > _NAME_MAX


def filled(word: str, values: Mapping[str, Any]) -> str | None:
    """A word of `Member.command` with its values; ``None`` if one of them is not set."""
    named = {name: values[name] for name in re.findall(r"\{(\w+)\}", word)}
    return None if None in named.values() else word.format_map(named)


def _words(decision: HunyuanDecision) -> Iterator[str]:
    values = _values(decision)
    yield from filter(None, (filled(word, values) for word in decision.member.command))
    yield from _chosen(decision)
    yield option("prompt", decision.job.request.prompt)


def _values(decision: HunyuanDecision) -> dict[str, Any]:
    """The values that the words of a command may name."""
    job, member, parameters = decision.job, decision.member, decision.parameters
    settings, fps = job.settings, parameters["fps"]
    several = decision.ranks > 1
    return {
        **{name: _word(value) for name, value in parameters.items()},
        "ulysses_degree": parameters.get("ulysses_degree") if several else None,
        "ring_degree": parameters.get("ring_degree") if several else None,
        "steps": decision.steps,
        "fps": int(fps) if float(fps).is_integer() else fps,
        "frames": decision.frames,
        "width": decision.size.width,
        "height": decision.size.height,
        "aspect_ratio": None if job.first else f"{decision.size.width}:{decision.size.height}",
        "picture": job.first.path if job.first else None,
        "root": root_of(settings),
        "transformer": transformer_file(decision) if member.parts else None,
        "config_file": settings.config_file,
        "ckpt_path": settings.ckpt_path,
        "output": job.output,
        "folder": job.output.parent,
    }


def _chosen(decision: HunyuanDecision) -> Iterator[str]:
    """The options set by ``config_file``, a mitigation or a default, spelt with the dashes of the member's flags."""
    member, parameters = decision.member, decision.parameters
    dashes = any("-" in flag.lstrip("-") for flag in member.flags)
    for name, known in member.options.items():
        value = parameters.get(name)
        if name == member.negative:
            value = decision.job.request.negative_prompt or value
        flag = name.replace("_", "-") if dashes else name
        if known.kind == "flag":
            if value:
                yield f"--{flag}"
        elif value is not None:
            yield option(flag, _word(value))


def _word(value: Any) -> Any:
    """A value with booleans as the scripts spell them."""
    return str(value).lower() if isinstance(value, bool) else value
