"""Settings that were chosen and that the chosen generator does not have: nothing is accepted and silently ignored.

A settings file may serve several generators, so a key of the file or the environment is no matter here as long as a
generator that is set up uses it. An argument, and a key in the generator's own section, is always meant for this run.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..backends import Backend, load_backend
from ..config.pipeline_keys import CONFIGURES, GENERATORS
from ..config.settings import Settings
from ..core.plan import Finding, Plan

#: What every generator has, because it is done around it.
COMMON = frozenset(
    {
        *("generator", "generators", "output_dir", "if_exists", "strict_input", "fit", "anchor", "size", "frame_num"),
        *(
            "base_seed",
            "state_dir",
            "simulate_gpus",
            "simulate_memory",
            "strict_quality",
            "allow_degrade",
            "keep_failed",
            "log_limit_mb",
        ),
        *("chaining_max_retries", "retry_policy", "retry_budget_s", "parallel_segments"),
    }
)
#: Keys that say where something lies; that they are in a file says only that it is set up.
_PLACES = frozenset({*CONFIGURES, "weights", "config_file", "python"})
#: What drafts and films have, which everybody can make: in a file they are not meant for one generator.
_OF_DRAFTS = frozenset({"codec", "label"})
#: Effective parameters of a plan that a setting of another name stands for.
_PARAMETERS = {"fps": "fps", "sample_steps": "steps", "guide_scale": "guidance_scale", "sample_shift": "flow_shift"}


def findings(backend: Backend, settings: Settings, plan: Plan, *, joined: bool = False) -> Iterator[Finding]:
    """A warning for each setting that is ignored.

    Args:
        backend: The generator; one that does not declare what it uses is not judged.
        settings: Already narrowed to it.
        plan: What will be done: a setting that says what happens anyway is not ignored.
        joined: The clip is for a film, which has a codec of its own.
    """
    if backend.settings_used is None:
        return
    for key in Settings.model_fields:
        origin = settings.origin(key)
        if (
            key in COMMON | backend.settings_used
            or (joined and key in _OF_DRAFTS)
            or origin == "default"
            or _is_default(settings, key)
        ):
            continue
        if plan.parameters.get(_PARAMETERS.get(key, "")) == getattr(settings, key):
            continue
        users = [name for name in GENERATORS if key in (load_backend(name).settings_used or ())]
        meant = origin.startswith("argument") or "(generators." in origin
        if not meant and (key in _PLACES | _OF_DRAFTS or any(_is_set_up(name, settings) for name in users)):
            continue
        text = f"{origin}: {key} is set, and the generator {backend.name} has no such setting: it is ignored"
        fix = f"It is for {', '.join(users)}." if users else "Leave it out."
        yield Finding("setting.unused", "warning", text, fix)


def _is_set_up(name: str, settings: Settings) -> bool:
    return load_backend(name).configured(settings.for_generator(name))


def _is_default(settings: Settings, key: str) -> bool:
    field = Settings.model_fields[key]
    return field.default_factory is None and bool(getattr(settings, key) == field.default)
