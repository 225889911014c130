"""Reads a storyboard, one YAML file that describes a film; its errors name the shot and the line.

    title: Morning
    generator: wan2.1
    size: 1280x720
    shots:
      - {id: sea, prompt: "waves roll in, slow push in", image: sea.jpg, seconds: 5}
      - {prompt: "a gull lands"}                        # no picture: continues from the last frame before
      - {prompt: "the sun rises", image: a.jpg, last_image: b.jpg, transition: dissolve 8}

Relative paths are relative to the file. `timeline` decides how many clips a shot needs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ..config.fields import LIST, parsed
from ..config.yamlfile import Document, read_yaml_with_mistakes
from ..core.files import expanded, refusals
from ..core.request import MAX_SEED, Size, check_prompt, parse_size
from .mistakes import Problem, missing_files, model_problems, raw_problems, storyboard_error

SCHEMA_ID = "https://reelwright.invalid/storyboard.schema.json"
_TRANSITION = re.compile(r"cut|dissolve(?: ([1-9]\d{0,2}))?")
PICTURES = ("image", "last_image", "depth_image")


def _as_path(value: object) -> object:
    return expanded(value) if isinstance(value, str) and value else value


def _as_size(value: object) -> object:
    return str(parsed(parse_size, value)) if isinstance(value, str) else value


def _as_color(value: object) -> object:
    return "off" if value is False else value  # YAML reads an unquoted off as false


FilePath = Annotated[Path, BeforeValidator(_as_path)]
SizeText = Annotated[str, BeforeValidator(_as_size)]
_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Parameters(BaseModel):
    """The keys of a shot that ``defaults`` may set for all shots."""

    model_config = _STRICT

    generator: str | None = Field(default=None, description="generator of this shot instead of the film's")
    seconds: Annotated[float, Field(gt=0, le=3600)] | None = Field(default=None, description="length in seconds")
    frames: Annotated[int, Field(gt=0, le=100_000)] | None = Field(default=None, description="length in frames")
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = Field(
        default=None, description="seed; else derived from the id"
    )
    steps: Annotated[int, Field(gt=0)] | None = Field(default=None, description="sampling steps")
    guidance_scale: Annotated[float, Field(ge=0)] | None = Field(default=None, description="guidance scale")
    flow_shift: Annotated[float, Field(gt=0)] | None = Field(default=None, description="flow shift")
    negative_prompt: str | None = Field(default=None, description="what to avoid, where supported")
    camera: str | None = Field(default=None, description="draft: camera move, such as 'pan_left slow'")
    fit: Literal["cover", "contain", "stretch"] | None = Field(
        default=None, description="how pictures are fitted to the size: the setting fit, else cover"
    )
    anchor: str | None = Field(default=None, description="which part a crop keeps: center, top, ... or x,y")
    transition: str = Field(
        default="cut", pattern=f"^(?:{_TRANSITION.pattern})$", description="cut, or dissolve N (frames)"
    )
    label: bool | None = Field(default=None, description="draft: the corner label")

    @property
    def dissolve(self) -> int:
        """Frames of the dissolve at the beginning of the shot; 0 is a cut."""
        match = _TRANSITION.fullmatch(self.transition)
        return int(match[1] or 8) if match and self.transition != "cut" else 0


class Shot(Parameters):
    """One shot."""

    prompt: str = Field(description="what the video should show")
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")] = Field(
        default="", description="name of the shot"
    )
    image: FilePath | None = Field(
        default=None, description="first picture; without one the shot continues the one before"
    )
    last_image: FilePath | None = Field(default=None, description="last picture")
    depth_image: FilePath | None = Field(default=None, description="draft: depth picture for parallax")
    continues: bool | None = Field(default=None, description="false: no picture and no chaining (text-to-video)")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        parsed(check_prompt, self.prompt)
        if self.seconds is not None and self.frames is not None:
            raise ValueError("seconds and frames are both given; give one of them")
        if self.image is not None and self.continues:
            raise ValueError("a shot with a picture of its own cannot continue the one before")
        if self.last_image is not None and self.image is None and self.continues is False:
            raise ValueError("a last picture needs a first one")
        return self


class Audio(BaseModel):
    """Sound for the whole film."""

    model_config = _STRICT

    file: FilePath = Field(description="any audio file")
    fade_s: Annotated[float, Field(ge=0, le=60)] = Field(default=1.0, description="fade-out at the end, seconds")


class Finish(BaseModel):
    """Changes to the joined film; all off by default."""

    model_config = _STRICT

    double_fps: bool = Field(default=False, description="twice the frame rate by optical flow, on the CPU")
    upscale: Literal[1, 2, 3, 4] = Field(default=1, description="enlarge each side this many times")


class Storyboard(BaseModel):
    """The description of a film."""

    model_config = _STRICT

    title: str = Field(default="Film", description="title; also in the film's tags")
    generator: str = Field(default="auto", description="generator of all shots")
    size: SizeText = Field(default="1280x720", description="width x height of the film")
    fps: Annotated[float, Field(gt=0, le=120)] | None = Field(
        default=None, description="frames per second, where the generator has a choice"
    )
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = Field(
        default=0, description="seed from which the shots' seeds are derived"
    )
    color: Annotated[Literal["joint", "anchor", "off"], BeforeValidator(_as_color)] = Field(
        default="anchor", description="match the colours of chained clips"
    )
    overlap: Annotated[int, Field(ge=0, le=8)] = Field(default=0, description="frames of crossfade at chained joints")
    audio: Audio | None = Field(default=None, description="sound for the whole film")
    finish: Finish = Field(default=Finish(), description="interpolation and enlargement")
    defaults: Parameters = Field(default=Parameters(), description="parameters of all shots")
    shots: Annotated[tuple[Shot, ...], LIST]

    @property
    def frame(self) -> Size:
        """The film's size."""
        return parse_size(self.size)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a storyboard, for editors."""
    schema = Storyboard.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **schema}


@refusals()
def load_storyboard(path: Path) -> Storyboard:
    """The storyboard in a file, with paths made absolute, defaults merged and every shot named.

    Raises:
        VideoGenerationError: INPUT or PERM, it cannot be read.
        ConfigurationError: it has mistakes; the error lists all of them, each with its line and shot.
    """
    document = read_yaml_with_mistakes(path)
    values = dict(document.values)
    problems = [*raw_problems(document, _camera_problem), *missing_files(document, PICTURES)]
    board = None
    try:
        Parameters.model_validate(values.get("defaults") or {})  # a wrong default is reported at its own line
    except ValidationError as error:
        problems += model_problems(error, document, ("defaults",), _keys_at)
        values["defaults"] = {}
    try:
        board = Storyboard.model_validate(_merged(values))
    except ValidationError as error:
        problems += model_problems(error, document, (), _keys_at)
    if board is not None:
        problems += _problems(board, document)
    if problems or board is None:
        raise storyboard_error(problems)
    folder = Path(os.path.abspath(path)).parent  # noqa: PTH100 -- the folder of the file as named
    return with_paths(board, lambda path: folder / path)


def _merged(values: dict[str, Any]) -> dict[str, Any]:
    """Merge the defaults into each shot, and name each shot; wrong types are left for the model to report."""
    defaults, shots = values.get("defaults") or {}, values.get("shots")
    if not isinstance(shots, list):
        return values
    merged = []
    for number, shot in enumerate(shots, 1):
        if not isinstance(shot, dict):
            merged.append(shot)
            continue
        own = {"seconds", "frames"} & set(shot)
        inherited = {key: value for key, value in defaults.items() if not (own and key in ("seconds", "frames"))}
        merged.append({"id": f"shot-{number}", **inherited, **shot})
    return {**values, "shots": merged}


def _problems(board: Storyboard, document: Document) -> list[Problem]:
    """Mistakes that concern several shots, as (line, text)."""
    if not board.shots:
        return [(document.line_of("shots"), "shots: there is no shot")]
    first, line = board.shots[0], document.line_of("shots", 0)
    needs = {"continue": first.continues, "dissolve from": first.dissolve}
    return [(line, f"shot {first.id}: the first shot has nothing to {what}") for what, asked in needs.items() if asked]


def _camera_problem(text: str) -> str:
    """The reason why the draft does not know a camera move; empty if it does."""
    from ..backends.draft.camera import parse_camera

    try:
        parse_camera(text)
    except ValueError as error:
        return str(error)
    return ""


def _keys_at(place: tuple[str | int, ...]) -> list[str]:
    """The keys that are allowed at that place."""
    models: dict[str, type[BaseModel]] = {"shots": Shot, "defaults": Parameters, "audio": Audio, "finish": Finish}
    inner = models.get(str(place[0])) if len(place) > 1 else None
    return list((inner or Storyboard).model_fields)


def with_paths(board: Storyboard, change: Callable[[Path], Path]) -> Storyboard:
    """The storyboard with every path changed."""
    shots = []
    for shot in board.shots:
        pictures = {role: change(getattr(shot, role)) for role in PICTURES if getattr(shot, role) is not None}
        shots.append(shot.model_copy(update=pictures))
    audio = board.audio.model_copy(update={"file": change(board.audio.file)}) if board.audio else None
    return board.model_copy(update={"shots": tuple(shots), "audio": audio})


EXAMPLE = """\
# A film. `reel film FILM.yaml -o film.mp4 --draft` shows it in seconds on any computer.
# yaml-language-server: $schema=storyboard.schema.json   (reel storyboard schema > storyboard.schema.json)
title: My film
size: 1280x720
defaults: {seconds: 5}

shots:
  - id: opening
    prompt: slow push in, morning light
    image: photo.jpg

  - id: closer                     # no picture: continues from the last frame of the shot before
    prompt: the camera pans left

  - id: ending
    prompt: pull out
    image: other.jpg
    transition: dissolve 8         # frames; or cut
"""
