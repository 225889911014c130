"""Warnings about settings that the chosen generator does not have, so that no setting is silently ignored.

A settings file may serve several generators: a key of the file or the environment is accepted if another configured
generator uses it. An argument, or a key in the generator's own section, is always meant for this run.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..backends import GENERATORS, Backend, load_backend
from ..config.fields import is_path
from ..config.settings import ARGUMENT, Settings
from ..core.plan import Finding, Plan

#: Settings that apply to every generator, because Reelwright itself uses them.
COMMON = frozenset((
    "generator", "generators", "output_dir", "if_exists", "strict_input", "fit", "anchor", "size", "frame_num",
    "base_seed", "state_dir", "simulate_gpus", "simulate_memory", "strict_quality", "allow_degrade", "keep_failed",
    "log_limit_mb", "chaining_max_retries", "retry_policy", "retry_budget_s", "parallel_segments",
))  # fmt: skip
#: Settings that are read before the generator is chosen.
_BEFORE_A_GENERATOR = ("output_dir", "if_exists")
#: Settings of drafts and films; in a file they are not meant for one generator.
_OF_DRAFTS = frozenset({"codec", "label"})
#: The effective parameter of a plan that a setting sets, by the setting's name.
_PARAMETERS = {"fps": "fps", "sample_steps": "steps", "guide_scale": "guidance_scale", "sample_shift": "flow_shift"}


def findings(backend: Backend, settings: Settings, plan: Plan, *, joined: bool = False) -> Iterator[Finding]:
    """Warn about each setting that is ignored.

    Args:
        backend: The generator; one that does not declare the settings that it uses gets no warning.
        settings: The settings, already narrowed to the generator.
        plan: The plan of the run; a setting that agrees with it is not ignored.
        joined: Whether the clip is for a film, which has its own codec.
    """
    for key in _BEFORE_A_GENERATOR:
        if (origin := settings.origin(key)).endswith(f"(generators.{backend.name})"):
            text = f"{origin}: {key} has no effect in the section of a generator: it is read before one is chosen"
            yield Finding("setting.unused", "warning", text, "Move it to top level, or leave it out.")
    if backend.settings_used is None:
        return
    flat = settings.flat
    for key in type(flat).model_fields:
        origin = settings.origin(key)
        if (
            key in COMMON | uses(backend)
            or (joined and key in _OF_DRAFTS)
            or origin == "default"
            or _is_default(flat, key)
        ):
            continue
        if plan.parameters.get(_PARAMETERS.get(key, "")) == getattr(flat, key):
            continue
        users = [name for name in GENERATORS if key in uses(load_backend(name))]
        meant = settings.rank(key) >= ARGUMENT or "(generators." in origin
        if not meant and (
            is_path(type(flat), key)
            or key in _OF_DRAFTS
            or any(load_backend(name).configured(settings.for_generator(name)) for name in users)
        ):
            continue
        text = f"{origin}: {key} is ignored: the generator {backend.name} has no such setting"
        fix = f"It is for {', '.join(users)}." if users else "Leave it out."
        yield Finding("setting.unused", "warning", text, fix)


def uses(backend: Backend) -> frozenset[str]:
    """The keys that a generator uses besides the `COMMON` ones: its own, and those that it names."""
    own = frozenset(backend.settings.model_fields) - frozenset(Settings.model_fields)
    return own | (backend.settings_used or frozenset())


def _is_default(settings: Settings, key: str) -> bool:
    field = type(settings).model_fields[key]
    return field.default_factory is None and bool(getattr(settings, key) == field.default)
