"""`DiffusersSettings`: the settings of the resident engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo

from ...config.fields import FilePath, as_path, as_tuple
from ..shared.job import Job
from ..shared.settings import WanSettings


@dataclass(frozen=True)
class Lora:
    """A LoRA file, added to a model's weights; ``into`` is ``transformer_2`` for Wan2.2's low-noise transformer."""

    path: Path
    scale: float = 1.0
    into: str = "transformer"


def _as_loras(value: object) -> object:
    """The LoRA files as a tuple; a single one may come without a list."""
    return (value,) if isinstance(value, (str, Path, Mapping, Lora)) else as_tuple(value)


def _as_lora(value: object, info: ValidationInfo) -> object:
    if isinstance(value, Lora):
        path = as_path(value.path, info)
        return Lora(path, value.scale, value.into) if isinstance(path, Path) else value
    given = dict(value) if isinstance(value, Mapping) else {"path": value}
    path, scale, into = (
        as_path(given.pop("path", None), info),
        given.pop("scale", 1.0),
        given.pop("into", "transformer"),
    )
    if not isinstance(path, Path):
        raise ValueError("each is a path, or {path: ..., scale: 1.0, into: transformer}")
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not -10 <= scale <= 10:
        raise ValueError(f"the scale of {path.name} is a number between -10 and 10")
    if given or into not in ("transformer", "transformer_2"):
        raise ValueError(f"{path.name} takes path, scale, and into (transformer or transformer_2)")
    return Lora(path, float(scale), str(into))


class DiffusersSettings(WanSettings):
    """The settings of the engine that keeps its weights loaded."""

    weights: FilePath | None = Field(None, description="resident engine: folder of the weights, in either layout")
    speed: Literal["exact", "balanced", "fast"] = Field("exact", description="resident engine: see docs/engine.md")
    compile: bool = Field(True, description="resident engine: compile the blocks, on a GPU")
    placement: Literal["auto", "resident", "encoders_off", "group_offload", "group_offload_low", "disk_offload"] = (
        Field("auto", description="resident engine: where the weights are kept; auto takes the fastest that fits")
    )
    lora: Annotated[tuple[Annotated[Lora, BeforeValidator(_as_lora)], ...], BeforeValidator(_as_loras)] = Field(
        (), description="resident engine: LoRA files (.safetensors), each a path or {path, scale, into}"
    )
    engine_device: Literal["cuda", "cpu"] = Field("cuda", description="resident engine: cpu is for tiny models")


DiffusersJob = Job[DiffusersSettings]
