"""Settings: defaults < YAML file < ``REELWRIGHT_*`` environment < arguments, as one frozen value with origins.

The keys are flat and those of an existing text-to-video pipeline_config.yaml, which is understood as it is: what
only the surrounding pipeline uses is noted and neither stored nor shown. ``generators: {NAME: {...}}`` overrides
keys for one generator. Nothing reads a global; whoever needs a setting is given the value.

    >>> settings = load_settings(environ={}, arguments={"sample_steps": 30})
    >>> settings.sample_steps, settings.origin("sample_steps"), settings.origin("codec")
    (30, 'argument', 'default')
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ..core.errors import ConfigurationError, VideoGenerationError, all_of, guess
from ..core.files import expanded, home, refusals
from ..core.host import simulated_gpus, simulated_memory
from ..core.request import MAX_SEED, parse_size
from .layers import (
    EVOLVED,
    FILE,
    Known,
    Layer,
    OwnSetting,
    argument_layer,
    at,
    environment_layer,
    file_layer,
    here,
    is_secret,
    mapping_layer,
    outdone,
    plainly,
    typed,
)
from .pipeline_keys import ALIASES, CONFIGURES, NESTED

__all__ = ["Lora", "OwnSetting", "Settings", "load_settings", "parse_assignment", "read_settings"]

SCHEMA = 1
_PATH = "$path"  # in JSON: the key of a path among values of any type
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: torchrun tells each rank its place by these, and our own mark is how a run's processes are found.
_RANK_VARIABLE = re.compile(
    r"((LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|TORCHELASTIC_.*|REELWRIGHT_.*)"
)


def _as_path(value: object) -> object:
    """An absolute path; a relative one is relative to the current folder, whichever program it is for later."""
    if not isinstance(value, (str, Path)) or not str(value):
        return value
    if "\0" in str(value):
        raise ValueError("holds a NUL character: no path can")
    path = at(here(), value)
    if not isinstance(path, Path) or str(path).startswith("~"):
        raise ValueError("begins with the name of a user who does not exist here")
    if not path.is_absolute():
        raise ValueError("is relative to the current folder, which no longer exists")
    return path


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _as_loras(value: object) -> object:
    """Several LoRA files, or a single one that stands without a list."""
    return (value,) if isinstance(value, (str, Path, Mapping, Lora)) else _as_tuple(value)


def _auto_is_none(value: object) -> object:
    return None if value == "auto" else value


FilePath = Annotated[Path, BeforeValidator(_as_path)]


@dataclass(frozen=True)
class Lora:
    """A file of weights to add to a model's own; ``into`` is ``transformer_2`` for Wan2.2's low noise."""

    path: Path
    scale: float = 1.0
    into: str = "transformer"


def _as_lora(value: object) -> object:
    given = dict(value) if isinstance(value, Mapping) else {"path": value}
    path, scale, into = _as_path(given.pop("path", None)), given.pop("scale", 1.0), given.pop("into", "transformer")
    if isinstance(value, Lora):
        return value
    if not isinstance(path, Path):
        raise ValueError("each is a path, or {path: ..., scale: 1.0, into: transformer}")
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not -10 <= scale <= 10:
        raise ValueError(f"the scale of {path.name} is a number between -10 and 10")
    if given or into not in ("transformer", "transformer_2"):
        raise ValueError(f"{path.name} takes path, scale, and into (transformer or transformer_2)")
    return Lora(path, float(scale), str(into))


Positive = Annotated[int, Field(gt=0, lt=2**31)]
PositiveFloat = Annotated[float, Field(gt=0, lt=1e9)]
Seconds = Annotated[float, Field(ge=0, lt=1e9)]


class Settings(BaseSettings):
    """Every setting. ``None`` means: the generator's documented default, or found out on the machine."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )

    generator: str = Field("auto", description="generator to use; auto takes the configured one, else the draft")
    output_dir: FilePath | None = Field(None, description="folder for films without -o")
    if_exists: Literal["error", "overwrite", "skip", "rename"] = Field("error", description="if the film exists")
    strict_input: bool = Field(False, description="refuse pictures that need normalising")
    strict_quality: bool = Field(False, description="never lower quality to succeed")
    allow_degrade: Annotated[tuple[Literal["frames", "size"], ...], BeforeValidator(_as_tuple)] = Field(
        (), description="what a retry may lower when memory is short: frames, size"
    )
    fit: Literal["cover", "contain", "stretch"] | None = Field(None, description="how pictures are brought to a size")
    anchor: str = Field("center", description="which part of a picture survives a crop")
    codec: Literal["h264", "av1"] = Field("h264", description="codec where we encode ourselves")
    label: bool = Field(True, description="the draft's corner label")
    size: str | None = Field(None, description="width x height; documented default 1280x720")
    frame_num: Positive | None = Field(None, description="frames per clip; documented default 81")
    fps: PositiveFloat | None = Field(None, description="frames per second, where the generator has a choice")
    guide_scale: Annotated[float, Field(ge=0, lt=1000)] | None = Field(
        None, description="guidance scale; documented default 7.5"
    )
    sample_steps: Positive | None = Field(None, description="sampling steps; documented default 50")
    sample_shift: Annotated[PositiveFloat | None, BeforeValidator(_auto_is_none)] = Field(
        None, description="flow shift; auto is the framework's own"
    )
    base_seed: Annotated[int, Field(ge=-1, le=MAX_SEED)] | None = Field(
        None, description="seed; -1 or nothing draws one, which is recorded"
    )
    preset: Literal["documented", "framework"] = Field("documented", description="whose defaults: 50/7.5 or 40/5.0")
    model: str | None = Field(None, description="model where a generator has several, such as t2v-1.3B")
    python: FilePath | None = Field(None, description="the framework's own interpreter")
    gpu_count: Annotated[Positive | None, BeforeValidator(_auto_is_none)] = Field(
        None, description="GPUs per clip; auto uses all that can be used"
    )
    gpus: Annotated[tuple[Annotated[int, Field(ge=0)], ...] | None, BeforeValidator(_as_tuple)] = Field(
        None, description="exactly these GPUs, by index"
    )
    total_gpus: Positive | None = Field(None, description="GPUs of the machine to share among parallel segments")
    parallel_segments: Positive | None = Field(None, description="segments rendered at the same time")
    chaining_max_retries: Annotated[int, Field(ge=0, le=100)] = Field(3, description="retries after the first attempt")
    chaining_use_fsdp_flags: bool = Field(True, description="shard the weights over several GPUs (FSDP)")
    retry_policy: Literal["ladder", "classified", "documented", "none"] = Field(
        "ladder", description="what a retry may change; see docs/wan21.md"
    )
    retry_budget_s: PositiveFloat | None = Field(None, description="no further attempt after this many seconds")
    timeout: PositiveFloat | None = Field(None, description="wall-clock limit of one attempt, seconds")
    progress_timeout: PositiveFloat | None = Field(
        None, description="seconds without progress that count as hung; instead of the limits per phase"
    )
    lease_timeout_s: Seconds = Field(0.0, description="how long to wait for GPUs that another run uses")
    stop_grace_s: Seconds = Field(10.0, description="seconds between asking a process to end and killing it")
    attention: Literal["auto", "flash", "sdpa"] = Field(
        "auto", description="flash-attn, or PyTorch's own; auto takes the best that there is"
    )
    verify_model: bool = Field(False, description="check the hashes of the weights before a run")
    accept_valid_on_nonzero: bool = Field(False, description="accept a whole film although the framework failed")
    nccl_p2p_retry: bool = Field(False, description="allow a retry with NCCL_P2P_DISABLE=1")
    keep_failed: bool = Field(False, description="keep the refused film of a failed attempt with the record of the run")
    env: Mapping[str, str] = Field({}, description="extra variables for the framework (values are never shown)")
    log_limit_mb: Annotated[int, Field(ge=1, le=100_000)] = Field(64, description="largest log of an attempt")
    state_dir: FilePath = Field(
        default_factory=lambda: default_state_dir(os.environ), description="history, caches, records of failed runs"
    )
    simulate_gpus: str | None = Field(None, description="plan for GPUs that are not there, such as 8x80GiB")
    simulate_memory: str | None = Field(None, description="plan for so much host memory, such as 64GiB")
    wan2_dir: FilePath | None = Field(None, description="checkout of Wan2.1")
    i2v_model_dir: FilePath | None = Field(None, description="weights for image-to-video")
    flf2v_model_dir: FilePath | None = Field(None, description="weights for first-last-frame-to-video")
    t2v_model_dir: FilePath | None = Field(None, description="weights for text-to-video, 14B")
    t2v_1_3b_model_dir: FilePath | None = Field(None, description="weights for text-to-video, 1.3B")
    hunyuan_dir: FilePath | None = Field(None, description="checkout of HunyuanVideo, HunyuanVideo-I2V or 1.5")
    config_file: FilePath | None = Field(None, description="HunyuanVideo: YAML file of options")
    ckpt_path: FilePath | None = Field(None, description="HunyuanVideo: folder (or main file) of the weights")
    max_duration: PositiveFloat | None = Field(None, description="longest clip in seconds")
    super_resolution: Annotated[bool | None, BeforeValidator(_auto_is_none)] = Field(
        None, description="HunyuanVideo-1.5: make a smaller film and enlarge it; auto does so where the size needs it"
    )
    weights: FilePath | None = Field(None, description="resident engine: folder of the weights, in either layout")
    speed: Literal["exact", "balanced", "fast"] = Field("exact", description="resident engine: see docs/engine.md")
    compile: bool = Field(True, description="resident engine: compile the blocks, on a GPU")
    placement: Literal["auto", "resident", "encoders_off", "group_offload", "group_offload_low", "disk_offload"] = (
        Field("auto", description="resident engine: where the weights lie; auto takes the fastest that fits")
    )
    lora: Annotated[tuple[Annotated[Lora, BeforeValidator(_as_lora)], ...], BeforeValidator(_as_loras)] = Field(
        (), description="resident engine: LoRA files (.safetensors), each a path or {path, scale, into}"
    )
    engine_device: Literal["cuda", "cpu"] = Field("cuda", description="resident engine: cpu is for tiny models")
    generators: Mapping[str, Mapping[str, Any]] = Field({}, description="settings for one generator only")

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _ranks: dict[str, int] = PrivateAttr(default_factory=dict)
    _order: tuple[str, ...] = PrivateAttr(default=())
    _notes: tuple[str, ...] = PrivateAttr(default=())
    _own: dict[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is given: `load_settings` reads the sources itself, and there is no hidden dotenv file."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @field_validator("size")
    @classmethod
    def _size(cls, value: str | None) -> str | None:
        return None if value is None else str(_told(parse_size, value))

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
                raise ValueError(f"{name} belongs to the run itself: with a rank of its own, generate.py saves nothing")
        return value

    @field_validator("simulate_gpus", "simulate_memory")
    @classmethod
    def _imagined(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None:
            _told(simulated_memory if info.field_name == "simulate_memory" else simulated_gpus, value)
        return value

    @property
    def notes(self) -> tuple[str, ...]:
        """What was read and not used, for people."""
        return self._notes

    @property
    def configured_order(self) -> tuple[str, ...]:
        """Generators in the order in which the settings first name a key of theirs."""
        return self._order

    def origin(self, key: str) -> str:
        """Where a value comes from: ``default``, ``FILE:line``, ``environment NAME`` or ``argument``."""
        return self._origins.get(key, "default")

    @property
    def own(self) -> Mapping[str, Any]:
        """What another package's generator reads from its own section, after `for_generator`."""
        return self._own

    def evolve(self, **values: Any) -> Self:
        """A copy with some values changed, stronger than all sources."""
        copy = self.model_copy(update=values)
        copy._origins = {**self._origins, **dict.fromkeys(values, "argument")}
        copy._ranks = {**self._ranks, **dict.fromkeys(values, EVOLVED)}
        return copy

    def for_generator(self, name: str) -> Self:
        """The same settings with ``api.NAME`` applied.

        A section is stronger than a flat key of the same source and of weaker ones, but not than a stronger source.
        """
        section = self.generators.get(name, {})
        strong = {
            key: value
            for key, value in section.items()
            if key in Settings.model_fields
            and self._ranks.get(f"generators.{name}.{key}", FILE) >= self._ranks.get(key, 0)
        }
        own = {key: value for key, value in section.items() if key not in Settings.model_fields}
        if not strong and not own:
            return self
        checked = Settings(**{key: value for key, value in strong.items() if value is not None})
        copy = self.model_copy(update={key: getattr(checked, key) for key in strong})
        ranks = {**self._ranks, **{key: self._ranks.get(f"generators.{name}.{key}", FILE) for key in strong}}
        copy = copy.model_copy(update=dict.fromkeys(outdone(copy.__dict__, ranks)))
        origins = {key: self.origin(f"generators.{name}.{key}") for key in strong}
        copy._origins = {**self._origins, **{key: f"{where} (generators.{name})" for key, where in origins.items()}}
        copy._own = own
        return copy

    def to_json(self) -> dict[str, Any]:
        """Every value that is not the default, and where it comes from, as JSON values. Secrets are in it."""
        given = {key: value for key, value in self if value != type(self).model_fields[key].get_default()}
        return {
            "schema": SCHEMA,
            "values": _as_json(given),
            "origins": dict(self._origins),
            "ranks": dict(self._ranks),
            "order": list(self._order),
            "notes": list(self._notes),
            "own": _as_json(self._own),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The settings that `to_json` wrote.

        Raises:
            ConfigurationError: another schema, or a value that this version does not accept.
        """
        if data.get("schema") != SCHEMA:
            raise ConfigurationError(f"the settings have schema {data.get('schema')!r}; this version reads {SCHEMA}")
        values = _from_json(data["values"])
        if wrong := _wrong(values, lambda _key: "the stored settings"):
            raise all_of([error for errors in wrong.values() for error in errors])
        settings = cls(**values)
        settings._origins, settings._ranks = dict(data["origins"]), dict(data["ranks"])
        settings._order, settings._notes, settings._own = (
            tuple(data["order"]),
            tuple(data["notes"]),
            _from_json(data["own"]),
        )
        return settings

    def shown(self, key: str) -> Any:
        """The value of a key as people may see it, in JSON's types: no value of ``env``, and no secret of a section."""
        value = getattr(self, key)
        if key == "env":
            return dict.fromkeys(value, "***")
        if key == "generators":
            return {name: {inner: _hidden(name, inner, item) for inner, item in section.items()}
                    for name, section in value.items()}  # fmt: skip
        if key == "lora":
            return [{"path": str(item.path), "scale": item.scale, "into": item.into} for item in value]
        return value if isinstance(value, (int, float, str, tuple, type(None))) else str(value)


def _as_json(value: Any) -> Any:
    """A value of a setting in JSON's types; `Settings` reads it back as the same value."""
    if isinstance(value, Mapping):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    if isinstance(value, Lora):
        return {"path": _as_json(value.path), "scale": value.scale, "into": value.into}
    return {_PATH: str(value)} if isinstance(value, Path) else value


def _from_json(value: Any) -> Any:
    """The value of which `_as_json` made JSON, but for tuples, which a field's type restores."""
    if isinstance(value, Mapping):
        return Path(value[_PATH]) if set(value) == {_PATH} else {key: _from_json(item) for key, item in value.items()}
    return [_from_json(item) for item in value] if isinstance(value, list) else value


def _hidden(name: str, key: str, value: Any) -> Any:
    if is_secret(name, key):
        return dict.fromkeys(value, "***") if isinstance(value, Mapping) else "***"
    return value if isinstance(value, (int, float, str, list, tuple, dict, type(None))) else str(value)


def _told(parse: Any, value: str) -> Any:
    """A parser's own error as pydantic expects it."""
    try:
        return parse(value)
    except Exception as error:
        raise ValueError(getattr(error, "message", str(error))) from error  # the advice is the settings' own


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """``$XDG_STATE_HOME/reelwright``, else ``~/.local/state/reelwright``; a relative variable counts as not set (XDG)."""
    base = environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else home() / ".local" / "state") / "reelwright"


def find_config(environ: Mapping[str, str]) -> Path | None:
    """The settings file when none is given: ``$REELWRIGHT_CONFIG``, else config.yaml in the user's config folder."""
    if environ.get("REELWRIGHT_CONFIG"):
        return expanded(environ["REELWRIGHT_CONFIG"])
    found = default_config(environ)
    return found if found.is_symlink() or found.exists() else None  # what is no file there is refused, not overlooked


def default_config(environ: Mapping[str, str]) -> Path:
    """The user's own settings file, there or not: as `find_config` looks for it."""
    if environ.get("REELWRIGHT_CONFIG"):
        return expanded(environ["REELWRIGHT_CONFIG"])
    base = environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else home() / ".config") / "reelwright" / "config.yaml"


@refusals()
def load_settings(
    file: Path | None = None, *, environ: Mapping[str, str], arguments: Mapping[str, Any] | None = None
) -> Settings:
    """Settings from all sources.

    Raises:
        VideoGenerationError: INPUT or PERM, the file cannot be read.
        ConfigurationError: unknown keys (with the nearest known one), wrong types or values in any source; ``also``
            holds every further mistake, each with its origin and its advice.
    """
    settings, mistakes = read_settings(file, environ=environ, arguments=arguments)
    if mistakes:
        raise all_of(mistakes)
    return settings


def read_settings(
    file: Path | None = None, *, environ: Mapping[str, str], arguments: Mapping[str, Any] | None = None
) -> tuple[Settings, tuple[VideoGenerationError, ...]]:
    """Settings as far as they can be read, and every mistake in them: what is wrong is left at what else is said."""
    path = file or find_config(environ)
    layers = [] if path is None else [file_layer(path, KNOWN)]
    layers += [environment_layer(environ, KNOWN), argument_layer(arguments or {}, KNOWN)]
    settings, mistakes = _build(layers)
    if settings.origin("state_dir") == "default":
        settings = settings.model_copy(update={"state_dir": default_state_dir(environ)})
    return settings, mistakes


@refusals()
def settings_from_mapping(config: Mapping[str, Any], *, generator: str | None) -> Settings:
    """Settings from the flat mapping of the documented interface, over the environment and the defaults.

    Raises:
        ConfigurationError: as `load_settings`.
    """
    values = {str(key): value for key, value in config.items()}
    nested = {name: values.pop(name) for name in list(values) if NESTED.get(name, name) == generator}
    for section in nested.values():
        if isinstance(section, Mapping):
            values.update(section)
    settings, mistakes = _build([environment_layer(os.environ, KNOWN), mapping_layer(values, KNOWN)])
    if mistakes:
        raise all_of(mistakes)
    return settings


def _build(layers: Sequence[Layer]) -> tuple[Settings, tuple[VideoGenerationError, ...]]:
    """One value of all layers, the strongest last; each layer is checked by itself, so that no mistake hides."""
    values: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    ranks: dict[str, int] = {}
    mistakes: list[VideoGenerationError] = []
    for layer in layers:
        wrong = _wrong(layer.values, layer.origin)
        found = [*layer.mistakes, *(error for errors in wrong.values() for error in errors)]
        for key, value in layer.values.items():
            if key not in wrong:
                values[key], origins[key], ranks[key] = value, layer.origin(key), layer.rank
        for name, section in layer.sections.items():
            wrong = _wrong(section, _section_origin(layer, name))
            found += [error for errors in wrong.values() for error in errors]
            kept = {key: value for key, value in section.items() if key not in wrong}
            sections[name] = {**sections.get(name, {}), **kept}
        for name, section in layer.own.items():
            sections[name] = {**sections.get(name, {}), **section}
        for name in (*layer.sections, *layer.own):
            for key in (*layer.sections.get(name, ()), *layer.own.get(name, ())):
                place = f"generators.{name}.{key}"
                origins[place], ranks[place] = layer.origins.get(place, layer.origin("generators")), layer.rank
            origins["generators"] = layer.origin("generators")
        mistakes += sorted(found, key=_line)
    lost = outdone(values, ranks)
    values, origins = ({key: kept for key, kept in item.items() if key not in lost} for item in (values, origins))
    settings = Settings(generators=sections, **{key: value for key, value in values.items() if value is not None})
    settings._origins, settings._ranks = origins, ranks
    settings._notes = tuple(note for layer in layers for note in layer.notes)
    settings._order = _order_of(layers)
    return settings, tuple(mistakes)


def _line(error: VideoGenerationError) -> int:
    found = re.match(r".*?:(\d+): ", error.message)
    return int(found[1]) if found else 0


def _section_origin(layer: Layer, name: str) -> Callable[[str], str]:
    def origin(key: str) -> str:
        where = layer.origins.get(f"generators.{name}.{key}", layer.origin("generators"))
        return f"{where}: generators.{name}"

    return origin


def _order_of(layers: Sequence[Layer]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for layer in layers:
        keys = [CONFIGURES[key] for key in layer.values if key in CONFIGURES]
        for name in (*keys, *layer.sections, *layer.own):
            found.setdefault(name)
    return tuple(found)


def _wrong(values: Mapping[str, Any], origin: Callable[[str], str]) -> dict[str, list[ConfigurationError]]:
    """What is wrong with each key. Values of ``env`` may be secrets: they are in no message."""
    try:
        Settings(**{key: value for key, value in values.items() if value is not None})
    except ValidationError as error:
        found: dict[str, dict[str, str]] = {}
        for item in error.errors(include_url=False, include_context=False):
            key = ".".join(str(part) for part in item["loc"] if "[" not in str(part))
            top = str(item["loc"][0])
            value = f"{item['input']!r:.80}"
            shown = "" if top == "env" or value in item["msg"] else f", not {value}"
            words = re.findall(r"'([^']+)'", item["msg"]) if item["type"] == "literal_error" else ()
            advice = guess(str(item["input"]), words) or "`reel config` lists every key and its meaning."
            found.setdefault(top, {})[f"{origin(top)}: {key}: {plainly(item['msg'])}{shown}"] = advice
        return {
            top: [ConfigurationError(line, advice=fix) for line, fix in lines.items()] for top, lines in found.items()
        }
    return {}


def parse_assignment(text: str) -> tuple[str, Any]:
    """``KEY=VALUE`` of ``--set``; the value is read like YAML unless the key holds text. ``null`` is the default.

    Raises:
        ConfigurationError: there is no ``=``.
    """
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        start = re.match(r"[\w.]{0,40}", text)
        shown = f"{start[0]}..." if start and start[0] != text else text  # the rest may be a value, and a secret
        raise ConfigurationError(f"--set {shown!r} is not KEY=VALUE", advice="Write for example --set sample_steps=30.")
    key = ALIASES.get(key.strip(), key.strip())
    return key, typed(key, value, f"--set {key}", KNOWN)


_PATH_KEYS = frozenset(key for key, item in Settings.model_fields.items() if "Path" in str(item.annotation)) | {"lora"}
_TEXT_KEYS = (_PATH_KEYS - {"lora"}) | {"generator", "anchor", "size", "model", "simulate_gpus", "simulate_memory"}
#: What `config.layers` needs to know of the table.
KNOWN = Known(frozenset(Settings.model_fields), _TEXT_KEYS, _PATH_KEYS)
