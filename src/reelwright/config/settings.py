"""Defines `Settings`: the settings that all generators share, as one frozen value that knows where each one was set.

A backend with its own settings subclasses `Settings` (``backends/NAME/settings.py``), and `for_generator` gives an
instance of that class. `config.loading` reads the values. No code reads a global: code that needs a setting receives
the value.

    >>> settings = Settings(sample_steps=30)
    >>> settings.sample_steps, settings.codec, settings.evolve(codec="av1").codec
    (30, 'h264', 'av1')
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, ValidationInfo, field_validator

from ..core.errors import ConfigurationError, all_of
from ..core.files import home
from ..core.host import simulated_gpus, simulated_memory
from ..core.request import MAX_SEED, parse_size
from .fields import (
    AUTO,
    LIST,
    FilePath,
    Positive,
    PositiveFloat,
    ProgramPath,
    Seconds,
    is_secret,
    mistakes_in,
    parsed,
    plain,
)

__all__ = ["Settings", "default_state_dir"]

SCHEMA = 1
#: How strong a source is; a generator's section also beats the flat keys of its own source.
FILE, ENVIRONMENT, ARGUMENT, EVOLVED = 1, 2, 3, 4
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: torchrun gives each rank its place with these variables; Reelwright's own variables mark the processes of a run.
_RANK_VARIABLE = re.compile(
    r"((LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|TORCHELASTIC_.*|REELWRIGHT_.*)"
)


S = TypeVar("S", bound="Settings")


@dataclass(frozen=True)
class Sources:
    """Where the values of settings come from.

    Attributes:
        origins: Where each key was set, for messages: ``FILE:line``, ``environment NAME`` or ``argument``. A key of a
            generator's section is ``generators.NAME.KEY``.
        ranks: How strong the source of each key is.
        order: Generators in the order in which the settings first set a key of each.
        notes: Values that were read and are not used.
    """

    origins: Mapping[str, str] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def updated(self, origins: Mapping[str, str], ranks: Mapping[str, int]) -> Sources:
        """A copy in which these origins and ranks replace those of the same keys."""
        return replace(self, origins={**self.origins, **origins}, ranks={**self.ranks, **ranks})


class Settings(BaseModel):
    """The settings that all generators share. ``None`` means the generator's documented default, or a probed value.

    A backend's own settings are a subclass in which every field has a default. Each source is checked separately, so
    a validator sees the keys of one source only. Rules between keys are findings of the backend's ``plan``.
    """

    #: Deferred: a command uses two of the seven classes, and building a class costs 3 ms.
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=(), defer_build=True
    )
    #: The flat keys that configure a generator, each with the generator's name.
    configures: ClassVar[Mapping[str, str]] = {}

    generator: str = Field("auto", description="generator to use; auto takes the configured one, else the draft")
    output_dir: FilePath | None = Field(None, description="folder for clips and films without -o")
    if_exists: Literal["error", "overwrite", "skip", "rename"] = Field(
        "error", description="what to do if the output exists"
    )
    strict_input: bool = Field(False, description="refuse pictures that need normalising")
    strict_quality: bool = Field(False, description="never lower quality to succeed")
    allow_degrade: Annotated[tuple[Literal["frames", "size"], ...], LIST] = Field(
        (), description="what a retry may lower when memory is short: frames, size"
    )
    fit: Literal["cover", "contain", "stretch"] | None = Field(None, description="how pictures are fitted to a size")
    anchor: str = Field("center", description="which part of a picture a crop keeps")
    codec: Literal["h264", "av1"] = Field("h264", description="codec where Reelwright encodes")
    size: str | None = Field(None, description="width x height; documented default 1280x720")
    frame_num: Positive | None = Field(None, description="frames per clip; documented default 81")
    fps: PositiveFloat | None = Field(None, description="frames per second, where the generator has a choice")
    guide_scale: Annotated[float, Field(ge=0, lt=1000)] | None = Field(
        None, description="guidance scale; documented default 7.5"
    )
    sample_steps: Positive | None = Field(None, description="sampling steps; documented default 50")
    sample_shift: Annotated[PositiveFloat | None, AUTO] = Field(
        None, description="flow shift; auto is the framework's own"
    )
    base_seed: Annotated[int, Field(ge=-1, le=MAX_SEED)] | None = Field(
        None, description="seed; -1 or nothing draws one, which is recorded"
    )
    python: ProgramPath | None = Field(None, description="the framework's own interpreter")
    gpu_count: Annotated[Positive | None, AUTO] = Field(
        None, description="GPUs per clip; auto chooses the fastest set that fits"
    )
    gpus: Annotated[tuple[Annotated[int, Field(ge=0)], ...] | None, LIST] = Field(
        None, description="exactly these GPUs, by index"
    )
    total_gpus: Positive | None = Field(None, description="GPUs of the machine to share among parallel segments")
    parallel_segments: Positive | None = Field(None, description="segments rendered at the same time")
    chaining_max_retries: Annotated[int, Field(ge=0, le=100)] = Field(3, description="retries after the first attempt")
    retry_policy: Literal["ladder", "classified", "documented", "none"] = Field(
        "ladder", description="what a retry may change; see docs/wan21.md"
    )
    retry_budget_s: PositiveFloat | None = Field(None, description="no further attempt after this many seconds")
    timeout: PositiveFloat | None = Field(None, description="wall-clock limit of one attempt, seconds")
    progress_timeout: PositiveFloat | None = Field(
        None, description="seconds without progress that count as hung; replaces the limits per phase"
    )
    lease_timeout_s: Seconds = Field(0.0, description="seconds to wait for GPUs that another run uses")
    stop_grace_s: Seconds = Field(10.0, description="seconds between asking a process to end and killing it")
    verify_model: bool = Field(False, description="check the hashes of the weights before a run")
    accept_valid_on_nonzero: bool = Field(False, description="accept a complete clip although the framework failed")
    nccl_p2p_retry: bool = Field(False, description="allow a retry with NCCL_P2P_DISABLE=1")
    keep_failed: bool = Field(False, description="keep the refused video of a failed attempt with the run's record")
    env: Mapping[str, str] = Field({}, description="extra variables for the framework (values are never shown)")
    log_limit_mb: Annotated[int, Field(ge=1, le=100_000)] = Field(64, description="largest log of an attempt, MB")
    state_dir: FilePath = Field(
        default_factory=lambda: default_state_dir(os.environ), description="history, caches, records of failed runs"
    )
    simulate_gpus: str | None = Field(None, description="plan for imagined GPUs, such as 8x80GiB")
    simulate_memory: str | None = Field(None, description="plan for imagined host memory, such as 64GiB")
    generators: Mapping[str, Mapping[str, Any]] = Field({}, description="settings for one generator only")

    _sources: Sources = PrivateAttr(default_factory=Sources)
    _generator: str = PrivateAttr(default="")
    _flat: Settings | None = PrivateAttr(default=None)

    @classmethod
    def model_of(cls, name: str) -> type[Settings] | None:
        """The class of a generator's settings; ``None`` if no generator of that name is known."""
        del name
        return None

    @classmethod
    def generator_names(cls) -> tuple[str, ...]:
        """The names of all generators, including those that cannot be loaded."""
        return ()

    @field_validator("size")
    @classmethod
    def _size(cls, value: str | None) -> str | None:
        return None if value is None else str(parsed(parse_size, value))

    @field_validator("env")
    @classmethod
    def _variables(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name, text in value.items():
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a variable")
            if "\0" in text:
                raise ValueError(f"{name} holds a NUL character: no process can receive it")
            if name == "CUDA_VISIBLE_DEVICES":
                raise ValueError(f"{name} would undo the choice of free GPUs: use `gpus` instead")
            if _RANK_VARIABLE.fullmatch(name):
                raise ValueError(
                    f"{name} is set by the run for each process; a fixed value would make generate.py save nothing"
                )
        return value

    @field_validator("simulate_gpus", "simulate_memory")
    @classmethod
    def _simulated(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None:
            parsed(simulated_memory if info.field_name == "simulate_memory" else simulated_gpus, value)
        return value

    # ------------------------------------------------------------------------------------------ where values come from

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about values that were read and are not used."""
        return self._sources.notes

    @property
    def configured_order(self) -> tuple[str, ...]:
        """Generators in the order in which the settings first set a key of each."""
        return self._sources.order

    def origin(self, key: str) -> str:
        """Where a value comes from: ``default``, ``FILE:line``, ``environment NAME``, an option, or ``argument``."""
        return self._sources.origins.get(key, "default")

    def rank(self, key: str) -> int:
        """How strong the source of a value is: 0 for a default, `FILE`, `ENVIRONMENT`, `ARGUMENT` or `EVOLVED`."""
        return self._sources.ranks.get(key, 0)

    @property
    def flat(self) -> Settings:
        """The settings with the flat keys of all generators, from which `for_generator` made this instance."""
        return self if self._flat is None else self._flat

    # ------------------------------------------------------------------------------------------------ changed copies

    def evolve(self, **values: Any) -> Self:
        """A copy with some values changed; these are stronger than all sources."""
        return self._changed(values, dict.fromkeys(values, "argument"), dict.fromkeys(values, EVOLVED))

    def _changed(self, values: Mapping[str, Any], origins: Mapping[str, str], ranks: Mapping[str, int]) -> Self:
        copy = self.model_copy(update={key: item for key, item in values.items() if key in type(self).model_fields})
        copy._sources = self._sources.updated(origins, ranks)
        if self._flat is not None:
            known = _inherited(type(self), type(self._flat))
            others = {key: item for key, item in values.items() if key in known or key not in type(self).model_fields}
            copy._flat = self._flat._changed(others, origins, ranks)
        return copy

    def for_generator(self, name: str) -> Settings:
        """The settings for one generator: an instance of its own class, with its section ``generators.NAME`` applied.

        A section is stronger than a flat key of its own source or of a weaker one, and weaker than any stronger
        source. An unknown generator gets the shared settings; loading it reports the mistake.

        Raises:
            ConfigurationError: values that are each valid exclude each other.
        """
        if name == self._generator:
            return self
        flat, model = self.flat, self.flat.model_of(name)
        section = flat.generators.get(name, {})
        known = type(flat) if model is None or issubclass(type(flat), model) else Settings
        applied = flat._with_section(name, {key: item for key, item in section.items() if key in known.model_fields})
        if model is None:
            return applied
        shared = _inherited(model, type(flat))
        values = {key: getattr(applied, key) for key in shared & applied.model_fields_set}
        values |= {key: value for key, value in section.items() if key in model.model_fields and key not in shared}
        narrowed = _made(model, values, {key: applied.origin(key) for key in shared} | {"": f"generators.{name}"})
        own = {key: f"generators.{name}.{key}" for key in section.keys() & values.keys() - shared}
        origins = {key: f"{self.origin(place)} (generators.{name})" for key, place in own.items()}
        sources = applied._sources.updated(origins, {key: self.rank(place) for key, place in own.items()})
        narrowed._sources, narrowed._generator, narrowed._flat = sources, name, applied
        return narrowed

    def _with_section(self, name: str, section: Mapping[str, Any]) -> Settings:
        places = {key: f"generators.{name}.{key}" for key in section}
        ranks = {key: self._sources.ranks.get(place, FILE) for key, place in places.items()}
        ranks = {key: rank for key, rank in ranks.items() if rank >= self.rank(key)}
        if not ranks:
            return self
        fields = type(self).model_fields
        values = {key: fields[key].get_default(call_default_factory=True) if section[key] is None else section[key]
                  for key in ranks}  # fmt: skip
        origins = {key: f"{self.origin(places[key])} (generators.{name})" for key in ranks}
        changed = self._changed(values, origins, ranks)
        weaker = weaker_of_gpus({key: getattr(changed, key) for key in ("gpus", "gpu_count")}, changed._sources.ranks)
        return changed._changed(dict.fromkeys(weaker), {}, {})

    # ------------------------------------------------------------------------------------------------- in other forms

    def shown(self, key: str) -> Any:
        """The value of a key for display, in JSON types; secrets and the values of ``env`` are hidden."""
        value = getattr(self, key)
        if key == "generators":
            return {name: {inner: _hidden(self.flat.model_of(name) or type(self), inner, item)
                           for inner, item in section.items()} for name, section in value.items()}  # fmt: skip
        return _hidden(type(self), key, value)

    def __repr_args__(self) -> Any:
        """The values for `repr`, as from `shown`, so that no secret gets into a log or a traceback."""
        return [(key, self.shown(key)) for key in type(self).model_fields]

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values. Secrets are not hidden: keep the text private."""
        flat, sources = self.flat, self._sources
        return {
            "schema": SCHEMA,
            "values": {key: plain(getattr(flat, key)) for key in sorted(flat.model_fields_set)},
            "generator": self._generator,
            "origins": dict(sources.origins),
            "ranks": dict(sources.ranks),
            "order": list(sources.order),
            "notes": list(sources.notes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Settings:
        """The settings that `to_json` wrote; ``cls`` is the class of the flat keys.

        Raises:
            ConfigurationError: another schema, or a value that this version does not accept.
        """
        if data.get("schema") != SCHEMA:
            raise ConfigurationError(f"the settings have schema {data.get('schema')!r}; this version reads {SCHEMA}")
        sections = {name: cls._stored(name, section) for name, section in data["values"].get("generators", {}).items()}
        settings = _made(cls, {**data["values"], "generators": sections}, {"": "the stored settings"})
        order, notes = tuple(data["order"]), tuple(data["notes"])
        settings._sources = Sources(dict(data["origins"]), dict(data["ranks"]), order, notes)
        return settings.for_generator(data["generator"]) if data["generator"] else settings

    @classmethod
    def _stored(cls, name: str, section: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a stored section, converted by the class that has each key."""
        found: dict[str, Any] = {}
        for model in (cls.model_of(name) or cls, cls):
            own = {key: item for key, item in section.items() if key in model.model_fields and key not in found}
            made = _made(model, own, {"": f"the stored settings: generators.{name}"})
            found |= {key: None if item is None else getattr(made, key) for key, item in own.items()}
        return found


def _made(model: type[S], values: Mapping[str, Any], where: Mapping[str, str]) -> S:
    """The settings with these values; ``where`` says where each was set.

    Raises:
        ConfigurationError: wrong values.
    """
    try:
        return model.model_validate({key: value for key, value in values.items() if value is not None})
    except ValidationError as error:
        raise all_of([item for found in mistakes_in(error, model, where).values() for item in found]) from None


def _inherited(model: type[Settings], flat: type[Settings]) -> frozenset[str]:
    """The keys of a generator's class that are valid at top level: all if the flat class extends it, else shared."""
    return frozenset(model.model_fields if issubclass(flat, model) else Settings.model_fields)


def weaker_of_gpus(values: Mapping[str, Any], ranks: Mapping[str, int]) -> tuple[str, ...]:
    """The weaker key of ``gpus`` and ``gpu_count``, if two sources set them so that they exclude each other.

    A stronger number does not exclude a list that is long enough: it takes that many GPUs of the list.
    """
    listed, count = values.get("gpus"), values.get("gpu_count")
    if not listed or not isinstance(count, int) or ranks.get("gpus") == ranks.get("gpu_count"):
        return ()
    if ranks.get("gpus", 0) > ranks.get("gpu_count", 0):
        return ("gpu_count",)
    return ("gpus",) if count > len(listed) else ()


def _hidden(model: type[Settings], key: str, value: Any) -> Any:
    if is_secret(model, key) and value is not None:
        return dict.fromkeys(value, "***") if isinstance(value, Mapping) else "***"
    return plain(value)


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """``$XDG_STATE_HOME/reelwright``, else ``~/.local/state/reelwright``; a relative variable counts as not set (XDG)."""
    base = environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else home() / ".local" / "state") / "reelwright"
